//! The command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::peers::{self, Kind};
use crate::rounds::Options;
use crate::workload::{self, Workload};

/// What is said where it is asked for, or where the command line makes no sense.
pub(crate) const USAGE: &str = "usage: bench [--workload NAME]... [--peer NAME]... [--rounds N] [--seconds S]
             [--moongate PATH] [--json FILE] [--svg FILE] [--markdown FILE]
       bench --list
       bench show FILE... [--svg FILE] [--markdown FILE]      of what --json wrote
       bench count [--bless] [--moongate PATH]                instructions and system calls a request
Measures what a request costs Moongate and its peers; docs/benchmarks.md says how.";

/// Where results go, beside standard output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Measure.
    Run { workloads: Vec<Workload>, options: Options, outputs: Outputs },
    /// Say what there is.
    List,
    /// Show what was measured before.
    Show { files: Vec<PathBuf>, outputs: Outputs },
    /// Count, and compare with the budget.
    Count { bless: bool, moongate: PathBuf },
    /// One of the benchmark's own processes.
    Part(String, Vec<String>),
}

/// Reads it.
pub(crate) fn read(mut given: impl Iterator<Item = String>) -> Result<Command> {
    let mut named = Vec::new();
    let mut options =
        Options { peers: Vec::new(), rounds: 5, seconds: 1.0, moongate: peers::target().join("release/moongate") };
    let (mut outputs, mut mode, mut files, mut bless) = (Outputs::default(), String::new(), Vec::new(), false);
    while let Some(argument) = given.next() {
        let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--workload" => named.push(value()?),
            "--peer" => options.peers.push(Kind::named(&value()?)?),
            "--rounds" => options.rounds = value()?.parse().context("--rounds needs a number")?,
            "--seconds" => options.seconds = value()?.parse().context("--seconds needs a number")?,
            "--moongate" => options.moongate = value()?.into(),
            "--json" => outputs.json = Some(value()?.into()),
            "--svg" => outputs.svg = Some(value()?.into()),
            "--markdown" => outputs.markdown = Some(value()?.into()),
            "--bless" => bless = true,
            "--list" => return Ok(Command::List),
            "origin" | "load" | "hold" | "floor" | "launch" if mode.is_empty() => {
                return Ok(Command::Part(argument, given.collect()));
            }
            "count" | "show" if mode.is_empty() => mode = argument,
            _ if mode == "show" && !argument.starts_with('-') => files.push(argument.into()),
            _ => bail!("unknown argument {argument}\n{USAGE}"),
        }
    }
    ensure!(options.rounds > 0 && options.seconds > 0.0, "rounds and seconds must be above zero");
    // Processes start elsewhere.
    options.moongate = std::path::absolute(&options.moongate)?;
    match mode.as_str() {
        "count" => return Ok(Command::Count { bless, moongate: options.moongate }),
        "show" => return Ok(Command::Show { files, outputs }),
        _ => {}
    }
    if options.peers.is_empty() {
        options.peers = Kind::ALL.to_vec();
    }
    let mut workloads = workload::all();
    if named.is_empty() {
        workloads.retain(|it| !it.about.is_empty());
    } else {
        if let Some(unknown) = named.iter().find(|name| workloads.iter().all(|it| it.name != **name)) {
            bail!("no workload is called {unknown}; --list tells them");
        }
        workloads.retain(|it| named.iter().any(|name| it.name == name));
    }
    Ok(Command::Run { workloads, options, outputs })
}

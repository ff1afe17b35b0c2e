//! The command: judges the gateways that this machine has, and prints the table.

use std::path::PathBuf;
use std::process::ExitCode;

use conformance::{Kind, Options, Report, Run, available, list};

const USAGE: &str =
    "usage: conformance [--peer moongate|nginx|haproxy|envoy|caddy]... [--binary MOONGATE] [--filter TEXT]
                   [--lanes N] [--json FILE] [--markdown FILE] [--list] [--verbose]
Judges each gateway (all that are found, if none is named), and prints what passed of how much.";

#[derive(Default)]
struct Arguments {
    peers: Vec<Kind>,
    binary: Option<PathBuf>,
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
    list: bool,
    verbose: bool,
    options: Options,
}

fn arguments() -> Result<Arguments, String> {
    let mut all = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--peer" => {
                let name = value()?;
                all.peers.push(Kind::named(&name).ok_or(format!("no gateway is called {name}"))?);
            }
            "--binary" => all.binary = Some(value()?.into()),
            "--filter" => all.options.filter = value()?,
            "--lanes" => all.options.lanes = value()?.parse().map_err(|_| "--lanes needs a number".to_owned())?,
            "--json" => all.json = Some(value()?.into()),
            "--markdown" => all.markdown = Some(value()?.into()),
            "--list" => all.list = true,
            "--verbose" => all.verbose = true,
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    if all.peers.is_empty() {
        all.peers = Kind::ALL.to_vec();
    }
    Ok(all)
}

fn run() -> Result<(), String> {
    let arguments = arguments()?;
    if arguments.list {
        list(&arguments.options).iter().for_each(|it| println!("{it}"));
        return Ok(());
    }
    let (found, missing) = available(&arguments.peers, arguments.binary.as_deref());
    for kind in missing {
        eprintln!("{kind} is not on this machine (tests/conformance/peers installs what it can)");
    }
    let mut report = Report::default();
    for (kind, binary) in found {
        eprintln!("judging {kind} ({})", binary.display());
        report.runs.push(Run::of(kind, &binary, &arguments.options)?);
    }
    if arguments.verbose {
        println!("{}", report.failures());
        for id in report.failed_by_all() {
            println!("failed by all: {id}");
        }
    }
    println!("{}", report.table());
    let write = |file: &Option<PathBuf>, text: String| match file {
        Some(file) => std::fs::write(file, text).map_err(|error| format!("writing {}: {error}", file.display())),
        None => Ok(()),
    };
    write(&arguments.json, format!("{:#}\n", report.json()))?;
    write(&arguments.markdown, report.table())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

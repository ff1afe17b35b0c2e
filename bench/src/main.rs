//! What a request costs Moongate and its peers, on one machine, in one interleaved run: `docs/benchmarks.md`.

mod arguments;
mod certificates;
mod count;
mod cpu;
mod epoll;
mod floor;
mod launch;
mod load;
mod origin;
mod peers;
mod process;
mod report;
mod results;
mod rounds;
mod site;
mod wire;
mod workload;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::arguments::{Command, Outputs};
use crate::report::{svg, table};
use crate::results::Run;
use crate::rounds::Options;
use crate::workload::Workload;

fn write(file: Option<&Path>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    std::fs::write(file, text()?).with_context(|| format!("writing {}", file.display()))
}

fn outputs(run: &Run, outputs: &Outputs) -> Result<()> {
    write(outputs.json.as_deref(), || Ok(format!("{:#}\n", serde_json::to_value(run)?)))?;
    write(outputs.svg.as_deref(), || Ok(svg::of(run)))?;
    let Some(file) = outputs.markdown.as_deref() else { return Ok(()) };
    let before = std::fs::read_to_string(file).unwrap_or_default();
    write(Some(file), || Ok(table::placed(&before, run)))
}

fn measure(workloads: &[Workload], options: &Options, to: &Outputs) -> Result<()> {
    if !Path::new("/proc/self/schedstat").exists() {
        bail!("this kernel does not tell how long threads ran (/proc/PID/schedstat)");
    }
    let scratch = site::Scratch::new()?;
    let mut run = Run { about: site::about(options), workloads: Vec::new() };
    run.about.iter().for_each(|it| println!("{it}"));
    for workload in workloads {
        eprintln!("== {}: {}", workload.name, workload.about);
        let measured = rounds::measure(workload, options, &scratch.fresh(workload.name)?)
            .with_context(|| format!("workload {}", workload.name))?;
        println!("\n{}", table::of(&measured));
        run.workloads.push(measured);
        // What is measured is not lost if a later workload fails.
        outputs(&run, to)?;
    }
    Ok(())
}

fn run() -> Result<ExitCode> {
    match arguments::read(std::env::args().skip(1))? {
        Command::Part(part, rest) => match part.as_str() {
            "origin" => origin::run(&rest)?,
            "floor" => floor::run(&rest)?,
            "hold" => load::hold(&rest)?,
            "launch" => launch::run(&rest)?,
            _ => load::run()?,
        },
        Command::List => {
            for workload in workload::all().iter().filter(|it| !it.about.is_empty()) {
                println!("{:12} {}", workload.name, workload.about);
            }
        }
        Command::Show { files, outputs: to } => {
            let mut run = Run::default();
            for file in &files {
                let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
                let part: Run = serde_json::from_str(&text).with_context(|| format!("in {}", file.display()))?;
                run.about = part.about;
                // A workload that was measured again takes its place.
                run.workloads.retain(|old| part.workloads.iter().all(|new| new.name != old.name));
                run.workloads.extend(part.workloads);
            }
            let order = workload::all();
            run.workloads.sort_by_key(|it| order.iter().position(|known| known.name == it.name));
            println!("{}", table::all(&run));
            outputs(&run, &to)?;
        }
        Command::Count { bless, moongate } => {
            let within = count::run(&moongate, bless)?;
            return Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Run { workloads, options, outputs } => measure(&workloads, &options, &outputs)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

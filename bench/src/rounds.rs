//! Measures one workload: starts everybody, and then, round after round, each once, back to back. Only ratios within a
//! round are compared: a machine that others use is slower for all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::certificates::Certificates;
use crate::cpu::Memory;
use crate::load::{Job, Outcome, Pace, Speak, Window};
use crate::peers::{self, Kind, Missing, Port, Running, Site};
use crate::process::{Cores, Process, Talk, free_address};
use crate::results::{Measured, Round, Row};
use crate::workload::{Contender, Load, Measure, Rate, Workload};

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) peers: Vec<Kind>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) moongate: PathBuf,
}

/// How long idle connections have before their memory is looked at: what lets go of buffers does so after a while.
const SETTLE: Duration = Duration::from_secs(3);

struct Entry<'a> {
    contender: &'a Contender,
    running: Running,
    rounds: Vec<Round>,
    /// Requests a second at most, where the rate depends on it.
    full: f64,
}

/// Endpoints for a shape: ports of one address, or addresses of one port where there are many.
pub(crate) fn origin(dir: &Path, cores: &Cores, endpoints: usize) -> Result<(Process, Vec<SocketAddr>)> {
    let (mode, ports, addresses): (_, Vec<u16>, Vec<SocketAddr>) = if endpoints <= 8 {
        let all: Vec<SocketAddr> = (0..endpoints).map(|_| free_address()).collect();
        ("one", all.iter().map(SocketAddr::port).collect(), all)
    } else {
        let port = free_address().port();
        let address = |nth: usize| SocketAddr::from(([127, 1, (nth / 250) as u8, (nth % 250) as u8 + 1], port));
        ("all", vec![port], (0..endpoints).map(address).collect())
    };
    let arguments: Vec<String> =
        ["origin", mode].into_iter().map(str::to_owned).chain(ports.iter().map(ToString::to_string)).collect();
    let mut process = Process::own("origin", &cores.origin, cores.nice, dir, &arguments)?;
    process.serves(&addresses[..addresses.len().min(8)], Duration::from_secs(10))?;
    Ok((process, addresses))
}

/// Waits while the kernel's table of connections has no room for so many more.
fn room_for(connections: u64) -> Result<()> {
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let until = Instant::now() + Duration::from_secs(150);
    while let (Some(used), Some(most)) = (number("count"), number("max")) {
        if used + 2 * connections < most / 10 * 9 {
            break;
        }
        if Instant::now() > until {
            bail!("the kernel tracks {used} connections of {most} at most, and others keep it that full");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Measures.
pub(crate) fn measure(workload: &Workload, options: &Options, dir: &Path) -> Result<Measured> {
    let certificates = Certificates::make(dir)?;
    let most_workers = workload.contenders.iter().map(|it| it.shape.workers).max().unwrap_or(1);
    let cores = Cores::of_this_machine(most_workers);
    let most = workload.contenders.iter().map(|it| it.shape.endpoints).max().unwrap_or(1);
    let (mut origin, endpoints) = origin(dir, &cores, most)?;
    let mut measured = Measured::new(workload, options);
    let mut entries = Vec::new();
    for contender in &workload.contenders {
        if !options.peers.contains(&contender.kind) {
            continue;
        }
        let core = Cores::of_this_machine(contender.shape.workers).proxy;
        let (moongate, nice) = (&options.moongate, cores.nice);
        let site = Site { dir, certificates: &certificates, moongate, core: &core, nice, under: &[] };
        let endpoints = &endpoints[..contender.shape.endpoints];
        match peers::start(contender.kind, &contender.label, &site, endpoints, &contender.shape) {
            Ok(running) => {
                eprintln!("{}: process {}", contender.label, running.process.id());
                measured.notes.extend(running.notes.iter().cloned());
                entries.push(Entry { contender, running, rounds: Vec::new(), full: 0.0 });
            }
            Err(Missing::Skipped(why)) => {
                eprintln!("{}: skipped, {why}", contender.label);
                measured.notes.push(format!("{}: {why}", contender.label));
            }
            Err(Missing::Failed(error)) => return Err(error.context(format!("starting {}", contender.label))),
        }
    }
    measured.notes.sort();
    measured.notes.dedup();
    match &workload.measure {
        Measure::Load(load) => {
            rounds(load, &mut entries, options, dir, &cores, &certificates, &mut origin)?;
        }
        Measure::Idle(connections) => {
            for entry in &mut entries {
                let round = idle(entry, *connections, dir, &cores)
                    .with_context(|| format!("measuring {}", entry.contender.label))?;
                entry.rounds.push(round);
            }
        }
    }
    let row = |it: Entry<'_>| Row {
        label: it.contender.label.clone(),
        kind: it.contender.kind.name().into(),
        against: it.contender.against.clone(),
        rounds: it.rounds,
    };
    measured.rows = entries.into_iter().map(row).collect();
    Ok(measured)
}

fn rounds(
    load: &Load,
    entries: &mut [Entry<'_>],
    options: &Options,
    dir: &Path,
    cores: &Cores,
    certificates: &Certificates,
    origin: &mut Process,
) -> Result<()> {
    if load.rate == Rate::Half {
        for entry in entries.iter_mut() {
            let full = Load { rate: Rate::Full, ..load.clone() };
            let round = once(&full, entry, options.seconds.min(1.0), dir, cores, certificates)?;
            entry.full = round.outcome.requests as f64 / round.outcome.seconds;
        }
    }
    for number in 0..options.rounds {
        // Whoever comes second finds a warmer or a more throttled machine: take turns.
        let count = entries.len();
        for nth in 0..count {
            let entry = &mut entries[if number % 2 == 0 { nth } else { count - 1 - nth }];
            let round = once(load, entry, options.seconds, dir, cores, certificates)?;
            entry.rounds.push(round);
        }
        let line: Vec<String> = entries
            .iter_mut()
            .map(|it| {
                it.running.process.check()?;
                Ok(format!("{} {:.2} us", it.contender.label, it.rounds[number].cpu_us()))
            })
            .collect::<Result<_>>()?;
        origin.check()?;
        eprintln!("round {}: {}", number + 1, line.join(", "));
    }
    Ok(())
}

/// One load on one contender.
fn once(
    load: &Load,
    entry: &mut Entry<'_>,
    seconds: f64,
    dir: &Path,
    cores: &Cores,
    certificates: &Certificates,
) -> Result<Round> {
    let processes = entry.running.process.tree();
    let shape = &entry.contender.shape;
    let mut job = Job {
        to: entry.running.at(load.port),
        ask: load.ask.clone(),
        speak: match load.port {
            Port::Plain => Speak::Http1,
            Port::Http2 => Speak::Http2 { streams: load.streams },
            Port::Tls => Speak::Tls { authority: certificates.authority.clone() },
        },
        pace: load.pace(entry.full),
        window: load.window(seconds),
        connections: load.connections,
        fresh: load.fresh.is_some(),
        warm_up: (500, 0.2),
        processes: processes.clone(),
    };
    job.ask.paths = shape.routes.max(shape.services).max(1);
    // Every endpoint has its connection, and every route was asked for, before it counts.
    let needed = if entry.rounds.is_empty() { 4 * shape.endpoints.max(job.ask.paths) } else { shape.endpoints };
    match load.fresh {
        Some(count) => {
            room_for(count)?;
            job.warm_up = (50, 0.0);
        }
        None => job.warm_up.0 = job.warm_up.0.max(needed as u64),
    }
    let outcome = run(&job, dir, cores).with_context(|| {
        let ended = entry.running.process.check().err().map_or_else(String::new, |it| format!(" ({it:#})"));
        format!("measuring {}{ended}", entry.contender.label)
    })?;
    let after = entry.running.process.tree();
    if after != processes {
        bail!("{} started or lost a process while it was measured", entry.contender.label);
    }
    Ok(Round { outcome, memory: Memory::of(&after), for_each_connection: 0.0 })
}

fn run(job: &Job, dir: &Path, cores: &Cores) -> Result<Outcome> {
    let mut talk = Talk::start(&cores.load, cores.nice, dir, &["load".to_owned()])?;
    talk.tell(&serde_json::to_string(job)?)?;
    talk.hear()
}

/// Drives a job with a pause: `before` is called when nothing is in flight, `after` when exactly the window's requests
/// are answered, and the connections are still open.
pub(crate) fn staged(
    job: &Job,
    dir: &Path,
    cores: &Cores,
    before: impl FnOnce() -> Result<()>,
    after: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    debug_assert!(matches!((job.window, job.pace), (Window::Staged(_), Pace::Closed)));
    let mut talk = Talk::start(&cores.load, cores.nice, dir, &["load".to_owned()])?;
    talk.tell(&serde_json::to_string(job)?)?;
    talk.hear::<bool>()?;
    before()?;
    talk.tell("go")?;
    let outcome = talk.hear()?;
    after()?;
    Ok(outcome)
}

/// What connections cost that do nothing.
fn idle(entry: &mut Entry<'_>, connections: usize, dir: &Path, cores: &Cores) -> Result<Round> {
    let hold = |count: usize| -> Result<Talk> {
        let arguments = ["hold".to_owned(), entry.running.plain.port().to_string(), count.to_string()];
        let mut talk = Talk::start(&cores.load, cores.nice, dir, &arguments)?;
        talk.hear::<bool>()?;
        Ok(talk)
    };
    room_for(connections as u64)?;
    // What is made at the first request is no connection's.
    drop(hold(100)?);
    std::thread::sleep(SETTLE);
    let before = Memory::of(&entry.running.process.tree());
    let held = hold(connections)?;
    std::thread::sleep(SETTLE);
    let after = Memory::of(&entry.running.process.tree());
    drop(held);
    entry.running.process.check()?;
    let grown = after.anonymous.saturating_sub(before.anonymous) as f64 / connections as f64;
    eprintln!("{}: {grown:.0} bytes for each connection", entry.contender.label);
    Ok(Round { outcome: Outcome::default(), memory: before, for_each_connection: grown })
}

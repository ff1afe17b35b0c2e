//! What does not depend on how busy the machine is: instructions outside of the kernel, and system calls, for each
//! request. Both are compared with a budget that is kept in the repository.
//!
//! Instructions are callgrind's, from one answer to another of a gateway that is warm: its start and its compilers are
//! not in it. Under callgrind the gateway is much slower than its clients, so it always finds as many of them ready, and
//! the numbers repeat within a few in a thousand.

mod budget;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::certificates::Certificates;
use crate::load::{Ask, Job, Pace, Speak, Window};
use crate::origin;
use crate::peers::{self, Kind, Missing, Port, Running, Shape, Site, succeed};
use crate::process::{Cores, Process};
use crate::rounds;
use crate::site::Scratch;
use budget::{Budget, Kind as Counted};

/// Something that is counted.
struct Case {
    name: &'static str,
    shape: Shape,
    path: &'static str,
    expected: usize,
    port: Port,
}

impl Case {
    fn speak(&self) -> Speak {
        if self.port == Port::Http2 { Speak::Http2 { streams: 8 } } else { Speak::Http1 }
    }
}

fn cases() -> [Case; 4] {
    let small = |name, filters, port| Case {
        name,
        shape: Shape { filters, ..Shape::default() },
        path: "/bench/item?id=1",
        expected: origin::SMALL.len(),
        port,
    };
    [
        small("small", 0, Port::Plain),
        small("three-filters", 3, Port::Plain),
        Case { path: "/bench/64k", expected: 1 << 16, ..small("body-64k", 0, Port::Plain) },
        small("http2", 0, Port::Http2),
    ]
}

/// Where one case is counted.
struct Place<'a> {
    dir: &'a Path,
    cores: Cores,
    certificates: &'a Certificates,
    moongate: &'a Path,
}

impl Place<'_> {
    fn start(&self, label: &str, case: &Case, under: &[String]) -> Result<(Process, Running)> {
        let (origin, endpoints) = rounds::origin(self.dir, &self.cores, case.shape.endpoints)?;
        let site = Site {
            dir: self.dir,
            certificates: self.certificates,
            moongate: self.moongate,
            core: &self.cores.proxy,
            nice: self.cores.nice,
            under,
        };
        match peers::start(Kind::Moongate, label, &site, &endpoints, &case.shape) {
            Ok(running) => Ok((origin, running)),
            Err(Missing::Skipped(why)) => bail!("{why}"),
            Err(Missing::Failed(error)) => Err(error),
        }
    }

    fn job(&self, case: &Case, running: &Running, connections: usize, requests: u64) -> Job {
        let (path, expected) = (case.path.into(), case.expected as u64);
        Job {
            to: running.at(case.port),
            ask: Ask { path, paths: 1, upload: 0, expected },
            speak: case.speak(),
            pace: Pace::Closed,
            window: Window::Staged(requests),
            connections,
            fresh: false,
            warm_up: (requests, 0.0),
            processes: Vec::new(),
        }
    }
}

/// A tool, or how to get it.
fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|it| it.join(name)).find(|it| it.is_file());
    found.with_context(|| format!("{name} is not on this machine (bench/peers)"))
}

/// Requests that are counted under callgrind: enough that what happens now and then does not show.
const INSTRUCTIONS_OVER: u64 = 4000;
/// And by strace.
const CALLS_OVER: u64 = 20_000;

/// Instructions for each request, at 8 connections; with HTTP/2, one connection of 8 streams.
fn instructions(place: &Place<'_>, case: &Case) -> Result<f64> {
    let (valgrind, control) = (tool("valgrind")?, tool("callgrind_control")?);
    let files = place.dir.join(format!("callgrind-{}", case.name));
    let under = [
        valgrind.display().to_string(),
        "--tool=callgrind".into(),
        format!("--callgrind-out-file={}", files.display()),
        // Code that the plugins' compiler writes is new code wherever it lies.
        "--smc-check=all-non-file".into(),
    ];
    let (_origin, running) = place.start(&format!("{}-instructions", case.name), case, &under)?;
    let process = running.process.id().to_string();
    let connections = if case.port == Port::Http2 { 1 } else { 8 };
    let job = place.job(case, &running, connections, INSTRUCTIONS_OVER);
    let ask = |what: &str| succeed(Command::new(&control).args([what, &process]));
    // What was counted so far goes into a first file, the window into a second.
    let dump = || ask("--dump").map(drop);
    rounds::staged(&job, place.dir, &place.cores, dump, dump)?;
    drop(running);
    let text = std::fs::read_to_string(files.with_extension("2")).context("reading what callgrind counted")?;
    let total = text.lines().find_map(|it| it.strip_prefix("summary: ").or_else(|| it.strip_prefix("totals: ")));
    let total: f64 = total.context("callgrind's total")?.trim().parse()?;
    Ok(total / INSTRUCTIONS_OVER as f64)
}

/// System calls of the workers for each request, at 64 connections; with HTTP/2, 4 connections of 8 streams. Those of
/// other threads come with time and not with requests.
fn calls(place: &Place<'_>, case: &Case) -> Result<(f64, String)> {
    let strace = tool("strace")?;
    let (_origin, running) = place.start(&format!("{}-calls", case.name), case, &[])?;
    let connections = if case.port == Port::Http2 { 4 } else { 64 };
    let job = place.job(case, &running, connections, CALLS_OVER);
    let summary = place.dir.join(format!("strace-{}", case.name));
    let mut counting = None;
    let before = || {
        let workers = workers(running.process.id())?;
        let mut arguments = vec!["-c".into(), "-o".into(), summary.display().to_string()];
        workers.iter().for_each(|it| arguments.extend(["-p".into(), it.to_string()]));
        let cores = &place.cores;
        let tracer = Process::start("strace", &cores.load, cores.nice, place.dir, &strace, &arguments)?;
        traced(&workers)?;
        counting = Some(tracer);
        Ok(())
    };
    rounds::staged(&job, place.dir, &place.cores, before, || Ok(()))?;
    // It writes its summary when it is interrupted.
    let mut tracer = counting.context("strace did not start")?;
    if let Some(process) = Pid::from_raw(tracer.id() as i32) {
        kill_process(process, Signal::INT)?;
    }
    let until = Instant::now() + Duration::from_secs(10);
    while tracer.check().is_ok() {
        ensure!(Instant::now() < until, "strace does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let text = std::fs::read_to_string(&summary).context("reading what strace counted")?;
    summarised(&text)
}

/// The threads of the gateway that serve, by their name.
fn workers(process: u32) -> Result<Vec<u32>> {
    let (mut found, mut names) = (Vec::new(), Vec::new());
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        let name = std::fs::read_to_string(thread.path().join("comm"))?;
        match thread.file_name().to_str().and_then(|it| it.parse().ok()) {
            Some(thread) if name.starts_with("worker-") => found.push(thread),
            _ => names.push(name.trim().to_owned()),
        }
    }
    ensure!(!found.is_empty(), "no thread of the gateway is called worker-N, but there are {}", names.join(", "));
    Ok(found)
}

/// Waits until these threads are traced.
fn traced(threads: &[u32]) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    let untraced = |thread: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        !status.lines().any(|it| it.strip_prefix("TracerPid:").is_some_and(|it| it.trim() != "0"))
    };
    while threads.iter().any(untraced) {
        ensure!(Instant::now() < until, "strace does not trace {threads:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The total of strace's summary for each request, and the calls that make it up.
fn summarised(text: &str) -> Result<(f64, String)> {
    let (mut total, mut parts) = (0.0, Vec::new());
    for line in text.lines().skip(2) {
        // Share, seconds, microseconds a call, calls, errors if there are any, and the name.
        let cells: Vec<&str> = line.split_whitespace().collect();
        let (Some(calls), Some(name)) = (cells.get(3).and_then(|it| it.parse::<f64>().ok()), cells.last()) else {
            continue;
        };
        if *name == "total" {
            continue;
        }
        total += calls;
        let each = calls / CALLS_OVER as f64;
        if each >= 0.005 {
            parts.push(format!("{each:.2} {name}"));
        }
    }
    ensure!(total > 0.0, "strace counted nothing:\n{text}");
    Ok((total / CALLS_OVER as f64, parts.join(", ")))
}

/// Times that something above its budget is counted. How many frames of HTTP/2 come with one read depends on who runs
/// when; what the code does anew for each request is there every time.
const COUNTED_AT_MOST: usize = 3;

/// Whether it held in one of so many attempts.
fn again(attempts: usize, mut count: impl FnMut() -> Result<bool>) -> Result<bool> {
    for _ in 0..attempts {
        if count()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Counts, prints the table, and compares with `bench/budget.toml`, or writes that. `false`: above the budget.
pub(crate) fn run(moongate: &Path, bless: bool) -> Result<bool> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.toml");
    let mut budget = Budget::load(&file)?;
    let scratch = Scratch::new()?;
    let dir = scratch.fresh("count")?;
    let certificates = Certificates::make(&dir)?;
    let place = Place { dir: &dir, cores: Cores::of_this_machine(1), certificates: &certificates, moongate };
    let mut within = true;
    println!("{:28} {:>10} {:>10} {:>10}", "for each request", "counted", "budget", "at most");
    for case in cases() {
        let counting = || format!("counting {}", case.name);
        let attempts = if bless { 1 } else { COUNTED_AT_MOST };
        within &= again(attempts, || {
            let instructions = instructions(&place, &case).with_context(counting)?;
            Ok(budget.hold(Counted::Instructions, case.name, instructions.round(), bless))
        })?;
        within &= again(attempts, || {
            let (calls, parts) = calls(&place, &case).with_context(counting)?;
            let held = budget.hold(Counted::SystemCalls, case.name, (calls * 100.0).round() / 100.0, bless);
            println!("    {parts}");
            Ok(held)
        })?;
    }
    if bless {
        budget.save(&file)?;
        println!("written to {}", file.display());
    } else if !within {
        println!("above the budget; if that is meant, `bench count --bless` writes it anew");
    }
    Ok(within || bless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_above_does_not_hold() {
        let mut counted = 0;
        let mut above = |times: usize| {
            counted = 0;
            let held = again(3, || {
                counted += 1;
                Ok(counted > times)
            });
            (held.unwrap(), counted)
        };
        assert_eq!(above(0), (true, 1));
        assert_eq!(above(2), (true, 3));
        assert_eq!(above(3), (false, 3));
        assert!(again(3, || bail!("no strace")).is_err());
    }

    #[test]
    fn a_summary_of_strace_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    51.00    0.100000           2     40000           sendto\n \
                    49.00    0.100000           2     20000       100 recvfrom\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.200000           2     60000       100 total\n";
        assert_eq!(summarised(text).unwrap(), (3.0, "2.00 sendto, 1.00 recvfrom".into()));
        assert!(summarised("").is_err());
    }
}

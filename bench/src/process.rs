//! Processes that the benchmark starts: on their cores, with their log, and gone when they are dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::cpu;

/// Which cores do what, and with which priority.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: String,
    pub(crate) origin: String,
    pub(crate) load: String,
    /// For all of these; below zero only root may.
    pub(crate) nice: i32,
}

impl Cores {
    /// The proxy has the first for itself; the others share the second, or have one each. With several workers the proxy
    /// has as many as it has workers, and where the machine has no more, it shares.
    pub(crate) fn of_this_machine(workers: usize) -> Cores {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let at = |core: usize| core.min(all - 1).to_string();
        let origin = if workers < all { workers } else { all - 1 };
        Cores {
            proxy: if workers > 1 { format!("0-{}", at(workers - 1)) } else { "0".into() },
            origin: at(origin),
            load: at(origin + 1),
            nice: -10,
        }
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
}

/// This program, also if its file was replaced since.
const SELF: &str = "/proc/self/exe";

/// A command that starts pinned.
fn launch(core: &str, nice: i32, program: &Path) -> Command {
    let mut command = Command::new(SELF);
    command.args(["launch", core, &nice.to_string()]).arg(program);
    command
}

impl Process {
    /// Starts a program with its output in `dir`.
    pub(crate) fn start(
        name: &str,
        core: &str,
        nice: i32,
        dir: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = launch(core, nice, program);
        command.args(arguments).current_dir(dir).env("HOME", dir);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Process { name: name.into(), child, log })
    }

    /// One of this program's own parts.
    pub(crate) fn own(name: &str, core: &str, nice: i32, dir: &Path, arguments: &[String]) -> Result<Process> {
        Process::start(name, core, nice, dir, &std::env::current_exe()?, arguments)
    }

    /// Its number, which is that of the program.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// It and all that it started.
    pub(crate) fn tree(&self) -> Vec<u32> {
        cpu::tree(self.id())
    }

    /// An error if it is no longer there.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log()),
        }
    }

    /// Waits until all of these take connections.
    pub(crate) fn serves(&mut self, addresses: &[SocketAddr], limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let open = |at: &SocketAddr| TcpStream::connect_timeout(at, Duration::from_secs(1)).is_ok();
        while !addresses.iter().all(open) {
            self.check()?;
            if Instant::now() > until {
                bail!("{} does not listen after {limit:?}:\n{}", self.name, self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The end of what it said.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]).into_owned()
    }
}

fn signal(process: u32, signal: Signal) {
    if let Some(process) = Pid::from_raw(process as i32) {
        let _ = kill_process(process, signal);
    }
}

/// Asks it to end, and after a while no longer asks: it and those that it started.
fn end(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let all = cpu::tree(child.id());
    signal(child.id(), Signal::TERM);
    let until = Instant::now() + Duration::from_secs(3);
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            all.iter().for_each(|it| signal(*it, Signal::KILL));
            let _ = child.wait();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A part of this program that is talked to, one line of JSON at a time.
#[derive(Debug)]
pub(crate) struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Talk {
    pub(crate) fn start(core: &str, nice: i32, dir: &Path, arguments: &[String]) -> Result<Talk> {
        let log = dir.join("load.log");
        let mut command = launch(core, nice, &std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().context("starting the load")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the load's output")?);
        Ok(Talk { child, input, output, log })
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the load's input")?;
        // Where it has ended, its last words say why, and `hear` has them.
        let _ = writeln!(input, "{line}");
        Ok(())
    }

    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let _ = self.child.wait();
            bail!("{}", std::fs::read_to_string(&self.log).unwrap_or_default().trim());
        }
        serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.input = None;
        end(&mut self.child);
    }
}

/// An address on the loopback that is free, below the ports that the system gives to outgoing connections, so that none
/// of those takes it before its server does.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1_000) as u16 * 20;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // The origin listens on every address.
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return address;
        }
    }
}

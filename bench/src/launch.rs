//! What becomes of a process between its start and its program: it gets its cores, its priority and as many files as it
//! may have, and hears of it when the benchmark ends, however that ends.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, Signal};

/// `launch CORES NICE PROGRAM ARGUMENT...`; does not return where it succeeds.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [cores, nice, program, rest @ ..] = arguments else { bail!("launch CORES NICE PROGRAM ARGUMENT...") };
    let nice: i32 = nice.parse().context("reading the priority")?;
    // Ctrl-C is for the benchmark alone, which then ends its processes; and the kernel schedules by session first.
    rustix::process::setsid().context("starting a session")?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("asking for the parent's end")?;
    if rustix::process::setpriority_process(None, nice).is_ok() {
        // Not there on every kernel.
        let _ = std::fs::write("/proc/self/autogroup", nice.to_string());
    }
    let files = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    // The same process goes on: its number is that of the program.
    let error = Command::new("taskset").args(["-c", cores, program]).args(rest).exec();
    Err(error).context("starting taskset (of util-linux)")
}

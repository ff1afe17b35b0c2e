//! The command that `moongate register` runs, and the duties of whoever is process 1 of a container: to pass signals on
//! and to bury orphans.

use std::future::poll_fn;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::task::Poll;

use anyhow::{Context, Result};
use rustix::process::{self, Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{self, SignalKind};

/// A signal, as the system knows it.
pub(super) type Signal = process::Signal;

/// The signals that others send to a service.
const SIGNALS: [(SignalKind, Signal); 7] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
    (SignalKind::window_change(), Signal::WINCH),
];

/// The signals that are sent to this process.
pub(super) struct Signals(Vec<(unix::Signal, Signal)>);

impl Signals {
    /// From now on; what comes is kept until it is asked for.
    pub(super) fn catch() -> Result<Signals> {
        let all = SIGNALS.into_iter().map(|(kind, signal)| {
            let stream = unix::signal(kind).with_context(|| format!("waiting for {signal:?}"))?;
            Ok((stream, signal))
        });
        Ok(Signals(all.collect::<Result<_>>()?))
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let came = all.find_map(|(stream, signal)| stream.poll_recv(context).is_ready().then_some(*signal));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next one that asks for the end.
    pub(super) async fn next_end(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if asks_for_the_end(signal) {
                return signal;
            }
        }
    }
}

/// Whether a service that gets it is expected to stop.
pub(super) fn asks_for_the_end(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal)
}

/// A running command, in a process group of its own: so an interrupt from the terminal comes to us alone, who deregister
/// first, and a shell's children get what is passed on, too.
pub(super) struct Process {
    pid: Pid,
    children: unix::Signal,
}

impl Process {
    /// Runs it with our input, output and environment, without the variables that are only for us.
    ///
    /// # Errors
    /// It cannot be run. There is then no process.
    pub(super) fn start(command: &[String], without: &[&str]) -> io::Result<Process> {
        // Before there is a child, so that its end is not missed.
        let children = unix::signal(SignalKind::child())?;
        let [program, arguments @ ..] = command else { return Err(io::ErrorKind::NotFound.into()) };
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        for name in without {
            command.env_remove(name);
        }
        // What is waited for is any child, so this one's handle is of no use.
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Process { pid, children })
    }

    /// Sends it, and what it has started, a signal.
    pub(super) fn send(&self, signal: Signal) {
        // It may have ended meanwhile, and then that is told by its end.
        if let Err(error) = process::kill_process_group(self.pid, signal) {
            tracing::debug!(%error, ?signal, "passing a signal on");
        }
    }

    /// Waits for its end, and returns what a shell would make of it: its status, or 128 and the number of the signal that
    /// ended it. Orphans that were handed over to us are buried on the way.
    pub(super) async fn ended(&mut self) -> u8 {
        loop {
            while let Ok(Some((pid, status))) = process::wait(WaitOptions::NOHANG) {
                if pid == self.pid {
                    return code(status);
                }
            }
            self.children.recv().await;
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

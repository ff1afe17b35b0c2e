//! The load: a process of its own that gets one job, sends requests, and tells what came of it.
//!
//! Every answer is looked at: another status, another length, a connection that ends, or silence for ten seconds ends the
//! job, and with it the benchmark. What the proxy used is read here, at the edges of the window, so that nothing lies
//! between a request and its price.

mod driver;
mod h1;
mod h2;
mod idle;
mod request;
mod socket;

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::cpu::Used;

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// Path and query; `{}` in it stands for a number.
    pub(crate) path: String,
    /// From 0 to below this at random, in place of `{}`.
    pub(crate) paths: usize,
    /// Bytes of the request's body; 0: a GET.
    pub(crate) upload: u64,
    /// Bytes of the answer's body.
    pub(crate) expected: u64,
}

/// In which protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Speak {
    /// HTTP/1.1, one request after the other.
    Http1,
    /// HTTP/2 with prior knowledge, so many streams at once.
    Http2 {
        /// Of each connection.
        streams: usize,
    },
    /// HTTP/1.1 over TLS.
    Tls {
        /// The file of the authority to be trusted.
        authority: PathBuf,
    },
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// When the one before it was answered.
    Closed,
    /// Whatever the proxy does, at random moments, so many a second on average. Latencies count from the moment at which
    /// a request was due, also where it had to wait for a connection.
    Open(f64),
}

/// How long a window is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Window {
    /// So many seconds, requests in flight at both ends.
    Seconds(f64),
    /// Until so many are answered, more in flight.
    Requests(u64),
    /// Exactly so many, nothing in flight at either end. The load waits for a line before the window and for the end of
    /// its input after it, so that somebody can look at the proxy.
    Staged(u64),
}

/// What a load process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) to: SocketAddr,
    pub(crate) ask: Ask,
    pub(crate) speak: Speak,
    pub(crate) pace: Pace,
    pub(crate) window: Window,
    /// How many at once.
    pub(crate) connections: usize,
    /// A new connection for each request.
    pub(crate) fresh: bool,
    /// Before the window: at least so many requests and so many seconds.
    pub(crate) warm_up: (u64, f64),
    /// The proxy's processes.
    pub(crate) processes: Vec<u32>,
}

/// What came of a window.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// By the proxy's processes.
    pub(crate) used: Used,
    /// Latencies in microseconds: medians and beyond.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Tells the benchmark something in one line.
fn tell(what: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}

/// Waits for a line; `false`: there is none, and will be none.
fn told() -> Result<bool> {
    Ok(io::stdin().lock().read_line(&mut String::new())? > 0)
}

/// `load`: takes a job from standard input.
pub(crate) fn run() -> Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line).context("reading the job")?;
    driver::run(&job)
}

/// `hold PORT N`: opens connections, sends one request on each, and keeps them open until its input ends.
pub(crate) fn hold(arguments: &[String]) -> Result<()> {
    let [port, connections] = arguments else { anyhow::bail!("hold PORT N") };
    let _held = idle::open(port.parse()?, connections.parse()?)?;
    tell(&true)?;
    while told()? {}
    Ok(())
}

//! A worker: one thread, one runtime, its own listeners, connections to endpoints and plugin instances.

use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::BytesMut;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::accept;
use super::drain::Drain;
use super::http1::{self, Outcome};
use super::http2::{self, End};
use crate::access::{Journal, Log};
use crate::config::Protocol;
use crate::http1::turn::turns;
use crate::plugin::{Engine, Instances};
use crate::proxy::headers::Client;
use crate::proxy::{Places, Worker, metrics};
use crate::snapshot::Current;
use crate::trace::{Recorder, Tracer};

/// How often a worker looks for what it can let go of.
const TIDY: Duration = Duration::from_secs(1);

/// What a worker needs.
pub struct Setup {
    /// Its place among the workers.
    pub index: usize,
    /// Its sockets.
    pub sockets: Vec<accept::Socket>,
    /// Where the snapshot is.
    pub current: Current,
    /// What its plugins run in.
    pub engine: Engine,
    /// Where it counts.
    pub metrics: std::sync::Arc<metrics::Worker>,
    /// The requests in flight in all workers.
    pub places: std::sync::Arc<Places>,
    /// Where a line for each request goes, if it does.
    pub log: Option<std::sync::Arc<Log>>,
    /// Where traces go, if there are any.
    pub tracer: Option<Tracer>,
    /// Becomes true when it is to end, and how long that may take.
    pub stop: watch::Receiver<Option<Duration>>,
}

/// Starts the thread.
///
/// # Errors
/// If the system has none left.
pub fn start(setup: Setup) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a worker")?;
    let name = format!("worker-{}", setup.index);
    let run = move || runtime.block_on(turns(async { LocalSet::new().run_until(run(setup)).await }));
    thread::Builder::new().name(name).spawn(run).context("starting a worker's thread")
}

async fn run(setup: Setup) {
    let Setup { index, sockets, current, engine, metrics, places, log, tracer, mut stop } = setup;
    let plugins = Instances::new(engine, Some(index));
    let (journal, recorder) = (log.map(Journal::new), tracer.map(Recorder::new));
    let worker = Rc::new(Worker::new(current, plugins, metrics, places, journal, recorder));
    let drain = Rc::new(Drain::default());
    let serve = {
        let worker = worker.clone();
        move |accepted| serve(accepted, worker.clone())
    };
    let limits = {
        let worker = worker.clone();
        move || worker.snapshot().rules.limits
    };
    let accept = |socket| accept::accept(socket, drain.clone(), stop.clone(), limits.clone(), serve.clone());
    let accepting = sockets.into_iter().map(accept);
    let accepting: Vec<_> = accepting.map(tokio::task::spawn_local).collect();
    let mut tick = tokio::time::interval(TIDY);
    let limit = loop {
        tokio::select! {
            _ = tick.tick() => worker.tidy(),
            changed = stop.changed() => match (changed, *stop.borrow()) {
                (Ok(()), None) => {}
                (Ok(()), Some(limit)) => break limit,
                // The gateway is gone without a word.
                (Err(_), _) => break Duration::ZERO,
            },
        }
    };
    for acceptor in accepting {
        // One that panicked accepts nothing more either.
        let _ = acceptor.await;
    }
    drain.start();
    if tokio::time::timeout(limit, drain.finished()).await.is_err() {
        tracing::warn!(worker = index, connections = drain.count(), "closing connections that did not end in time");
    }
    worker.tidy();
}

/// Serves one connection to its end.
async fn serve(accepted: accept::Accepted, worker: Rc<Worker>) {
    let accept::Accepted { stream, peer, protocol, mut open, place: _place } = accepted;
    worker.metrics.accepted();
    let client = Rc::new(Client::new(peer.ip(), stream.is_tls(), &worker.snapshot().rules));
    let http2 = match protocol {
        Some(Protocol::Http2) => Some((stream, BytesMut::new())),
        Some(Protocol::Http1) | None => {
            match http1::serve(stream, protocol.is_none(), &worker, &client, &mut open).await {
                Ok(Outcome::Over) => None,
                Ok(Outcome::Http2(stream, read)) => Some((stream, read)),
                Err(error) => {
                    tracing::debug!(client = %peer, %error, "client connection ended");
                    None
                }
            }
        }
    };
    if let Some((stream, read)) = http2 {
        match Box::pin(http2::serve(stream, read, worker.clone(), client, &mut open)).await {
            End::Over => {}
            End::Abuse(offence) => {
                worker.metrics.abused();
                tracing::info!(client = %peer, too_many = offence.name(), "client connection ended");
            }
            End::Failed(error) => tracing::debug!(client = %peer, %error, "client connection ended"),
            End::Broken(code) => tracing::debug!(client = %peer, code, "client connection broke the protocol"),
            End::Silent(why) => tracing::debug!(client = %peer, why, "client connection ended"),
        }
    }
    worker.metrics.closed();
}

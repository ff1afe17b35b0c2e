//! A worker: one thread, one runtime, its own listeners, connections to endpoints and plugin instances.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::drain::Drain;
use super::http1::{self, Outcome};
use super::http2::{self, End};
use crate::plugin::{Engine, Instances};
use crate::proxy::headers::Client;
use crate::proxy::{Places, Worker, metrics};
use crate::snapshot::Current;
use crate::stream::Stream;

/// How long to wait after a failed accept: usually there are no file descriptors left, and that passes as
/// connections close.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How often a worker looks for what it can let go of.
const TIDY: Duration = Duration::from_secs(1);

/// What a worker needs.
pub struct Setup {
    /// Its place among the workers.
    pub index: usize,
    /// Its sockets.
    pub listeners: Vec<TcpListener>,
    /// Where the snapshot is.
    pub current: Current,
    /// What its plugins run in.
    pub engine: Engine,
    /// Where it counts.
    pub metrics: std::sync::Arc<metrics::Worker>,
    /// The requests in flight in all workers.
    pub places: std::sync::Arc<Places>,
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
    let run = move || LocalSet::new().block_on(&runtime, run(setup));
    thread::Builder::new().name(name).spawn(run).context("starting a worker's thread")
}

async fn run(setup: Setup) {
    let Setup { index, listeners, current, engine, metrics, places, mut stop } = setup;
    let worker = Rc::new(Worker::new(current, Instances::new(engine, Some(index)), metrics, places));
    let drain = Rc::new(Drain::default());
    let accepting = listeners.into_iter().map(|listener| accept(listener, worker.clone(), drain.clone(), stop.clone()));
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
}

async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    drain: Rc<Drain>,
    mut stop: watch::Receiver<Option<Duration>>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "registering a listener"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(Option::is_some) => break,
        };
        match accepted {
            Ok((stream, client)) => {
                drop(tokio::task::spawn_local(serve(stream, client, worker.clone(), drain.clone())))
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection, retrying");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    // What the kernel has accepted for this socket would be reset when it is closed, so it is taken as well.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, client)) = listener.accept() {
        let adopted = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = adopted {
            drop(tokio::task::spawn_local(serve(stream, client, worker.clone(), drain.clone())));
        }
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, peer: SocketAddr, worker: Rc<Worker>, drain: Rc<Drain>) {
    let mut open = drain.open();
    worker.metrics.accepted();
    // A proxy writes whole messages, so there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let client = Rc::new(Client::new(peer.ip(), false, &worker.snapshot().rules));
    let outcome = http1::serve(Stream::plain(stream), &worker, &client, &mut open).await;
    let outcome = match outcome {
        Ok(Outcome::Http2(stream, read)) => {
            match http2::serve(stream, read, worker.clone(), client, &mut open).await {
                End::Over => {}
                End::Abuse(offence) => {
                    worker.metrics.abused();
                    tracing::info!(client = %peer, too_many = offence.name(), "client connection ended");
                }
                End::Failed(error) => tracing::debug!(client = %peer, %error, "client connection ended"),
                End::Silent(why) => tracing::debug!(client = %peer, why, "client connection ended"),
            }
            Ok(Outcome::Over)
        }
        outcome => outcome,
    };
    worker.metrics.closed();
    match outcome {
        Ok(_) => {}
        Err(error) => tracing::debug!(client = %peer, %error, "client connection ended"),
    }
}

//! A worker: one thread, one runtime, its own listeners, connections to endpoints and plugin instances.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::accept;
use super::drain::Drain;
use crate::plugin::{Engine, Instances};
use crate::proxy::headers::Client;
use crate::proxy::{self, Worker, metrics};
use crate::snapshot::Current;

/// How long a client may take for a request's head, and be idle between two requests.
const HEADER_TIME: Duration = Duration::from_secs(60);

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
    let Setup { index, sockets, current, engine, metrics, mut stop } = setup;
    let worker = Rc::new(Worker::new(current, Instances::new(engine, Some(index)), metrics));
    let drain = Rc::new(Drain::default());
    let serve = {
        let worker = worker.clone();
        move |accepted| serve(accepted, worker.clone())
    };
    let accepting =
        sockets.into_iter().map(|socket| accept::accept(socket, drain.clone(), stop.clone(), serve.clone()));
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

/// Serves one connection to its end.
async fn serve(accepted: accept::Accepted, worker: Rc<Worker>) {
    let accept::Accepted { stream, peer, mut open, place: _place, .. } = accepted;
    worker.metrics.accepted();
    let client = Client::new(peer.ip());
    let service = service_fn(|request| {
        let (worker, client) = (&worker, &client);
        async move { Ok::<_, Infallible>(proxy::handle(worker, client, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut told = false;
    let outcome = std::future::poll_fn(|context| {
        if open.ending(context.waker()) && !told {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    worker.metrics.closed();
    if let Err(error) = outcome {
        tracing::debug!(client = %peer, %error, "client connection ended");
    }
}

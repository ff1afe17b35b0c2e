//! Traces: which requests are followed, and how what is known of them leaves the gateway.
//!
//! A worker puts what it knows of a request together while it handles it (see [`crate::proxy::trace`]) and hands it on in
//! whole batches, to a bounded queue that is emptied on the control side ([`export`]). Nobody waits: what a collector is too
//! slow for is dropped and counted. A request that is not followed costs no more than reading and writing one field.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use http::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Tracing;
use crate::config::plugins::Share;
use crate::config::traces::Parents;

pub mod context;
pub mod export;
mod otlp;

pub use context::{Context, SpanId, TraceId};

/// Requests that a worker gathers before it hands them on; what there is after a second goes as well.
const GATHERED: usize = 64;

/// Batches of all workers that may wait for the collector: some 16,000 requests, or 10 MB.
const WAITING: usize = 256;

/// What all who have to do with traces know of them.
#[derive(Debug)]
pub struct Shared {
    /// Trace ids whose number is below this are followed, of 2^63.
    bound: AtomicU64,
    parents: Parents,
    /// Spans that a collector has taken.
    exported: AtomicU64,
    /// Spans that found the queue full.
    dropped: AtomicU64,
    /// Spans that no collector has taken.
    failed: AtomicU64,
}

impl Shared {
    /// From now on so many are followed.
    pub fn sample(&self, share: Share) {
        let whole = u128::from(Share::WHOLE);
        self.bound.store(((u128::from(share.0) << 63) / whole) as u64, Relaxed);
    }

    /// Whether a request is followed: as its caller says, or by its trace id, so that all who go by the same share choose the
    /// same traces.
    pub fn follows(&self, caller: Option<&Context>, trace: TraceId) -> bool {
        match caller {
            Some(caller) if self.parents == Parents::Follow => caller.sampled(),
            _ => trace.number() < self.bound.load(Relaxed),
        }
    }

    /// Spans, by what became of them.
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        [("exported", &self.exported), ("dropped", &self.dropped), ("failed", &self.failed)]
            .map(|(outcome, count)| (outcome, count.load(Relaxed)))
    }
}

/// Exchanges on their way to the collector. In boxes, because they are large and go through several hands.
#[allow(clippy::vec_box)]
type Batch = Vec<Box<Exchange>>;

/// The way of the workers to the collector. Exporting ends when nobody has one any more.
#[derive(Clone, Debug)]
pub struct Tracer {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Batch>,
}

/// Starts to export, on this thread's runtime.
pub fn start(config: &Tracing) -> (Tracer, Arc<Shared>, JoinHandle<()>) {
    let [exported, dropped, failed] = [0; 3].map(AtomicU64::new);
    let shared = Shared { bound: AtomicU64::new(0), parents: config.parents, exported, dropped, failed };
    shared.sample(config.sample);
    let shared = Arc::new(shared);
    let (queue, batches) = mpsc::channel(WAITING);
    let exporting = tokio::spawn(export::run(config.clone(), batches, shared.clone()));
    (Tracer { shared: shared.clone(), queue }, shared, exporting)
}

/// What a worker has to tell.
pub struct Recorder {
    tracer: Tracer,
    gathered: RefCell<Batch>,
}

impl Recorder {
    /// Of a worker that has nothing to tell yet.
    pub fn new(tracer: Tracer) -> Rc<Recorder> {
        Rc::new(Recorder { tracer, gathered: RefCell::default() })
    }

    /// What is the same for all.
    pub fn shared(&self) -> &Shared {
        &self.tracer.shared
    }

    /// Takes a request that is over.
    pub fn put(&self, exchange: Box<Exchange>) {
        let mut gathered = self.gathered.borrow_mut();
        gathered.push(exchange);
        if gathered.len() >= GATHERED {
            self.hand_on(std::mem::take(&mut *gathered));
        }
    }

    /// Hands on what there is. To be called about once a second, and at the end.
    pub fn flush(&self) {
        let gathered = self.gathered.take();
        if !gathered.is_empty() {
            self.hand_on(gathered);
        }
    }

    fn hand_on(&self, batch: Batch) {
        if let Err(full) = self.tracer.queue.try_send(batch) {
            let spans: usize = full.into_inner().iter().map(|it| it.spans()).sum();
            self.shared().dropped.fetch_add(spans as u64, Relaxed);
        }
    }
}

/// What is known of a request that was followed: a span for itself, and one for each attempt to have it answered.
#[derive(Debug)]
pub struct Exchange {
    /// The trace.
    pub trace: TraceId,
    /// The request's own span.
    pub span: SpanId,
    /// The caller's span, if there is one.
    pub parent: Option<SpanId>,
    /// The caller's `tracestate`, if there is one.
    pub state: Option<Box<str>>,
    /// When it came.
    pub began: Instant,
    /// When the last of the response was sent, or nobody waited for it any more.
    pub ended: Instant,
    /// What is to be done.
    pub method: Method,
    /// To what, without the query: that may hold what is nobody's business.
    pub path: Box<str>,
    /// The host asked for, with its port if there is one.
    pub host: Option<Box<str>>,
    /// Whether the client's connection is encrypted.
    pub secure: bool,
    /// What the client speaks, as `Via` names it.
    pub version: &'static str,
    /// Who asks.
    pub client: IpAddr,
    /// What the client says it is.
    pub agent: Option<Box<str>>,
    /// The request's id, as it stands in the access log.
    pub id: Box<str>,
    /// The route and its service, if there is one.
    pub route: Option<(Arc<str>, Arc<str>)>,
    /// How it was answered; none: it was not.
    pub status: Option<StatusCode>,
    /// What went wrong, as the metrics name it.
    pub error: Option<&'static str>,
    /// In their order.
    pub attempts: Vec<Attempt>,
}

impl Exchange {
    /// How many spans it is.
    pub fn spans(&self) -> usize {
        1 + self.attempts.len()
    }
}

/// An attempt to have a request answered by an endpoint.
#[derive(Debug)]
pub struct Attempt {
    /// Its span, which the endpoint is told as its parent.
    pub span: SpanId,
    /// Where it was sent.
    pub endpoint: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The path that was sent.
    pub path: Box<str>,
    /// When it began.
    pub began: Instant,
    /// When there was a response or none to be expected any more; none: nobody waited for it.
    pub ended: Option<Instant>,
    /// The response's status.
    pub status: Option<StatusCode>,
    /// What went wrong.
    pub error: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(parents: Parents, share: u32) -> Shared {
        let [exported, dropped, failed] = [0; 3].map(AtomicU64::new);
        let shared = Shared { bound: AtomicU64::new(0), parents, exported, dropped, failed };
        shared.sample(Share(share));
        shared
    }

    #[test]
    fn a_share_of_the_traces_is_followed() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut followed = |share| {
            let shared = shared(Parents::Follow, share);
            (0..10_000).filter(|_| shared.follows(None, TraceId::random(&mut rng))).count()
        };
        assert_eq!((followed(0), followed(Share::WHOLE)), (0, 10_000));
        let tenth = followed(Share::WHOLE / 10);
        assert!((900..1_100).contains(&tenth), "{tenth}");
    }

    #[test]
    fn callers_decide_unless_they_are_not_asked() {
        let caller = |flags: &str| {
            let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            Context::read(text.as_bytes()).unwrap()
        };
        let (yes, no) = (caller("01"), caller("00"));
        let all = shared(Parents::Follow, Share::WHOLE);
        assert!(all.follows(Some(&yes), yes.trace) && !all.follows(Some(&no), no.trace));
        let none = shared(Parents::Ignore, 0);
        assert!(!none.follows(Some(&yes), yes.trace));
        assert!(shared(Parents::Ignore, Share::WHOLE).follows(Some(&no), no.trace));
    }

    #[test]
    fn what_finds_the_queue_full_is_counted() {
        let (queue, mut batches) = mpsc::channel(1);
        let recorder = Recorder::new(Tracer { shared: Arc::new(shared(Parents::Follow, 0)), queue });
        for _ in 0..2 {
            recorder.put(Box::new(otlp::tests::exchange()));
            recorder.flush();
        }
        let spans = otlp::tests::exchange().spans() as u64;
        assert_eq!(recorder.shared().outcomes()[1], ("dropped", spans));
        assert!(batches.try_recv().is_ok() && batches.try_recv().is_err());
    }
}

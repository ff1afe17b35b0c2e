//! What a worker counts. It is the only writer, so a count is a load and a store on a cache line that no other
//! worker writes; the admin API adds the workers up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use crate::error::{KINDS, RequestError};

/// Upper bounds of the latency buckets, in microseconds; the last bucket has none.
pub const BOUNDS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// How requests were answered: all of them, or those of one route or service.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Answers {
    /// By the first digit of their status.
    pub classes: [AtomicU64; 6],
    /// Times from a request to its response's head, by bucket.
    pub buckets: [AtomicU64; BOUNDS.len() + 1],
    /// The sum of these times, in microseconds.
    pub microseconds: AtomicU64,
}

impl Answers {
    fn count(&self, class: usize, bucket: usize, microseconds: u64) {
        add(&self.classes[class], 1);
        add(&self.buckets[bucket], 1);
        add(&self.microseconds, microseconds);
    }
}

/// [`Answers`] by the number of a route or service, see [`crate::series`]. What is never counted takes no memory: one worker
/// may never see what another is busy with.
#[derive(Debug)]
pub struct Grid(Box<[OnceLock<Box<[Answers; CHUNK]>>]>);

/// [`Answers`] that are made together.
const CHUNK: usize = 16;

impl Grid {
    fn new(size: usize) -> Grid {
        Grid((0..size.div_ceil(CHUNK).max(1)).map(|_| OnceLock::new()).collect())
    }

    fn at(&self, number: u32) -> &Answers {
        let (chunk, place) = (number as usize / CHUNK, number as usize % CHUNK);
        // Numbers are below the size that both sides were given.
        let chunk = self.0.get(chunk).unwrap_or(&self.0[0]);
        &chunk.get_or_init(|| Box::new(std::array::from_fn(|_| Answers::default())))[place]
    }

    /// What was counted; none if nothing was.
    pub fn get(&self, number: u32) -> Option<&Answers> {
        Some(&self.0.get(number as usize / CHUNK)?.get()?[number as usize % CHUNK])
    }
}

/// What a request was for, by the numbers of the series.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its route.
    pub route: u32,
    /// Its service.
    pub service: u32,
}

/// The counts of one worker.
#[derive(Debug)]
#[repr(align(64))]
pub struct Worker {
    /// All responses.
    pub all: Answers,
    /// Those of each route.
    pub routes: Grid,
    /// Those of each service.
    pub services: Grid,
    /// Requests that got no response from an endpoint, by kind.
    pub errors: [AtomicU64; KINDS.len()],
    /// Requests sent to another endpoint after a failure.
    pub retries: AtomicU64,
    /// Picks that native round robin decided because the balancer failed.
    pub fallbacks: AtomicU64,
    /// Connections opened to endpoints.
    pub connects: AtomicU64,
    /// Client connections that were accepted.
    pub accepted: AtomicU64,
    /// Client connections that ended.
    pub closed: AtomicU64,
    /// Of these, HTTP/2 connections that were ended for what their clients did too much of.
    pub abused: AtomicU64,
}

impl Default for Worker {
    fn default() -> Worker {
        Worker::new(0, 0)
    }
}

/// Adds to a count that this thread alone writes.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Worker {
    /// Nothing counted yet; so many numbers of routes and of services there may be.
    pub fn new(routes: usize, services: usize) -> Worker {
        Worker {
            all: Answers::default(),
            routes: Grid::new(routes),
            services: Grid::new(services),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            retries: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            abused: AtomicU64::new(0),
        }
    }

    /// Nothing counted yet, for so many names.
    pub fn of(series: crate::config::Metrics) -> Worker {
        // Beside these there are `other` and `auto`.
        Worker::new(series.routes as usize + 2, series.services as usize + 2)
    }

    /// Counts a response to what was no request, or none that a route could take, and how long its head took.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        self.answered_for(status, after, None);
    }

    /// The same; `placed`: what it was for, if a route took it.
    pub fn answered_for(&self, status: StatusCode, after: Duration, placed: Option<Placed>) {
        let class = usize::from(status.as_u16() / 100).min(5);
        let microseconds = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| microseconds <= *bound).unwrap_or(BOUNDS.len());
        self.all.count(class, bucket, microseconds);
        if let Some(Placed { route, service }) = placed {
            self.routes.at(route).count(class, bucket, microseconds);
            self.services.at(service).count(class, bucket, microseconds);
        }
    }

    pub(super) fn error(&self, error: &RequestError) {
        add(&self.errors[error.index()], 1);
    }

    pub(super) fn retried(&self) {
        add(&self.retries, 1);
    }

    pub(super) fn fell_back(&self) {
        add(&self.fallbacks, 1);
    }

    pub(super) fn connected(&self) {
        add(&self.connects, 1);
    }

    /// Counts a client connection.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// Counts the end of a client connection.
    pub fn closed(&self) {
        add(&self.closed, 1);
    }

    /// Counts a connection that is ended for what its client did too much of.
    pub fn abused(&self) {
        add(&self.abused, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_services_count_apart() {
        let worker = Worker::new(40, 2);
        worker.answered_for(StatusCode::OK, Duration::from_micros(200), Some(Placed { route: 39, service: 1 }));
        worker.answered(StatusCode::NOT_FOUND, Duration::from_secs(9));
        let counted = |answers: Option<&Answers>| answers.map(|it| it.classes.each_ref().map(|it| it.load(Relaxed)));
        assert_eq!(counted(Some(&worker.all)), Some([0, 0, 1, 0, 1, 0]));
        assert_eq!(counted(worker.routes.get(39)), Some([0, 0, 1, 0, 0, 0]));
        assert_eq!(counted(worker.services.get(1)), Some([0, 0, 1, 0, 0, 0]));
        assert_eq!(counted(worker.routes.get(1)), None, "that part was never needed");
        let buckets = [&worker.all.buckets[1], &worker.all.buckets[BOUNDS.len()]].map(|it| it.load(Relaxed));
        assert_eq!((buckets, worker.all.microseconds.load(Relaxed)), ([1, 1], 9_000_200));
        assert!(worker.services.get(1_000).is_none());
    }
}

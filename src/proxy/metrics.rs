//! What a worker counts. It is the only writer, so a count is a load and a store on a cache line that no other
//! worker writes; the admin API adds the workers up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use crate::error::{KINDS, RequestError};

/// Upper bounds of the latency buckets, in microseconds; the last bucket has none.
pub const BOUNDS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// The counts of one worker.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Worker {
    /// Responses by the first digit of their status.
    pub responses: [AtomicU64; 6],
    /// Times from a request to its response's head, by bucket.
    pub buckets: [AtomicU64; BOUNDS.len() + 1],
    /// The sum of these times, in microseconds.
    pub microseconds: AtomicU64,
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

/// Adds to a count that this thread alone writes.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Worker {
    /// Counts a response, and how long its head took.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        add(&self.responses[usize::from(status.as_u16() / 100).min(5)], 1);
        let microseconds = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| microseconds <= *bound).unwrap_or(BOUNDS.len());
        add(&self.buckets[bucket], 1);
        add(&self.microseconds, microseconds);
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

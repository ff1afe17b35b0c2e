//! What the tests stand on.

use std::time::{Duration, Instant};

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod ensemble;
pub(crate) mod gateway;
pub(crate) mod h2;
pub(crate) mod origin;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod schema;
pub(crate) mod service;
pub(crate) mod tls;
pub(crate) mod wasm;
pub(crate) mod zookeeper;

/// How long [`eventually`] waits. Long, because the machine may be busy; a passing test does not take it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, and panics with `what` if it does not come to hold.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

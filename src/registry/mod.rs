//! What services exist and which endpoints they have, as whole values.
//!
//! A *source* ([`zookeeper`], [`mod@file`]) owns a `watch` channel and puts its whole [`View`] there each time
//! something changed; an unchanged service keeps its `Arc`, so that the reader's work is proportional to the
//! change. Live state of endpoints is not here: see [`crate::endpoint`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

pub mod file;
pub mod layouts;
pub mod persist;
pub mod zookeeper;

/// All services of a source, by name. A name is an opaque, non-empty UTF-8 string without `/`.
pub type Services = HashMap<Arc<str>, Arc<Service>>;

/// The endpoints of one service, ordered by address, each address once. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// See above.
    pub endpoints: Vec<Endpoint>,
}

/// What a registry says of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks there.
    pub scheme: Scheme,
    /// Its share of the traffic, relative to the others of the service; 1 if the registry does not say.
    /// 0: no traffic unless every endpoint has 0.
    pub weight: u16,
    /// Where it runs; empty if unknown.
    pub zone: Arc<str>,
    /// Whatever else is known, ordered by name, each name once.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
}

/// The protocol that an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2, known beforehand (RFC 9113, section 3.3).
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

impl Scheme {
    /// Whether its connections are encrypted.
    pub fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::H2)
    }

    /// Whether it is HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Scheme::H2c | Scheme::H2)
    }
}

/// What a source knows at this moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The last good state; kept whatever happens to the source.
    pub services: Arc<Services>,
    /// How far to trust it.
    pub state: State,
}

/// How far to trust a [`View`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing has been read yet, so `services` is empty without meaning it.
    #[default]
    Starting,
    /// Read completely and followed since.
    Live,
    /// From before: from the snapshot file, or the source cannot be reached now.
    Stale,
}

/// What a source counts, for the metrics. All of them only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Sessions opened.
    pub sessions: AtomicU64,
    /// Connections lost.
    pub disconnects: AtomicU64,
    /// Complete reads.
    pub full_reads: AtomicU64,
    /// Complete reads of the slow safety check that found something the events had not told.
    pub differences: AtomicU64,
    /// Entries that could not be understood and were left out.
    pub bad_entries: AtomicU64,
    /// Views published.
    pub publishes: AtomicU64,
    /// Times the source's task had to be started again.
    pub restarts: AtomicU64,
}

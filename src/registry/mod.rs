//! What services exist and which endpoints they have, as whole values.
//!
//! A *source* ([`zookeeper`], [`mod@file`]) owns a `watch` channel and puts its whole [`View`] there each time
//! something changed; an unchanged service keeps its `Arc`, so that the reader's work is proportional to the
//! change. Live state of endpoints is not here: see [`crate::endpoint`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::config::Layout;

pub mod file;
pub mod layouts;
pub mod persist;
pub mod zookeeper;

/// All services of a source, by name. A name is an opaque, non-empty UTF-8 string without `/`.
pub type Services = HashMap<Arc<str>, Arc<Service>>;

/// One service and its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Ordered by address, each address once. May be empty.
    pub endpoints: Vec<Endpoint>,
    /// Those that vanished but may still live, in the same order; none of them is among `endpoints`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<Retained>,
    /// How they are written, where that can differ: each layout once, in order. Empty without endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<Layout>,
    /// How many more there are that the registry says are not to be used now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub out: u32,
}

/// An endpoint that vanished from its registry without anybody having taken it away. It is a way out where a service has
/// no other endpoints, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// What the registry said of it last.
    pub endpoint: Endpoint,
    /// How it vanished.
    pub vanished: Vanished,
    /// When.
    pub since: SystemTime,
    /// When it is forgotten.
    pub until: SystemTime,
}

/// How an endpoint vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vanished {
    /// A moment ago: what else vanishes with it will tell how.
    Now,
    /// With all else that its registrar's session held: the session has ended.
    Session,
    /// While the registry could not be followed, and with it all that its registrar's session held.
    Unseen,
    /// With so much else that the registry itself must have been emptied.
    Emptied,
}

impl Vanished {
    /// The rest of a sentence that begins with the endpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Vanished::Now => "vanished a moment ago",
            Vanished::Session => "vanished with its registrar's session",
            Vanished::Unseen => "vanished while the registry could not be followed",
            Vanished::Emptied => "vanished when the registry was emptied",
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
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
    /// Endpoints that vanished without having been taken away.
    pub vanished: AtomicU64,
    /// Times the registry was found emptied.
    pub emptied: AtomicU64,
}

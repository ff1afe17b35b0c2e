//! Everything a request may consult, replaced as a whole by the one writer in [`crate::publisher`].

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;

use crate::config::upstream::Settings;
use crate::config::{Config, Limits, Network};
use crate::endpoint::Endpoints;
use crate::endpoint::budget::Budget;
use crate::endpoint::standing::{Standing, Warming};
use crate::message::names::Underscores;
use crate::message::path::{DoubleSlashes, EncodedSlashes, Policy};
use crate::plugin::{Plugin, Slot, library};
use crate::registry;
use crate::routes::{Route, Routes};
use crate::tls::Connector;

/// Where the current snapshot is found.
pub type Current = Arc<ArcSwap<Snapshot>>;

/// One consistent view of the world.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts publications.
    pub version: u64,
    /// All services that are, or were since the start, by name.
    pub services: FxHashMap<Arc<str>, Arc<Service>>,
    /// What requests may ask for.
    pub routes: Arc<Routes>,
    /// What is taken from whom.
    pub rules: Arc<Rules>,
    /// The plugins that serve.
    pub plugins: Arc<Plugins>,
    /// How far each registry can be trusted, by its name.
    pub registries: Vec<(&'static str, registry::State)>,
}

impl Snapshot {
    /// Whether this is more than the emptiness of the start: plugins are loaded, and every registry was read or has
    /// lent us what it knew before.
    pub fn ready(&self) -> bool {
        self.version > 0 && self.registries.iter().all(|(_, state)| *state != registry::State::Starting)
    }
}

/// What is taken from clients, whatever they ask for.
#[derive(Debug, Default)]
pub struct Rules {
    /// How much.
    pub limits: Limits,
    /// Which paths.
    pub paths: Policy,
    /// Which field names with a `_`.
    pub underscores: Underscores,
    /// Whose word on others is believed.
    pub trusted: Vec<Network>,
    /// Whether endpoints get `Forwarded`.
    pub forwarded: bool,
}

impl Rules {
    /// As they are configured.
    pub fn new(config: &Config) -> Rules {
        use crate::config::limits;
        let paths = Policy {
            double_slashes: match config.paths.double_slashes {
                limits::DoubleSlashes::Merge => DoubleSlashes::Merge,
                limits::DoubleSlashes::Keep => DoubleSlashes::Keep,
                limits::DoubleSlashes::Refuse => DoubleSlashes::Refuse,
            },
            encoded_slashes: match config.paths.encoded_slashes {
                limits::EncodedSlashes::Refuse => EncodedSlashes::Refuse,
                limits::EncodedSlashes::Keep => EncodedSlashes::Keep,
            },
        };
        let underscores = match config.limits.underscores {
            limits::Underscores::Guard => Underscores::Guard,
            limits::Underscores::Pass => Underscores::Pass,
            limits::Underscores::Drop => Underscores::Drop,
            limits::Underscores::Refuse => Underscores::Refuse,
        };
        let trusted = config.trusted_proxies.clone();
        Rules { limits: config.limits, paths, underscores, trusted, forwarded: config.forwarded }
    }

    /// Whether this is a proxy whose word is taken.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// A service and its endpoints at one moment.
#[derive(Debug)]
pub struct Service {
    /// Its name in the registry.
    pub name: Arc<str>,
    /// What the registry said, to see whether that changed.
    pub spec: Arc<registry::Service>,
    /// Which registry; none: it is gone, and answers 503 until it is back.
    pub registry: Option<&'static str>,
    /// All its endpoints, with their live figures.
    pub all: Arc<Endpoints>,
    /// Those that requests go to: balancers and the request path know no others.
    pub endpoints: Arc<Endpoints>,
    /// What is held against endpoints, by their `Live::id`.
    pub standings: FxHashMap<u64, Standing>,
    /// So few endpoints are well that all are used.
    pub panic: bool,
    /// Which of `endpoints` get less than their share.
    pub warming: Option<Warming>,
    /// How its endpoints are treated.
    pub settings: Arc<Settings>,
    /// How many retries it may have.
    pub budget: Arc<Budget>,
    /// How its endpoints are connected to where they want TLS.
    pub connector: Arc<Connector>,
    /// The route that it has without anybody writing one.
    pub implicit: Option<Arc<Route>>,
}

/// The plugins that serve.
#[derive(Debug, Default)]
pub struct Plugins {
    /// By the slot that bindings name; none where there is no usable version.
    pub active: Vec<Option<Arc<Plugin>>>,
    /// What became of each file, by name.
    pub status: Vec<library::Status>,
}

impl Plugins {
    /// The version that serves.
    pub fn get(&self, slot: Slot) -> Option<&Arc<Plugin>> {
        self.active.get(slot)?.as_ref()
    }
}

//! Everything a request may consult, replaced as a whole by the one writer in [`crate::publisher`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use crate::config::upstream::Settings;
use crate::config::{Config, Limits, Network, Secret};
use crate::endpoint::Endpoints;
use crate::endpoint::budget::Budget;
use crate::endpoint::standing::{Standing, Warming};
use crate::fleet;
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
    /// What became of the routes in ZooKeeper.
    pub remote: Arc<Vec<fleet::routes::Status>>,
    /// How far each registry can be trusted, by its name.
    pub registries: Vec<(&'static str, registry::State)>,
    /// The names of routes and of services that have time series of their own, by number.
    pub series: [Arc<Vec<Arc<str>>>; 2],
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
    /// Which requests are told how they were decided.
    pub explain: Option<Explain>,
}

impl Secret {
    /// Whether it is this; how long that takes says nothing of how much is right.
    pub fn is(&self, given: &[u8]) -> bool {
        // Hashes have one length, and whoever does not know the secret does not know which bytes of them are right.
        let [own, given] = [self.0.as_bytes(), given].map(Sha256::digest);
        std::hint::black_box(own.iter().zip(given).fold(0, |different, (a, b)| different | (a ^ b))) == 0
    }
}

/// The header that asks how a request was decided, and what it has to say.
#[derive(Debug)]
pub struct Explain {
    /// Its name, in lower case.
    pub header: Box<str>,
    /// What it has to say.
    pub secret: Secret,
}

impl Explain {
    /// With these.
    pub fn of(header: &str, secret: &str) -> Explain {
        Explain { header: header.into(), secret: Secret(secret.into()) }
    }
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
        let explain = config.explain.as_ref().and_then(|it| Some(Explain::of(&it.header.0, &it.secret.as_ref()?.0)));
        Rules { limits: config.limits, paths, underscores, trusted, forwarded: config.forwarded, explain }
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
    /// All its endpoints, with their live figures. Where it has none, those that are retained.
    pub all: Arc<Endpoints>,
    /// Those that vanished from the registry but may still live, for want of others.
    pub retained: Arc<Endpoints>,
    /// What vanished and was then found dead, by address and the time when it vanished.
    pub given_up: Vec<(SocketAddr, SystemTime)>,
    /// Whether `all` are the retained ones.
    pub makeshift: bool,
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
    /// What its requests are counted under.
    pub series: u32,
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

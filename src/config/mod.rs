//! What an operator writes: the types of `moongate.toml`, with every default in one place.
//!
//! Nothing here is compiled, resolved or opened; that is what [`crate::routes`], [`crate::plugin`] and
//! [`crate::registry`] do with it. How a file becomes these types, and how its mistakes are told, is in [`mod@file`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

pub(crate) mod document;
pub mod access;
pub mod file;
pub mod limits;
pub mod listeners;
pub mod mistakes;
pub mod network;
pub mod plugin_use;
pub mod plugins;
pub mod tls;
pub mod upstream;
pub mod values;

pub use access::AccessLog;
pub use limits::{Limits, Paths};
pub use listeners::{Listen, Listener, Protocol, Protocols};
pub use network::Network;
pub use plugins::{
    Balancer, BalancerFailure, Canary, Capability, Filter, FilterFailure, Kind, OnFailure, Plugins, Used,
};
pub use upstream::Upstream;
pub use values::{
    ByteSize, HeaderName, HostName, MethodName, PathPrefix, Percent, PluginName, Servers, ServiceName, Time, ZnodePath,
};

/// The whole of `moongate.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where plain requests are taken: one address or a list. Empty if the file has only [`Self::listeners`].
    pub listen: Listen,
    /// Where else requests are taken, with TLS for example.
    pub listeners: Vec<Spanned<Listener>>,
    /// Where the admin API is served.
    #[serde(deserialize_with = "values::address")]
    pub admin: SocketAddr,
    /// Worker threads; 0: one for each core; at most 1024.
    #[serde(deserialize_with = "values::workers")]
    pub workers: usize,
    /// The path under which the headers `service_name` and `api_name` choose service and path; off if absent.
    pub header_routes: Option<PathPrefix>,
    /// How long running requests may take to end after SIGTERM; zero: none.
    #[serde(deserialize_with = "values::time_or_zero")]
    pub drain: Time,
    /// The socket at which a gateway that is to take this one's place asks for its listeners; none if absent.
    pub handover: Option<PathBuf>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed; those of all others are replaced.
    pub trusted_proxies: Vec<Network>,
    /// Whether endpoints are sent `Forwarded` (RFC 7239) too. One that a trusted proxy sent is continued anyway.
    pub forwarded: bool,
    /// What a client may ask of the gateway.
    pub limits: Limits,
    /// Which paths a client may ask for.
    pub paths: Paths,
    /// Where a line for each request goes; none if absent.
    pub access_log: Option<AccessLog>,
    /// Where endpoints come from.
    pub registry: Registry,
    /// Where plugins come from and what they may use.
    pub plugins: Plugins,
    /// Where this gateway stands, as endpoints name their zones; empty: nowhere in particular.
    pub zone: Arc<str>,
    /// What looks at the requests of all routes, before their own filters, and at responses after those.
    pub filters: Vec<Filter>,
    /// A route for every discovered service; off if absent.
    pub auto_routes: Option<AutoRoutes>,
    /// How endpoints are treated.
    pub upstream: Upstream,
    /// The same for single services, by name; what is left out is as in [`Config::upstream`].
    pub services: BTreeMap<ServiceName, Upstream>,
    /// What routes say when they say nothing.
    pub defaults: Defaults,
    /// Explicit routes, in the order of the file.
    pub routes: Vec<Spanned<Route>>,
    /// The file that all this is from, to tell the place of a mistake that is found later.
    #[serde(skip)]
    pub source: Source,
}

/// A file as it was read.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its path; empty: there is no file, all are defaults of ours.
    pub path: PathBuf,
    /// What it says.
    pub text: Arc<str>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Listen(vec![SocketAddr::from(([0, 0, 0, 0], 8080))]),
            listeners: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 9900)),
            workers: 0,
            header_routes: None,
            drain: Time(Duration::from_secs(30)),
            handover: None,
            trusted_proxies: Vec::new(),
            forwarded: false,
            limits: Limits::default(),
            paths: Paths::default(),
            access_log: None,
            registry: Registry::default(),
            plugins: Plugins::default(),
            zone: "".into(),
            filters: Vec::new(),
            auto_routes: None,
            upstream: Upstream::default(),
            services: BTreeMap::new(),
            defaults: Defaults::default(),
            routes: Vec::new(),
            source: Source::default(),
        }
    }
}

impl Config {
    /// How the endpoints of this service are treated.
    pub fn settings(&self, service: &ServiceName) -> upstream::Settings {
        let all = self.upstream.over(upstream::Settings::default());
        match self.services.get(service) {
            Some(one) => one.over(all),
            None => all,
        }
    }
}

/// Where endpoints come from. Both may be given: a service of the file hides ZooKeeper's of the same name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// A ZooKeeper ensemble.
    pub zookeeper: Option<ZooKeeper>,
    /// A services file.
    pub file: Option<ServicesFile>,
}

/// A ZooKeeper ensemble as a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZooKeeper {
    /// `host:port,host:port/chroot`.
    pub servers: Servers,
    /// The znode whose children are services.
    pub root: ZnodePath,
    /// How endpoints are written below it.
    pub layout: Layout,
    /// How long a silent connection counts as alive.
    pub session_timeout: Time,
    /// Where the last good routes are kept; nowhere if absent.
    pub snapshot: Option<PathBuf>,
    /// `digest:user:password`.
    pub auth: Option<Secret>,
    /// A file that holds what `auth` would.
    pub auth_file: Option<PathBuf>,
}

impl Default for ZooKeeper {
    fn default() -> Self {
        ZooKeeper {
            servers: Servers("127.0.0.1:2181".into()),
            root: ZnodePath("/services".into()),
            layout: Layout::Auto,
            session_timeout: Time(Duration::from_secs(10)),
            snapshot: None,
            auth: None,
            auth_file: None,
        }
    }
}

/// How a registry tree is laid out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Decided by what is found; for now always [`Layout::Registrator`].
    Auto,
    /// `/services/<service>/<ip:port>`.
    Registrator,
}

/// A string that is never printed.
#[derive(Clone, Deserialize)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("(secret)")
    }
}

/// A services file as a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesFile {
    /// The TOML file; a relative path starts at the configuration file's directory.
    pub path: PathBuf,
}

/// A route for every discovered service: `PREFIX<service>/rest` → `/rest`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoRoutes {
    /// What stands before the service's name.
    pub prefix: PathPrefix,
    /// Names of services that get a route; `*` stands for any run of characters.
    pub allow: Vec<String>,
    /// Names of services that get none, whatever `allow` says.
    pub deny: Vec<String>,
}

impl Default for AutoRoutes {
    fn default() -> Self {
        AutoRoutes { prefix: PathPrefix::root(), allow: vec!["*".into()], deny: Vec::new() }
    }
}

/// What a route says when it says nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// See [`Route::strip_prefix`].
    pub strip_prefix: bool,
    /// See [`Route::balancer`].
    pub balancer: Balancer,
    /// See [`Route::filters`].
    pub filters: Vec<Filter>,
    /// See [`Route::timeout`].
    pub timeout: Timeouts,
    /// See [`Route::retries`].
    #[serde(deserialize_with = "values::retries")]
    pub retries: u32,
    /// See [`Route::max_body`].
    pub max_body: ByteSize,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            strip_prefix: true,
            balancer: Balancer::named("round-robin"),
            filters: Vec::new(),
            timeout: Timeouts::default(),
            retries: 2,
            max_body: ByteSize(0),
        }
    }
}

/// From a request to a service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Matches whole path segments.
    pub path_prefix: PathPrefix,
    /// Matches the host asked for, without the port; any if absent.
    #[serde(default)]
    pub host: Option<HostName>,
    /// Any if empty.
    #[serde(default)]
    pub methods: Vec<MethodName>,
    /// Headers that must have exactly these values.
    #[serde(default)]
    pub headers: BTreeMap<HeaderName, String>,
    /// The service that takes the request.
    pub service: ServiceName,
    /// Whether the prefix is taken off before the request is sent on.
    pub strip_prefix: Option<bool>,
    /// What picks the endpoint.
    pub balancer: Option<Balancer>,
    /// What looks at the request and the response, in this order and in reverse.
    pub filters: Option<Vec<Filter>>,
    /// How long each step may take; what is left out is as in [`Defaults::timeout`].
    #[serde(default)]
    pub timeout: RouteTimeouts,
    /// How often a request that no endpoint has acted on is sent to another. 0 to 10.
    #[serde(default, deserialize_with = "values::some_retries")]
    pub retries: Option<u32>,
    /// Bytes of a request's body; more is answered with 413. 0: any number, because what is passed on piece by piece
    /// costs the gateway the same whatever its size.
    #[serde(default)]
    pub max_body: Option<ByteSize>,
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To open a connection to an endpoint.
    pub connect: Time,
    /// From the end of the request to the response's head.
    pub header: Time,
    /// Between two pieces of a body, of the request as of the response.
    pub idle: Time,
    /// From a request to the end of its response; zero: no limit, because a large download takes its time.
    #[serde(deserialize_with = "values::time_or_zero")]
    pub whole: Time,
    /// In place of [`Self::idle`] and [`Self::whole`] where silence is usual: event streams, gRPC, and connections
    /// that were upgraded. An hour: what is silent for longer than a coffee break, and has no keep-alive of its own,
    /// is mostly a client that vanished.
    pub stream: Time,
}

/// Those of [`Timeouts`] that a route has of its own.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// See [`Timeouts::connect`].
    pub connect: Option<Time>,
    /// See [`Timeouts::header`].
    pub header: Option<Time>,
    /// See [`Timeouts::idle`].
    pub idle: Option<Time>,
    /// See [`Timeouts::whole`].
    #[serde(deserialize_with = "values::some_time_or_zero")]
    pub whole: Option<Time>,
    /// See [`Timeouts::stream`].
    pub stream: Option<Time>,
}

impl RouteTimeouts {
    /// What is left out, as the defaults have it.
    pub fn over(&self, defaults: &Timeouts) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(defaults.connect),
            header: self.header.unwrap_or(defaults.header),
            idle: self.idle.unwrap_or(defaults.idle),
            whole: self.whole.unwrap_or(defaults.whole),
            stream: self.stream.unwrap_or(defaults.stream),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Time(Duration::from_secs(1)),
            header: Time(Duration::from_secs(30)),
            idle: Time(Duration::from_secs(60)),
            whole: Time(Duration::ZERO),
            stream: Time(Duration::from_secs(60 * 60)),
        }
    }
}

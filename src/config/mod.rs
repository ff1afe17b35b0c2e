//! What an operator writes: the types of `moongate.toml`, with every default in one place.
//!
//! Nothing here is compiled, resolved or opened; that is what [`crate::routes`], [`crate::plugin`] and
//! [`crate::registry`] do with it. How a file becomes these types, and how its mistakes are told, is in [`mod@file`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

pub(crate) mod document;
pub mod access;
pub mod admin;
pub mod changes;
pub mod file;
mod json;
pub mod limits;
pub mod listeners;
pub mod log;
pub mod mistakes;
pub mod network;
pub mod plugin_use;
pub mod plugins;
pub mod reference;
pub mod remote;
pub mod roots;
pub mod schema;
pub mod secret;
pub mod size;
pub mod tls;
pub mod traces;
pub mod upstream;
pub mod values;

pub use access::AccessLog;
pub use admin::{Explain, Metrics};
pub use limits::{Limits, Paths};
pub use listeners::{Listen, Listener, Protocol, Protocols};
pub use log::Log;
pub use network::Network;
pub use plugins::{
    Balancer, BalancerFailure, Canary, Capability, Filter, FilterFailure, Kind, OnFailure, Plugins, Used,
};
pub use roots::{Layout, Root, Roots};
pub use secret::Secret;
pub use size::ByteSize;
pub use traces::Tracing;
pub use upstream::Upstream;
pub use values::{
    HeaderName, HostName, MethodName, PathPrefix, Percent, PluginName, Retention, Servers, ServiceName, Time, ZnodePath,
};

/// The whole of `moongate.toml`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where plain requests are taken: one address or a list. Empty if the file has only [`Self::listeners`].
    pub listen: Listen,
    /// Where else requests are taken, with TLS for example.
    #[schemars(with = "Vec<Listener>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Spanned<Listener>>,
    /// Where the admin API is served.
    #[serde(deserialize_with = "values::address")]
    #[schemars(with = "values::Address")]
    pub admin: SocketAddr,
    /// What whoever asks the admin API has to show (`Authorization: Bearer TOKEN`), at least 16 bytes; needed where
    /// [`Self::admin`] is no loopback address.
    pub admin_token: Option<Secret>,
    /// A file that holds it.
    pub admin_token_file: Option<PathBuf>,
    /// Requests that are told how they were decided; none if absent.
    pub explain: Option<Explain>,
    /// How many names may become labels of metrics.
    pub metrics: Metrics,
    /// Worker threads; 0: one for each core; at most 1024.
    #[serde(deserialize_with = "values::workers")]
    #[schemars(range(max = 1024))]
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
    /// What the gateway says of itself.
    pub log: Log,
    /// Which requests are traced; none if absent.
    pub tracing: Option<Tracing>,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, Upstream>,
    /// What routes say when they say nothing.
    pub defaults: Defaults,
    /// Explicit routes, in the order of the file.
    #[schemars(with = "Vec<Route>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
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
            admin_token: None,
            admin_token_file: None,
            explain: None,
            metrics: Metrics::default(),
            workers: 0,
            header_routes: None,
            drain: Time(Duration::from_secs(30)),
            handover: None,
            trusted_proxies: Vec::new(),
            forwarded: false,
            limits: Limits::default(),
            paths: Paths::default(),
            access_log: None,
            log: Log::default(),
            tracing: None,
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
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// A ZooKeeper ensemble.
    pub zookeeper: Option<ZooKeeper>,
    /// A services file.
    pub file: Option<ServicesFile>,
}

/// A ZooKeeper ensemble as a registry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ZooKeeper {
    /// `host:port,host:port/chroot`.
    pub servers: Servers,
    /// The znodes whose children are services.
    pub root: Roots,
    /// How endpoints are written below those that do not say so themselves.
    pub layout: Layout,
    /// How long a silent connection counts as alive.
    pub session_timeout: Time,
    /// Where the last good routes are kept; nowhere if absent.
    pub snapshot: Option<PathBuf>,
    /// `digest:user:password`, or `sasl:user:password` for SASL with DIGEST-MD5.
    pub auth: Option<Secret>,
    /// A file that holds what `auth` would.
    pub auth_file: Option<PathBuf>,
    /// How the servers are connected to; in the open if absent.
    pub tls: Option<tls::EndpointTls>,
    /// Whether a server will do that has lost its ensemble, and so may show old news.
    pub read_only: bool,
    /// How long endpoints are a service's second tier that vanished without having been taken away.
    pub retain: Retention,
    /// The same for single services.
    pub retain_services: BTreeMap<ServiceName, Retention>,
    /// The znode whose children are routes; none if absent.
    pub routes: Option<ZnodePath>,
    /// The znode whose children say which version of a plugin serves; none if absent.
    pub plugins: Option<ZnodePath>,
}

impl Default for ZooKeeper {
    fn default() -> Self {
        ZooKeeper {
            servers: Servers("127.0.0.1:2181".into()),
            root: Roots::default(),
            layout: Layout::Auto,
            session_timeout: Time(Duration::from_secs(10)),
            snapshot: None,
            auth: None,
            auth_file: None,
            tls: None,
            read_only: false,
            retain: Retention(Duration::from_secs(600)),
            retain_services: BTreeMap::new(),
            routes: None,
            plugins: None,
        }
    }
}

impl ZooKeeper {
    /// Which znode of the ensemble this one is, including the chroot: what a file about it belongs to.
    pub fn place(&self, znode: &str) -> String {
        let chroot = self.servers.0.find('/').map_or("", |at| &self.servers.0[at..]);
        format!("{}{}", chroot.trim_end_matches('/'), znode.trim_end_matches('/'))
    }
}

/// A services file as a registry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicesFile {
    /// The TOML file; a relative path starts at the configuration file's directory.
    pub path: PathBuf,
}

/// A route for every discovered service: `PREFIX<service>/rest` → `/rest`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
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
    #[schemars(range(max = 10))]
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
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Matches whole path segments.
    pub path_prefix: PathPrefix,
    /// Matches the host asked for, without the port; any if absent.
    #[serde(default)]
    pub host: Option<HostName>,
    /// Methods that it takes; any if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodName>,
    /// Headers that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
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
    #[serde(default, skip_serializing_if = "RouteTimeouts::is_empty")]
    pub timeout: RouteTimeouts,
    /// How often a request that no endpoint has acted on is sent to another. 0 to 10.
    #[serde(default, deserialize_with = "values::some_retries")]
    #[schemars(range(max = 10))]
    pub retries: Option<u32>,
    /// Bytes of a request's body; more is answered with 413. 0: any number, because what is passed on piece by piece
    /// costs the gateway the same whatever its size.
    #[serde(default)]
    pub max_body: Option<ByteSize>,
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
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
    /// Whether nothing is said.
    fn is_empty(&self) -> bool {
        let RouteTimeouts { connect, header, idle, whole, stream } = self;
        [connect, header, idle, whole, stream].iter().all(|it| it.is_none())
    }

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

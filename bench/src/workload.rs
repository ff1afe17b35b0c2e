//! What is measured: for each workload its load, and who takes part.

use crate::load::{Ask, Pace, Window};
use crate::origin;
use crate::peers::{Kind, Port, Shape};

/// Somebody who takes part.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// Its name within the workload.
    pub(crate) label: String,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// Whose cost its own is divided by, by label.
    pub(crate) against: String,
}

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) enum Measure {
    /// Requests.
    Load(Load),
    /// Connections that have had one request each: their memory.
    Idle(usize),
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// As fast as they are answered.
    Full,
    /// So many a second.
    Fixed(f64),
    /// Half of what each contender can do, found out before.
    Half,
}

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) ask: Ask,
    pub(crate) port: Port,
    pub(crate) rate: Rate,
    pub(crate) connections: usize,
    /// Streams of each connection, where it is HTTP/2.
    pub(crate) streams: usize,
    /// So many new connections in each window, in place of connections that stay.
    pub(crate) fresh: Option<u64>,
}

impl Load {
    pub(crate) fn pace(&self, full: f64) -> Pace {
        match self.rate {
            Rate::Full => Pace::Closed,
            Rate::Fixed(rate) => Pace::Open(rate),
            Rate::Half => Pace::Open(full / 2.0),
        }
    }

    pub(crate) fn window(&self, seconds: f64) -> Window {
        self.fresh.map_or(Window::Seconds(seconds), Window::Requests)
    }
}

/// Something to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) measure: Measure,
    pub(crate) contenders: Vec<Contender>,
}

fn contender(label: impl Into<String>, kind: Kind, shape: Shape, against: &str) -> Contender {
    Contender { label: label.into(), kind, shape, against: against.into() }
}

/// All peers as they come.
fn everybody() -> Vec<Contender> {
    Kind::ALL.into_iter().map(|it| contender(it.name(), it, Shape::default(), "moongate")).collect()
}

fn without(kinds: &[Kind]) -> Vec<Contender> {
    everybody().into_iter().filter(|it| !kinds.contains(&it.kind)).collect()
}

fn plugins() -> Vec<Contender> {
    let moongate = |label, balancer, filters| {
        contender(label, Kind::Moongate, Shape { balancer, filters, ..Shape::default() }, "round-robin")
    };
    vec![
        moongate("native", "native", 0),
        moongate("round-robin", "round-robin", 0),
        moongate("random", "random", 0),
        moongate("weighted", "weighted", 0),
        moongate("one-filter", "round-robin", 1),
        moongate("three-filters", "round-robin", 3),
        contender("envoy", Kind::Envoy, Shape::default(), "envoy"),
        contender("envoy-filter", Kind::Envoy, Shape { wasm: true, ..Shape::default() }, "envoy"),
    ]
}

/// What writing down what happens costs, one by one.
fn records() -> Vec<Contender> {
    let moongate =
        |label, log, traced| contender(label, Kind::Moongate, Shape { log, traced, ..Shape::default() }, "nothing");
    vec![
        moongate("nothing", None, None),
        moongate("log-text", Some("text"), None),
        moongate("log-json", Some("json"), None),
        moongate("traced-0%", None, Some("0%")),
        moongate("traced-1%", None, Some("1%")),
        moongate("traced-100%", None, Some("100%")),
        moongate("all", Some("json"), Some("1%")),
    ]
}

fn workers() -> Vec<Contender> {
    let of = |kind: Kind| {
        [1, 2].map(|workers| {
            let shape = Shape { workers, ..Shape::default() };
            contender(format!("{kind}-{workers}"), kind, shape, &format!("{kind}-1"))
        })
    };
    [Kind::Moongate, Kind::Nginx, Kind::Haproxy, Kind::Envoy].into_iter().flat_map(of).collect()
}

fn get(path: &str, expected: usize) -> Load {
    let ask = Ask { path: path.into(), paths: 1, upload: 0, expected: expected as u64 };
    Load { ask, port: Port::Plain, rate: Rate::Full, connections: 64, streams: 1, fresh: None }
}

fn small() -> Load {
    get("/bench/item?id=1", origin::SMALL.len())
}

/// Requests to all routes at random, as many as the contender has.
fn spread() -> Load {
    get("/bench/r{}/item?id=1", origin::SMALL.len())
}

/// Every workload, in the order of the tables. Those about which nothing is said are for the benchmark's own tests.
pub(crate) fn all() -> Vec<Workload> {
    let tls = || Load { port: Port::Tls, ..small() };
    let plain_only = [Kind::Demo, Kind::Floor];
    // 262,144 connections in 120 s are what the kernel's tracking holds, so these are counted and not timed.
    let fresh = |load: Load, count| Load { connections: 16, fresh: Some(count), ..load };
    let bodies = |path, length| Load { connections: 8, ..get(path, length) };
    let upload = {
        let mut load = bodies("/bench/upload", origin::SMALL.len());
        load.ask.upload = 1 << 20;
        load
    };
    let workload = |name, about, load, contenders| Workload { name, about, measure: Measure::Load(load), contenders };
    let mut all = vec![
        workload("small", "GET of 100 bytes, 64 connections kept alive", small(), everybody()),
        workload("one", "the same, one connection", Load { connections: 1, ..small() }, everybody()),
        workload("body-64k", "responses of 64 KiB, 8 connections", bodies("/bench/64k", 1 << 16), everybody()),
        workload("body-1m", "responses of 1 MiB, 8 connections", bodies("/bench/1m", 1 << 20), everybody()),
        workload("upload-1m", "uploads of 1 MiB, 8 connections", upload, everybody()),
        workload("fresh", "a new connection for each small GET, 16 at once", fresh(small(), 2000), everybody()),
        workload(
            "http2",
            "small GETs over HTTP/2 with prior knowledge, 4 connections with 16 streams each",
            Load { port: Port::Http2, connections: 4, streams: 16, ..small() },
            without(&plain_only),
        ),
        workload("tls", "small GETs over TLS, 64 connections kept alive", tls(), without(&plain_only)),
        workload(
            "tls-fresh",
            "a new TLS connection, with the whole handshake, for each small GET, 16 at once",
            fresh(tls(), 1000),
            without(&plain_only),
        ),
        Workload {
            name: "idle",
            about: "memory of 5,000 connections that have had one request each",
            measure: Measure::Idle(5000),
            contenders: everybody(),
        },
        workload(
            "rate-10k",
            "10,000 small GETs a second at random moments",
            Load { rate: Rate::Fixed(10_000.0), ..small() },
            without(&[Kind::Demo, Kind::Caddy]),
        ),
        workload(
            "rate-20k",
            "20,000 small GETs a second at random moments",
            Load { rate: Rate::Fixed(20_000.0), ..small() },
            without(&[Kind::Demo, Kind::Caddy]),
        ),
        workload(
            "rate-half",
            "small GETs at random moments, half of what each can do",
            Load { rate: Rate::Half, ..small() },
            everybody(),
        ),
        workload("plugins", "small GETs through balancers and filters, 64 connections", small(), plugins()),
        workload("records", "small GETs with access log and traces, 64 connections", small(), records()),
    ];
    let shape = |routes| Shape { routes, ..Shape::default() };
    all.push(growing("routes", "growth with explicit routes", &[10, 100, 1000, 10_000], shape, spread()));
    // One endpoint each, the same for all: what grows is the gateway's own, and its connections.
    let shape = |services| Shape { services, endpoints: 1, ..Shape::default() };
    all.push(growing("services", "growth with services", &[10, 100, 1000, 5000], shape, spread()));
    let shape = |endpoints| Shape { endpoints, ..Shape::default() };
    let counts = [2, 10, 100, 1000, 10_000];
    // nginx goes through the connections it keeps one by one: with 10,000 endpoints a request takes it 20 times as long, and
    // to warm up longer than anybody waits for an answer.
    let mut endpoints = growing("endpoints", "growth with a service's endpoints", &counts, shape, small());
    endpoints.contenders.retain(|it| it.label != "nginx-10000");
    endpoints.contenders.push(contender("nginx-1000", Kind::Nginx, shape(1000), "nginx-2"));
    all.push(endpoints);
    all.push(workload("workers", "growth with workers", small(), workers()));
    let floor = |path| {
        let contenders = vec![contender("floor", Kind::Floor, Shape::default(), "floor")];
        workload("", "", get(path, origin::SMALL.len()), contenders)
    };
    all.push(Workload { name: "test-status", ..floor("/bench/broken") });
    all.push(Workload { name: "test-length", ..floor("/bench/64k") });
    all
}

/// A workload whose contenders are Moongate in several sizes, and nginx in the first and the last of them: what more
/// connections cost the kernel, and more memory the processor, others pay as well.
fn growing(
    name: &'static str,
    about: &'static str,
    of: &[usize],
    shape: impl Fn(usize) -> Shape,
    load: Load,
) -> Workload {
    let least = of.iter().min().copied().unwrap_or_default();
    let most = of.iter().max().copied().unwrap_or_default();
    let grown = |before: &str, kind, size: &usize| {
        contender(format!("{before}-{size}"), kind, shape(*size), &format!("{before}-{least}"))
    };
    let mut contenders: Vec<Contender> = of.iter().map(|size| grown(name, Kind::Moongate, size)).collect();
    contenders.extend([least, most].iter().map(|size| grown("nginx", Kind::Nginx, size)));
    Workload { name, about, measure: Measure::Load(load), contenders }
}

//! The proxies that can be measured: where their programs are, and how each is configured for the same job: round robin
//! over the origin's endpoints, connections kept alive on both sides, what belongs to a connection taken off, and the
//! client's address added. Logs are off, but for Moongate's, where it has them to turn on.

mod caddy;
mod demo;
mod envoy;
mod floor;
mod haproxy;
mod moongate;
mod nginx;
mod pingora;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::certificates::Certificates;
use crate::process::{Process, free_address};

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// This project's.
    Moongate,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
    /// Caddy.
    Caddy,
    /// A small program on Cloudflare's library.
    Pingora,
    /// What Moongate replaces: Node, express and http-proxy.
    Demo,
    /// As good as nothing, see [`crate::floor`].
    Floor,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Plain,
    Http2,
    Tls,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] =
        [Kind::Moongate, Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Caddy, Kind::Pingora, Kind::Demo, Kind::Floor];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Moongate => "moongate",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Envoy => "envoy",
            Kind::Caddy => "caddy",
            Kind::Pingora => "pingora",
            Kind::Demo => "demo",
            Kind::Floor => "floor",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Kind> {
        let names = || Kind::ALL.map(Kind::name).join(", ");
        Kind::ALL
            .into_iter()
            .find(|it| it.name() == name)
            .with_context(|| format!("no peer is called {name}; there are {}", names()))
    }

    /// Whether it can be spoken to in this way.
    pub(crate) fn offers(self, port: Port) -> bool {
        match self {
            Kind::Demo | Kind::Floor => port == Port::Plain,
            _ => true,
        }
    }

    /// Its program, if this machine has one.
    fn find(self, moongate: &Path) -> Option<PathBuf> {
        let target = target();
        let ours = target.join("bench");
        let mut places: Vec<PathBuf> = match self {
            Kind::Moongate => return Some(moongate.to_owned()).filter(|it| it.is_file()),
            Kind::Floor => return std::env::current_exe().ok(),
            Kind::Pingora => return Some(ours.join("pingora/release/pingora-peer")).filter(|it| it.is_file()),
            Kind::Demo if !ours.join("demo/node_modules/http-proxy").is_dir() => return None,
            Kind::Demo | Kind::Nginx | Kind::Haproxy => Vec::new(),
            Kind::Envoy | Kind::Caddy => vec![ours.join("peers"), target.join("conformance/peers")],
        };
        let program = if self == Kind::Demo { "node" } else { self.name() };
        places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        // Debian keeps servers where only root's PATH looks.
        places.push("/usr/sbin".into());
        places.into_iter().map(|it| it.join(program)).find(|it| it.is_file())
    }

    /// How to get it.
    fn install(self) -> &'static str {
        match self {
            Kind::Moongate => "cargo build --release, or --moongate PATH",
            _ => "bench/peers",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The workspace's target directory, where peers are installed.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// How a proxy is set up, beyond what all have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Threads that serve.
    pub(crate) workers: usize,
    /// Explicit routes, `/bench/rN`; 0: one for `/bench`.
    pub(crate) routes: usize,
    /// Services, reached by `/bench/rN`; 0: one.
    pub(crate) services: usize,
    /// Endpoints of the service.
    pub(crate) endpoints: usize,
    /// Moongate's balancer.
    pub(crate) balancer: &'static str,
    /// Moongate's filters: how many that set a header.
    pub(crate) filters: usize,
    /// Envoy's proxy-wasm filter that sets a header.
    pub(crate) wasm: bool,
    /// The format of Moongate's access log; none: it writes none.
    pub(crate) log: Option<&'static str>,
    /// The share of requests that Moongate traces, and sends to the origin as its collector; none: it knows no traces.
    pub(crate) traced: Option<&'static str>,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            workers: 1,
            routes: 0,
            services: 0,
            endpoints: 3,
            balancer: "round-robin",
            filters: 0,
            wasm: false,
            log: Some("text"),
            traced: None,
        }
    }
}

/// What a configuration is written from.
pub(crate) struct Layout<'a> {
    /// Where its files go; it is the working directory, too.
    pub(crate) dir: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) certificates: &'a Certificates,
    /// Endpoints, as many as the shape has.
    pub(crate) origins: &'a [SocketAddr],
    pub(crate) shape: &'a Shape,
    pub(crate) plain: SocketAddr,
    /// The same as `plain` where one port can do both.
    pub(crate) http2: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Layout<'_> {
    /// Writes a file, and tells its name as an argument.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String> {
        let file = self.dir.join(name);
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file.to_str().context("a path in UTF-8")?.to_owned())
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) plain: SocketAddr,
    http2: SocketAddr,
    tls: SocketAddr,
    /// What it was asked for and cannot do, in words.
    pub(crate) notes: Vec<String>,
}

impl Running {
    pub(crate) fn at(&self, port: Port) -> SocketAddr {
        match port {
            Port::Plain => self.plain,
            Port::Http2 => self.http2,
            Port::Tls => self.tls,
        }
    }
}

/// What all peers are started with.
pub(crate) struct Site<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) certificates: &'a Certificates,
    pub(crate) moongate: &'a Path,
    pub(crate) core: &'a str,
    pub(crate) nice: i32,
    /// In front of the program, as a tool that counts.
    pub(crate) under: &'a [String],
}

/// Why a peer is not measured.
#[derive(Debug)]
pub(crate) enum Missing {
    /// Not on this machine, or it cannot do this: a line that says so.
    Skipped(String),
    /// It is there and should have run.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Missing {
    fn from(error: anyhow::Error) -> Missing {
        Missing::Failed(error)
    }
}

/// Starts a peer, and waits until it listens.
pub(crate) fn start(
    kind: Kind,
    label: &str,
    site: &Site<'_>,
    origins: &[SocketAddr],
    shape: &Shape,
) -> Result<Running, Missing> {
    let Some(program) = kind.find(site.moongate) else {
        return Err(Missing::Skipped(format!("{kind} is not on this machine ({})", kind.install())));
    };
    let dir = site.dir.join(label);
    std::fs::create_dir_all(&dir).context("creating a directory")?;
    let (plain, tls, admin) = (free_address(), free_address(), free_address());
    let separate = matches!(kind, Kind::Nginx | Kind::Pingora);
    let http2 = if separate { free_address() } else { plain };
    let certificates = site.certificates;
    let layout = Layout { dir: &dir, program: &program, certificates, origins, shape, plain, http2, tls, admin };
    let mut notes = Vec::new();
    let arguments = match kind {
        Kind::Moongate => moongate::write(&layout, &mut notes)?,
        Kind::Nginx => nginx::write(&layout)?,
        Kind::Haproxy => haproxy::write(&layout)?,
        Kind::Envoy => envoy::write(&layout)?,
        Kind::Caddy => caddy::write(&layout)?,
        Kind::Pingora => pingora::write(&layout)?,
        Kind::Demo => demo::write(&layout)?,
        Kind::Floor => floor::write(&layout),
    };
    let mut command = site.under.to_vec();
    command.push(program.to_str().context("a path in UTF-8")?.to_owned());
    command.extend(arguments);
    let (first, rest) = command.split_first().context("a program")?;
    let mut process = Process::start(label, site.core, site.nice, &dir, Path::new(first), rest)?;
    let mut addresses = vec![plain];
    addresses.extend(kind.offers(Port::Http2).then_some(http2));
    addresses.extend(kind.offers(Port::Tls).then_some(tls));
    let limit = if site.under.is_empty() { Duration::from_secs(60) } else { Duration::from_secs(600) };
    process.serves(&addresses, limit)?;
    Ok(Running { process, plain, http2, tls, notes })
}

/// A name that can be missing.
pub(crate) fn skip<T>(why: impl Into<String>) -> Result<T, Missing> {
    Err(Missing::Skipped(why.into()))
}

/// Runs a command to its end, and tells what it said where it failed.
pub(crate) fn succeed(command: &mut std::process::Command) -> Result<String> {
    let ran = command.output().with_context(|| format!("running {command:?}"))?;
    if !ran.status.success() {
        bail!("{command:?}: {}\n{}", ran.status, String::from_utf8_lossy(&ran.stderr));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// A peer's program, if this machine has one.
pub(crate) fn program(kind: Kind, moongate: &Path) -> Option<PathBuf> {
    kind.find(moongate)
}

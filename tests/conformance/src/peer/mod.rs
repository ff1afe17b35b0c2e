//! The gateways that can be judged: where their program is, what they do not offer, and how one is started with the
//! configuration that all of them get, each in its own words.
//!
//! The configuration: `/admin` goes to an endpoint of its own, everything else to the main one. One second for a
//! request's head, two for an idle connection, for an endpoint's answer, and between two pieces of a body; heads up to
//! 16 KiB with at most 100 fields, targets up to 8 KiB; at most 64 requests in flight, 600 connections on a listener and
//! 400 from one address. `X-Forwarded-*` is believed from 127.0.0.2 only.

mod caddy;
mod envoy;
mod haproxy;
mod moongate;
mod nginx;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::lane::Origins;

/// The client address whose forwarding fields are believed.
pub(crate) const TRUSTED: &str = "127.0.0.2";

/// A gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
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
}

/// What a case needs that not every gateway has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// HTTP/2 to an endpoint.
    H2Endpoint,
    /// WebSocket over HTTP/2 (RFC 8441).
    ExtendedConnect,
    /// Endpoints that keep failing are left out.
    Outlier,
    /// Endpoints are asked for their health.
    HealthCheck,
    /// A limit of requests in flight.
    InFlight,
    /// A limit of connections on a listener.
    ListenerConnections,
    /// A limit of connections from one address.
    ClientConnections,
    /// A limit of how many fields a head has.
    FieldCount,
    /// A limit for a request's target alone.
    TargetSize,
    /// HTTP/1.1 and HTTP/2 with prior knowledge on one port.
    OnePort,
}

impl Kind {
    /// All of them; this project's first.
    pub const ALL: [Kind; 5] = [Kind::Moongate, Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Caddy];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Moongate => "moongate",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Envoy => "envoy",
            Kind::Caddy => "caddy",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Its program, if this machine has one. Moongate's is only found where one was built in this workspace.
    pub fn find(self) -> Option<PathBuf> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> = match self {
            Kind::Moongate => vec![target.join("release"), target.join("debug")],
            Kind::Nginx | Kind::Haproxy | Kind::Envoy | Kind::Caddy => vec![target.join("conformance/peers")],
        };
        if self != Kind::Moongate {
            places.extend(std::env::split_paths(&path));
            places.push("/usr/sbin".into());
        }
        places.into_iter().map(|it| it.join(self.name())).find(|it| it.is_file())
    }

    /// Why it cannot be asked for that; `None` where it can.
    pub(crate) fn lacks(self, need: Need) -> Option<&'static str> {
        match self {
            Kind::Moongate => None,
            Kind::Envoy => envoy::lacks(need),
            Kind::Nginx => nginx::lacks(need),
            Kind::Haproxy => haproxy::lacks(need),
            Kind::Caddy => caddy::lacks(need),
        }
    }

    fn command(self, binary: &Path, layout: &Layout<'_>) -> io::Result<Command> {
        let mut command = Command::new(binary);
        let arguments = match self {
            Kind::Moongate => moongate::write(layout)?,
            Kind::Nginx => nginx::write(layout)?,
            Kind::Haproxy => haproxy::write(layout)?,
            Kind::Envoy => envoy::write(layout)?,
            Kind::Caddy => caddy::write(layout)?,
        };
        command.args(arguments).current_dir(layout.dir).env("HOME", layout.dir);
        if self == Kind::Caddy {
            // Its HTTP library takes extended CONNECT only where it is told so.
            command.env("GODEBUG", "http2xconnect=1");
        }
        Ok(command)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a gateway listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    /// HTTP/1.1; HTTP/2 with prior knowledge as well where one port can do both.
    pub(crate) plain: SocketAddr,
    /// HTTP/2 with prior knowledge.
    pub(crate) h2: SocketAddr,
    /// TLS with the certificates of `a.test` and `b.test`.
    pub(crate) tls: SocketAddr,
    /// The same, and clients must show a certificate.
    pub(crate) mtls: SocketAddr,
}

impl Listening {
    fn pick(kind: Kind) -> Listening {
        let plain = free_port();
        let h2 = if kind.lacks(Need::OnePort).is_some() { free_port() } else { plain };
        Listening { plain, h2, tls: free_port(), mtls: free_port() }
    }
}

/// What a configuration is written from.
pub(crate) struct Layout<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) certificates: &'a Path,
    pub(crate) at: Listening,
    pub(crate) origins: &'a Origins,
}

impl Layout<'_> {
    fn write(&self, name: &str, text: &str) -> io::Result<String> {
        let file = self.dir.join(name);
        std::fs::write(&file, text)?;
        Ok(file.to_str().expect("a path in UTF-8").to_owned())
    }

    /// A certificate's file, or a key's.
    fn certificate(&self, name: &str) -> String {
        self.certificates.join(name).to_str().expect("a path in UTF-8").to_owned()
    }
}

/// Below the ports that the system gives to outgoing connections, so that none of those takes it before the gateway.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 12_000 + (std::process::id() % 1_000) as u16 * 20;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed) - 10_000) % 22_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A running gateway; it ends when this is dropped.
pub(crate) struct Process {
    pub(crate) at: Listening,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in `dir`, and waits until it takes connections.
    pub(crate) fn start(
        kind: Kind,
        binary: &Path,
        dir: &Path,
        certificates: &Path,
        origins: &Origins,
    ) -> Result<Process, String> {
        let mut last = String::new();
        // Another program may have taken one of the ports.
        for _ in 0..3 {
            let at = Listening::pick(kind);
            let layout = Layout { dir, certificates, at, origins };
            match Process::spawn(kind, binary, &layout) {
                Ok(process) => return Ok(process),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn spawn(kind: Kind, binary: &Path, layout: &Layout<'_>) -> Result<Process, String> {
        let log = layout.dir.join("log");
        let file = std::fs::File::create(&log).map_err(|error| format!("creating {}: {error}", log.display()))?;
        let second = file.try_clone().map_err(|error| error.to_string())?;
        let mut command = kind.command(binary, layout).map_err(|error| format!("configuring {kind}: {error}"))?;
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let child = command.spawn().map_err(|error| format!("starting {}: {error}", binary.display()))?;
        let mut process = Process { at: layout.at, child, log };
        let until = Instant::now() + Duration::from_secs(30);
        let open = |at: SocketAddr| TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok();
        let Listening { plain, h2, tls, mtls } = layout.at;
        while ![plain, h2, tls, mtls].into_iter().all(open) {
            if !process.running() || Instant::now() > until {
                return Err(format!("{kind} does not serve:\n{}", process.log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    pub(crate) fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it said.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]).into_owned()
    }

    /// Bytes of memory it holds now; `None` where the system does not tell.
    pub(crate) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }

    /// Processor time it used so far.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let mut after = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let (user, system): (u64, u64) = (after.next()?.parse().ok()?, after.next()?.parse().ok()?);
        // Linux counts in hundredths of a second wherever it tells programs.
        Some(Duration::from_millis((user + system) * 10))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

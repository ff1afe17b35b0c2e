//! A gateway with its own endpoints, which one case at a time has to itself.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::h2origin::H2Origin;
use crate::origin::Origin;
use crate::peer::{Kind, Listening, Process};

/// How long a peer may take to notice that its pooled connections were closed between two cases.
const SETTLE: Duration = Duration::from_millis(20);

/// The endpoints behind one gateway.
pub(crate) struct Origins {
    /// Of `/`.
    pub(crate) main: Origin,
    /// Of `/admin`, which is guarded.
    pub(crate) admin: Origin,
    /// Of `/pair`, beside one that refuses connections.
    pub(crate) second: Origin,
    /// Of `/flaky`: the case lets the first fail, and whoever fails five times is left out for ten seconds.
    pub(crate) flaky: [Origin; 2],
    /// Of `/checked`: asked for `/health` every half second.
    pub(crate) checked: [Origin; 2],
    /// Of `/two`: two endpoints that both work.
    pub(crate) two: [Origin; 2],
    /// Of `/h2c` and `/grpc`: HTTP/2 without TLS.
    pub(crate) h2: H2Origin,
    /// Of `/tls`: a certificate of the authority that the gateway trusts.
    pub(crate) tls: Origin,
    /// Of `/tls-wrong`: a certificate of another authority.
    pub(crate) tls_wrong: Origin,
    /// Of `/dead`, and the first of `/pair`: a port that is taken but refuses connections.
    pub(crate) dead: SocketAddr,
    _dead: Socket,
}

impl Origins {
    fn start(certificates: &Certificates) -> Origins {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("binding the dead endpoint's port");
        let dead = socket.local_addr().ok().and_then(|it| it.as_socket()).expect("the dead endpoint's address");
        let plain = || Origin::start(None);
        Origins {
            main: plain(),
            admin: plain(),
            second: plain(),
            flaky: [plain(), plain()],
            checked: [plain(), plain()],
            two: [plain(), plain()],
            h2: H2Origin::start(),
            tls: Origin::start(Some(certificates.origin(true))),
            tls_wrong: Origin::start(Some(certificates.origin(false))),
            dead,
            _dead: socket,
        }
    }

    /// All that speak HTTP/1.1.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Origin> {
        let single = [&self.main, &self.admin, &self.second, &self.tls, &self.tls_wrong];
        single.into_iter().chain(&self.flaky).chain(&self.checked).chain(&self.two)
    }
}

/// The gateway under test, as a case sees it.
pub(crate) struct Lane {
    pub(crate) kind: Kind,
    pub(crate) origins: Origins,
    pub(crate) certificates: Arc<Certificates>,
    process: Mutex<Process>,
    binary: PathBuf,
    certificate_dir: PathBuf,
    dir: TempDir,
}

impl Lane {
    pub(crate) fn start(
        kind: Kind,
        binary: &Path,
        certificate_dir: &Path,
        certificates: &Arc<Certificates>,
    ) -> Result<Lane, String> {
        let dir = TempDir::new().map_err(|error| format!("a directory for {kind}: {error}"))?;
        let origins = Origins::start(certificates);
        let process = Process::start(kind, binary, dir.path(), certificate_dir, &origins)?;
        Ok(Lane {
            kind,
            origins,
            certificates: certificates.clone(),
            process: Mutex::new(process),
            binary: binary.to_owned(),
            certificate_dir: certificate_dir.to_owned(),
            dir,
        })
    }

    /// Before a case: nothing of the last one is left. `fresh` asks for a new process.
    pub(crate) fn prepare(&self, fresh: bool) -> Result<(), String> {
        // What the last case left on its way shall arrive before its journal is closed.
        std::thread::sleep(SETTLE);
        self.origins.all().for_each(Origin::reset);
        self.origins.h2.reset();
        let mut process = self.process.lock().unwrap();
        if fresh || !process.running() {
            *process = Process::start(self.kind, &self.binary, self.dir.path(), &self.certificate_dir, &self.origins)?;
        }
        drop(process);
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// What the gateway said at its end, if it has ended.
    pub(crate) fn obituary(&self) -> Option<String> {
        let mut process = self.process.lock().unwrap();
        (!process.running()).then(|| process.log())
    }

    /// Bytes of memory the gateway holds; 0 where the system does not tell.
    pub(crate) fn memory(&self) -> u64 {
        self.process.lock().unwrap().memory().unwrap_or(0)
    }

    /// Processor time the gateway used so far; none where the system does not tell.
    pub(crate) fn cpu(&self) -> Duration {
        self.process.lock().unwrap().cpu().unwrap_or_default()
    }

    fn at(&self) -> Listening {
        self.process.lock().unwrap().at
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.at().plain
    }

    pub(crate) fn h2(&self) -> SocketAddr {
        self.at().h2
    }

    pub(crate) fn tls(&self) -> SocketAddr {
        self.at().tls
    }

    pub(crate) fn mtls(&self) -> SocketAddr {
        self.at().mtls
    }

    /// A connection to the plain port.
    pub(crate) fn client(&self) -> Result<Client, String> {
        Client::open(self.plain())
    }

    /// The same from another address of this machine.
    pub(crate) fn client_from(&self, from: &str) -> Result<Client, String> {
        Client::open_from(self.plain(), Some(from.parse::<IpAddr>().expect("an address")))
    }

    /// What the main endpoint got.
    pub(crate) fn main(&self) -> &Origin {
        &self.origins.main
    }
}

//! Which sockets are listened on: those that another gateway hands over, and new ones for the rest.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::BACKLOG;
use super::accept;
use super::listener::Listener;
use crate::config::{self, Limits};
use crate::tls::Acceptor;

/// The listening sockets of one address.
#[derive(Debug)]
pub struct Group {
    /// As it was asked for; the port may be 0.
    pub configured: SocketAddr,
    /// At least one; not blocking.
    pub sockets: Vec<TcpListener>,
}

/// Everything a gateway listens on.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For requests; each group has one or more sockets for each worker, in turn.
    pub groups: Vec<Group>,
    /// For the admin API.
    pub admin: Option<Group>,
}

impl Sockets {
    /// The sockets for these addresses: from `received` what is there, else new ones.
    ///
    /// One socket a worker on the same address: the kernel spreads the connections, and no worker takes from another's
    /// queue. All that was received for an address is used, because each such socket has a queue that fills.
    ///
    /// New ones have their addresses, but take no connections before [`Spread::listen`]: until somebody accepts them,
    /// clients would wait, or lose them should this process not get that far, while another gateway may listen too.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub fn open(addresses: &[SocketAddr], admin: SocketAddr, workers: usize, mut received: Sockets) -> Result<Sockets> {
        let mut groups = Vec::new();
        for address in addresses {
            let before = received.groups.iter().position(|group| group.is_for(*address));
            let before = before.map(|at| received.groups.remove(at).sockets).unwrap_or_default();
            let sockets = fill(*address, before, workers).with_context(|| format!("listening on {address}"))?;
            groups.push(Group { configured: *address, sockets });
        }
        let before = received.admin.filter(|group| group.is_for(admin)).map(|group| group.sockets).unwrap_or_default();
        // No other process can listen beside it: of two gateways on one machine, only one is to answer here.
        let sockets = if before.is_empty() { bind(admin, false).map(|it| vec![it]) } else { Ok(before) };
        let sockets = sockets.with_context(|| format!("listening on {admin}"))?;
        Ok(Sockets { groups, admin: Some(Group { configured: admin, sockets }) })
    }

    /// The same sockets once more, to be handed over.
    ///
    /// # Errors
    /// If there are no file descriptors left.
    pub fn again(&self) -> io::Result<Sockets> {
        let again = |group: &Group| -> io::Result<Group> {
            let sockets = group.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
            Ok(Group { configured: group.configured, sockets })
        };
        let groups = self.groups.iter().map(again).collect::<io::Result<_>>()?;
        Ok(Sockets { groups, admin: self.admin.as_ref().map(again).transpose()? })
    }
}

impl Group {
    /// Where it is.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn bound(&self) -> io::Result<SocketAddr> {
        self.sockets.first().map_or_else(|| Err(io::ErrorKind::NotFound.into()), TcpListener::local_addr)
    }

    /// Whether it is what is meant by this address: any port means the one that it got the last time.
    fn is_for(&self, address: SocketAddr) -> bool {
        if address.port() == 0 { self.configured == address } else { self.bound().is_ok_and(|it| it == address) }
    }
}

/// At least as many sockets as there are workers.
fn fill(address: SocketAddr, mut sockets: Vec<TcpListener>, workers: usize) -> io::Result<Vec<TcpListener>> {
    if sockets.is_empty() {
        sockets.push(bind(address, true)?);
    }
    // Port 0 means any, but the same for all.
    let bound = sockets[0].local_addr()?;
    while sockets.len() < workers {
        sockets.push(bind(bound, true)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sockets with what is known of their listeners.
pub struct Spread {
    /// In the order in which they were wanted.
    pub listeners: Vec<Arc<Listener>>,
    /// For each worker its sockets.
    pub of_workers: Vec<Vec<accept::Socket>>,
    /// For the admin API.
    pub admin: TcpListener,
}

impl Spread {
    /// Spreads sockets over workers. `tls` has for each listener what it shows.
    ///
    /// # Errors
    /// If the system does not say where a socket is.
    pub fn new(
        sockets: Sockets,
        wanted: &[config::Listener],
        tls: &[Option<Arc<Acceptor>>],
        limits: &Limits,
        workers: usize,
    ) -> Result<Spread> {
        let mut of_workers: Vec<Vec<accept::Socket>> = (0..workers).map(|_| Vec::new()).collect();
        let mut listeners = Vec::new();
        for ((group, wanted), tls) in sockets.groups.into_iter().zip(wanted).zip(tls) {
            let bound = group.bound().context("reading the bound address")?;
            let listener = Listener::new(group.configured, bound, wanted.protocols.clone(), tls.clone(), limits);
            let listener = Arc::new(listener);
            for (socket, worker) in group.sockets.into_iter().zip((0..workers).cycle()) {
                of_workers[worker].push(accept::Socket { listener: listener.clone(), socket });
            }
            listeners.push(listener);
        }
        let admin = sockets.admin.and_then(|group| group.sockets.into_iter().next()).context("no admin socket")?;
        Ok(Spread { listeners, of_workers, admin })
    }

    /// From now on connections come.
    ///
    /// # Errors
    /// If another process was faster.
    pub fn listen(&self) -> Result<()> {
        let sockets = self.of_workers.iter().flatten().map(|it| &it.socket);
        for socket in sockets.chain([&self.admin]) {
            // Once more for those that were received does no harm.
            SockRef::from(socket).listen(BACKLOG).context("listening")?;
        }
        Ok(())
    }
}

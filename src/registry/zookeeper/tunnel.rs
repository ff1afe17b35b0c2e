//! TLS to ZooKeeper's servers.
//!
//! The client has it, too, but with a second cryptographic library in the binary and other rules for certificates. So
//! it speaks in the open to a socket on loopback, and what it says is encrypted there. Nobody but this user's processes,
//! who could read the key as well, may use the socket.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::config::Protocol;
use crate::config::tls::EndpointTls;
use crate::tls::Connector;

/// How long a server may take to accept a connection and shake hands. The client waits no longer for its session.
const CONNECT: Duration = Duration::from_secs(8);

/// How long a failed accept rests: mostly there are no descriptors left.
const REST: Duration = Duration::from_millis(100);

/// The ways to all servers of an ensemble, for one session. They end when this is dropped.
pub(super) struct Tunnel {
    /// What the client is to connect to: as many sockets, and the same chroot.
    pub(super) servers: String,
    _ways: JoinSet<()>,
}

impl Tunnel {
    /// Reads the files of `tls`: with each session anew, so that certificates can be rotated.
    ///
    /// # Errors
    /// A file is bad, or there is no socket.
    pub(super) async fn open(servers: &str, tls: &EndpointTls) -> Result<Tunnel> {
        let (hosts, chroot) = servers.find('/').map_or((servers, ""), |at| servers.split_at(at));
        let (mut ways, mut local) = (JoinSet::new(), Vec::new());
        for server in hosts.split(',') {
            let (server, name) = named(server);
            let tls = EndpointTls { server_name: tls.server_name.clone().or_else(|| name.parse().ok()), ..tls.clone() };
            let loaded = spawn_blocking(move || Connector::load("registry.zookeeper", &tls)).await?;
            let (connector, _) = loaded.map_err(|refused| anyhow::anyhow!("reading the files for TLS: {refused}"))?;
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening a socket for TLS")?;
            local.push(socket.local_addr().context("opening a socket for TLS")?.to_string());
            ways.spawn(serve(socket, server, connector));
        }
        Ok(Tunnel { servers: local.join(",") + chroot, _ways: ways })
    }
}

/// A server with its port, and its name without.
fn named(server: &str) -> (String, &str) {
    match server.rsplit_once(':') {
        // The colon is the address's own.
        Some((host, _)) if !server.ends_with(']') => (server.to_owned(), host.trim_matches(['[', ']'])),
        _ => (format!("{server}:2181"), server.trim_matches(['[', ']'])),
    }
}

async fn serve(socket: TcpListener, server: String, connector: Arc<Connector>) {
    let mut passing = JoinSet::new();
    loop {
        while passing.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((inner, peer)) => {
                let (server, connector) = (server.clone(), connector.clone());
                passing.spawn(async move {
                    if let Err(error) = pass(inner, peer, &server, &connector).await {
                        tracing::debug!(server, error = format!("{error:#}"), "TLS to ZooKeeper");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection for TLS to ZooKeeper, retrying");
                sleep(REST).await;
            }
        }
    }
}

/// Passes on what both sides say until one of them ends it.
async fn pass(mut inner: TcpStream, peer: SocketAddr, server: &str, connector: &Connector) -> Result<()> {
    let here = inner.local_addr()?;
    if !spawn_blocking(move || is_ours(peer, here)).await? {
        tracing::warn!(%peer, "a stranger connected to the socket for TLS to ZooKeeper");
        bail!("{peer} is not of this user");
    }
    let connecting = async {
        let outer = TcpStream::connect(server).await.context("connecting")?;
        outer.set_nodelay(true)?;
        let address = outer.peer_addr()?.ip();
        connector.connect(outer, address, Protocol::Http1).await.context("shaking hands")
    };
    let mut outer = timeout(CONNECT, connecting).await.context("connecting: no answer")??;
    inner.set_nodelay(true)?;
    copy_bidirectional(&mut inner, &mut outer).await?;
    Ok(())
}

/// Whether the other end of a connection within this machine is a socket of this user. Blocks.
fn is_ours(peer: SocketAddr, here: SocketAddr) -> bool {
    let (SocketAddr::V4(peer), SocketAddr::V4(here)) = (peer, here) else { return false };
    let Ok(us) = std::fs::metadata("/proc/self").map(|it| it.uid()) else { return false };
    let Ok(table) = std::fs::read_to_string("/proc/self/net/tcp") else { return false };
    owner(&table, peer, here) == Some(us)
}

/// The user whose socket is at `from` and connected to `to`, by the kernel's table.
fn owner(table: &str, from: SocketAddrV4, to: SocketAddrV4) -> Option<u32> {
    // In the order of the machine's memory, as the kernel writes it.
    let written = |it: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(it.ip().octets()), it.port());
    let (from, to) = (written(from), written(to));
    table.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let is = columns.next()? == from && columns.next()? == to;
        is.then(|| columns.nth(4)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_port_and_a_name() {
        for (server, with_port, name) in [
            ("zk1", "zk1:2181", "zk1"),
            ("zk1:2281", "zk1:2281", "zk1"),
            ("10.0.0.1:2281", "10.0.0.1:2281", "10.0.0.1"),
            ("[::1]", "[::1]:2181", "::1"),
            ("[::1]:2281", "[::1]:2281", "::1"),
        ] {
            assert_eq!(named(server), (with_port.to_owned(), name));
        }
    }

    #[test]
    fn the_owner_of_a_connection_is_in_the_kernels_table() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        assert!(is_ours(peer, server.local_addr().unwrap()));
        drop(client);
        let others = [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 0100007F:C001 0100007F:C002 01 00000000:00000000 00:00000000 00000000  1234        0 99 1",
        ]
        .join("\n");
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        assert_eq!(owner(&others, at(0xC001), at(0xC002)), Some(1234));
        assert_eq!(owner(&others, at(0xC002), at(0xC001)), None);
        assert_eq!(owner("", at(1), at(2)), None);
    }
}

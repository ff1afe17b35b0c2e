//! A connection's bytes, with TLS or without.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Speak;
use crate::wire;

/// How connections are opened.
pub(super) struct Connector {
    to: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    pub(super) fn new(to: SocketAddr, speak: &Speak) -> Result<Connector> {
        let Speak::Tls { authority } = speak else { return Ok(Connector { to, tls: None }) };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).context("reading the authority")?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A new connection is to cost the whole handshake.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector { to, tls: Some((Arc::new(config), ServerName::try_from("bench.test")?)) })
    }

    pub(super) fn open(&self) -> io::Result<Socket> {
        // On the loopback this takes no longer than the system calls.
        let socket = TcpStream::connect(self.to)?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = match &self.tls {
            None => None,
            Some((config, name)) => {
                let tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
                Some(Box::new(tls))
            }
        };
        Ok(Socket { socket, tls })
    }
}

/// An open connection.
pub(super) struct Socket {
    pub(super) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Socket {
    /// Takes as much as goes in; what TLS has taken it keeps until [`Socket::flush`] gets it out.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => wire::send(&mut self.socket, bytes),
            Some(tls) => tls.writer().write(bytes),
        }
    }

    /// Writes what TLS has; `true`: all is out.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                other => other?,
            };
        }
        Ok(true)
    }

    /// Reads what is there; `None`: nothing more now, 0: the other side has ended. Called again after a full buffer.
    pub(super) fn receive(&mut self, into: &mut [u8], again: bool) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return wire::receive(&mut self.socket, into) };
        if !again {
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Some(0)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            };
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        let read = match tls.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            other => Some(other?),
        };
        // The handshake's own answers, and acknowledgements.
        self.flush()?;
        Ok(read)
    }

    /// Whether a read may leave something behind that the kernel does not know of.
    pub(super) fn keeps(&self) -> bool {
        self.tls.is_some()
    }
}

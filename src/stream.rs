//! A connection's bytes, in the open or encrypted.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection to a client or an endpoint.
#[derive(Debug)]
pub enum Stream {
    /// In the open.
    Plain(TcpStream),
    /// Encrypted, after the handshake. In a box, because it is large, and most connections are plain.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Whether a connection leads back to its own socket: where nobody listens on a port of those that are given out, the
/// kernel may give that very port to whoever connects to it, and make it its own peer.
pub fn is_own_peer(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

impl Stream {
    /// A connection in the open.
    pub fn plain(stream: TcpStream) -> Stream {
        Stream::Plain(stream)
    }

    /// An encrypted connection.
    pub fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Stream {
        Stream::Tls(Box::new(stream.into()))
    }

    /// Whether nobody on the way can read it.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Whether small pieces are sent at once: what is written are whole messages, so there is nothing to wait for.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.tcp().set_nodelay(nodelay)
    }

    /// Makes the end of the connection one that the other side sees fail, not end: with RST (`SO_LINGER` of zero), and
    /// where it is encrypted without the alert that would close it (RFC 8446, 6.1). It ends when it is dropped.
    pub fn reset(&self) {
        // If it does not work, the connection is gone already.
        let _ = self.tcp().set_zero_linger();
    }

    /// Whether nothing has come, not even the end, as far as the runtime has been told. If not it has to be read to know; of
    /// what is encrypted some may have been read and not decrypted.
    pub fn is_quiet(&self) -> bool {
        let quiet = |stream: &TcpStream| match stream.try_read(&mut []) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        matches!(self, Stream::Plain(stream) if quiet(stream))
    }

    /// Writes what goes in at once, of a connection in the open.
    ///
    /// # Errors
    /// As of the connection; `WouldBlock` also for one that is encrypted.
    pub fn try_write(&self, from: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.try_write(from),
            Stream::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, from),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(context, from),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, from),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(context, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What the other side sees after `end`.
    async fn seen(end: impl AsyncFnOnce(Stream)) -> io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let mut server = Stream::plain(server);
        assert!(!server.is_tls() && server.peer_addr().unwrap() == peer);
        server.write_all(b"half").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        end(server).await;
        client.read(&mut [0; 1]).await
    }

    #[tokio::test]
    async fn a_reset_cannot_be_taken_for_an_end() {
        assert_eq!(seen(async |stream| stream.reset()).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(seen(async |mut stream| stream.shutdown().await.unwrap()).await.unwrap(), 0);
    }
}

//! From a socket to a connection that can be served: accepting, counting, and the TLS handshake.
//!
//! The loop waits for nobody: whatever a client can draw out happens in the connection's own task.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::BACKLOG;
use super::drain::{Drain, Open};
use super::listener::{Listener, Place};
use crate::config::{Limits, Protocol};
use crate::stream::Stream;

/// How long to wait after a failed accept: usually there are no file descriptors left, and that passes as
/// connections close.
const RETRY: Duration = Duration::from_millis(50);

/// Connections between two glances at whether to stop, where another one is always waiting.
const GLANCE: u32 = 32;

/// A listening socket of one worker, and the listener that it is part of.
pub struct Socket {
    /// The listener.
    pub listener: Arc<Listener>,
    /// The socket; not blocking.
    pub socket: TcpListener,
}

/// A connection that can be served.
pub struct Accepted {
    /// The connection; its handshake is over.
    pub stream: Stream,
    /// The client's address.
    pub peer: SocketAddr,
    /// What is spoken; none: either protocol, which the first bytes tell.
    pub protocol: Option<Protocol>,
    /// Where it is counted while it lasts.
    pub open: Open,
    /// Its place among the connections of the listener.
    pub place: Place,
}

/// Accepts from `socket` until `stop`, within what `limits` says at that moment, and gives each connection to `serve` in a
/// task of its own. What the kernel had accepted until then is served too.
pub async fn accept<T, F, S>(
    socket: Socket,
    drain: Rc<Drain>,
    mut stop: watch::Receiver<Option<T>>,
    limits: impl Fn() -> Limits,
    serve: S,
) where
    F: Future<Output = ()> + 'static,
    S: Fn(Accepted) -> F + Clone + 'static,
{
    let Socket { listener, socket } = socket;
    // A proxy writes whole messages, so there is nothing to wait for. Connections have it from the socket that they come to.
    let _ = SockRef::from(&socket).set_tcp_nodelay(true);
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, listener = %listener.bound, "registering a listener"),
    };
    let begin = |stream: TcpStream, peer: SocketAddr| {
        let limits = limits();
        let Some(place) = listener.admit(peer.ip(), &limits) else {
            // Without the state that the kernel would keep of it for a minute.
            return drop(stream.set_zero_linger());
        };
        let (open, serve) = (drain.open(), serve.clone());
        // In a box, because the runtime moves it three times when it begins, and as often when it ends.
        drop(tokio::task::spawn_local(Box::pin(async move {
            if let Some(accepted) = establish(stream, peer, open, place, limits.header_timeout.0).await {
                serve(accepted).await;
            }
        })));
    };
    let mut stopping = pin!(async { drop(stop.wait_for(Option::is_some).await) });
    let mut taken = 0;
    loop {
        let next = poll_fn(|context| {
            // Where there is always another connection the end has to be looked for, too, but not for each of them.
            taken = (taken + 1) % GLANCE;
            if taken == 0 && stopping.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            match socket.poll_accept(context) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending => stopping.as_mut().poll(context).map(|()| None),
            }
        });
        let Some(accepted) = next.await else { break };
        match accepted {
            Ok((stream, peer)) => begin(stream, peer),
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                tracing::warn!(%error, listener = %listener.bound, "accepting a connection, retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    // What the kernel has accepted for this socket would be reset when it is closed, so it is taken as well. No more
    // than can have waited: if another process holds the socket too, it takes the rest, and clients go on coming.
    let Ok(socket) = socket.into_std() else { return };
    for _ in 0..=BACKLOG {
        match socket.accept() {
            Ok((stream, peer)) => {
                let adopted = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = adopted {
                    begin(stream, peer);
                }
            }
            Err(error) if is_of_one(&error) => {}
            Err(_) => return,
        }
    }
}

/// Whether it is about a connection that was gone before it was accepted, and not about accepting.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The handshake, where there is one, which may take so long. None: it came to nothing.
async fn establish(stream: TcpStream, peer: SocketAddr, open: Open, place: Place, limit: Duration) -> Option<Accepted> {
    let listener = place.listener();
    let Some(tls) = &listener.tls else {
        let protocol = listener.only_protocol();
        return Some(Accepted { stream: Stream::plain(stream), peer, protocol, open, place });
    };
    // Where the client came to; a listener on all addresses does not know.
    let local = stream.local_addr().unwrap_or(listener.bound);
    let failed = match Box::pin(tokio::time::timeout(limit, tls.accept(stream, local))).await {
        Ok(Ok((stream, protocol))) => return Some(Accepted { stream, peer, protocol: Some(protocol), open, place }),
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    listener.failed_handshakes.fetch_add(1, Relaxed);
    tracing::debug!(client = %peer, error = %failed, "TLS handshake failed");
    None
}

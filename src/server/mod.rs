//! Client connections: worker threads that accept and serve them, and the way they end.

pub mod drain;
pub mod http1;
pub mod http2;
mod stream;
pub mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for a worker. Above this the kernel turns them away, which under such a load is kinder.
const BACKLOG: i32 = 1024;

/// One listening socket a worker on the same address: the kernel spreads the connections, and no worker takes from
/// another's queue.
///
/// # Errors
/// If the address cannot be had.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind(address)?;
    // Port 0 means any, but the same for all.
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(bind(bound)?);
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

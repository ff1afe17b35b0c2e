//! Client connections: worker threads that accept and serve them, and the way they end.

pub mod accept;
pub mod drain;
pub mod handover;
pub mod http1;
pub mod http2;
mod respond;
pub mod listener;
pub mod sockets;
mod stream;
pub mod worker;

/// Connections that wait for a worker. Above this the kernel turns them away, which under such a load is kinder.
const BACKLOG: i32 = 1024;

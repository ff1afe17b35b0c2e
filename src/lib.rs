//! Moongate: an HTTP gateway whose balancers and filters are WebAssembly plugins and whose services live in
//! ZooKeeper. `ARCHITECTURE.md` is the map; the modules stand here in the order in which they may use each other.

pub mod config;
pub mod logging;
pub mod watch;
pub mod timer;
pub mod scan;
pub mod access;
pub mod trace;
pub mod stream;
pub mod tls;
pub mod registry;
pub mod fleet;
pub mod endpoint;
pub mod message;
pub mod http1;
pub mod http2;
pub mod plugin;
pub mod series;
pub mod routes;
pub mod snapshot;
pub mod events;
pub mod health;
pub mod publisher;
pub mod error;
pub mod proxy;
pub mod server;
pub mod admin;
pub mod gateway;
pub mod demo;
pub mod cli;

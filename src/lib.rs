//! Moongate: an HTTP gateway whose balancers and filters are WebAssembly plugins and whose services live in
//! ZooKeeper. `ARCHITECTURE.md` is the map; the modules stand here in the order in which they may use each other.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod endpoint;
pub mod error;
pub mod gateway;
pub mod plugin;
pub mod proxy;
pub mod publisher;
pub mod registry;
pub mod routes;
pub mod server;
pub mod snapshot;
pub mod watch;

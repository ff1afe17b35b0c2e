//! The one integration binary: real sockets, a real ZooKeeper, real `.wasm` files.

mod config;
mod fuzz;
mod handover;
mod http;
mod outage;
mod plugins;
mod registry;
mod scenarios;
mod support;
mod tidy;
mod tls;

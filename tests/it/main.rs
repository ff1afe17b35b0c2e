//! The one integration binary: real sockets, a real ZooKeeper, real `.wasm` files.

mod config;
mod http;
mod outage;
mod plugins;
mod registry;
mod resilience;
mod rolling;
mod scenarios;
mod support;
mod tidy;

//! The one integration binary: real sockets, a real ZooKeeper, real `.wasm` files.

mod config;
mod registry;
mod support;

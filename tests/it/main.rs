//! The one integration binary: real sockets, a real ZooKeeper, real `.wasm` files.

mod access;
mod bodies;
mod clients;
mod config;
mod fuzz;
mod grpc;
mod handover;
mod health;
mod http;
mod http2;
mod http2_abuse;
mod lifecycle;
mod outage;
mod plugins;
mod registry;
mod resilience;
mod rolling;
mod scenarios;
mod streams;
mod support;
mod tidy;
mod tls;
mod tls_endpoints;
mod tools;
mod versions;

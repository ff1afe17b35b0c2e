//! Write Moongate plugins in Rust: implement [`Balancer`], [`RequestFilter`] or [`ResponseFilter`] for a type and
//! name it in [`balancer!`], [`request_filter!`], [`response_filter!`] or [`filter!`].
//!
//! The gateway uses one instance of a plugin for many routes and services. This crate hides that: each use is a
//! value of your type, made by `configure`, and sees only its own calls.
//!
//! ```
//! use moongate_plugin::{Balancer, Config, Endpoint, Turn};
//!
//! struct First;
//!
//! impl Balancer for First {
//!     fn configure(config: Config<'_>) -> Result<Self, String> {
//!         config.none().map(|()| First)
//!     }
//!     fn update(&mut self, _endpoints: Vec<Endpoint>) -> Result<(), String> {
//!         Ok(())
//!     }
//!     fn pick(&mut self, turn: Turn) -> Option<u32> {
//!         Some(turn.attempt)
//!     }
//! }
//!
//! moongate_plugin::balancer!(First);
//! ```
//!
//! Build it with `cargo build --release --target wasm32-unknown-unknown` as a `cdylib`, and copy the `.wasm` into
//! the gateway's plugin directory. A panic is logged with its place, costs that call, and the instance is rebuilt.

#[doc(hidden)]
pub mod bindings;
mod choice;
mod config;
#[doc(hidden)]
pub mod export;
mod host;
mod json;

pub use bindings::imports::moongate::plugin::filter_types::{Reply, Verdict};
pub use bindings::imports::moongate::plugin::types::Endpoint;
pub use choice::{Turn, eligible};
pub use config::Config;
pub use host::{Level, Request, Response, endpoints, keys, log, now, random, shared, unix_ms};

/// Decides which endpoint takes a request. Export with [`balancer!`].
pub trait Balancer: Sized {
    /// One use of the balancer. The error is shown to the operator, and that use does not go live.
    fn configure(config: Config<'_>) -> Result<Self, String>;
    /// The service's endpoints, before the first `pick` and after every change. May be empty.
    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String>;
    /// The index of the endpoint to use, in the list of the last `update`; none: the gateway picks, round robin.
    fn pick(&mut self, turn: Turn) -> Option<u32>;
}

/// Sees each request of a route before an endpoint is picked. Export with [`request_filter!`] or [`filter!`].
pub trait RequestFilter: Sized {
    /// One use of the filter. The error is shown to the operator, and that use does not go live.
    fn configure(config: Config<'_>) -> Result<Self, String>;
    /// Reads and rewrites the request, or answers it.
    fn on_request(&mut self, request: Request) -> Verdict;
}

/// Sees each response of a route before the client does. Export with [`response_filter!`], or with [`filter!`]
/// together with [`RequestFilter`], whose `configure` is then the only one that is called.
pub trait ResponseFilter: Sized {
    /// One use of the filter. The error is shown to the operator, and that use does not go live.
    fn configure(config: Config<'_>) -> Result<Self, String>;
    /// Reads and rewrites the response, or answers in its place. The request is as it was sent on; writing to it
    /// does nothing.
    fn on_response(&mut self, request: Request, response: Response) -> Verdict;
}

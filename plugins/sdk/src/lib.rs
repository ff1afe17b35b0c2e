//! Write Moongate plugins in Rust: implement [`Balancer`], [`RequestFilter`], [`ResponseFilter`], [`RequestBodyFilter`]
//! or [`ResponseBodyFilter`] for a type, as many of them as it is, and name type and traits in [`plugin!`].
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
//! moongate_plugin::plugin!(First: Balancer);
//! ```
//!
//! Build it with `cargo build --release --target wasm32-unknown-unknown` as a `cdylib`, and copy the `.wasm` into
//! the gateway's plugin directory. A panic is logged with its place, costs that call, and the instance is rebuilt.

#[doc(hidden)]
pub mod bindings;
mod by;
mod choice;
mod config;
mod draw;
#[doc(hidden)]
pub mod export;
pub mod hash;
mod host;
pub mod http;
pub mod json;
mod size;
#[doc(hidden)]
pub mod testing;

pub use bindings::imports::moongate::plugin::filter_types::{BodyVerdict, Reply, Verdict};
pub use bindings::imports::moongate::plugin::types::Endpoint;
pub use by::is_token;
pub use choice::{Turn, eligible};
pub use config::Config;
pub use draw::Draw;
pub use host::{
    Level, Request, Response, Show, Step, endpoints, keys, log, now, random, shared, skip, store, unix_ms, zone,
};
pub use size::Size;

/// Decides which endpoint takes a request.
pub trait Balancer: Sized {
    /// One use of the balancer. The error is shown to the operator, and that use does not go live.
    fn configure(config: Config<'_>) -> Result<Self, String>;
    /// The service's endpoints, before the first `pick` and after every change. May be empty.
    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String>;
    /// The index of the endpoint to use, in the list of the last `update`; none: the gateway picks, round robin.
    fn pick(&mut self, turn: Turn) -> Option<u32>;
}

/// Sees each request of a route before an endpoint is picked.
pub trait RequestFilter: Sized {
    /// One use of the filter. The error is shown to the operator, and that use does not go live.
    fn configure(config: Config<'_>) -> Result<Self, String>;
    /// Reads and rewrites the request, or answers it.
    fn on_request(&mut self, request: Request) -> Verdict;
}

/// Sees each response of a route before the client does; of a [`Balancer`], those of the endpoints that it picked.
///
/// `configure` is only called of the trait that is named first in [`plugin!`]; the others keep what is given here.
pub trait ResponseFilter: Sized {
    /// One use of the filter. The error is shown to the operator, and that use does not go live.
    fn configure(_config: Config<'_>) -> Result<Self, String> {
        unreachable!("the trait that is named first in `plugin!` configures")
    }
    /// Reads and rewrites the response, or answers in its place. The request is as it was sent on; writing to it
    /// does nothing.
    fn on_response(&mut self, request: Request, response: Response) -> Verdict;
}

/// Sees the bodies of requests that it asked for with [`Request::show_body`].
pub trait RequestBodyFilter: Sized {
    /// A piece of a body, or all of it. `last`: nothing comes after this piece, which may be empty.
    fn on_request_body(&mut self, request: Request, piece: Vec<u8>, last: bool) -> BodyVerdict;
}

/// Sees the bodies of responses that it asked for with [`Response::show_body`].
pub trait ResponseBodyFilter: Sized {
    /// A piece of a body, or all of it. `last`: nothing comes after this piece, which may be empty.
    fn on_response_body(&mut self, request: Request, response: Response, piece: Vec<u8>, last: bool) -> BodyVerdict;
}

//! The black-box suite: starts a gateway, talks to it over real sockets, and judges both ends, the client's and the
//! endpoint's. It knows nothing of the gateway's code, so that the same cases judge nginx, HAProxy, Envoy and Caddy.

mod bytes;
mod hpack;
mod h2;
mod stream;
mod client;
mod h2client;
mod origin;
mod lint;
mod h2origin;
mod certificates;
mod peer;
mod lane;
mod case;
mod cases;
mod run;
mod report;

pub use peer::Kind;
pub use report::Report;
pub use run::{Options, Run, available, list};

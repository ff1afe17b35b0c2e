//! HTTP/2 (RFC 9113) for clients and endpoints alike: the `h2` crate's messages as ours, bodies with flow control, and what
//! a client may cost on one connection.
//!
//! `h2` knows frames, HPACK, stream states and windows, and refuses what breaks the protocol. What obeys it and only means
//! to keep us busy is found by [`guard`], which sees the frames go by. What a message means is decided elsewhere, in
//! [`crate::proxy`].

pub mod convert;
pub mod duplex;
pub mod guard;
pub mod incoming;
pub mod respond;

pub use duplex::Duplex;
pub use guard::Guard;
pub use incoming::Incoming;
pub use respond::Responder;

/// What every client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

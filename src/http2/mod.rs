//! HTTP/2 (RFC 9113) for clients and endpoints.
//!
//! Clients' connections are our own from the frame to the head: what comes is decoded right into the text that the request
//! path reads, what goes is written right from it, and what all streams have to say goes at once. To endpoints the `h2` crate
//! speaks. What obeys the protocol and only means to keep us busy is found by [`guard`]. What a message means is decided
//! elsewhere, in [`crate::proxy`].
//!
//! | A client's connection | |
//! |---|---|
//! | [`connection`] | the task: reads, polls streams, writes |
//! | [`receive`] | what each frame does |
//! | [`session`], [`answer`] | states and windows, shared with streams; what is done on a stream |
//! | [`exchange`] | one stream, for whoever answers it |
//! | [`frame`], [`hpack`] | bytes |
//! | [`request`], [`response`] | heads |
//! | [`outbox`], [`bells`] | what is to be written; which streams can go on |
//!
//! For endpoints there are [`convert`], [`incoming`] and [`duplex`]; [`respond`] is for both.

pub mod answer;
pub mod bells;
pub mod connection;
pub mod convert;
pub mod duplex;
pub mod exchange;
pub mod frame;
pub mod guard;
pub mod hpack;
pub mod incoming;
pub mod outbox;
pub mod receive;
pub mod request;
pub mod respond;
pub mod response;
pub mod session;

pub use connection::{Begun, Connection};
pub use duplex::Duplex;
pub use exchange::{Exchange, Passage};
pub use incoming::Incoming;
pub use receive::Fault;

/// What every client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

//! HTTP/1.1 on the wire (RFC 9112), as a recipient that trusts nobody reads it and as a careful sender writes it; for
//! clients and for endpoints alike.
//!
//! Whatever two readers could understand in two ways is refused here, before anything acts on it: bare line feeds, folded
//! lines, white space before colons, lengths said twice or in another way than in digits, transfer codings other than
//! one plain `chunked`. What a message means is decided elsewhere, in [`crate::proxy`].

pub mod body;
pub mod chunked;
pub mod connection;
pub mod encode;
pub mod head;
pub mod turn;

pub use body::{Incoming, Shared};
pub use connection::Connection;
pub use head::{Framing, HeadError, Limits};

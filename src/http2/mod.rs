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

/// Whether what has arrived is the beginning of the preface; none while it could still become it.
pub fn is_preface(bytes: &[u8]) -> Option<bool> {
    let length = bytes.len().min(PREFACE.len());
    // The first four bytes tell it from every HTTP/1 request line: there is no method `PRI`.
    match bytes[..length] == PREFACE[..length] {
        false => Some(false),
        true if length >= 4 => Some(true),
        true => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_told_from_requests() {
        assert_eq!(is_preface(b""), None);
        assert_eq!(is_preface(b"PR"), None);
        assert_eq!(is_preface(b"PRI "), Some(true));
        assert_eq!(is_preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"), Some(true));
        assert_eq!(is_preface(b"PRO"), Some(false));
        assert_eq!(is_preface(b"GET /"), Some(false));
        assert_eq!(is_preface(b"PRI * HTTP/1.1\r\n"), Some(false));
    }
}

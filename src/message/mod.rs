//! Messages as the request path sees them, whatever protocol they came over: the head of a request, the head of a
//! response, and their header fields.
//!
//! Nothing here reads or writes a socket; that is what [`crate::http1`] and [`crate::http2`] do.

use std::io;

use bytes::Bytes;
use http::{Method, StatusCode};

pub mod authority;
pub mod fields;
pub mod forwarded;
pub mod known;
pub mod names;
pub mod path;

pub use fields::{Field, Fields, Name};
pub use known::Known;

/// What a message came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and any later 1.x.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As `Via` and logs name it (RFC 9110, section 7.6.3).
    pub fn name(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        }
    }
}

/// A path with its query.
#[derive(Clone, Debug)]
pub struct Target {
    text: String,
    /// Where the path begins: what stands before was taken off.
    start: usize,
    /// Where the path ends.
    path: usize,
}

impl Target {
    /// Of text that begins with `/`; what comes after the first `?` is the query.
    pub fn new(text: String) -> Target {
        let path = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        Target { text, start: 0, path }
    }

    /// Of text that may be anything; none if it cannot be sent as it is: it does not begin with `/`, or has a byte that
    /// would end the request line or begin a fragment.
    pub fn sendable(text: String) -> Option<Target> {
        let fine = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        fine.then(|| Target::new(text))
    }

    /// None: what is left where one was taken from.
    fn nothing() -> Target {
        Target { text: String::new(), start: 0, path: 0 }
    }

    /// Both, as they are sent.
    pub fn as_str(&self) -> &str {
        &self.text[self.start..]
    }

    /// Both, as they were before [`Target::cut`] if that has left a path that was there.
    pub fn whole(&self) -> &str {
        &self.text
    }

    /// The same, taken out.
    pub fn into_whole(self) -> String {
        self.text
    }

    /// The path, which begins with `/`.
    pub fn path(&self) -> &str {
        &self.text[self.start..self.path]
    }

    /// Takes so many bytes off the path's beginning; what is left begins with `/` again. Gives what it was where
    /// [`Target::whole`] cannot tell any more.
    pub fn cut(&mut self, bytes: usize) -> Option<String> {
        if bytes == 0 || self.path().as_bytes().get(bytes) == Some(&b'/') {
            self.start += bytes;
            return None;
        }
        let rest = &self.text[(self.start + bytes).min(self.path)..];
        let new = Target::new(format!("/{rest}"));
        Some(std::mem::replace(self, new).text)
    }

    /// What stands behind the `?`; none if there is no `?`.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path + 1..)
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// To what, as the client wrote it until [`crate::proxy`] has made it what routes match.
    pub target: Target,
    /// What the client speaks.
    pub version: Version,
    /// Its fields. The authority asked for is in `host`, wherever the client wrote it.
    pub fields: Fields,
    /// Another protocol that the client wants to go on with, such as `websocket`: by `Upgrade`, or by the `:protocol` of
    /// an extended CONNECT (RFC 8441).
    pub upgrade: Option<Box<str>>,
}

impl RequestHead {
    /// A request for this.
    pub fn new(method: Method, target: &str) -> RequestHead {
        RequestHead {
            method,
            target: Target::new(target.to_owned()),
            version: Version::Http11,
            fields: Fields::default(),
            upgrade: None,
        }
    }

    /// What is left where one was taken from. Nothing is allocated for it.
    pub fn nothing() -> RequestHead {
        let (version, fields) = (Version::Http11, Fields::default());
        RequestHead { method: Method::GET, target: Target::nothing(), version, fields, upgrade: None }
    }

    /// The host asked for, with its port if the client wrote one.
    pub fn authority(&self) -> Option<&str> {
        self.fields.text(Known::Host)
    }

    /// Whether it is a call of gRPC, or of its variety for browsers.
    pub fn is_grpc(&self) -> bool {
        behind_type(&self.fields, b"application/grpc").is_some()
    }

    /// Whether sending it twice does no more than sending it once (RFC 9110, section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(&self.method)
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// How it went.
    pub status: StatusCode,
    /// What the sender speaks.
    pub version: Version,
    /// Its fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// A response without fields.
    pub fn new(status: StatusCode) -> ResponseHead {
        ResponseHead { status, version: Version::Http11, fields: Fields::default() }
    }

    /// Whether its body is a stream of events, which may be silent for long.
    pub fn is_event_stream(&self) -> bool {
        behind_type(&self.fields, b"text/event-stream").is_some()
    }

    /// Whether it answers a call of gRPC, with the status behind the body: that for browsers has it in the body.
    pub fn is_grpc(&self) -> bool {
        behind_type(&self.fields, b"application/grpc").is_some_and(|more| !more.starts_with(b"-"))
    }
}

/// What is behind the name of a media type, if the body is of that type.
fn behind_type<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let (start, more) = fields.get(Known::ContentType)?.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(more)
}

/// How much of a body is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; a message without a body has zero.
    Known(u64),
    /// Nobody knows before the end.
    Unknown,
}

/// A piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Bytes, at least one.
    Data(Bytes),
    /// The fields behind the body, which end it.
    Trailers(Fields),
}

/// Why a body did not come to its end.
#[derive(Debug)]
pub enum BodyError {
    /// It is not what the specification says.
    Malformed(&'static str),
    /// The connection ended before the body did.
    Truncated,
    /// The connection failed.
    Io(io::Error),
    /// The other side took it back (HTTP/2's RST_STREAM).
    Reset,
    /// Nothing, or too little, moved in this time.
    Slow(std::time::Duration),
    /// It is longer than the limit.
    TooLarge,
    /// A filter that saw it has answered, or failed, instead of passing it on.
    Refused,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BodyError::Malformed(why) => out.write_str(why),
            BodyError::Truncated => out.write_str("the connection ended before the body did"),
            BodyError::Io(error) => write!(out, "{error}"),
            BodyError::Reset => out.write_str("the other side took it back"),
            BodyError::Slow(time) => write!(out, "nothing or too little moved in {time:?}"),
            BodyError::TooLarge => out.write_str("the body is longer than the limit"),
            BodyError::Refused => out.write_str("a filter did not pass it on"),
        }
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_loses_its_prefix_and_stays_one() {
        for (text, cut, left) in [
            ("/a/b?c", 0, "/a/b?c"),
            ("/a/b?c", 2, "/b?c"),
            ("/a?c/d", 2, "/?c/d"),
            ("/a", 2, "/"),
            ("/a//b", 2, "//b"),
            ("/", 1, "/"),
        ] {
            let mut target = Target::new(text.into());
            let original = target.cut(cut);
            assert_eq!(target.as_str(), left, "{text} without {cut}");
            assert_eq!(original.as_deref().unwrap_or(target.whole()), text);
            let new = Target::new(left.into());
            assert_eq!((target.path(), target.query()), (new.path(), new.query()));
        }
        for text in ["", "a", "/a b", "/a#b", "/ä", "/a\r\n"] {
            assert!(Target::sendable(text.into()).is_none(), "{text:?}");
        }
    }
}

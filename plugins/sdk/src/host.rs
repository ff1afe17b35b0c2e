//! What a plugin may ask of the gateway. Outside a gateway, as in unit tests, every call here panics.

use crate::bindings::imports::moongate::plugin::bodies::Showing;
use crate::bindings::imports::moongate::plugin::{bodies, host, request, response};

pub use host::{Level, Step};

/// Writes a line to the gateway's log. Cut after 1 KiB; lines over 100 a second of one plugin are dropped.
pub fn log(level: Level, message: &str) {
    host::log(level, message);
}

/// Monotonic nanoseconds since the gateway started.
pub fn now() -> u64 {
    host::now()
}

/// Wall clock, milliseconds since 1970-01-01T00:00:00Z.
pub fn unix_ms() -> u64 {
    host::unix_ms()
}

/// A random number. Not for secrets.
pub fn random() -> u64 {
    host::random()
}

/// Where this gateway stands, as its configuration says; empty if that says nothing.
pub fn zone() -> String {
    host::zone()
}

/// Says that this use of the plugin has nothing to do with requests, or responses, so that it is not called for them. Only in
/// `configure`; elsewhere, and outside a gateway, nothing happens.
pub fn skip(step: Step) {
    #[cfg(target_arch = "wasm32")]
    host::skip(step);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = step;
}

/// Numbers that all workers share and that outlive instances, traps and new versions of the plugin.
pub mod shared {
    use crate::bindings::imports::moongate::plugin::shared;

    /// One shared number, 0 at first.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Slot(u32);

    impl Slot {
        /// The slot of this name. Only in `configure`; at most 64 for one use of the plugin.
        pub fn open(name: &str) -> Self {
            Self(shared::open(name))
        }
        /// Its value.
        pub fn get(self) -> u64 {
            shared::get(self.0)
        }
        /// Replaces its value.
        pub fn set(self, value: u64) {
            shared::set(self.0, value);
        }
        /// Adds, wrapping, and returns the value before.
        pub fn fetch_add(self, delta: u64) -> u64 {
            shared::fetch_add(self.0, delta)
        }
        /// Replaces its value if that is `expected`; the error is the value that it has instead.
        pub fn compare_exchange(self, expected: u64, new: u64) -> Result<u64, u64> {
            let before = shared::compare_exchange(self.0, expected, new);
            if before == expected { Ok(before) } else { Err(before) }
        }
    }
}

/// What this use of the plugin remembers by name: shared by all workers, outliving instances, traps and new versions,
/// never written to disk. The configuration must allow it. 100,000 entries and 16 MiB at most.
pub mod store {
    use crate::bindings::imports::moongate::plugin::store;
    use std::time::Duration;

    pub use store::{read, remove};

    fn milliseconds(lasts: Option<Duration>) -> u32 {
        // 0 means without end, and what lasts no time at all is not that.
        lasts.map_or(0, |lasts| u32::try_from(lasts.as_millis()).unwrap_or(u32::MAX).max(1))
    }

    /// The number of this name; 0 if there is none.
    pub fn number(name: &str) -> u64 {
        store::number(name)
    }

    /// Why a number stayed as it was.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Unchanged {
        /// It is this one, and not what was expected.
        Other(u64),
        /// There is no room for another name.
        Full,
    }

    /// Replaces the number of this name if it is `expected` (0: or if there is none). `lasts`: from now on; none:
    /// without end.
    pub fn exchange(name: &str, expected: u64, new: u64, lasts: Option<Duration>) -> Result<(), Unchanged> {
        let store::Exchanged { before, replaced } = store::exchange(name, expected, new, milliseconds(lasts));
        match replaced {
            true => Ok(()),
            false if before != expected => Err(Unchanged::Other(before)),
            false => Err(Unchanged::Full),
        }
    }

    /// Replaces the bytes of this name, at most 64 KiB. False: too long, or no room; what was there stays.
    pub fn write(name: &str, value: &[u8], lasts: Option<Duration>) -> bool {
        store::write(name, value, milliseconds(lasts))
    }
}

/// How a body is shown to a filter that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Piece by piece as it comes, at most 64 KiB at a time.
    Pieces,
    /// All of it at once when it has ended, and not more than so many bytes (at most 16 MiB): a longer one ends the
    /// exchange, with 413 for a request and 502 for a response.
    Whole(u32),
}

impl From<Show> for Showing {
    fn from(show: Show) -> Self {
        match show {
            Show::Pieces => Self::Pieces,
            Show::Whole(most) => Self::Whole(most),
        }
    }
}

/// Live figures of the endpoints being picked from, over all workers, by index. Only in `pick`: elsewhere, and for
/// an index out of range, they are 0.
pub mod endpoints {
    /// All in-flight counts in one call, in index order: cheaper than [`inflight`] from three endpoints on.
    pub use crate::bindings::imports::moongate::plugin::endpoints::inflight_all;
    pub use crate::bindings::imports::moongate::plugin::endpoints::{
        count, failures, inflight, latency_us, peak_us, tried,
    };
}

/// What a balancer may know of the request.
pub mod keys {
    use crate::bindings::imports::moongate::plugin::request_keys::{self, Source};

    pub use crate::by::By;

    /// A part of the request, declared in `configure` and asked for in `pick`. At most 64 different ones.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Key(u32);

    impl Key {
        /// The path.
        pub fn path() -> Self {
            Self::declare(&Source::Path)
        }
        /// The method.
        pub fn method() -> Self {
            Self::declare(&Source::Method)
        }
        /// The host asked for.
        pub fn authority() -> Self {
            Self::declare(&Source::Authority)
        }
        /// The client's address, without the port.
        pub fn client_address() -> Self {
            Self::declare(&Source::ClientAddress)
        }
        /// The first value of a header.
        pub fn header(name: impl Into<String>) -> Self {
            Self::declare(&Source::Header(name.into()))
        }
        /// A cookie.
        pub fn cookie(name: impl Into<String>) -> Self {
            Self::declare(&Source::Cookie(name.into()))
        }
        /// A query parameter.
        pub fn query(name: impl Into<String>) -> Self {
            Self::declare(&Source::Query(name.into()))
        }

        fn declare(source: &Source) -> Self {
            Self(request_keys::declare(source))
        }

        /// XXH3-64 (seed 0) of the value; 0 if the request has none.
        pub fn hash(self) -> u64 {
            request_keys::hash(self.0)
        }
        /// The value, if there is one and it is UTF-8. Dearer than [`hash`](Self::hash).
        pub fn text(self) -> Option<String> {
            request_keys::text(self.0)
        }
    }
}

/// The request in hand. The writers return false, and change nothing, for what HTTP does not allow, for what the
/// gateway itself answers for (such as `content-length`), and in `on_response`.
#[derive(Debug)]
pub struct Request(());

impl Request {
    #[doc(hidden)]
    pub fn in_hand() -> Self {
        Self(())
    }
    /// The method.
    pub fn method(&self) -> String {
        request::method()
    }
    /// Path and query as they are sent on.
    pub fn path(&self) -> String {
        request::path()
    }
    /// Path and query as the client sent them.
    pub fn original_path(&self) -> String {
        request::original_path()
    }
    /// The host asked for, with the port if one was given; empty if none was.
    pub fn authority(&self) -> String {
        request::authority()
    }
    /// The client's address, without the port.
    pub fn client_address(&self) -> String {
        request::client_address()
    }
    /// The first value of that header.
    pub fn header(&self, name: &str) -> Option<String> {
        request::get(name)
    }
    /// All headers, names in lower case.
    pub fn headers(&self) -> Vec<(String, String)> {
        request::headers()
    }
    /// All values of that header, in their order.
    pub fn values(&self, name: &str) -> Vec<String> {
        let of_that_name = |(found, value): (String, String)| found.eq_ignore_ascii_case(name).then_some(value);
        request::headers().into_iter().filter_map(of_that_name).collect()
    }
    /// The cookies, as one header has them; empty if there are none. HTTP/1.1 clients send one line (RFC 6265, section
    /// 5.4), but not all of what calls itself a client does.
    pub fn cookies(&self) -> String {
        self.values("cookie").join("; ")
    }
    /// Makes headers say what this filter vouches for, and nobody else: whatever the client sent under these names is gone,
    /// and so are names with `_` for `-`, which endpoints that see `HTTP_X_USER` (CGI, WSGI) could not tell from ours. None:
    /// there is to be no such header. False if a value is none that HTTP allows; then refuse the request.
    pub fn vouch(&self, headers: &[(&str, Option<&str>)]) -> bool {
        for (sent, _) in request::headers() {
            if headers.iter().any(|(name, _)| crate::http::look_alike(&sent, name)) {
                request::remove(&sent);
            }
        }
        headers.iter().all(|&(name, value)| match value {
            Some(value) => request::set(name, value),
            None => request::remove(name),
        })
    }
    /// Replaces all values of that header.
    pub fn set(&self, name: &str, value: &str) -> bool {
        request::set(name, value)
    }
    /// Adds a value to that header.
    pub fn append(&self, name: &str, value: &str) -> bool {
        request::append(name, value)
    }
    /// Removes that header.
    pub fn remove(&self, name: &str) -> bool {
        request::remove(name)
    }
    /// Sets path and query; must start with `/`.
    pub fn set_path(&self, path: &str) -> bool {
        request::set_path(path)
    }
    /// Sets the method.
    pub fn set_method(&self, method: &str) -> bool {
        request::set_method(method)
    }
    /// What this use of the filter noted of this exchange; empty if nothing.
    pub fn noted(&self) -> Vec<u8> {
        request::noted()
    }
    /// Notes at most 4 KiB for the later calls that are about the same exchange. False, and nothing changes, beyond.
    pub fn note(&self, value: &[u8]) -> bool {
        request::note(value)
    }
    /// Asks for the body, to be given to [`RequestBodyFilter`](crate::RequestBodyFilter). Only in `on_request`; false
    /// elsewhere, or if there is none. The configuration must allow it.
    pub fn show_body(&self, how: Show) -> bool {
        bodies::show_request(how.into())
    }
}

/// The response in hand. Writers as in [`Request`].
#[derive(Debug)]
pub struct Response(());

impl Response {
    #[doc(hidden)]
    pub fn in_hand() -> Self {
        Self(())
    }
    /// The status.
    pub fn status(&self) -> u16 {
        response::status()
    }
    /// Sets the status, 200 to 599.
    pub fn set_status(&self, status: u16) -> bool {
        response::set_status(status)
    }
    /// The first value of that header.
    pub fn header(&self, name: &str) -> Option<String> {
        response::get(name)
    }
    /// All headers, names in lower case.
    pub fn headers(&self) -> Vec<(String, String)> {
        response::headers()
    }
    /// Replaces all values of that header.
    pub fn set(&self, name: &str, value: &str) -> bool {
        response::set(name, value)
    }
    /// Adds a value to that header.
    pub fn append(&self, name: &str, value: &str) -> bool {
        response::append(name, value)
    }
    /// Removes that header.
    pub fn remove(&self, name: &str) -> bool {
        response::remove(name)
    }
    /// The endpoint that it is from, `ip:port`.
    pub fn endpoint(&self) -> String {
        response::endpoint()
    }
    /// Asks for the body, to be given to [`ResponseBodyFilter`](crate::ResponseBodyFilter). Only in `on_response`;
    /// false elsewhere, or if there is none. The configuration must allow it.
    pub fn show_body(&self, how: Show) -> bool {
        bodies::show_response(how.into())
    }
}

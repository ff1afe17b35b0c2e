//! What goes wrong with a request, and what the client is told of it.
//!
//! The client gets a status and a short phrase; the cause, which may name internal addresses, goes to the log.

use std::time::Duration;

use http::StatusCode;

use crate::plugin::Failure;

/// Why a request got no response from an endpoint.
#[derive(Debug)]
pub enum RequestError {
    /// Nothing matches.
    NoRoute,
    /// The request itself cannot be used.
    Malformed(&'static str),
    /// The service is unknown, or has no live endpoint.
    NoEndpoint,
    /// All endpoints of the service are at a limit.
    Overloaded,
    /// A plugin failed, and its `on_failure` says `reject`.
    Plugin {
        /// Its name.
        name: std::sync::Arc<str>,
        /// What happened.
        failure: Failure,
    },
    /// No connection to an endpoint.
    Connect(std::io::Error),
    /// No connection in time.
    ConnectTimeout(Duration),
    /// The endpoint closed the connection or spoke nonsense.
    Upstream(hyper::Error),
    /// The endpoint did not answer in time.
    HeaderTimeout(Duration),
    /// The client's body ended too early or was malformed.
    ClientBody(hyper::Error),
    /// The client stopped sending its body.
    ClientTimeout(Duration),
    /// A mistake of ours: the code that handled the request panicked.
    Panic,
}

impl RequestError {
    /// What the client is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Malformed(_) | Self::ClientBody(_) => StatusCode::BAD_REQUEST,
            Self::ClientTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoEndpoint | Self::Overloaded | Self::Plugin { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout(_) | Self::HeaderTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// One line for the client, without internal addresses.
    pub fn phrase(&self) -> &'static str {
        match self {
            Self::NoRoute => "no route matches this request",
            Self::Malformed(why) => why,
            Self::NoEndpoint => "the service has no live endpoint",
            Self::Overloaded => "all endpoints of the service are busy",
            Self::Plugin { .. } => "a plugin of this route failed",
            Self::Connect(_) => "the endpoint cannot be reached",
            Self::ConnectTimeout(_) => "the endpoint did not accept a connection in time",
            Self::Upstream(_) => "the endpoint closed the connection or gave an invalid answer",
            Self::HeaderTimeout(_) => "the endpoint did not answer in time",
            Self::ClientBody(_) => "the request body is incomplete or malformed",
            Self::ClientTimeout(_) => "the request body did not arrive in time",
            Self::Panic => "internal error",
        }
    }

    /// The name under which it is counted.
    pub fn kind(&self) -> &'static str {
        KINDS[self.index()]
    }

    /// The place of [`RequestError::kind`] in [`KINDS`].
    pub fn index(&self) -> usize {
        match self {
            Self::NoRoute => 0,
            Self::Malformed(_) => 1,
            Self::NoEndpoint => 2,
            Self::Plugin { .. } => 3,
            Self::Connect(_) => 4,
            Self::ConnectTimeout(_) => 5,
            Self::Upstream(_) => 6,
            Self::HeaderTimeout(_) => 7,
            Self::ClientBody(_) => 8,
            Self::ClientTimeout(_) => 9,
            Self::Panic => 10,
            Self::Overloaded => 11,
        }
    }
}

/// All kinds of errors, as they are counted.
pub const KINDS: [&str; 12] = [
    "no-route",
    "malformed",
    "no-endpoint",
    "plugin",
    "connect",
    "connect-timeout",
    "upstream",
    "header-timeout",
    "client-body",
    "client-timeout",
    "panic",
    "overloaded",
];

impl std::fmt::Display for RequestError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plugin { name, failure } => write!(out, "plugin {name}: {failure}"),
            Self::Connect(error) => write!(out, "connecting: {error}"),
            Self::ConnectTimeout(after) => write!(out, "connecting: no answer in {after:?}"),
            Self::Upstream(error) => write!(out, "exchanging with the endpoint: {}", chain(error)),
            Self::HeaderTimeout(after) => write!(out, "waiting for the response: nothing in {after:?}"),
            Self::ClientBody(error) => write!(out, "reading the request body: {}", chain(error)),
            Self::ClientTimeout(after) => write!(out, "reading the request body: nothing in {after:?}"),
            Self::Panic => out.write_str("handling the request: it panicked, see above"),
            Self::NoRoute | Self::Malformed(_) | Self::NoEndpoint | Self::Overloaded => out.write_str(self.phrase()),
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

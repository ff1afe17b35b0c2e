//! What goes wrong with a request, and what the client is told of it.
//!
//! The client gets a status and a short phrase; the cause, which may name internal addresses, goes to the log.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use crate::http1::HeadError;
use crate::message::BodyError;
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
    Upstream(Cow<'static, str>),
    /// The endpoint did not answer in time.
    HeaderTimeout(Duration),
    /// The client's body ended too early, was malformed, too long or too slow.
    ClientBody(BodyError),
    /// The client was too slow with the head.
    ClientHead(Duration),
    /// The request target is too long.
    TargetTooLong,
    /// The head is too large.
    HeadTooLarge,
    /// The version of HTTP is not spoken here.
    Version,
    /// What the method asks for is not done by a gateway.
    Method,
    /// The client expects what nobody knows.
    Expectation,
    /// The request has come round too often.
    Loop,
    /// There are too many requests in flight: in the whole gateway, or at all endpoints of the service.
    Overloaded,
    /// A mistake of ours: the code that handled the request panicked.
    Panic,
}

impl From<HeadError> for RequestError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(why) => RequestError::Malformed(why),
            HeadError::TargetTooLong => RequestError::TargetTooLong,
            HeadError::TooLarge => RequestError::HeadTooLarge,
            HeadError::Version => RequestError::Version,
        }
    }
}

impl RequestError {
    /// What the client is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::ClientBody(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientBody(BodyError::Slow(_)) | Self::ClientHead(_) => StatusCode::REQUEST_TIMEOUT,
            Self::ClientBody(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Loop => StatusCode::LOOP_DETECTED,
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
            Self::Overloaded => "there are too many requests at the moment",
            Self::Plugin { .. } => "a plugin of this route failed",
            Self::Connect(_) => "the endpoint cannot be reached",
            Self::ConnectTimeout(_) => "the endpoint did not accept a connection in time",
            Self::Upstream(_) => "the endpoint closed the connection or gave an invalid answer",
            Self::HeaderTimeout(_) => "the endpoint did not answer in time",
            Self::ClientBody(BodyError::TooLarge) => "the request body is too large",
            Self::ClientBody(BodyError::Slow(_)) => "the request body did not arrive in time",
            Self::ClientBody(_) => "the request body is incomplete or malformed",
            Self::ClientHead(_) => "the request did not arrive in time",
            Self::TargetTooLong => "the request target is too long",
            Self::HeadTooLarge => "the request header fields are too large",
            Self::Version => "this version of HTTP is not spoken here",
            Self::Method => "a gateway does not do what this method asks for",
            Self::Expectation => "the expectation cannot be met",
            Self::Loop => "the request comes round in a loop",
            Self::Panic => "internal error",
        }
    }

    /// Whether the same request may succeed in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoEndpoint | Self::Overloaded)
    }

    /// Whether no connection to the endpoint could be made.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout(_))
    }

    /// Whether the client is at fault, which is no news to an operator.
    pub fn is_clients(&self) -> bool {
        self.status().is_client_error()
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
            Self::ClientBody(BodyError::TooLarge) => 12,
            Self::ClientBody(BodyError::Slow(_)) | Self::ClientHead(_) => 9,
            Self::ClientBody(_) => 8,
            Self::TargetTooLong | Self::HeadTooLarge => 11,
            Self::Version | Self::Method | Self::Expectation => 13,
            Self::Loop => 14,
            Self::Overloaded => 15,
            Self::Panic => 10,
        }
    }
}

/// All kinds of errors, as they are counted.
pub const KINDS: [&str; 16] = [
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
    "head-too-large",
    "body-too-large",
    "not-done",
    "loop",
    "overloaded",
];

impl std::fmt::Display for RequestError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plugin { name, failure } => write!(out, "plugin {name}: {failure}"),
            Self::Connect(error) => write!(out, "connecting: {error}"),
            Self::ConnectTimeout(after) => write!(out, "connecting: no answer in {after:?}"),
            Self::Upstream(error) => write!(out, "exchanging with the endpoint: {error}"),
            Self::HeaderTimeout(after) => write!(out, "waiting for the response: nothing in {after:?}"),
            Self::ClientBody(error) => write!(out, "reading the request body: {error}"),
            Self::ClientHead(after) => write!(out, "reading the request: incomplete after {after:?}"),
            Self::Panic => out.write_str("handling the request: it panicked, see above"),
            _ => out.write_str(self.phrase()),
        }
    }
}

//! `[limits]`: what a client may ask of the gateway, and `[paths]`: which paths it may ask for.
//!
//! Every limit is there by default, and each says why its number. Who keeps to them is said where they are kept:
//! [`crate::server`] for connections, [`crate::proxy`] for requests.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::size::{self, ByteSize};
use super::values::{self, Time};

/// What a client may ask of the gateway.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's head: its first line, or its pseudo-fields, and all fields. 1 KiB to 1 MiB; more is
    /// answered with 431. 32 KiB is what nginx takes (Node 16, Envoy 60): tokens and cookies of a few KiB each fit,
    /// and ten thousand half-sent heads are no more than 320 MiB.
    #[serde(deserialize_with = "size::kibibytes::<1, 1024, _>")]
    pub header_size: ByteSize,
    /// Fields of a request's head, 1 to 10,000; more is answered with 431. 100 is Apache's and Envoy's number:
    /// browsers send about 20, and every field costs each filter that looks at all of them.
    #[serde(deserialize_with = "values::between::<1, 10_000, _>")]
    #[schemars(range(min = 1, max = 10_000))]
    pub headers: u32,
    /// Bytes of a request's target, 1 KiB to 1 MiB; more is answered with 414. RFC 9110, 4.1 recommends to take at
    /// least 8,000.
    #[serde(deserialize_with = "size::kibibytes::<1, 1024, _>")]
    pub uri: ByteSize,
    /// From the first byte of a head to its end, and for a TLS handshake. A client on a bad link sends 32 KiB in
    /// 10 s; one that does not means to hold the connection (slowloris).
    pub header_timeout: Time,
    /// Between two requests of a connection. Browsers keep theirs for one to five minutes and try again when it has
    /// gone; 60 s is what most gateways wait.
    pub idle_timeout: Time,
    /// Bytes a second, on average, that a body makes in either direction; one that is slower ends after the route's
    /// `timeout.idle`. 0: none. 256 bytes a second is no link that anybody has, but enough to make holding a
    /// connection cost something.
    pub min_rate: ByteSize,
    /// Open connections of one listener, all workers together, 1 to 10 million; more are closed at once. 16,384 with
    /// full buffers take about 1 GiB, and there are as many again to endpoints: beyond that a gateway is better
    /// scaled out, or this number raised knowingly.
    #[serde(deserialize_with = "values::between::<1, 10_000_000, _>")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections: u32,
    /// Of these, those of one client address (of IPv6: one /64 network, which is what one customer gets). Half of
    /// them, so that no single client locks all others out; and no less, because a load balancer in front, or a
    /// company behind one address, is one client as well.
    #[serde(deserialize_with = "values::between::<1, 10_000_000, _>")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_per_client: u32,
    /// Requests in flight in the whole gateway, 1 to 10 million; more are answered with 503 at once. With 10,000 in
    /// flight a service that answers in 100 ms is asked 100,000 times a second, which is more than it can do: what
    /// comes on top would only wait.
    #[serde(deserialize_with = "values::between::<1, 10_000_000, _>")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub requests: u32,
    /// What becomes of fields with `_` in their names.
    pub underscores: Underscores,
    /// What only HTTP/2 has.
    pub http2: Http2,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_size: ByteSize(32 << 10),
            headers: 100,
            uri: ByteSize(8 << 10),
            header_timeout: Time(Duration::from_secs(10)),
            idle_timeout: Time(Duration::from_secs(60)),
            min_rate: ByteSize(256),
            connections: 16_384,
            connections_per_client: 8_192,
            requests: 10_000,
            underscores: Underscores::Guard,
            http2: Http2::default(),
        }
    }
}

/// What becomes of request fields with `_` in their names. CGI and what followed it (WSGI, PHP) show `X_Real_IP` and
/// `X-Real-IP` to a program as the same, so the one can be used to forge the other.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Underscores {
    /// Refused (400) if with `-` it would be a field that the gateway itself writes or goes by; passed otherwise.
    Guard,
    /// Passed.
    Pass,
    /// Left out.
    Drop,
    /// Refused (400).
    Refuse,
}

/// What a client may ask of one HTTP/2 connection. Beyond it the connection ends with GOAWAY (`ENHANCE_YOUR_CALM`).
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Streams at the same time (`SETTINGS_MAX_CONCURRENT_STREAMS`), 1 to 10,000. RFC 9113, 6.5.2 recommends not
    /// less than 100; that is also Envoy's number for strangers (nginx 128, Go 250).
    #[serde(deserialize_with = "values::between::<1, 10_000, _>")]
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Streams that end by reset, whoever sends it, within [`Self::within`], beyond those that ended well; 1 to
    /// 1 million. It bounds what is begun for nothing (CVE-2023-44487), also where the client makes us do the
    /// resetting (CVE-2025-8671). Twice `streams`: somebody who leaves a page with all streams busy, and the next one
    /// too, is still a person; Envoy cuts after 250 to 500, and a flood makes thousands a second.
    #[serde(deserialize_with = "values::between::<1, 1_000_000, _>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub resets: u32,
    /// Frames within [`Self::within`] that carry nothing: PING, SETTINGS, PRIORITY, empty DATA and CONTINUATION, and
    /// unknown ones; 10 to 1 million. 100 a second on average: gRPC measures its link with at most one PING a round
    /// trip while data flow, and ten a second when the link is known; a flood makes 100,000.
    #[serde(deserialize_with = "values::between::<10, 1_000_000, _>")]
    #[schemars(range(min = 10, max = 1_000_000))]
    pub control_frames: u32,
    /// The time for which [`Self::resets`] and [`Self::control_frames`] are counted. Long enough that a burst is no
    /// flood, short enough that a connection of many hours does not gather them.
    pub within: Time,
}

impl Default for Http2 {
    fn default() -> Self {
        Http2 { streams: 100, resets: 200, control_frames: 1_000, within: Time(Duration::from_secs(10)) }
    }
}

/// What is done with paths that programs read differently, before a route is chosen. What is matched is what is sent
/// on.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// `//`.
    pub double_slashes: DoubleSlashes,
    /// `%2F` and `%5C`.
    pub encoded_slashes: EncodedSlashes,
}

impl Default for Paths {
    fn default() -> Self {
        Paths { double_slashes: DoubleSlashes::Merge, encoded_slashes: EncodedSlashes::Refuse }
    }
}

/// What becomes of `//` in a path.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DoubleSlashes {
    /// One `/`, as most file systems and frameworks read it: so `//admin` is what a route or filter for `/admin` sees.
    Merge,
    /// Itself, an empty segment; for storage whose names may have it.
    Keep,
    /// 400.
    Refuse,
}

/// What becomes of `/` and `\` that are percent-encoded in a path.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlashes {
    /// 400: an endpoint that decodes them sees other segments than those a route was chosen by.
    Refuse,
    /// Themselves, part of a segment.
    Keep,
}

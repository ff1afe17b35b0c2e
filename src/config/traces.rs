//! `[tracing]`: which requests are traced, and who is told. What a span says is in [`crate::trace`] and
//! [`crate::proxy::trace`].

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plugins::Share;
use super::values::{HostName, Time, displayed, written_as_string};

/// Spans of requests, for a collector of OpenTelemetry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// Where spans are sent, by OTLP over HTTP with protobuf. Without a path, `/v1/traces` is meant. Without TLS: a collector
    /// stands beside the gateway, or a network in between is trusted.
    pub endpoint: Collector,
    /// The share of the requests that are traced whose callers have not decided it.
    #[serde(default = "sample")]
    pub sample: Share,
    /// Whose decisions are followed: those that callers send in `traceparent`.
    #[serde(default)]
    pub parents: Parents,
    /// What the gateway is called in traces (`service.name`).
    #[serde(default = "service")]
    pub service: Arc<str>,
    /// How long the collector may take for one batch of spans.
    #[serde(default = "timeout")]
    pub timeout: Time,
}

fn sample() -> Share {
    Share(Share::WHOLE / 100)
}

fn service() -> Arc<str> {
    "moongate".into()
}

fn timeout() -> Time {
    Time(Duration::from_secs(10))
}

/// Whose decision to trace is followed. Their traces are continued either way.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Parents {
    /// Every caller's.
    #[default]
    Follow,
    /// Nobody's, where callers are strangers: each could have all of its requests traced.
    Ignore,
}

/// Where a collector is: `http://127.0.0.1:4318`, with a path or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Host and port, as they are connected to.
    pub authority: Arc<str>,
    /// The path.
    pub path: Arc<str>,
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:?} {why}"));
        let Some(rest) = text.strip_prefix("http://") else {
            return wrong("is not a URL like \"http://127.0.0.1:4318\"; only http is spoken to a collector");
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_host = bare.parse::<IpAddr>().is_ok() || host.parse::<HostName>().is_ok_and(|it| !it.0.starts_with('*'));
        if !is_host {
            return wrong("has no host like \"127.0.0.1\" or \"collector.internal\"");
        }
        if port.is_some_and(|it| !matches!(it.parse::<u16>(), Ok(1..))) {
            return wrong("has a port that is not a number from 1 to 65535");
        }
        if !path.bytes().all(|it| it.is_ascii_graphic() && it != b'#') {
            return wrong("has a path with other than ASCII letters and signs");
        }
        let path = if path.is_empty() || path == "/" { "/v1/traces" } else { path };
        // 4318 is OTLP over HTTP's own.
        Ok(Collector { authority: format!("{host}:{}", port.unwrap_or("4318")).into(), path: path.into() })
    }
}

displayed! {
    Collector: |it, out| write!(out, "http://{}{}", it.authority, it.path),
}

written_as_string! {
    Collector: "a URL like \"http://127.0.0.1:4318\"",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_url_without_tls() {
        for (text, whole) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://otel/", "http://otel:4318/v1/traces"),
            ("http://[::1]:80/a/b", "http://[::1]:80/a/b"),
        ] {
            assert_eq!(text.parse::<Collector>().map(|it| it.to_string()), Ok(whole.to_owned()));
        }
        for text in ["https://otel", "otel:4318", "http://", "http://a:0", "http://a:b", "http://*.a", "http://a/ b"] {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
    }
}

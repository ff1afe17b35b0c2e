//! The requests, as bytes.

use std::fmt::Write as _;

use super::Ask;

/// The fields that every request has, beside its host; what a client of an API sends.
pub(super) const FIELDS: [(&str, &str); 4] =
    [("user-agent", "bench/1"), ("accept", "application/json"), ("accept-encoding", "gzip"), ("x-tenant", "a")];

/// The host of every request.
pub(super) const HOST: &str = "bench.test";

/// Writes one request after the other.
pub(super) struct Requests {
    before: String,
    after: String,
    paths: usize,
    random: fastrand::Rng,
    /// Where all are the same: all of it.
    whole: Option<String>,
}

impl Requests {
    pub(super) fn new(ask: &Ask, fresh: bool) -> Requests {
        let method = if ask.upload > 0 { "POST" } else { "GET" };
        let mut text = format!("{method} {} HTTP/1.1\r\nhost: {HOST}\r\n", ask.path);
        for (name, value) in FIELDS {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if ask.upload > 0 {
            let _ = write!(text, "content-type: application/octet-stream\r\ncontent-length: {}\r\n", ask.upload);
        }
        if fresh {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        // The same sequence for every proxy.
        let random = fastrand::Rng::with_seed(7);
        match text.split_once("{}") {
            Some((before, after)) => {
                Requests { before: before.into(), after: after.into(), paths: ask.paths, random, whole: None }
            }
            None => Requests { before: String::new(), after: String::new(), paths: 1, random, whole: Some(text) },
        }
    }

    /// Appends the next one's head.
    pub(super) fn write(&mut self, into: &mut Vec<u8>) {
        if let Some(whole) = &self.whole {
            return into.extend_from_slice(whole.as_bytes());
        }
        let number = self.random.usize(..self.paths.max(1));
        into.extend_from_slice(self.before.as_bytes());
        into.extend_from_slice(number.to_string().as_bytes());
        into.extend_from_slice(self.after.as_bytes());
    }
}

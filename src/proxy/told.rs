//! What is noted of a request on its way: what it is counted under, and how it was decided, where it asks for that with the
//! secret of `[explain]`. It is told in one header of the response, a dictionary of RFC 9651, so that programs can read it
//! too.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use super::metrics::Placed;
use super::pick::Tried;
use crate::endpoint::Endpoint;
use crate::message::{RequestHead, ResponseHead};
use crate::routes::Route;
use crate::series::OTHER;
use crate::snapshot::{Rules, Service, Snapshot};

/// Endpoints that are listed as left out: a header has an end.
const LISTED: usize = 20;

/// A dictionary on its way into a response.
#[derive(Debug, Default)]
struct Told {
    text: String,
    attempts: Vec<String>,
}

/// What is noted of a request on its way, beside its line in the access log and its trace.
#[derive(Debug, Default)]
pub struct Seen {
    /// What it is counted under.
    pub placed: Option<Placed>,
    /// What it is told of how it was decided, if it asked for that. In a box: next to nobody asks.
    told: Option<Box<Told>>,
}

impl Seen {
    /// Of a request that has come.
    pub fn of(rules: &Rules, head: &mut RequestHead) -> Seen {
        Seen { placed: None, told: asked(rules, head) }
    }

    /// Which route takes it to which service, if there is such a service.
    pub fn placed(&mut self, route: &Route, service: Option<&Arc<Service>>) {
        self.placed = Some(Placed { route: route.series, service: service.map_or(OTHER, |it| it.series) });
        self.told.iter_mut().for_each(|told| told.placed(route));
    }

    /// Where an attempt goes, and whose word that was.
    pub fn picked(
        &mut self,
        snapshot: &Snapshot,
        (route, service): (&Route, &Service),
        tried: &Tried,
        endpoint: &Endpoint,
    ) {
        if let Some(told) = &mut self.told {
            told.picked(snapshot, route, service, tried, endpoint);
        }
    }

    /// Writes what it asked for into its response.
    pub fn tell(&mut self, rules: &Rules, head: &mut ResponseHead) {
        if let Some(told) = self.told.take() {
            told.tell(rules, head);
        }
    }
}

/// Takes the field off a request that may have it; something to write to if what it says is right.
fn asked(rules: &Rules, head: &mut RequestHead) -> Option<Box<Told>> {
    let explain = rules.explain.as_ref()?;
    let right = head.fields.get(&*explain.header).is_some_and(|given| explain.secret.is(given));
    // Whatever it says: endpoints are not told secrets, not even wrong ones.
    head.fields.remove(&*explain.header);
    right.then(Box::default)
}

impl Told {
    /// Which route takes it where.
    fn placed(&mut self, route: &Route) {
        self.word("route", &route.name);
        self.word("service", &route.service);
    }

    /// What an attempt was decided by, and what it saw.
    fn picked(&mut self, snapshot: &Snapshot, route: &Route, service: &Service, tried: &Tried, endpoint: &Endpoint) {
        self.attempts.push(endpoint.spec.address.to_string());
        if self.attempts.len() > 1 {
            return;
        }
        let (balancer, version) = tried.decided(route, snapshot);
        self.word("balancer", balancer);
        if !version.is_empty() {
            self.word("version", version);
        }
        let numbers = [
            ("endpoints", service.all.len() as u64),
            ("candidates", service.endpoints.len() as u64),
            ("sequence", tried.sequence()),
        ];
        numbers.iter().for_each(|(key, number)| self.number(key, *number));
        self.word("pick", &endpoint.spec.address.to_string());
        let load = endpoint.live.load();
        // This request is one of them.
        self.number("inflight", load.requests.saturating_sub(1).into());
        self.number("latency-us", endpoint.live.latency().as_micros() as u64);
        self.number("failures-per-thousand", endpoint.live.failures().into());
        let mut out = Vec::new();
        for other in service.all.iter() {
            if let Some(why) = why_out(service, other) {
                out.push((other.spec.address.to_string(), why));
            }
        }
        if out.is_empty() {
            return;
        }
        self.key("out");
        self.text.push('(');
        for (number, (address, why)) in out.iter().take(LISTED).enumerate() {
            if number > 0 {
                self.text.push(' ');
            }
            self.string(address);
            self.text.push_str(";why=");
            self.string(why);
        }
        self.text.push(')');
    }

    /// Writes it into the response.
    fn tell(mut self, rules: &Rules, head: &mut ResponseHead) {
        let Some(explain) = &rules.explain else { return };
        if !self.attempts.is_empty() {
            let attempts = std::mem::take(&mut self.attempts);
            self.key("attempts");
            self.text.push('(');
            for (number, address) in attempts.iter().enumerate() {
                if number > 0 {
                    self.text.push(' ');
                }
                self.string(address);
            }
            self.text.push(')');
        }
        if self.text.is_empty() {
            self.text.push_str("route=?0");
        }
        head.fields.set(&*explain.header, self.text.as_bytes());
    }

    fn key(&mut self, key: &str) {
        if !self.text.is_empty() {
            self.text.push_str(", ");
        }
        self.text.push_str(key);
        self.text.push('=');
    }

    fn word(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        // Integers of a dictionary have 15 digits (RFC 9651, section 3.3.1).
        let _ = write!(self.text, "{}", value.min(999_999_999_999_999));
    }

    /// What is no visible ASCII cannot be in it (RFC 9651, section 3.3.3).
    fn string(&mut self, value: &str) {
        self.text.push('"');
        for char in value.chars() {
            match char {
                '"' | '\\' => self.text.extend(['\\', char]),
                ' '..='~' => self.text.push(char),
                _ => self.text.push('?'),
            }
        }
        self.text.push('"');
    }
}

/// Why an endpoint is not chosen, or only at times; none if nothing speaks against it.
pub fn why_out(service: &Service, endpoint: &Endpoint) -> Option<String> {
    let standing = service.standings.get(&endpoint.live.id);
    if let Some(unhealthy) = standing.and_then(|it| it.unhealthy.as_ref()) {
        return Some(format!("unhealthy: {}", unhealthy.reason));
    }
    if let Some(ejected) = standing.and_then(|it| it.ejected.as_ref()) {
        return Some(format!("ejected: {}", ejected.reason));
    }
    let limit = endpoint.settings.max_requests;
    if limit > 0 && endpoint.live.inflight() >= limit {
        return Some(format!("at its limit of {limit} requests"));
    }
    let index = service.endpoints.iter().position(|it| it.live.id == endpoint.live.id);
    let share = service.warming.as_ref().zip(index).and_then(|(it, at)| it.share(at as u32, Instant::now()));
    if let Some(share) = share {
        return Some(format!("warming up: {} % of its share", u32::from(share) * 100 / 65_536));
    }
    index.is_none().then(|| "no candidate".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_a_dictionary() {
        let mut told = Told::default();
        told.word("route", "a\"b\\c\u{e9}\n");
        told.number("n", u64::MAX);
        told.attempts = vec!["1".into(), "2".into()];
        let rules =
            Rules { explain: Some(crate::snapshot::Explain::of("x-e", "0123456789abcdef")), ..Rules::default() };
        let mut head = ResponseHead::new(http::StatusCode::OK);
        told.tell(&rules, &mut head);
        let value = head.fields.text("x-e").unwrap();
        assert_eq!(value, r#"route="a\"b\\c??", n=999999999999999, attempts=("1" "2")"#);
    }

    #[test]
    fn only_the_secret_opens_and_it_goes_no_further() {
        let rules =
            Rules { explain: Some(crate::snapshot::Explain::of("x-e", "0123456789abcdef")), ..Rules::default() };
        for (given, right) in [(&b"0123456789abcdef"[..], true), (b"0123456789abcdeF", false), (b"", false)] {
            let mut head = RequestHead::new(http::Method::GET, "/");
            head.fields.append("x-e", given);
            assert_eq!(asked(&rules, &mut head).is_some(), right);
            assert!(!head.fields.contains("x-e"));
        }
    }
}

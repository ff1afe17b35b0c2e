//! Bounds how fast requests come, for each client or another key, over all workers.
//!
//! ```toml
//! filters = [{ plugin = "rate-limit", config = { rate = "100/s", burst = 200 } }]
//! filters = [{ plugin = "rate-limit", config = { rate = "1000/h", by = { header = "x-api-key" }, missing = "deny" } }]
//! ```
//!
//! Each key has a bucket of `burst` tokens that fills at `rate`; a request takes one, and is answered with `status` where
//! there is none. Buckets are in the gateway's store, which all workers share, and are forgotten once they are full: a
//! client that never comes again costs nothing for longer than that. Other gateways have buckets of their own.
//!
//! Responses say what is left in the fields of draft-ietf-httpapi-ratelimit-headers-10, so that clients can slow down
//! before they are refused: `q` tokens in `w` seconds; `r` of them left, and all back in `t` seconds.

mod gcra;
mod key;

use gcra::{Decision, Limit, SECOND};
use key::{Key, key};
use moongate_plugin::http::{check_header_name, cookie_values, query_values};
use moongate_plugin::store::{self, Unchanged};
use moongate_plugin::{Config, Reply, Request, RequestFilter, Response, ResponseFilter, Verdict, now};
use std::time::Duration;

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    rate: String,
    burst: Option<u64>,
    #[serde(default)]
    by: By,
    missing: Option<Missing>,
    #[serde(default = "too_many")]
    status: u16,
    #[serde(default = "yes")]
    headers: bool,
    #[serde(default = "unnamed")]
    name: String,
    #[serde(default)]
    full: Full,
    #[serde(default = "subnet")]
    ipv6_prefix: u32,
}

/// RFC 6585, section 4.
fn too_many() -> u16 {
    429
}

fn yes() -> bool {
    true
}

fn unnamed() -> String {
    "default".into()
}

/// The least that a site gets (RFC 6177): within it, a client chooses its addresses itself.
fn subnet() -> u32 {
    64
}

/// What has a bucket of its own.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum By {
    #[default]
    ClientAddress,
    Route,
    Header(String),
    Cookie(String),
    Query(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Missing {
    #[default]
    ClientAddress,
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Full {
    #[default]
    Allow,
    Deny,
}

#[derive(Debug)]
struct RateLimit {
    limit: Limit,
    by: By,
    missing: Missing,
    status: u16,
    /// What `ratelimit-policy` says; none: such fields are not sent.
    policy: Option<String>,
    name: String,
    full: Full,
    ipv6_prefix: u32,
}

impl TryFrom<Options> for RateLimit {
    type Error = String;

    fn try_from(options: Options) -> Result<Self, String> {
        let Options { rate, burst, by, missing, status, headers, name, full, ipv6_prefix } = options;
        let limit = Limit::new(&rate, burst)?;
        match &by {
            By::Header(header) => check_header_name("by.header", header)?,
            By::Cookie(name) | By::Query(name) if name.is_empty() => {
                return Err("`by` has an empty name: which cookie or parameter is it?".into());
            }
            By::ClientAddress | By::Route if missing.is_some() => {
                return Err(
                    "`missing` is for a header, cookie or parameter: no request is without what `by` says".into()
                );
            }
            _ => {}
        }
        if !(400..600).contains(&status) {
            return Err(format!("`status` is {status}, but must be 400 to 599"));
        }
        if !(1..=128).contains(&ipv6_prefix) {
            return Err(format!("`ipv6_prefix` is {ipv6_prefix}, but must be 1 to 128"));
        }
        // A string of RFC 9651, without what would have to be escaped.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err("`name` must be visible ASCII characters, without quotation marks and backslashes".into());
        }
        let policy = headers.then(|| policy(&name, limit));
        Ok(Self { limit, by, missing: missing.unwrap_or_default(), status, policy, name, full, ipv6_prefix })
    }
}

fn policy(name: &str, limit: Limit) -> String {
    format!("\"{name}\";q={};w={}", limit.burst(), seconds(limit.window()))
}

/// Whole seconds, rounded up and at least 1: who comes earlier is refused again.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(SECOND).max(1)
}

/// How often a bucket is tried while others take from it: each time that it changed, somebody else was served.
const TRIES: u32 = 16;

/// What a bucket says to a request.
#[derive(Debug, PartialEq)]
enum Taken {
    Decided(Decision),
    /// There is no room for another bucket.
    Full,
    /// Others were faster, again and again.
    Busy,
}

/// Takes a token. `before`: the number that is kept; `exchange`: as [`store::exchange`], with nanoseconds.
fn take(
    limit: Limit,
    now: u64,
    mut before: u64,
    mut exchange: impl FnMut(u64, u64, u64) -> Result<(), Unchanged>,
) -> Taken {
    for _ in 0..TRIES {
        let decision = limit.decide(before, now);
        let Decision::Admit { full_at, full_in, .. } = decision else { return Taken::Decided(decision) };
        match exchange(before, full_at, full_in) {
            Ok(()) => return Taken::Decided(decision),
            Err(Unchanged::Other(number)) => before = number,
            Err(Unchanged::Full) => return Taken::Full,
        }
    }
    Taken::Busy
}

impl RateLimit {
    fn key_of(&self, request: &Request) -> Key {
        let value = match &self.by {
            By::ClientAddress => None,
            By::Route => return Key::Bucket("route".into()),
            By::Header(name) => request.header(name),
            By::Cookie(name) => cookie_values(&request.cookies(), name).next().map(str::to_owned),
            By::Query(name) => query_values(&request.path(), name).next().map(|value| value.into_owned()),
        };
        // An address that is not needed is not asked for.
        let address = || request.client_address();
        key(value.as_deref(), matches!(self.by, By::ClientAddress), self.missing, address, self.ipv6_prefix)
    }

    /// What `ratelimit` says.
    fn left(&self, remaining: u64, full_in: u64) -> String {
        format!("\"{}\";r={remaining};t={}", self.name, seconds(full_in))
    }

    /// The answer to who may not pass, and is to come again in so many nanoseconds.
    fn refusal(&self, retry_in: u64, full_in: u64) -> Reply {
        let reply = Reply::text(self.status, "too many requests").with("retry-after", &seconds(retry_in).to_string());
        match &self.policy {
            Some(policy) => reply.with("ratelimit-policy", policy).with("ratelimit", &self.left(0, full_in)),
            None => reply,
        }
    }

    /// What becomes of the request, and what to say of it in the response.
    fn verdict(&self, taken: &Taken) -> (Verdict, Option<String>) {
        match *taken {
            Taken::Decided(Decision::Admit { remaining, full_in, .. }) => {
                let left = self.policy.as_ref().map(|_| self.left(remaining, full_in));
                (Verdict::Next, left)
            }
            Taken::Decided(Decision::Refuse { retry_in, full_in }) => {
                (Verdict::Respond(self.refusal(retry_in, full_in)), None)
            }
            Taken::Full if self.full == Full::Allow => (Verdict::Next, None),
            // Nothing is known of the bucket: a whole one is a time after which there is certainly room.
            Taken::Full => (Verdict::Respond(self.refusal(self.limit.window(), self.limit.window())), None),
            Taken::Busy => (Verdict::Respond(self.refusal(0, 0)), None),
        }
    }
}

impl RequestFilter for RateLimit {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let name = match self.key_of(&request) {
            Key::Bucket(name) => name,
            Key::Allow => return Verdict::Next,
            Key::Deny => {
                return Verdict::Respond(Reply::text(self.status, "who asks is not said, and nobody else may"));
            }
        };
        let taken = take(self.limit, now(), store::number(&name), |before, after, lasts| {
            // A millisecond more: a bucket must not be forgotten before it is full.
            let lasts = Duration::from_nanos(lasts) + Duration::from_millis(1);
            store::exchange(&name, before, after, Some(lasts))
        });
        let (verdict, left) = self.verdict(&taken);
        if let Some(left) = left {
            request.note(left.as_bytes());
        }
        verdict
    }
}

impl ResponseFilter for RateLimit {
    fn on_response(&mut self, request: Request, response: Response) -> Verdict {
        let Some(policy) = &self.policy else { return Verdict::Next };
        if let Ok(left) = String::from_utf8(request.noted())
            && !left.is_empty()
        {
            // Added, not set: there may be other limits, here or at the endpoint.
            response.append("ratelimit-policy", policy);
            response.append("ratelimit", &left);
        }
        Verdict::Next
    }
}

moongate_plugin::plugin!(RateLimit: RequestFilter, ResponseFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<RateLimit, String> {
        RequestFilter::configure(Config::new(json))
    }

    fn headers(reply: &Reply) -> Vec<String> {
        reply.headers.iter().skip(1).map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn a_token_is_taken_even_if_others_are_faster() {
        let limit = Limit::new("10/s", Some(5)).unwrap();
        let interval = SECOND / 10;
        // Two others take one each, between reading and writing.
        let mut stored = SECOND;
        let mut others = 2;
        let taken = take(limit, SECOND, 0, |before, after, _| {
            if others > 0 {
                others -= 1;
                stored += interval;
            }
            if before != stored {
                return Err(Unchanged::Other(stored));
            }
            stored = after;
            Ok(())
        });
        assert!(matches!(taken, Taken::Decided(Decision::Admit { remaining: 2, .. })), "{taken:?}");
        assert_eq!(stored, SECOND + 3 * interval);
    }

    #[test]
    fn nobody_tries_for_ever() {
        let limit = Limit::new("1000/s", Some(1000)).unwrap();
        let mut tries = 0;
        let busy = take(limit, SECOND, 0, |before, _, _| {
            tries += 1;
            Err(Unchanged::Other(before + 1))
        });
        assert_eq!((busy, tries), (Taken::Busy, TRIES));
        assert_eq!(take(limit, SECOND, 0, |_, _, _| Err(Unchanged::Full)), Taken::Full);
    }

    #[test]
    fn a_refused_request_writes_nothing() {
        let limit = Limit::new("1/s", None).unwrap();
        let taken = take(limit, SECOND, 3 * SECOND, |_, _, _| panic!("it writes"));
        assert!(matches!(taken, Taken::Decided(Decision::Refuse { .. })));
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let filter = configure(r#"{"rate":"10/m","burst":5,"name":"api"}"#).unwrap();
        let refuse = Taken::Decided(Decision::Refuse { retry_in: 1, full_in: 24 * SECOND + 1 });
        let (Verdict::Respond(reply), None) = filter.verdict(&refuse) else { panic!("admitted") };
        assert_eq!(reply.status, 429);
        assert_eq!(
            headers(&reply),
            ["retry-after: 1", "ratelimit-policy: \"api\";q=5;w=30", "ratelimit: \"api\";r=0;t=25"]
        );
        let silent = configure(r#"{"rate":"10/m","status":503,"headers":false}"#).unwrap();
        let (Verdict::Respond(reply), None) = silent.verdict(&refuse) else { panic!("admitted") };
        assert_eq!((reply.status, headers(&reply)), (503, vec!["retry-after: 1".to_owned()]));
    }

    #[test]
    fn who_passes_is_told_what_is_left() {
        let admit = Taken::Decided(Decision::Admit { full_at: 0, remaining: 3, full_in: 1 });
        let said = |json| {
            let (verdict, left) = configure(json).unwrap().verdict(&admit);
            assert!(matches!(verdict, Verdict::Next));
            left
        };
        assert_eq!(said(r#"{"rate":"5/s"}"#).as_deref(), Some("\"default\";r=3;t=1"));
        assert_eq!(said(r#"{"rate":"5/s","headers":false}"#), None);
    }

    #[test]
    fn a_full_store_lets_pass_or_not() {
        let next = |json, taken| matches!(configure(json).unwrap().verdict(&taken).0, Verdict::Next);
        assert!(next(r#"{"rate":"5/s"}"#, Taken::Full));
        assert!(!next(r#"{"rate":"5/s","full":"deny"}"#, Taken::Full));
        assert!(!next(r#"{"rate":"5/s"}"#, Taken::Busy));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "missing field `rate`"),
            (r#"{"rate":"fast"}"#, "`rate` is `fast`"),
            (r#"{"rate":"1/s","by":"moon"}"#, "unknown variant `moon`"),
            (r#"{"rate":"1/s","by":{"header":"a b"}}"#, "`by.header` is `a b`"),
            (r#"{"rate":"1/s","by":{"cookie":""}}"#, "`by` has an empty name"),
            (r#"{"rate":"1/s","missing":"deny"}"#, "`missing` is for a header"),
            (r#"{"rate":"1/s","by":"route","missing":"allow"}"#, "`missing` is for a header"),
            (r#"{"rate":"1/s","status":200}"#, "`status` is 200"),
            (r#"{"rate":"1/s","ipv6_prefix":0}"#, "`ipv6_prefix` is 0"),
            (r#"{"rate":"1/s","name":"a\"b"}"#, "`name` must be"),
            (r#"{"rate":"1/s","brust":1}"#, "unknown field `brust`"),
        ] {
            let error = configure(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        assert_eq!(configure(r#"{"rate":"1/s","by":{"query":"k"}}"#).unwrap().by, By::Query("k".into()));
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}

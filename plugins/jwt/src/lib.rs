//! Admits who has a signed JSON Web Token (RFC 7519, with the practices of RFC 8725).
//!
//! ```toml
//! filters = [{ plugin = "jwt", files = { jwks = "keys.json" }, config = { issuer = "https://id.example.com/", audience = "shop", claim_headers = { x-user = "sub" } } }]
//! ```
//!
//! Tokens are signed with HS256 (`secret`), RS256 or ES256 (`public_key`), or with one of a set of keys (`jwks`). Each key is
//! for one algorithm, and a token that is signed with another one, or with none, is refused. A token without a `kid` is
//! tried with the first two keys of its algorithm. The signature is checked first, then what the token says:
//!
//! | Claim | When it is taken |
//! |---|---|
//! | `exp` | it is later than now; missing only with `require_exp = false` |
//! | `nbf` | it is missing, or earlier than now |
//! | `iss` | it is `issuer`, or there is no such option |
//! | `aud` | it has `audience` in it; without that option, only if it is missing (RFC 7519, section 4.1.3) |
//! | `claims` | each is what it should be, or has it in it: `scope` as words, a list as its items; else 403 |
//!
//! Times may be off by `leeway` seconds, 30 where nothing is said. Answers follow RFC 6750.
//!
//! To check a signature takes about 0.2 ms with RS256, 1.7 ms with ES256, and next to nothing with HS256.

mod claims;
mod keys;
mod rsa;
mod token;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use claims::{Claims, Refusal, Rules, Value};
use keys::{Algorithm, Key, KeySet};
use moongate_plugin::http::{check_header_name, check_header_value, cookie_values, quoted, without_cookie};
use moongate_plugin::{Config, Reply, Request, RequestFilter, Verdict, unix_ms};
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::fmt;

/// What the operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    algorithms: Option<Vec<Algorithm>>,
    secret: Option<String>,
    public_key: Option<String>,
    jwks: Option<KeySet>,
    #[serde(default)]
    issuer: Names,
    #[serde(default)]
    audience: Names,
    #[serde(default = "half_a_minute")]
    leeway: u32,
    #[serde(default = "yes")]
    require_exp: bool,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    header: Option<String>,
    cookie: Option<String>,
    #[serde(default = "yes")]
    keep: bool,
    #[serde(default)]
    claim_headers: BTreeMap<String, String>,
    #[serde(default = "restricted")]
    realm: String,
}

fn half_a_minute() -> u32 {
    30
}

fn yes() -> bool {
    true
}

fn restricted() -> String {
    "restricted".into()
}

/// One name, or a list of them.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.into()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                if names.is_empty() { Err(de::Error::custom("an empty list names nobody")) } else { Ok(Names(names)) }
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

/// Where a request has its token.
#[derive(Debug, PartialEq)]
enum Source {
    /// `authorization`, after `Bearer` (RFC 6750, section 2.1).
    Bearer,
    Header(String),
    Cookie(String),
}

struct Jwt {
    keys: Vec<Key>,
    rules: Rules,
    source: Source,
    keep: bool,
    /// Headers and the claims they tell.
    claim_headers: Vec<(String, String)>,
    /// `Bearer realm="…"`.
    challenge: String,
}

/// The longest leeway: more is no difference of clocks.
const LEEWAY: u32 = 600;

impl TryFrom<Options> for Jwt {
    type Error = String;

    fn try_from(options: Options) -> Result<Self, String> {
        let keys = keys(&options)?;
        let Options {
            issuer, audience, leeway, require_exp, claims, header, cookie, keep, claim_headers, realm, ..
        } = options;
        if leeway > LEEWAY {
            return Err(format!("`leeway` is {leeway} seconds, but clocks do not differ by more than {LEEWAY}"));
        }
        let source = match (header, cookie) {
            (Some(_), Some(_)) => return Err("`header` and `cookie` do not go together: where is the token?".into()),
            (None, Some(name)) if name.is_empty() => return Err("`cookie` is empty: which has the token?".into()),
            (None, Some(name)) => Source::Cookie(name),
            (Some(name), None) => {
                check_header_name("header", &name)?;
                Source::Header(name)
            }
            (None, None) => Source::Bearer,
        };
        let carrier = match &source {
            Source::Bearer => "authorization",
            Source::Header(name) => name,
            Source::Cookie(_) => "cookie",
        };
        for name in claim_headers.keys() {
            check_header_name("claim_headers", name)?;
            if name.eq_ignore_ascii_case(carrier) {
                return Err(format!("`claim_headers` has `{name}`, the header where the token is"));
            }
        }
        check_header_value("realm", &realm)?;
        Ok(Self {
            keys,
            rules: Rules { issuers: issuer.0, audiences: audience.0, leeway, require_exp, claims },
            source,
            keep,
            claim_headers: claim_headers.into_iter().collect(),
            challenge: format!("Bearer realm={}", quoted(&realm)),
        })
    }
}

/// The keys of all options together, of the algorithms that are allowed.
fn keys(options: &Options) -> Result<Vec<Key>, String> {
    let allowed = |key: &Key| options.algorithms.as_ref().is_none_or(|all| all.contains(&key.algorithm()));
    let mut keys = Vec::new();
    let secret = options.secret.as_ref().map(|secret| secret.trim_end_matches(['\r', '\n']).as_bytes());
    let secret = secret.map(|secret| ("secret", Key::secret(secret)));
    let public = options.public_key.as_ref().map(|text| ("public_key", Key::pem(text)));
    for (option, key) in secret.into_iter().chain(public) {
        let key = key.map_err(|error| format!("`{option}` {error}"))?;
        if !allowed(&key) {
            let name = key.algorithm().name();
            return Err(format!("`{option}` is a key for {name}, which is not one of `algorithms`"));
        }
        keys.push(key);
    }
    if let Some(set) = &options.jwks {
        keys.extend(set.keys()?.into_iter().filter(allowed));
    }
    for algorithm in options.algorithms.iter().flatten() {
        if !keys.iter().any(|key| key.algorithm() == *algorithm) {
            return Err(format!("`algorithms` has {}, but there is no key for it", algorithm.name()));
        }
    }
    if keys.is_empty() {
        return Err(
            "there is no key to check a token with: give `secret`, `public_key` or `jwks`, with a key for HS256, \
                    RS256 or ES256"
                .into(),
        );
    }
    Ok(keys)
}

/// The token of an `authorization` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_ascii())
}

impl Jwt {
    /// What a token says, if it may be believed.
    fn claims(&self, token: &str, unix_ms: u64) -> Result<Claims, Refusal> {
        let claims = token::verified(token, &self.keys).ok_or(Refusal::Invalid)?;
        claims.check(&self.rules, unix_ms)?;
        Ok(claims)
    }

    /// The headers that tell the endpoint what the token says; none: there is to be no such header.
    fn told<'a>(&'a self, claims: &Claims) -> Result<Vec<(&'a str, Option<String>)>, Refusal> {
        let told = |(header, claim): &'a (String, String)| {
            let text = claims.get(claim).map_or(Ok(None), Value::text).map_err(|()| Refusal::Invalid)?;
            Ok((header.as_str(), text))
        };
        self.claim_headers.iter().map(told).collect()
    }

    /// RFC 6750, section 3.1.
    fn refusal(&self, why: &Refusal) -> Reply {
        let challenge = |code: &str| format!("{}, error=\"{code}\"", self.challenge);
        match why {
            Refusal::Expired => {
                let challenge = challenge("invalid_token") + ", error_description=\"the token has expired\"";
                Reply::unauthorized(&challenge, "the token has expired")
            }
            Refusal::Invalid => Reply::unauthorized(&challenge("invalid_token"), "the token is not valid here"),
            Refusal::Insufficient => Reply::text(403, "the token does not allow this")
                .with("www-authenticate", &challenge("insufficient_scope"))
                .with("cache-control", "no-store"),
        }
    }

    /// The token that a request has: just one, or it would depend on the reader which.
    fn token(&self, request: &Request) -> Option<String> {
        match &self.source {
            Source::Bearer => bearer(&request.header("authorization")?).map(str::to_owned),
            Source::Header(name) => request.header(name),
            Source::Cookie(name) => {
                let cookies = request.cookies();
                let mut values = cookie_values(&cookies, name);
                let token = values.next()?;
                values.next().is_none().then(|| token.to_owned())
            }
        }
    }

    /// Leaves the token that was checked in the request, or none. There may have been more, which nobody has checked.
    fn pass_on(&self, request: &Request, token: &str) -> bool {
        match &self.source {
            Source::Bearer if self.keep => request.set("authorization", &["Bearer ", token].concat()),
            Source::Header(name) if self.keep => request.set(name, token),
            Source::Bearer => request.remove("authorization"),
            Source::Header(name) => request.remove(name),
            Source::Cookie(_) if self.keep => true,
            Source::Cookie(name) => {
                let others = without_cookie(&request.cookies(), name);
                if others.is_empty() { request.remove("cookie") } else { request.set("cookie", &others) }
            }
        }
    }

    fn admit(&self, request: &Request, token: &str) -> Result<(), Refusal> {
        let claims = self.claims(token, unix_ms())?;
        let told = self.told(&claims)?;
        let told: Vec<(&str, Option<&str>)> = told.iter().map(|(name, text)| (*name, text.as_deref())).collect();
        let vouched = told.is_empty() || request.vouch(&told);
        if vouched && self.pass_on(request, token) { Ok(()) } else { Err(Refusal::Invalid) }
    }
}

impl RequestFilter for Jwt {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let Some(token) = self.token(&request) else {
            return Verdict::Respond(Reply::unauthorized(&self.challenge, "a token is needed"));
        };
        match self.admit(&request, &token) {
            Ok(()) => Verdict::Next,
            Err(why) => Verdict::Respond(self.refusal(&why)),
        }
    }
}

moongate_plugin::plugin!(Jwt: RequestFilter; schema = include_str!("../schema.json"));

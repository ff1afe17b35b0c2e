//! The option `by` of balancers that go by a part of the request.

use crate::host::keys::Key;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};
use std::fmt;

/// Which part of a request is the key, as an option: `by = "path"` or `by = { header = "x-user" }`.
///
/// Requests with equal keys are treated alike. A header's name is compared without regard to case, those of cookies and
/// query parameters exactly; where a name is there several times, its first value counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// `"client-address"`: the address of the client, without the port.
    ClientAddress,
    /// `"path"`: the path, without the query.
    Path,
    /// `"authority"`: the host asked for, with the port if one was given.
    Authority,
    /// `"method"`.
    Method,
    /// `{ header = "NAME" }`.
    Header(String),
    /// `{ cookie = "NAME" }`.
    Cookie(String),
    /// `{ query = "NAME" }`: a parameter of the query, as it was sent.
    Query(String),
}

impl By {
    /// The key to ask for in `pick`. Only in `configure`.
    pub fn declare(&self) -> Key {
        match self {
            Self::ClientAddress => Key::client_address(),
            Self::Path => Key::path(),
            Self::Authority => Key::authority(),
            Self::Method => Key::method(),
            Self::Header(name) => Key::header(name),
            Self::Cookie(name) => Key::cookie(name),
            Self::Query(name) => Key::query(name),
        }
    }
}

/// Whether this may name a header (RFC 9110, section 5.6.2) or a cookie (RFC 6265, section 4.1.1).
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

const WORDS: &str = "`by` as \"client-address\", \"path\", \"authority\", \"method\", { header = \"NAME\" }, \
                     { cookie = \"NAME\" } or { query = \"NAME\" }";

// By hand: the derived one speaks of variants, which mean nothing to an operator, and is larger.
impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Words)
    }
}

struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = By;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<By, E> {
        match word {
            "client-address" => Ok(By::ClientAddress),
            "path" => Ok(By::Path),
            "authority" => Ok(By::Authority),
            "method" => Ok(By::Method),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<By, A::Error> {
        let wrong = || de::Error::invalid_value(Unexpected::Map, &Words);
        let source: String = map.next_key()?.ok_or_else(wrong)?;
        let name: String = map.next_value()?;
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("`by` has several keys: it takes exactly one"));
        }
        if name.is_empty() || source != "query" && !is_token(&name) {
            return Err(de::Error::custom(["`by.", &source, "` is `", &name, "`, which is no name"].concat()));
        }
        match &*source {
            "header" => Ok(By::Header(name)),
            "cookie" => Ok(By::Cookie(name)),
            "query" => Ok(By::Query(name)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(json: &str) -> Result<By, String> {
        crate::Config::new(json).parse()
    }

    #[test]
    fn every_source_has_its_word() {
        for (json, expected) in [
            (r#""client-address""#, By::ClientAddress),
            (r#""path""#, By::Path),
            (r#""authority""#, By::Authority),
            (r#""method""#, By::Method),
            (r#"{"header":"x-user"}"#, By::Header("x-user".into())),
            (r#"{"cookie":"id"}"#, By::Cookie("id".into())),
            (r#"{"query":"user id"}"#, By::Query("user id".into())),
        ] {
            assert_eq!(by(json), Ok(expected));
        }
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (json, words) in [
            (r#""header""#, r#"{ header = "NAME" }"#),
            ("7", "found a number"),
            ("{}", "expected `by` as"),
            (r#"{"heder":"x"}"#, "expected `by` as"),
            (r#"{"header":7}"#, "expected a string"),
            (r#"{"header":"x y"}"#, "`by.header` is `x y`, which is no name"),
            (r#"{"cookie":""}"#, "`by.cookie` is ``"),
            (r#"{"header":"x","cookie":"y"}"#, "exactly one"),
        ] {
            let error = by(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}

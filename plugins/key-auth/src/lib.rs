//! Admits who has an API key.
//!
//! ```toml
//! filters = [{ plugin = "key-auth", config = { keys = { shop = "sha256:9f86d0…", jobs = "a-long-random-key" }, name_header = "x-client" } }]
//! ```
//!
//! A key is looked for in the header `header`, or in the query parameter `query`, and not in other places. `sha256:` and
//! the SHA-256 of a key, from `printf %s "$KEY" | sha256sum`, spares the configuration the key itself: good enough for
//! random keys, which nobody can guess. A request with two keys is refused: the endpoint might mean the other one.
//!
//! All keys are compared with the one that came, whichever it is; 1,000 of them take some 100 µs.

use moongate_plugin::http::{check_header_name, check_header_value, query_values, without_parameter};
use moongate_plugin::{Config, Reply, Request, RequestFilter, Verdict};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    keys: BTreeMap<String, String>,
    header: Option<String>,
    query: Option<String>,
    name_header: Option<String>,
    #[serde(default)]
    keep: bool,
}

/// Characters of a key that stands in the configuration itself: fewer can be tried out from afar.
const SHORTEST: usize = 16;

#[derive(Debug, PartialEq)]
enum Place {
    Header(String),
    Query(String),
}

struct KeyAuth {
    /// The SHA-256 of keys, of one length, so that comparing takes as long for each; and whose they are.
    keys: Vec<([u8; 32], String)>,
    place: Place,
    name_header: Option<String>,
    keep: bool,
}

/// Errors name the key's owner and never the key.
fn hash(name: &str, key: &str) -> Result<[u8; 32], String> {
    let Some(digits) = key.strip_prefix("sha256:") else {
        if key.len() < SHORTEST || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "the key of `{name}` must be at least {SHORTEST} visible ASCII characters, and random"
            ));
        }
        return Ok(Sha256::digest(key).into());
    };
    let hash = base16ct::mixed::decode_vec(digits).ok().and_then(|hash| hash.try_into().ok());
    hash.ok_or_else(|| format!("the key of `{name}` must be `sha256:` and 64 hexadecimal digits"))
}

impl TryFrom<Options> for KeyAuth {
    type Error = String;

    fn try_from(Options { keys, header, query, name_header, keep }: Options) -> Result<Self, String> {
        if keys.is_empty() {
            return Err("`keys` is empty, so nobody could come in".into());
        }
        let mut hashed: BTreeMap<[u8; 32], String> = BTreeMap::new();
        for (name, key) in keys {
            check_header_value("keys", &name)?;
            if let Some(other) = hashed.insert(hash(&name, &key)?, name.clone()) {
                return Err(format!("`{other}` and `{name}` have the same key, so nobody could tell whose it is"));
            }
        }
        let place = match (header, query) {
            (Some(_), Some(_)) => return Err("`header` and `query` do not go together: where is the key?".into()),
            (None, Some(name)) if name.is_empty() => {
                return Err("`query` is empty: which parameter has the key?".into());
            }
            (None, Some(name)) => Place::Query(name),
            (header, None) => {
                let name = header.unwrap_or_else(|| "x-api-key".into());
                check_header_name("header", &name)?;
                Place::Header(name)
            }
        };
        name_header.iter().try_for_each(|name| check_header_name("name_header", name))?;
        if let (Some(name), Place::Header(header)) = (&name_header, &place)
            && name.eq_ignore_ascii_case(header)
        {
            return Err("`name_header` is the header where the key is".into());
        }
        Ok(Self { keys: hashed.into_iter().collect(), place, name_header, keep })
    }
}

impl KeyAuth {
    /// Whose key this is. The time it takes depends on how many keys there are, and on nothing else.
    fn owner(&self, key: &str) -> Option<&str> {
        let digest = Sha256::digest(key);
        let mut found = u32::MAX;
        for (index, (hash, _)) in (0..).zip(&self.keys) {
            found.conditional_assign(&index, digest.as_slice().ct_eq(hash));
        }
        self.keys.get(found as usize).map(|(_, name)| name.as_str())
    }

    /// The one key among what a request has in that place.
    fn only<T>(mut values: impl Iterator<Item = T>) -> Option<T> {
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    fn refusal() -> Verdict {
        // There is no scheme of that kind (RFC 9110, section 16.4.1), but a 401 must have a challenge.
        Verdict::Respond(Reply::unauthorized("ApiKey", "an API key is needed"))
    }
}

impl RequestFilter for KeyAuth {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let target = request.path();
        let key = match &self.place {
            Place::Header(name) => Self::only(request.values(name).into_iter()),
            Place::Query(name) => Self::only(query_values(&target, name)).map(|value| value.into_owned()),
        };
        let Some(key) = key else { return Self::refusal() };
        let Some(owner) = self.owner(&key) else { return Self::refusal() };
        let taken = self.keep
            || match &self.place {
                Place::Header(name) => request.remove(name),
                Place::Query(name) => request.set_path(&without_parameter(&target, name)),
            };
        let told = self.name_header.as_ref().is_none_or(|name| request.vouch(&[(name, Some(owner))]));
        if taken && told { Verdict::Next } else { Self::refusal() }
    }
}

moongate_plugin::plugin!(KeyAuth: RequestFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<KeyAuth, String> {
        RequestFilter::configure(Config::new(json))
    }

    #[test]
    fn a_key_is_its_owner_s() {
        // SHA-256 of `abc`, FIPS 180-2, appendix B.1.
        let filter = configure(
            r#"{"keys":{"a":"0123456789abcdef","b":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","c":"0123456789abcdeg"}}"#,
        )
        .unwrap();
        assert_eq!(filter.owner("0123456789abcdef"), Some("a"));
        assert_eq!(filter.owner("abc"), Some("b"));
        assert_eq!(filter.owner("0123456789abcdeg"), Some("c"));
        for wrong in ["", "ab", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef "] {
            assert_eq!(filter.owner(wrong), None, "{wrong}");
        }
        assert_eq!(filter.owner("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), None);
    }

    #[test]
    fn two_keys_are_none() {
        assert_eq!(KeyAuth::only(["a"].iter()), Some(&"a"));
        assert_eq!(KeyAuth::only(["a", "a"].iter()), None);
        assert_eq!(KeyAuth::only(query_values("/?key=a&%6bey=b", "key")), None);
        assert_eq!(KeyAuth::only(query_values("/", "key")), None);
    }

    #[test]
    fn the_header_has_a_default() {
        let place = |json| configure(json).unwrap().place;
        assert_eq!(place(r#"{"keys":{"a":"0123456789abcdef"}}"#), Place::Header("x-api-key".into()));
        assert_eq!(place(r#"{"keys":{"a":"0123456789abcdef"},"query":"k"}"#), Place::Query("k".into()));
    }

    #[test]
    fn mistakes_are_named_and_keys_are_not() {
        for (json, words) in [
            ("{}", "missing field `keys`"),
            (r#"{"keys":{}}"#, "`keys` is empty"),
            (r#"{"keys":{"a":"hunter2"}}"#, "the key of `a` must be at least 16"),
            (r#"{"keys":{"a":"hunter2 hunter2 hunter2"}}"#, "the key of `a` must be at least 16"),
            (r#"{"keys":{"a":"sha256:hunter2"}}"#, "the key of `a` must be `sha256:`"),
            (
                r#"{"keys":{"a":"hunter2-hunter2-","b":"x123456789abcdef","c":"hunter2-hunter2-"}}"#,
                "`a` and `c` have the same",
            ),
            (r#"{"keys":{"a":"hunter2-hunter2-"},"header":"a","query":"b"}"#, "do not go together"),
            (r#"{"keys":{"a":"hunter2-hunter2-"},"header":"a b"}"#, "`header` is `a b`"),
            (r#"{"keys":{"a":"hunter2-hunter2-"},"query":""}"#, "`query` is empty"),
            (r#"{"keys":{"a":"hunter2-hunter2-"},"name_header":"X-Api-Key"}"#, "where the key is"),
            (r#"{"keys":{"a\n":"hunter2-hunter2-"}}"#, "`keys` has a line break"),
            (r#"{"kes":{}}"#, "unknown field `kes`"),
        ] {
            let error = configure(json).err().unwrap();
            assert!(error.contains(words), "{json}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}

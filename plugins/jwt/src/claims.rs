//! What a token says (RFC 7519, section 4), and what it has to say.

use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::fmt;

/// Any JSON. A table with a name twice is an error: which one counts would be anybody's guess (RFC 7519, section 4).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Whole(i128),
    Fraction(f64),
    Text(String),
    List(Vec<Value>),
    Table(BTreeMap<String, Value>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Whole(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Whole(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Fraction(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.into()))
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                let mut table = BTreeMap::new();
                while let Some((name, value)) = members.next_entry()? {
                    if table.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name is there twice"));
                    }
                }
                Ok(Value::Table(table))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Value {
    /// As a header says it: text, numbers and words as they are, lists of them with commas. None: there is nothing to say.
    ///
    /// # Errors
    /// If a list has text with a comma, which would say more than the token does.
    pub(crate) fn text(&self) -> Result<Option<String>, ()> {
        match self {
            Self::Text(text) => Ok(Some(text.clone())),
            Self::Bool(value) => Ok(Some(value.to_string())),
            Self::Whole(number) => Ok(Some(number.to_string())),
            Self::Null | Self::Fraction(_) | Self::Table(_) => Ok(None),
            Self::List(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match item {
                        Self::Text(text) if text.contains(',') => return Err(()),
                        Self::List(_) => {}
                        _ => texts.extend(item.text()?),
                    }
                }
                Ok((!texts.is_empty()).then(|| texts.join(",")))
            }
        }
    }
}

/// What a token says.
#[derive(Debug)]
pub(crate) struct Claims(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Table(claims) => Ok(Self(claims)),
            _ => Err(de::Error::custom("claims are a table")),
        }
    }
}

/// Why a token that was signed is not taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    Expired,
    /// `exp` is missing or no number, or so is `nbf`, or it is not yet valid; from somebody else, or for somebody else.
    Invalid,
    /// It is a good token, but not for this.
    Insufficient,
}

/// What a token has to say.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Empty: anybody.
    pub(crate) issuers: Vec<String>,
    /// Empty: such as are for nobody in particular; `*`: all.
    pub(crate) audiences: Vec<String>,
    /// Seconds.
    pub(crate) leeway: u32,
    pub(crate) require_exp: bool,
    /// Claims, and what each may be.
    pub(crate) claims: BTreeMap<String, Value>,
}

impl Claims {
    /// The claim of this name, which may have dots in it; else the one at the end of a path with a dot between two names.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        fn find<'a>(table: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a Value> {
            table.get(name).or_else(|| {
                let mut parts = name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
                parts.find_map(|(first, rest)| match table.get(first)? {
                    Value::Table(inner) => find(inner, rest),
                    _ => None,
                })
            })
        }
        find(&self.0, name)
    }

    /// A time (RFC 7519, section 2, "NumericDate"), in seconds; none if there is none.
    fn time(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Whole(seconds)) => Ok(Some(*seconds as f64)),
            Some(Value::Fraction(seconds)) if seconds.is_finite() => Ok(Some(*seconds)),
            Some(_) => Err(Refusal::Invalid),
        }
    }

    /// Whether the token says what it has to, at this time.
    pub(crate) fn check(&self, rules: &Rules, unix_ms: u64) -> Result<(), Refusal> {
        let (now, leeway) = (unix_ms as f64 / 1000.0, f64::from(rules.leeway));
        match self.time("exp")? {
            Some(expires) if now >= expires + leeway => return Err(Refusal::Expired),
            None if rules.require_exp => return Err(Refusal::Invalid),
            _ => {}
        }
        if self.time("nbf")?.is_some_and(|begins| now + leeway < begins) {
            return Err(Refusal::Invalid);
        }
        let is_one = |value: &Value, of: &[String]| matches!(value, Value::Text(text) if of.contains(text));
        let issued = |value: &Value| is_one(value, &rules.issuers);
        if !rules.issuers.is_empty() && !self.0.get("iss").is_some_and(issued) {
            return Err(Refusal::Invalid);
        }
        let any = rules.audiences.iter().any(|audience| audience == "*");
        let ours = match self.0.get("aud") {
            _ if any => true,
            // RFC 7519, section 4.1.3: who is not named must refuse.
            Some(Value::List(items)) => items.iter().any(|item| is_one(item, &rules.audiences)),
            Some(value) => is_one(value, &rules.audiences),
            None => rules.audiences.is_empty(),
        };
        if !ours {
            return Err(Refusal::Invalid);
        }
        let said = |(name, wanted): (&String, &Value)| self.get(name).is_some_and(|value| fits(name, value, wanted));
        if rules.claims.iter().all(said) { Ok(()) } else { Err(Refusal::Insufficient) }
    }
}

/// Whether a claim is what it should be, or has it in it; of a list of what it may be, one is enough.
fn fits(name: &str, value: &Value, wanted: &Value) -> bool {
    match (wanted, value) {
        (Value::List(choices), _) => choices.iter().any(|wanted| fits(name, value, wanted)),
        (_, Value::List(items)) => items.contains(wanted),
        // Words with spaces between them (RFC 8693, section 4.2).
        (Value::Text(word), Value::Text(text)) if name == "scope" => text.split(' ').any(|it| it == word),
        _ => value == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        moongate_plugin::json::read(json).unwrap()
    }

    /// At 1,000 seconds, with a leeway of 30.
    fn check(json: &str, rules: Rules) -> Result<(), Refusal> {
        claims(json).check(&Rules { leeway: 30, ..rules }, 1_000_000)
    }

    #[test]
    fn a_token_is_for_its_time() {
        let exp = |exp: &str| check(&format!(r#"{{"exp":{exp}}}"#), Rules::default());
        assert_eq!(exp("971"), Ok(()));
        assert_eq!(exp("970.5"), Ok(()));
        assert_eq!(exp("970"), Err(Refusal::Expired), "30 seconds ago");
        for odd in [r#""2000""#, "null", "[2000]", "true", "1e999"] {
            assert_eq!(exp(odd), Err(Refusal::Invalid), "{odd}");
        }
        assert_eq!(exp("-1"), Err(Refusal::Expired));
        let nbf = |nbf: &str| check(&format!(r#"{{"nbf":{nbf}}}"#), Rules::default());
        assert_eq!((nbf("1030"), nbf("1031")), (Ok(()), Err(Refusal::Invalid)));
        assert_eq!(nbf(r#""0""#), Err(Refusal::Invalid));
    }

    #[test]
    fn a_token_without_an_end_is_taken_only_if_that_is_said() {
        let required = || Rules { require_exp: true, ..Rules::default() };
        assert_eq!(check("{}", required()), Err(Refusal::Invalid));
        assert_eq!(check("{}", Rules::default()), Ok(()));
    }

    #[test]
    fn the_issuer_is_one_of_those() {
        let rules = || Rules { issuers: vec!["a".into(), "b".into()], ..Rules::default() };
        assert_eq!(check(r#"{"iss":"b"}"#, rules()), Ok(()));
        for other in [r#"{"iss":"c"}"#, r#"{"iss":["a"]}"#, r#"{"iss":""}"#, "{}"] {
            assert_eq!(check(other, rules()), Err(Refusal::Invalid), "{other}");
        }
        assert_eq!(check(r#"{"iss":"c"}"#, Rules::default()), Ok(()));
    }

    #[test]
    fn the_audience_has_us_in_it() {
        let rules = |audience: &str| Rules { audiences: vec![audience.into()], ..Rules::default() };
        assert_eq!(check(r#"{"aud":"shop"}"#, rules("shop")), Ok(()));
        assert_eq!(check(r#"{"aud":["x","shop"]}"#, rules("shop")), Ok(()));
        for other in [r#"{"aud":"x"}"#, r#"{"aud":["x"]}"#, r#"{"aud":[]}"#, r#"{"aud":{"shop":1}}"#, "{}"] {
            assert_eq!(check(other, rules("shop")), Err(Refusal::Invalid), "{other}");
        }
        assert_eq!(check(r#"{"aud":"x"}"#, rules("*")), Ok(()));
        assert_eq!(
            check(r#"{"aud":"x"}"#, Rules::default()),
            Err(Refusal::Invalid),
            "it is for somebody, but who is this?"
        );
    }

    #[test]
    fn required_claims_are_said_or_in_what_is_said() {
        let token = r#"{"scope":"read write","roles":["admin","dev"],"level":3,"ok":true,
            "https://a.example/x.y":"z","realm_access":{"roles":["deep"]},"a":{"b.c":{"d":1}}}"#;
        let fits = |wanted: &str| {
            let rules = Rules { claims: moongate_plugin::json::read(wanted).unwrap(), ..Rules::default() };
            check(token, rules)
        };
        for good in [
            r#"{"scope":"write"}"#,
            r#"{"roles":"admin"}"#,
            r#"{"roles":["root","dev"]}"#,
            r#"{"level":3,"ok":true}"#,
            r#"{"https://a.example/x.y":"z"}"#,
            r#"{"realm_access.roles":"deep"}"#,
            r#"{"a.b.c.d":1}"#,
        ] {
            assert_eq!(fits(good), Ok(()), "{good}");
        }
        for bad in [
            r#"{"scope":"writ"}"#,
            r#"{"scope":"read write"}"#,
            r#"{"roles":"root"}"#,
            r#"{"roles":[]}"#,
            r#"{"level":"3"}"#,
            r#"{"level":3,"ok":false}"#,
            r#"{"missing":"x"}"#,
            r#"{"realm_access.role":"deep"}"#,
            r#"{"level.x":3}"#,
        ] {
            assert_eq!(fits(bad), Err(Refusal::Insufficient), "{bad}");
        }
    }

    #[test]
    fn claims_are_told_as_text_that_says_no_more() {
        let text = |json: &str| moongate_plugin::json::read::<Value>(json).unwrap().text();
        assert_eq!(text(r#""ada""#), Ok(Some("ada".into())));
        assert_eq!(text("18446744073709551615"), Ok(Some("18446744073709551615".into())));
        assert_eq!(text("false"), Ok(Some("false".into())));
        assert_eq!(text(r#"["a",1,null,{"b":2},["c"]]"#), Ok(Some("a,1".into())));
        assert_eq!(text(r#"["a","b,admin"]"#), Err(()));
        for nothing in ["null", "1.5", "{}", "[]", "[{}]"] {
            assert_eq!(text(nothing), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn claims_are_a_table_without_doubt() {
        for json in ["[]", "1", r#"{"exp":1,"exp":2}"#, r#"{"a":{"b":1,"b":2}}"#, "{", ""] {
            assert!(moongate_plugin::json::read::<Claims>(json).is_err(), "{json}");
        }
    }
}

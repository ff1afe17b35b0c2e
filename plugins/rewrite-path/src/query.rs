//! What becomes of the query.

use moongate_plugin::http::is_parameter;
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::fmt;

/// `"keep"`, `"drop"` or a table of changes.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Query {
    #[default]
    Keep,
    Drop,
    Change(Change),
}

/// Names are compared once they are decoded, so that `%61` is `a` here as it is for the endpoint.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// Each replaces all parameters of that name, or comes last.
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    remove: Vec<String>,
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Query;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`query` to be \"keep\", \"drop\" or a table like { set = { a = \"b\" }, remove = [\"c\"] }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Query, E> {
                match text {
                    "keep" => Ok(Query::Keep),
                    "drop" => Ok(Query::Drop),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<Query, A::Error> {
                Change::deserialize(de::value::MapAccessDeserializer::new(table)).map(Query::Change)
            }
        }
        // Whatever the method's name, the visitor decides; this one leaves out the code that reads fractions.
        deserializer.deserialize_map(Visitor)
    }
}

impl Query {
    /// What becomes of a query: none if it stays, else the new one, or that there is none any more.
    pub(crate) fn rewritten(&self, query: Option<&str>) -> Option<Option<String>> {
        match self {
            Self::Keep => None,
            Self::Drop => query.map(|_| None),
            Self::Change(change) => {
                let new = change.apply(query.unwrap_or_default());
                let new = (!new.is_empty()).then_some(new);
                (new.as_deref() != query).then_some(new)
            }
        }
    }
}

impl Change {
    fn apply(&self, query: &str) -> String {
        let gone =
            |pair: &str| self.set.keys().chain(&self.remove).any(|name| is_parameter(pair, name)) || pair.is_empty();
        let mut pairs: Vec<String> = query.split('&').filter(|pair| !gone(pair)).map(str::to_owned).collect();
        pairs.extend(self.set.iter().map(|(name, value)| [&encoded(name), "=", &encoded(value)].concat()));
        pairs.join("&")
    }
}

/// With everything encoded but what is unreserved (RFC 3986, section 2.3), which means the same to every decoder.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(json: &str) -> Query {
        moongate_plugin::json::read(json).unwrap()
    }

    #[test]
    fn a_set_parameter_replaces_all_of_its_name_and_a_removed_one_goes_in_any_spelling() {
        let change = query(r#"{"set":{"a":"1 &"},"remove":["debug"]}"#);
        let rewritten = |query| change.rewritten(Some(query)).unwrap().unwrap();
        assert_eq!(rewritten("a=0&b=2&%61=3"), "b=2&a=1%20%26");
        assert_eq!(rewritten("%64ebug=1&debugger&debug"), "debugger&a=1%20%26");
        assert_eq!(change.rewritten(None), Some(Some("a=1%20%26".into())));
        assert_eq!(change.rewritten(Some("a=1%20%26")), None, "as it is to be");
    }

    #[test]
    fn a_query_of_which_nothing_is_left_goes_with_its_question_mark() {
        let change = query(r#"{"remove":["a"]}"#);
        assert_eq!(change.rewritten(Some("a=1")), Some(None));
        assert_eq!(change.rewritten(Some("b=1")), None);
        assert_eq!(change.rewritten(None), None);
        assert_eq!(query("\"drop\"").rewritten(Some("")), Some(None));
        assert_eq!(query("\"keep\"").rewritten(Some("a")), None);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |json| moongate_plugin::json::read::<Query>(json).unwrap_err();
        assert!(error("\"forget\"").contains("`query` to be \"keep\", \"drop\" or a table"));
        assert!(error("1").contains("found a number"));
        assert!(error(r#"{"add":{}}"#).contains("unknown field `add`, expected `set` or `remove`"));
    }
}

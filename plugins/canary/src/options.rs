//! What the operator writes.

use crate::share::Share;
use moongate_plugin::{is_token, keys::By};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer};
use std::fmt;

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    pub(crate) label: Labels,
    #[serde(default)]
    pub(crate) share: Share,
    pub(crate) header: Option<Mark>,
    pub(crate) cookie: Option<Mark>,
    pub(crate) by: Option<By>,
}

/// Names and values, at least one.
#[derive(Debug, PartialEq)]
pub(crate) struct Labels(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`label` as a table of labels that a canary has, such as { version = \"2\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Vec::new();
                while let Some(label) = map.next_entry()? {
                    labels.push(label);
                }
                if labels.is_empty() {
                    return Err(de::Error::invalid_value(Unexpected::Map, &self));
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(Table)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Part;
        impl Visitor<'_> for Part {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`share` as a number from 0 to 1, or as a percentage such as \"5%\"")
            }

            fn visit_u64<E: de::Error>(self, part: u64) -> Result<Share, E> {
                self.visit_f64(part as f64)
            }

            fn visit_f64<E: de::Error>(self, part: f64) -> Result<Share, E> {
                Share::new(part).ok_or_else(|| E::invalid_value(Unexpected::Float(part), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                let percent = text.strip_suffix('%').and_then(|number| number.trim_ascii_end().parse::<f64>().ok());
                let share = percent.and_then(|percent| Share::new(percent / 100.0));
                share.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Part)
    }
}

/// A header or cookie that sends a request to a canary.
#[derive(Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) name: String,
    /// None: any.
    pub(crate) value: Option<String>,
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            name: String,
            value: Option<String>,
        }
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Mark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or { name = \"NAME\", value = \"VALUE\" }, for `header` or `cookie`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Mark, E> {
                if !is_token(name) {
                    return Err(E::custom(["`", name, "` is no name of a header or cookie"].concat()));
                }
                Ok(Mark { name: name.into(), value: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Mark, A::Error> {
                let Table { name, value } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Mark { value, ..self.visit_str(&name)? })
            }
        }
        deserializer.deserialize_map(NameOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::Config;

    fn options(json: &str) -> Result<Options, String> {
        Config::new(json).parse()
    }

    #[test]
    fn all_forms_are_read() {
        let mark = |name: &str, value: Option<&str>| Mark { name: name.into(), value: value.map(String::from) };
        let all = r#"{"label":{"version":"2","track":"new"},"share":"0.5%","header":"x-canary",
            "cookie":{"name":"canary","value":"yes"},"by":{"header":"x-user"}}"#;
        let labels = [("version", "2"), ("track", "new")].map(|(name, value)| (name.to_string(), value.to_string()));
        let expected = Options {
            label: Labels(labels.into()),
            share: Share::new(0.005).unwrap(),
            header: Some(mark("x-canary", None)),
            cookie: Some(mark("canary", Some("yes"))),
            by: Some(By::Header("x-user".into())),
        };
        assert_eq!(options(all), Ok(expected));
        for (share, part) in [("1", 1.0), ("0", 0.0), ("0.25", 0.25), ("\"100%\"", 1.0), ("\"5 %\"", 0.05)] {
            let json = format!(r#"{{"label":{{"a":"b"}},"share":{share}}}"#);
            assert_eq!(options(&json).unwrap().share, Share::new(part).unwrap(), "{share}");
        }
        assert_eq!(options(r#"{"label":{"a":"b"}}"#).unwrap().share, Share::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "missing field `label`"),
            (r#"{"label":{}}"#, "`label` as a table"),
            (r#"{"label":"version"}"#, "`label` as a table"),
            (r#"{"label":{"version":2}}"#, "expected a string, found a number"),
            (r#"{"label":{"a":"b"},"share":5}"#, "such as \"5%\""),
            (r#"{"label":{"a":"b"},"share":-0.1}"#, "`share` as a number from 0 to 1"),
            (r#"{"label":{"a":"b"},"share":-1}"#, "`share` as a number from 0 to 1"),
            (r#"{"label":{"a":"b"},"share":"101%"}"#, "`share` as"),
            (r#"{"label":{"a":"b"},"share":"5"}"#, "`share` as"),
            (r#"{"label":{"a":"b"},"share":"NaN%"}"#, "`share` as"),
            (r#"{"label":{"a":"b"},"header":"x y"}"#, "`x y` is no name"),
            (r#"{"label":{"a":"b"},"header":{"name":""}}"#, "`` is no name"),
            (r#"{"label":{"a":"b"},"header":{"value":"x"}}"#, "missing field `name`"),
            (r#"{"label":{"a":"b"},"cookie":7}"#, "for `header` or `cookie`"),
            (r#"{"label":{"a":"b"},"by":"user"}"#, "`by` as"),
        ] {
            let error = options(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = options(r#"{"?":0}"#).unwrap_err();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}

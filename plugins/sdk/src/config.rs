//! The options of one use of a plugin. Their errors are read by the operator who wrote them, so they name the key.

use crate::json;
use serde::de::DeserializeOwned;

/// The JSON object that stands in the gateway's configuration; `{}` if none does.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    json: &'a str,
}

impl<'a> Config<'a> {
    #[doc(hidden)]
    pub fn new(json: &'a str) -> Self {
        Self { json }
    }

    /// The JSON itself.
    pub fn json(&self) -> &'a str {
        self.json
    }

    /// The options as a value. Give `T` `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        json::from_str(self.json).map_err(|error| error.0)
    }

    /// For a plugin without options: an error that names the first key there is.
    // By hand, because even a small JSON reader would be most of a small balancer.
    pub fn none(&self) -> Result<(), String> {
        let text = self.json.trim_ascii();
        match text.strip_prefix('{').map(str::trim_ascii_start) {
            Some("}") => Ok(()),
            Some(members) => {
                let key = members.strip_prefix('"').unwrap_or(members);
                let end = key.bytes().position(|byte| byte == b'"').unwrap_or(key.len());
                Err(["unknown field `", key.get(..end).unwrap_or_default(), "`: there are no options"].concat())
            }
            None => Err("the options must be a table".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Options {
        name: String,
    }

    #[test]
    fn options_are_parsed_and_a_misspelt_key_is_named() {
        let parse = |json| Config::new(json).parse::<Options>();
        assert_eq!(parse(r#"{"name":"a"}"#), Ok(Options { name: "a".into() }));
        assert_eq!(parse(r#"{"nam":"a"}"#).unwrap_err(), "unknown field `nam`, expected `name`");
        assert_eq!(parse("{}").unwrap_err(), "missing field `name`");
    }

    #[test]
    fn no_options_means_none() {
        let none = |json| Config::new(json).none();
        assert_eq!(none("{}"), Ok(()));
        assert_eq!(none(" { } "), Ok(()));
        assert_eq!(none(r#"{ "a b": 1, "c": 2}"#).unwrap_err(), "unknown field `a b`: there are no options");
        assert!(none("[]").is_err());
    }
}

//! The options of one use of a plugin. Their errors are read by the operator who wrote them, so they name the key.

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
        serde_json::from_str(self.json).map_err(|error| {
            let mut message = error.to_string();
            // A place in the JSON that the gateway made says nothing to someone who wrote TOML.
            if let Some(end) = message.rfind(" at line ") {
                message.truncate(end);
            }
            message
        })
    }

    /// For a plugin without options: an error that names the first key there is.
    // By hand, because a JSON parser would be most of a small balancer.
    pub fn none(&self) -> Result<(), String> {
        let inner = self
            .json
            .trim()
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        match inner.map(str::trim) {
            Some("") => Ok(()),
            Some(members) => {
                let key = members.split('"').nth(1).unwrap_or(members);
                Err(["unknown field `", key, "`: there are no options"].concat())
            }
            None => Err("the options must be an object".into()),
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
        assert_eq!(
            parse(r#"{"nam":"a"}"#).unwrap_err(),
            "unknown field `nam`, expected `name`"
        );
        assert_eq!(parse("{}").unwrap_err(), "missing field `name`");
    }

    #[test]
    fn no_options_means_none() {
        let none = |json| Config::new(json).none();
        assert_eq!(none("{}"), Ok(()));
        assert_eq!(none(" { } "), Ok(()));
        assert_eq!(
            none(r#"{ "a b": 1, "c": 2}"#).unwrap_err(),
            "unknown field `a b`: there are no options"
        );
        assert!(none("[]").is_err());
    }
}

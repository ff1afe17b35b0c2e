//! For the tests of plugins: that a schema says what the code reads.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Schema {
    #[serde(rename = "$schema")]
    dialect: String,
    #[serde(rename = "additionalProperties")]
    additional: bool,
    properties: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    required: Vec<String>,
}

/// Checks that a JSON Schema (draft 2020-12) describes exactly the options that `T` reads, and takes no others.
///
/// # Panics
/// If it does not, or `T` takes unknown fields.
pub fn assert_schema<T: DeserializeOwned>(schema: &str) {
    let schema: Schema = crate::json::read(schema).expect("the schema is JSON");
    assert_eq!(schema.dialect, "https://json-schema.org/draft/2020-12/schema");
    assert!(!schema.additional, "the schema takes unknown options");
    // Serde names all fields where it meets one that it does not know.
    let Err(error) = crate::json::read::<T>(r#"{"?": 0}"#) else { panic!("unknown options are taken") };
    let mut options: Vec<&str> = error.split('`').skip(1).step_by(2).filter(|name| *name != "?").collect();
    options.sort_unstable();
    let described: Vec<&str> = schema.properties.keys().map(String::as_str).collect();
    assert_eq!(described, options, "{error}");
    for required in schema.required {
        assert!(described.contains(&required.as_str()), "required, but not described: {required}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Options {
        name: String,
        size: Option<u8>,
    }

    fn schema(properties: &str) -> String {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        format!(r#"{{"$schema": "{dialect}", "additionalProperties": false, "properties": {properties}}}"#)
    }

    #[test]
    fn a_schema_of_exactly_the_options_is_right() {
        assert_schema::<Options>(&schema(r#"{"size": {}, "name": {}}"#));
    }

    #[test]
    #[should_panic(expected = "unknown field")]
    fn a_schema_without_one_is_wrong() {
        assert_schema::<Options>(&schema(r#"{"name": {}}"#));
    }
}

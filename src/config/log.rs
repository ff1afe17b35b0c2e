//! `[log]`: what the gateway says of itself, and how. Lines of requests are in [`super::access`].

use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::Format;
use super::values::{displayed, written_as_string};

/// What the gateway says of itself on standard error.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How much is said: `error`, `warn`, `info`, `debug`, `trace` or `off`; or several with commas, where one may be for a
    /// part of the gateway only: `info,moongate::registry=debug`. `PUT /api/v1/log-level` changes it until the next start.
    pub level: Level,
    /// What lines look like: text for people, or an object of JSON in each line.
    pub format: Format,
}

/// How much is said, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(pub Arc<str>);

impl Default for Level {
    fn default() -> Self {
        Level("info".into())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = |it: &str| LEVELS.iter().any(|level| it.eq_ignore_ascii_case(level));
        let is_part = |it: &str| {
            !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b':' | b'-'))
        };
        for one in text.split(',').map(str::trim) {
            let good = match one.split_once('=') {
                Some((part, level)) => is_part(part) && is_level(level),
                None => is_level(one),
            };
            if !good {
                let help = super::mistakes::nearest(one, LEVELS).map(|it| format!("; did you mean {it:?}?"));
                let help = help.unwrap_or_else(|| "; write \"info\" or \"info,moongate::registry=debug\"".into());
                return Err(format!("{one:?} is not a level{help}"));
            }
        }
        Ok(Level(text.split(',').map(str::trim).collect::<Vec<_>>().join(",").into()))
    }
}

displayed! {
    Level: |it, out| out.write_str(&it.0),
}

written_as_string! {
    Level: "a level like \"info\" or \"info,moongate::registry=debug\"",
}

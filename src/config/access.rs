//! `[access_log]`: where a line for each request goes, and how it is written.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// A line for each request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Where the lines go.
    pub path: Target,
    /// What they look like.
    pub format: Format,
}

/// Where lines go.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(from = "PathBuf")]
pub enum Target {
    /// Standard output, which has nothing else but one line when the gateway is ready.
    #[default]
    Stdout,
    /// Standard error, where the log is as well.
    Stderr,
    /// A file, which lines are appended to. It is opened anew on SIGHUP, so that it can be renamed before.
    File(PathBuf),
}

/// What lines look like.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `key=value`, as logfmt has it.
    #[default]
    Text,
    /// An object of JSON.
    Json,
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        match path.to_str() {
            Some("stdout" | "-") => Target::Stdout,
            Some("stderr") => Target::Stderr,
            _ => Target::File(path),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Target::Stdout => to.serialize_str("stdout"),
            Target::Stderr => to.serialize_str("stderr"),
            Target::File(path) => path.serialize(to),
        }
    }
}

impl AccessLog {
    /// Makes a relative path start at `dir`.
    pub fn resolve(&mut self, dir: &Path) {
        if let Target::File(path) = &mut self.path {
            *path = dir.join(&*path);
        }
    }
}

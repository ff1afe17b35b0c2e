//! The plugin file that a command is about, compiled, and the configuration it is to be tried with.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::config::Plugins;
use crate::plugin::engine::Limits;
use crate::plugin::{Engine, Plugin, library};

/// What a gateway allows a plugin whose configuration says nothing of limits.
pub(super) fn limits() -> Limits {
    let Plugins { memory_limit, call_timeout, .. } = Plugins::default();
    Limits { memory: memory_limit.0, call: call_timeout.0 }
}

/// Reads and compiles a file; it is called what the file is called.
///
/// # Errors
/// Why it cannot be a plugin.
pub(super) fn load(engine: &Engine, file: &Path) -> Result<Arc<Plugin>> {
    Ok(Arc::new(Plugin::compile(engine, name(file)?, &library::read(file)?, false, 1)?))
}

/// The same, to be called as a component even if it could be called directly.
///
/// # Errors
/// As above.
pub(super) fn load_as_component(engine: &Engine, file: &Path) -> Result<Arc<Plugin>> {
    Ok(Arc::new(Plugin::compile_as_component(engine, name(file)?, &library::read(file)?)?))
}

fn name(file: &Path) -> Result<Arc<str>> {
    Ok(file.file_stem().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?.into())
}

/// A plugin's configuration from the command line: JSON, or `@` and a file with JSON.
///
/// # Errors
/// If it cannot be read, or is no object.
pub(super) fn config(text: &str) -> Result<Arc<str>, String> {
    let read = |path| fs::read_to_string(path).map_err(|error| format!("reading {path}: {error}"));
    let json = match text.strip_prefix('@') {
        Some(path) => read(path)?,
        None => text.to_owned(),
    };
    match serde_json::from_str(&json) {
        Ok(serde_json::Value::Object(_)) => Ok(json.into()),
        Ok(_) => Err("it is JSON, but no object like {\"name\": \"value\"}".to_owned()),
        Err(error) => Err(format!("it is not JSON like {{\"name\": \"value\"}}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_an_object_here_or_in_a_file() {
        assert_eq!(&*config(r#"{"a": 1}"#).unwrap(), r#"{"a": 1}"#);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it.json");
        fs::write(&file, "{\"b\": 2}\n").unwrap();
        assert_eq!(&*config(&format!("@{}", file.display())).unwrap(), "{\"b\": 2}\n");
        for (text, words) in
            [("[1]", "no object"), ("{a: 1}", "not JSON"), ("", "not JSON"), ("@nowhere", "reading nowhere: ")]
        {
            let told = config(text).unwrap_err();
            assert!(told.contains(words), "{text:?}: {told}");
        }
    }
}

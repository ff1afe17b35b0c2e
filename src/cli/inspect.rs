//! `moongate plugin inspect`: what a file is, or why it cannot be used.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use super::subject;
use crate::config::Capability;
use crate::plugin::{Calling, Engine, Plugin};

/// Prints what the file is.
pub fn run(file: &Path) -> ExitCode {
    match inspect(file) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error:#}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn inspect(file: &Path) -> Result<String> {
    let engine = Engine::new(subject::limits())?;
    let plugin = subject::load(&engine, file)?;
    // As far as it can be tried without knowing what it is to be configured with.
    plugin.trial(&engine, &[]).map_err(|reason| anyhow!("starting it: {reason}"))?;
    Ok(told(&plugin))
}

fn told(plugin: &Plugin) -> String {
    let described = &plugin.described;
    let version = described.version.as_deref().unwrap_or("(none in the file)");
    let mut text = format!(
        "name       {}\n\
         kind       {}\n\
         version    {version}\n\
         wit        moongate:plugin@{}\n\
         imports    {}\n\
         exports    {}\n\
         size       {} bytes\n\
         sha256     {}\n\
         compiled   in {:.0} ms\n\
         called     {}\n",
        plugin.name,
        described.kinds,
        described.wit,
        column(described.imports.iter().map(String::as_str)),
        column(described.exports.iter().map(String::as_str)),
        described.size,
        described.sha256,
        plugin.compile_time.as_secs_f64() * 1e3,
        called(&plugin.calling),
    );
    let needs = needs(&plugin.name, &described.capabilities);
    let _ = writeln!(text, "needs      {}", column(needs.iter().map(String::as_str)));
    if let Some(schema) = &described.schema {
        let _ = writeln!(text, "config     {}", column(pretty(schema).lines()));
    }
    text
}

/// How its functions are called.
fn called(calling: &Calling) -> String {
    match calling.why_not() {
        None => calling.word().to_owned(),
        Some(why) => format!("{}, because {why}", calling.word()),
    }
}

/// What the configuration must allow the plugin of this name, and the lines that do.
fn needs(name: &str, capabilities: &[Capability]) -> Vec<String> {
    if capabilities.is_empty() {
        return Vec::new();
    }
    let names: Vec<_> = capabilities.iter().map(|it| it.name()).collect();
    // Quoted, because a name may have a dot.
    vec![
        format!("{}, to be allowed in moongate.toml:", names.join(", ")),
        "[plugins]".to_owned(),
        format!("capabilities = {{ {name:?} = {names:?} }}"),
    ]
}

/// A schema as people read it; as it is, if it is not JSON.
fn pretty(schema: &str) -> String {
    let parsed = serde_json::from_str::<serde_json::Value>(schema).ok();
    parsed.and_then(|it| serde_json::to_string_pretty(&it).ok()).unwrap_or_else(|| schema.to_owned())
}

/// Lines below each other, behind a name.
fn column<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() { "(nothing)".to_owned() } else { lines.join("\n           ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, file};

    #[test]
    fn what_must_be_allowed_is_told_with_the_lines_that_do() {
        assert!(needs("a", &[]).is_empty());
        let lines = needs("rate.limit", &Capability::ALL);
        assert_eq!(lines[0], "store, bodies, to be allowed in moongate.toml:");
        let config: Config = file::parse(&lines[1..].join("\n"), Path::new("x.toml")).unwrap();
        assert_eq!(config.plugins.capabilities("rate.limit").len(), 2);
        assert!(config.plugins.capabilities("another").is_empty());
    }

    #[test]
    fn a_schema_is_shown_on_lines_of_its_own() {
        assert_eq!(column(pretty("{\"type\":\"object\"}").lines()).lines().count(), 3);
        assert_eq!(pretty("not json"), "not json");
        assert_eq!(column(std::iter::empty()), "(nothing)");
    }
}

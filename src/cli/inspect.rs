//! `moongate plugin inspect`: what a file is, or why it cannot be used.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use crate::config::Plugins;
use crate::plugin::engine::Limits;
use crate::plugin::{Engine, Plugin, library};

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
    let bytes = library::read(file)?;
    let name = file.file_stem().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?;
    let limits = Plugins::default();
    let engine = Engine::new(Limits { memory: limits.memory_limit.0, call: limits.call_timeout.0 })?;
    let plugin = Arc::new(Plugin::compile(&engine, name.into(), &bytes, false, 1)?);
    // As far as it can be tried without knowing what it is to be configured with.
    plugin.trial(&engine, &[]).map_err(|reason| anyhow!("starting it: {reason}"))?;
    let described = &plugin.described;
    let version = described.version.as_deref().unwrap_or("(none in the file)");
    let imports =
        if described.imports.is_empty() { "(nothing)".to_owned() } else { described.imports.join("\n           ") };
    Ok(format!(
        "name       {name}\n\
         kind       {}\n\
         version    {version}\n\
         wit        moongate:plugin@{}\n\
         imports    {imports}\n\
         exports    {}\n\
         size       {} bytes\n\
         sha256     {}\n\
         compiled   in {:.0} ms\n",
        described.kinds,
        described.wit,
        described.exports.join("\n           "),
        described.size,
        described.sha256,
        plugin.compile_time.as_secs_f64() * 1e3,
    ))
}

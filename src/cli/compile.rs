//! `moongate plugin compile`: fills a cache of compiled plugins, so that a gateway that starts with it compiles nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::subject;
use crate::plugin::bundled::BUNDLED;
use crate::plugin::{Engine, Plugin};

/// What is compiled, and where to.
#[derive(Args, Clone, Debug)]
pub struct CompileOptions {
    /// The directory, as in `plugins.cache`; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub cache: PathBuf,
    /// Plugins beside the bundled ones
    pub files: Vec<PathBuf>,
}

/// Compiles all bundled plugins and the files, and says how many.
pub fn run(options: &CompileOptions) -> ExitCode {
    match compile(&options.cache, &options.files) {
        Ok(count) => {
            println!("{count} plugins are compiled in {}", options.cache.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("moongate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compile(cache: &Path, files: &[PathBuf]) -> Result<usize> {
    let engine = Engine::new(subject::limits())?.caching(cache)?;
    for (name, bytes) in BUNDLED {
        Plugin::compile(&engine, (*name).into(), bytes, true, 1).with_context(|| format!("compiling {name}"))?;
    }
    for file in files {
        subject::load(&engine, file).with_context(|| format!("compiling {}", file.display()))?;
    }
    Ok(BUNDLED.len() + files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_filled_and_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("compiled");
        let engine = Engine::new(subject::limits()).unwrap().caching(&cache).unwrap();
        let (name, bytes) = BUNDLED[0];
        let compile = || Plugin::compile(&engine, name.into(), bytes, true, 1).unwrap();
        compile();
        let files = || std::fs::read_dir(&cache).unwrap().count();
        assert!(files() > 0);
        // Found by what it is made of, and not compiled into another file.
        let before = files();
        compile();
        assert_eq!(files(), before);
        let bad = dir.path().join("bad.wasm");
        std::fs::write(&bad, "no plugin").unwrap();
        let error = format!("{:#}", subject::load(&engine, &bad).unwrap_err());
        assert!(error.contains("not WebAssembly"), "{error}");
    }
}

//! The place of a run: its directory, and what the machine and the peers are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::peers::{self, Kind};
use crate::rounds::Options;

/// A directory that is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, and removes those of runs that were killed.
    pub(crate) fn new() -> Result<Scratch> {
        let all = std::env::temp_dir();
        for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(owner) = name.to_str().and_then(|it| it.strip_prefix("moongate-bench-")) else { continue };
            if !Path::new("/proc").join(owner).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let own = all.join(format!("moongate-bench-{}", std::process::id()));
        std::fs::create_dir(&own).with_context(|| format!("creating {}", own.display()))?;
        Ok(Scratch(own))
    }

    /// A directory in it.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.0.join(name);
        std::fs::create_dir_all(&dir)?;
        // Workers that a peer starts as another user must get at their files.
        for each in [&self.0, &dir] {
            std::fs::set_permissions(each, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The machine, and versions of who takes part.
pub(crate) fn about(options: &Options) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let model = info.lines().find_map(|it| it.strip_prefix("model name")).unwrap_or_default();
    let kernel = text("/proc/sys/kernel/osrelease");
    let kernel = upstream(&kernel);
    let mut all = vec![format!("{cores} cores, {}, Linux {}", model.trim_start_matches(['\t', ':', ' ']), kernel)];
    let versions = options.peers.iter().filter_map(|it| Some(format!("{it} {}", version(*it, &options.moongate)?)));
    all.push(versions.collect::<Vec<_>>().join(", "));
    all
}

/// What it says of itself; `None` where it is not there, or says nothing.
fn version(kind: Kind, moongate: &Path) -> Option<String> {
    let argument = match kind {
        Kind::Moongate | Kind::Envoy | Kind::Demo => "--version",
        Kind::Nginx | Kind::Haproxy => "-v",
        Kind::Caddy => "version",
        Kind::Pingora => return Some("0.9.1".into()),
        Kind::Floor => return None,
    };
    let said = Command::new(peers::program(kind, moongate)?).arg(argument).output().ok()?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    // Among paths, hashes and addresses: what starts like 1.2.
    let words = text.split(|it: char| it.is_whitespace() || it == '/').map(|it| it.trim_start_matches('v'));
    let mut versions = words.filter(|it| it.contains('.') && it.starts_with(|first: char| first.is_ascii_digit()));
    versions.next().map(|it| upstream(it).to_owned())
}

/// A version without what a distribution adds to it.
fn upstream(version: &str) -> &str {
    version.trim().split(['-', '+']).next().unwrap_or_default()
}

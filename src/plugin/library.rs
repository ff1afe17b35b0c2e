//! Which version of each plugin serves: the files of the plugin directory over the bundled ones, the last good
//! version over a bad file.
//!
//! The [`Scanner`] reads and compiles, off the serving threads; the [`Library`] decides, in the publisher.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use tokio::sync::{Semaphore, mpsc};

use super::bundled::BUNDLED;
use super::{Engine, Kind, Plugin};
use crate::config::mistakes::nearest;
use crate::watch::Watch;

/// Bytes of a plugin file. A Python component, the largest kind there is, has 18 MB.
const FILE_SIZE: u64 = 64 << 20;

/// Files compiled at the same time. Each may take seconds of a core and hundreds of megabytes.
const COMPILATIONS: usize = 2;

/// What happened to a file of the plugin directory.
#[derive(Debug)]
pub struct Change {
    name: Arc<str>,
    /// Orders the changes of a name: compiling takes its time, and a later change may be through earlier.
    order: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Compiled(Arc<Plugin>),
    Unusable(String),
    Gone,
}

/// Looks at the plugin directory.
pub struct Scanner {
    engine: Engine,
    dir: PathBuf,
    workers: usize,
    seen: BTreeMap<Arc<str>, Stamp>,
    order: u64,
}

/// What tells, without reading it, that a file may have changed: any write moves the change time.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    length: u64,
    changed: (i64, i64),
    inode: u64,
}

/// A file to be read and compiled.
struct Candidate {
    name: Arc<str>,
    order: u64,
    path: PathBuf,
    stamp: Stamp,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Stamp { length: metadata.len(), changed, inode: metadata.ino() }
    }
}

impl Change {
    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Scanner {
    /// For this directory, which need not exist.
    pub fn new(engine: Engine, dir: &Path, workers: usize) -> Scanner {
        Scanner { engine, dir: dir.to_owned(), workers, seen: BTreeMap::new(), order: 0 }
    }

    /// Reads and compiles what changed since the last time, one file after the other.
    pub fn scan(&mut self) -> Vec<Change> {
        let (mut changes, candidates) = self.look();
        changes.extend(candidates.into_iter().filter_map(|it| it.compile(&self.engine, self.workers)));
        changes
    }

    /// Follows the directory for ever. A file that takes long to compile holds up no other.
    pub async fn follow(mut self, changes: mpsc::Sender<Change>) {
        let mut watch = Watch::new(&self.dir);
        let turns = Arc::new(Semaphore::new(COMPILATIONS));
        loop {
            // Before the first wait, too: the start took its time after its scan.
            let (gone, candidates) = self.look();
            for change in gone {
                if changes.send(change).await.is_err() {
                    return;
                }
            }
            for candidate in candidates {
                let (engine, workers) = (self.engine.clone(), self.workers);
                let (changes, turn) = (changes.clone(), turns.clone());
                tokio::spawn(async move {
                    let _turn = turn.acquire().await;
                    let compile = move || candidate.compile(&engine, workers);
                    if let Ok(Some(change)) = tokio::task::spawn_blocking(compile).await {
                        // Nobody listens any more: the gateway ends.
                        let _ = changes.send(change).await;
                    }
                });
            }
            watch.changed().await;
        }
    }

    /// What lies in the directory. One that is not there holds nothing; it may come.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        use io::ErrorKind::{NotADirectory, NotFound};
        match fs::read_dir(&self.dir) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if [NotFound, NotADirectory].contains(&error.kind()) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What is gone, and what must be compiled.
    fn look(&mut self) -> (Vec<Change>, Vec<Candidate>) {
        let Ok(files) = self.files() else {
            // What cannot be read is not gone; the next look may be luckier.
            return (Vec::new(), Vec::new());
        };
        let mut found = BTreeMap::new();
        for path in files {
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wasm")) else { continue };
            if name.is_empty() || name.starts_with('.') {
                continue;
            }
            let name: Arc<str> = name.into();
            match fs::metadata(&path) {
                Ok(metadata) => drop(found.insert(name, (Stamp::of(&metadata), path))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => drop(self.seen.get(&name).map(|stamp| found.insert(name.clone(), (stamp.clone(), path)))),
            }
        }

        let mut order = self.order;
        let mut next = || {
            order += 1;
            order
        };
        let gone = self.seen.keys().filter(|name| !found.contains_key(*name));
        let gone = gone.map(|name| Change { name: name.clone(), order: next(), what: What::Gone }).collect();
        let fresh = found.iter().filter(|(name, (stamp, _))| self.seen.get(*name) != Some(stamp));
        let fresh = fresh.map(|(name, (stamp, path))| {
            let (name, path, stamp) = (name.clone(), path.clone(), stamp.clone());
            Candidate { name, order: next(), path, stamp }
        });
        let fresh = fresh.collect();
        self.seen = found.into_iter().map(|(name, (stamp, _))| (name, stamp)).collect();
        self.order = order;
        (gone, fresh)
    }
}

impl Candidate {
    /// None if the file has changed again or is gone: then there is, or will be, another change.
    fn compile(self, engine: &Engine, workers: usize) -> Option<Change> {
        if fs::metadata(&self.path).is_ok_and(|it| Stamp::of(&it) != self.stamp) || !self.path.exists() {
            return None;
        }
        let name = self.name.clone();
        let compiled = read(&self.path).and_then(|bytes| Plugin::compile(engine, name, &bytes, false, workers));
        let what = match compiled {
            Ok(plugin) => What::Compiled(Arc::new(plugin)),
            Err(error) => What::Unusable(format!("{error:#}")),
        };
        Some(Change { name: self.name, order: self.order, what })
    }
}

/// The bytes of a plugin file.
///
/// # Errors
/// If it cannot be read, is too large or no regular file: opening a pipe would wait for somebody to write.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is not a regular file", path.display());
    ensure!(
        metadata.len() <= FILE_SIZE,
        "{} has {} bytes; a plugin may have {FILE_SIZE}",
        path.display(),
        metadata.len()
    );
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// All plugins by name.
pub struct Library {
    engine: Engine,
    entries: BTreeMap<Arc<str>, Entry>,
}

#[derive(Default)]
struct Entry {
    bundled: Option<Arc<Plugin>>,
    file: Option<Arc<Plugin>>,
    refused: Option<Refused>,
    /// What failed its trial, and may pass when routes use it otherwise.
    waiting: Option<Arc<Plugin>>,
    order: u64,
}

/// A file that cannot serve.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: SystemTime,
}

/// What became of a plugin.
#[derive(Clone, Debug)]
pub struct Status {
    /// What routes call it.
    pub name: Arc<str>,
    /// The version that serves; none: the name cannot be used.
    pub active: Option<Arc<Plugin>>,
    /// Why the file that lies in the directory now does not serve.
    pub refused: Option<Refused>,
}

impl Library {
    /// With the bundled plugins in it.
    ///
    /// # Errors
    /// If one of these does not compile, which is a mistake in the gateway's build.
    pub fn new(engine: Engine, workers: usize) -> Result<Library> {
        let compile = |(name, bytes): &(&str, &[u8])| {
            let plugin = Plugin::compile(&engine, (*name).into(), bytes, true, workers);
            Ok((Arc::from(*name), Arc::new(plugin.with_context(|| format!("loading the bundled plugin {name}"))?)))
        };
        let compiled = std::thread::scope(|threads| {
            let running: Vec<_> = BUNDLED.iter().map(|it| threads.spawn(move || compile(it))).collect();
            let joined =
                running.into_iter().map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<Result<Vec<_>>>()
        })?;
        let entry = |plugin| Entry { bundled: Some(plugin), ..Entry::default() };
        Ok(Library { engine, entries: compiled.into_iter().map(|(name, plugin)| (name, entry(plugin))).collect() })
    }

    /// Takes a change in, if the plugin proves itself on the uses that routes have for its name.
    pub fn apply(&mut self, change: Change, uses: &[(Kind, Arc<str>)]) {
        let Change { name, order, what } = change;
        let entry = self.entries.entry(name.clone()).or_default();
        if order < entry.order {
            return;
        }
        entry.order = order;
        entry.waiting = None;
        let refused = match what {
            What::Gone => {
                entry.file = None;
                tracing::info!(plugin = %name, bundled = entry.bundled.is_some(), "plugin file removed");
                None
            }
            What::Unusable(reason) => Some(reason),
            // Written again with the same bytes: its instances may stay.
            What::Compiled(plugin) if entry.serves(&plugin) => None,
            What::Compiled(plugin) => match plugin.trial(&self.engine, uses) {
                Ok(()) => {
                    let (sha256, compile_time) = (&plugin.described.sha256, plugin.compile_time);
                    tracing::info!(plugin = %name, kind = %plugin.described.kinds, sha256, ?compile_time, "plugin loaded");
                    entry.file = Some(plugin);
                    None
                }
                Err(reason) => {
                    entry.waiting = Some(plugin);
                    Some(format!("on trial, {reason}"))
                }
            },
        };
        entry.refused = refused.map(|reason| {
            let serving = entry.active().map(|plugin| plugin.described.sha256.as_str()).unwrap_or("nothing");
            tracing::warn!(plugin = %name, reason, serving, "plugin file refused");
            Refused { reason, at: SystemTime::now() }
        });
    }

    /// Tries the files again that failed their trial, for routes have changed.
    pub fn try_again(&mut self, uses: impl Fn(&str) -> Vec<(Kind, Arc<str>)>) {
        let waiting = self.entries.iter().filter_map(|(name, entry)| Some((name, entry.order, entry.waiting.clone()?)));
        let waiting: Vec<Change> = waiting
            .map(|(name, order, plugin)| Change { name: name.clone(), order, what: What::Compiled(plugin) })
            .collect();
        for change in waiting {
            let uses = uses(&change.name);
            self.apply(change, &uses);
        }
    }

    /// The version of this name that serves.
    pub fn active(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.entries.get(name)?.active()
    }

    /// The names that can be used.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| entry.active().is_some()).map(|(name, _)| name.as_ref())
    }

    /// Whether a route may use this plugin so; if not, why, in the plugin's own words where it had any.
    ///
    /// # Errors
    /// See above.
    pub fn check(&self, name: &str, kind: Kind, config: &str) -> Result<(), String> {
        let Some(plugin) = self.active(name) else {
            return Err(match self.entries.get(name).and_then(|entry| entry.refused.as_ref()) {
                Some(refused) => format!("the plugin {name:?} cannot be used: {}", refused.reason),
                None => match nearest(name, self.names()) {
                    Some(near) => format!("there is no plugin {name:?}; did you mean {near:?}?"),
                    None => format!(
                        "there is no plugin {name:?}; there are {}",
                        self.names().collect::<Vec<_>>().join(", ")
                    ),
                },
            });
        };
        if !plugin.described.kinds.serve(kind) {
            return Err(format!("the plugin {name:?} is a {}, not a {kind}", plugin.described.kinds));
        }
        plugin.trial(&self.engine, &[(kind, config.into())]).map_err(|reason| format!("the plugin {name:?}: {reason}"))
    }

    /// What became of each plugin, by name.
    pub fn status(&self) -> Vec<Status> {
        let status = |(name, entry): (&Arc<str>, &Entry)| Status {
            name: name.clone(),
            active: entry.active().cloned(),
            refused: entry.refused.clone(),
        };
        self.entries.iter().filter(|(_, entry)| entry.is_known()).map(status).collect()
    }
}

impl Entry {
    /// One that is gone stays for its order: something older may still come, and is then to be left alone.
    fn is_known(&self) -> bool {
        self.active().is_some() || self.refused.is_some()
    }

    fn serves(&self, plugin: &Plugin) -> bool {
        self.file.as_ref().is_some_and(|file| file.described.sha256 == plugin.described.sha256)
    }

    fn active(&self) -> Option<&Arc<Plugin>> {
        self.file.as_ref().or(self.bundled.as_ref())
    }
}

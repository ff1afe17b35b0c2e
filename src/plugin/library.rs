//! Which version of each plugin serves: the files of the plugin directory over the bundled ones, the last good
//! version over a bad file.
//!
//! The [`Scanner`] reads and compiles, off the serving threads; the [`Library`] decides, in the publisher.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use tokio::sync::{Semaphore, mpsc};

use super::bundled::BUNDLED;
use super::{Engine, Kind, Plugin};
use crate::config::Plugins;
use crate::config::mistakes::nearest;
use crate::fleet::plugins::{FILE_SIZE, Pin, Pins, hash};
use crate::watch::Watch;

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
    /// Which versions may serve.
    pins: Pins,
    order: u64,
}

/// What tells, without reading it, that a file may have changed: any write moves the change time.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    length: u64,
    changed: (i64, i64),
    inode: u64,
    /// What must be in it, so that the same file is looked at again when that changes.
    pin: Option<Pin>,
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
        Stamp { length: metadata.len(), changed, inode: metadata.ino(), pin: None }
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
        let (seen, pins) = (BTreeMap::new(), Pins::default());
        Scanner { engine, dir: dir.to_owned(), workers, seen, pins, order: 0 }
    }

    /// The same, where only certain versions of some plugins may serve.
    pub fn pinned(self, pins: Pins) -> Scanner {
        Scanner { pins, ..self }
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
            tokio::select! {
                () = watch.changed() => {}
                () = self.pins.changed() => {}
            }
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

        let pins = self.pins.all();
        for (name, pin) in &pins {
            if let Some(path) = &pin.file
                && let Ok(metadata) = fs::metadata(path)
            {
                found.insert(name.clone(), (Stamp::of(&metadata), path.clone()));
            }
            if let Some((stamp, _)) = found.get_mut(name) {
                stamp.pin = Some(pin.clone());
            }
        }

        let mut order = self.order;
        let mut next = || {
            order += 1;
            order
        };
        // What is pinned and not there yet is awaited, and what served before goes on.
        let awaited = |name: &Arc<str>| pins.contains_key(name);
        let gone = self.seen.keys().filter(|name| !found.contains_key(*name) && !awaited(name));
        let gone = gone.map(|name| Change { name: name.clone(), order: next(), what: What::Gone }).collect();
        let fresh = found.iter().filter(|(name, (stamp, _))| self.seen.get(*name) != Some(stamp));
        let fresh = fresh.map(|(name, (stamp, path))| {
            let (name, path, stamp) = (name.clone(), path.clone(), stamp.clone());
            Candidate { name, order: next(), path, stamp }
        });
        let fresh = fresh.collect();
        self.seen.retain(|name, _| awaited(name));
        self.seen.extend(found.into_iter().map(|(name, (stamp, _))| (name, stamp)));
        self.order = order;
        (gone, fresh)
    }
}

impl Candidate {
    /// None if the file has changed again or is gone: then there is, or will be, another change.
    fn compile(self, engine: &Engine, workers: usize) -> Option<Change> {
        let pin = &self.stamp.pin;
        let changed = |it: fs::Metadata| Stamp { pin: pin.clone(), ..Stamp::of(&it) } != self.stamp;
        if fs::metadata(&self.path).is_ok_and(changed) || !self.path.exists() {
            return None;
        }
        let name = self.name.clone();
        let compiled = read(&self.path).and_then(|bytes| {
            if let Some(Pin { sha256, znode, .. }) = pin {
                let found = hash(&bytes);
                ensure!(found == **sha256, "its SHA-256 is {found}, and {znode} wants {sha256}");
            }
            Plugin::compile(engine, name, &bytes, false, workers)
        });
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
    workers: usize,
    capabilities: Plugins,
    entries: BTreeMap<Arc<str>, Entry>,
}

#[derive(Default)]
struct Entry {
    bundled: Option<Bundled>,
    file: Option<Arc<Plugin>>,
    /// What the file was before, while that had done well; the latest last.
    before: Vec<Arc<Plugin>>,
    /// The version that kept failing.
    quarantined: Option<Quarantined>,
    refused: Option<Refused>,
    /// What failed its trial, and may pass when routes use it otherwise.
    waiting: Option<Arc<Plugin>>,
    order: u64,
}

/// Versions of a file that are kept to go back to. Each holds its compiled code, some times the size of the file.
const BEFORE: usize = 2;

/// One of those inside the gateway's own binary. Compiled when it is first needed: most gateways use a few of them.
struct Bundled {
    bytes: &'static [u8],
    plugin: OnceLock<Option<Arc<Plugin>>>,
}

/// A version that serves no more, because it kept failing.
#[derive(Clone, Debug)]
pub struct Quarantined {
    /// Its SHA-256.
    pub sha256: String,
    /// What happened.
    pub reason: String,
    /// Since when.
    pub at: SystemTime,
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
    /// The version that was taken out of service.
    pub quarantined: Option<Quarantined>,
    /// It is one of those inside the gateway's own binary that nothing has needed yet.
    pub available: bool,
}

impl Library {
    /// With the bundled plugins in it. `config`: what others may do.
    pub fn new(engine: Engine, workers: usize, config: &Plugins) -> Library {
        let entry = |(name, bytes): &(&str, &'static [u8])| {
            let bundled = Some(Bundled { bytes, plugin: OnceLock::new() });
            (Arc::from(*name), Entry { bundled, ..Entry::default() })
        };
        let entries = BUNDLED.iter().map(entry).collect();
        Library { engine, workers, capabilities: config.clone(), entries }
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
                (entry.file, entry.quarantined) = (None, None);
                entry.before.clear();
                tracing::info!(plugin = %name, bundled = entry.bundled.is_some(), "plugin file removed");
                None
            }
            What::Unusable(reason) => Some(reason),
            // Written again with the same bytes: its instances may stay.
            What::Compiled(plugin) if entry.serves(&plugin) => None,
            What::Compiled(plugin) if entry.has_quarantined(&plugin) => {
                Some("this version is quarantined; a changed file is tried again".into())
            }
            What::Compiled(plugin) if let Some(reason) = forbidden(&self.capabilities, &plugin) => Some(reason),
            What::Compiled(plugin) => match plugin.trial(&self.engine, uses) {
                Ok(()) => {
                    let (sha256, compile_time) = (&plugin.described.sha256, plugin.compile_time);
                    tracing::info!(plugin = %name, kind = %plugin.described.kinds, sha256, ?compile_time, "plugin loaded");
                    entry.before.extend(entry.file.replace(plugin));
                    if entry.before.len() > BEFORE {
                        entry.before.remove(0);
                    }
                    entry.quarantined = None;
                    None
                }
                Err(reason) => {
                    entry.waiting = Some(plugin);
                    Some(format!("on trial, {reason}"))
                }
            },
        };
        entry.refused = refused.map(|reason| {
            let serving = match (&entry.file, &entry.bundled) {
                (Some(plugin), _) => &plugin.described.sha256,
                (None, Some(_)) => "the bundled one",
                (None, None) => "nothing",
            };
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

    /// Takes versions that keep failing out of service, where there is another to go back to: the one before, or the
    /// bundled one. Where there is none, a failing plugin is better than none: what fails is suspended, and may recover.
    pub fn quarantine(&mut self) {
        for (name, entry) in &mut self.entries {
            let Some((plugin, reason)) = entry.file.as_ref().and_then(|it| Some((it, it.failing.get()?))) else {
                continue;
            };
            let (sha256, reason) = (plugin.described.sha256.clone(), reason.clone());
            // Of those that it went back to before, one may be failing as well.
            let better = std::iter::from_fn(|| entry.before.pop()).find(|it| it.failing.get().is_none());
            if better.is_none() && entry.bundled.is_none() {
                continue;
            }
            let back_to = better.as_ref().map_or("the bundled one", |it| &it.described.sha256);
            tracing::error!(plugin = %name, sha256, reason, back_to, "plugin quarantined");
            entry.file = better;
            entry.quarantined = Some(Quarantined { sha256, reason, at: SystemTime::now() });
        }
    }

    /// The version of this name that serves.
    pub fn active(&self, name: &str) -> Option<&Arc<Plugin>> {
        let (name, entry) = self.entries.get_key_value(name)?;
        entry.file.as_ref().or_else(|| self.bundled(name, entry))
    }

    /// The bundled plugin of this name, compiled now if it is not yet.
    fn bundled<'a>(&self, name: &Arc<str>, entry: &'a Entry) -> Option<&'a Arc<Plugin>> {
        let Bundled { bytes, plugin } = entry.bundled.as_ref()?;
        let compile = || match Plugin::compile(&self.engine, name.clone(), bytes, true, self.workers) {
            Ok(plugin) => Some(Arc::new(plugin)),
            Err(error) => {
                // A mistake in the gateway's build, which a test would have found.
                tracing::error!(plugin = %name, "the bundled plugin cannot be used: {error:#}");
                None
            }
        };
        plugin.get_or_init(compile).as_ref()
    }

    /// The names that can be used.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| entry.is_usable()).map(|(name, _)| name.as_ref())
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
        let status = |(name, entry): (&Arc<str>, &Entry)| {
            // Only looked at: what nobody needs is not compiled for being listed.
            let bundled = || entry.bundled.as_ref()?.plugin.get()?.clone();
            let active = entry.file.clone().or_else(bundled);
            Status {
                name: name.clone(),
                available: active.is_none() && entry.bundled.is_some(),
                active,
                refused: entry.refused.clone(),
                quarantined: entry.quarantined.clone(),
            }
        };
        // One that is gone stays for its order: something older may still come, and is then to be left alone.
        let known = |(_, entry): &(&Arc<str>, &Entry)| entry.is_usable() || entry.refused.is_some();
        self.entries.iter().filter(known).map(status).collect()
    }
}

/// Why a plugin may not do what it needs to; none: it may.
fn forbidden(config: &Plugins, plugin: &Plugin) -> Option<String> {
    let allowed = config.capabilities(&plugin.name);
    let lacks: Vec<&str> =
        plugin.described.capabilities.iter().filter(|it| !allowed.contains(it)).map(|it| it.name()).collect();
    let (first, name) = (lacks.first()?, &plugin.name);
    Some(format!(
        "it uses {}, which the configuration does not allow it: [plugins] capabilities = {{ {name} = [\"{first}\"] }}",
        lacks.join(" and "),
        first = lacks.join("\", \""),
    ))
    .filter(|_| !first.is_empty())
}

impl Entry {
    fn is_usable(&self) -> bool {
        self.file.is_some() || self.bundled.is_some()
    }

    fn has_quarantined(&self, plugin: &Plugin) -> bool {
        self.quarantined.as_ref().is_some_and(|it| it.sha256 == plugin.described.sha256)
    }

    fn serves(&self, plugin: &Plugin) -> bool {
        self.file.as_ref().is_some_and(|file| file.described.sha256 == plugin.described.sha256)
    }
}

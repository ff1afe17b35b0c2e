//! Plugins that ZooKeeper names: which version of each should serve, by the hash of its file, and where that may be had.
//!
//! Here it is found out what is wanted, and files are fetched into the store; the plugin directory's scanner goes by the
//! [`Pins`], and compiles nothing whose hash is another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use http::Uri;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fetch::fetch;
use super::kept::Kept;
use super::routes::Refused;
use crate::config::plugins::Fetch;
use crate::config::remote::{self, Announced};
use crate::registry::State;
use crate::registry::zookeeper::texts::{Text, Texts};

/// The pause before a fetch that failed is tried again, doubled from the first to the last.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Files that are kept in the store besides those that are wanted now, so that going back needs no network.
const KEPT: usize = 16;

/// Bytes of a plugin file. A Python component, the largest kind there is, has 18 MB.
pub const FILE_SIZE: u64 = 64 << 20;

/// Which version of a plugin may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The hash of its file, in lower case.
    pub sha256: Arc<str>,
    /// Who says so.
    pub znode: Arc<str>,
    /// Its file in the store; none: the plugin directory's.
    pub file: Option<PathBuf>,
}

/// The pins that hold now, by the names of plugins; shared with the scanner.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    all: Mutex<BTreeMap<Arc<str>, Pin>>,
    changed: Notify,
}

impl Pins {
    /// All of them.
    pub fn all(&self) -> BTreeMap<Arc<str>, Pin> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Completes when they are others. For one listener.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn set(&self, pins: BTreeMap<Arc<str>, Pin>) {
        let mut all = self.0.all.lock().unwrap_or_else(PoisonError::into_inner);
        if *all != pins {
            *all = pins;
            self.0.changed.notify_one();
        }
    }
}

/// What became of an announcement.
#[derive(Clone, Debug)]
pub struct Status {
    /// The plugin.
    pub name: Arc<str>,
    /// The znode.
    pub znode: Arc<str>,
    /// What is announced; none: it was never understood.
    pub announced: Option<Announced>,
    /// Why it cannot be understood, or had.
    pub refused: Option<Refused>,
    /// Whether all was done for it that can be: its file is in the store, or there is none to fetch.
    pub settled: bool,
}

/// Follows the announcements below `root` for ever.
pub async fn follow(
    root: String,
    mut texts: watch::Receiver<Texts>,
    store: Option<Fetch>,
    kept: watch::Sender<Kept>,
    pins: Pins,
    status: watch::Sender<Arc<Vec<Status>>>,
) {
    let (told, mut outcomes) = mpsc::channel(16);
    let root = root.trim_end_matches('/').to_owned();
    let mut announcements = Announcements { root, store, entries: BTreeMap::new(), told };
    let before = kept.borrow().iter().map(|(name, text)| (name.clone(), Ok(text.clone()))).collect();
    announcements.take(&Texts { all: Arc::new(before), state: State::Stale });
    announcements.tell(&pins, &status);
    loop {
        let seen = texts.borrow_and_update().clone();
        if seen.state != State::Starting {
            announcements.take(&seen);
            announcements.tell(&pins, &status);
            kept.send_replace(announcements.good());
        }
        loop {
            tokio::select! {
                changed = texts.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(outcome) = outcomes.recv() => {
                    announcements.fetched(outcome);
                    announcements.tell(&pins, &status);
                }
            }
        }
    }
}

/// Of which plugin, of which hash, and the file or what went wrong.
type Outcome = (Arc<str>, String, Result<PathBuf, String>);

struct Announcements {
    root: String,
    store: Option<Fetch>,
    entries: BTreeMap<Arc<str>, Entry>,
    told: mpsc::Sender<Outcome>,
}

#[derive(Default)]
struct Entry {
    /// What was looked at last.
    text: Option<Text>,
    /// The last one that could be understood.
    good: Option<Announced>,
    /// How that was written.
    written: Arc<str>,
    refused: Option<Refused>,
    file: Option<PathBuf>,
    fetching: Option<JoinHandle<()>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.fetching.iter().for_each(JoinHandle::abort);
    }
}

impl Announcements {
    fn take(&mut self, texts: &Texts) {
        self.entries.retain(|name, _| texts.all.contains_key(name));
        for (name, text) in texts.all.iter() {
            let entry = self.entries.entry(name.clone()).or_default();
            if entry.text.as_ref() == Some(text) {
                continue;
            }
            entry.text = Some(text.clone());
            let znode = format!("{}/{name}", self.root);
            let read = match text {
                Ok(text) => remote::plugin(name, text, &znode).map_err(|mistakes| mistakes.to_string()),
                Err(why) => Err(format!("{znode}: {why}")),
            };
            match read {
                Ok(announced) if entry.good.as_ref() == Some(&announced) => entry.refused = None,
                Ok(announced) => {
                    let (sha256, url) = (&announced.sha256.0, announced.url.as_ref().map(|it| it.0.to_string()));
                    tracing::info!(plugin = %name, sha256, url, "plugin announced");
                    entry.fetching.take().iter().for_each(JoinHandle::abort);
                    (entry.file, entry.refused) = (None, None);
                    match (&announced.url, &self.store) {
                        (Some(url), Some(store)) => {
                            let (url, sha256, store) = (url.0.clone(), sha256.clone(), store.clone());
                            let work = obtain_at_last(name.clone(), url, sha256, store, self.told.clone());
                            entry.fetching = Some(tokio::spawn(work));
                        }
                        (Some(_), None) => {
                            let reason = format!("{znode}: there is no [plugins.fetch] that says where to keep it");
                            entry.refused = Some(Refused { reason, at: SystemTime::now() });
                        }
                        (None, _) => {}
                    }
                    entry.good = Some(announced);
                    entry.written = text.clone().unwrap_or_default();
                }
                Err(reason) => {
                    tracing::error!("announcement refused, the one before stays:\n{reason}");
                    entry.refused = Some(Refused { reason, at: SystemTime::now() });
                }
            }
        }
    }

    fn good(&self) -> Kept {
        let good = self.entries.iter().filter(|(_, entry)| entry.good.is_some());
        Arc::new(good.map(|(name, entry)| (name.clone(), entry.written.clone())).collect())
    }

    fn fetched(&mut self, (name, sha256, outcome): Outcome) {
        let Some(entry) = self.entries.get_mut(&name) else { return };
        if entry.good.as_ref().is_none_or(|it| it.sha256.0 != sha256) {
            return;
        }
        match outcome {
            Ok(file) => (entry.file, entry.refused) = (Some(file), None),
            Err(reason) => {
                tracing::warn!(plugin = %name, sha256, reason, "a plugin cannot be had, and the last good one stays");
                entry.refused = Some(Refused { reason, at: SystemTime::now() });
            }
        }
        let wanted: Vec<PathBuf> = self.entries.values().filter_map(|it| it.file.clone()).collect();
        if let Some(store) = &self.store {
            clean(&store.dir, &wanted);
        }
    }

    fn tell(&self, pins: &Pins, status: &watch::Sender<Arc<Vec<Status>>>) {
        let znode = |name: &str| Arc::<str>::from(format!("{}/{name}", self.root));
        let pin = |(name, entry): (&Arc<str>, &Entry)| {
            let sha256 = entry.good.as_ref()?.sha256.0.as_str().into();
            Some((name.clone(), Pin { sha256, znode: znode(name), file: entry.file.clone() }))
        };
        pins.set(self.entries.iter().filter_map(pin).collect());
        let all = self.entries.iter().map(|(name, entry)| Status {
            name: name.clone(),
            znode: znode(name),
            announced: entry.good.clone(),
            refused: entry.refused.clone(),
            settled: entry.fetching.is_none() || entry.file.is_some() || entry.refused.is_some(),
        });
        status.send_replace(Arc::new(all.collect()));
    }
}

/// Fetches a file until it is there, and tells each outcome.
async fn obtain_at_last(name: Arc<str>, url: Uri, sha256: String, store: Fetch, told: mpsc::Sender<Outcome>) {
    let mut pause = PAUSE[0];
    loop {
        let outcome = obtain(&url, &sha256, &store).await.map_err(|error| format!("{error:#}"));
        let done = outcome.is_ok();
        if told.send((name.clone(), sha256.clone(), outcome)).await.is_err() || done {
            return;
        }
        // A fleet must not come back in step.
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (2 * pause).min(PAUSE[1]);
    }
}

/// The file of this hash in the store, fetched if it is not there.
async fn obtain(url: &Uri, sha256: &str, store: &Fetch) -> Result<PathBuf> {
    let path = store.dir.join(format!("{sha256}.wasm"));
    let (known, wanted) = (path.clone(), sha256.to_owned());
    let there = move || std::fs::read(known).is_ok_and(|bytes| hash(&bytes) == wanted);
    if tokio::task::spawn_blocking(there).await? {
        return Ok(path);
    }
    let bytes = fetch(url, store.ca.as_ref(), FILE_SIZE).await?;
    let found = hash(&bytes);
    ensure!(found == sha256, "fetching {url}: its SHA-256 is {found}, and {sha256} is wanted");
    let written = path.clone();
    tokio::task::spawn_blocking(move || save(&written, &bytes)).await??;
    Ok(path)
}

/// The SHA-256 of a file's bytes, in lower case.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file that is there as a whole or not at all.
fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(&temporary, bytes)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write()
        .with_context(|| format!("writing {}", path.display()))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Takes the oldest files away that nobody wants.
fn clean(dir: &Path, wanted: &[PathBuf]) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut others: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let ours = path.extension().is_some_and(|it| it == "wasm") && !wanted.contains(&path);
            Some((path.metadata().ok()?.modified().ok()?, path)).filter(|_| ours)
        })
        .collect();
    others.sort();
    let too_many = others.len().saturating_sub(KEPT);
    others[..too_many].iter().for_each(|(_, path)| drop(std::fs::remove_file(path)));
}

//! When to look at a directory again. The only home of `notify`.
//!
//! An event is a hint and nothing more: whoever waits here reads the directory again and compares by content.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long nothing more may happen before a change counts as complete, where it does not show: a copy writes in pieces, and
/// what is removed may be about to be replaced.
const QUIET: Duration = Duration::from_millis(20);
/// A directory that never rests is looked at anyway, and one whose changes are complete at once no more often.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Some file systems (network, container mounts) give no events, so a look is taken anyway.
const INTERVAL: Duration = Duration::from_secs(2);
/// The same where there can be no events at all. Half a second is what the contract promises.
const INTERVAL_BLIND: Duration = Duration::from_millis(250);
/// Rounds of finding what to watch; only a directory that is made and deleted all the time needs more than two.
const MOST_ROUNDS: usize = 8;

/// A watch on one directory, not on what is below it. The directory need not exist.
///
/// Never on a file: replacing a file by renaming another leaves a watch on the old one's inode.
#[derive(Debug)]
pub struct Watch {
    dir: PathBuf,
    /// None: the system gives no events, for example because it has run out of watches.
    watcher: Option<RecommendedWatcher>,
    /// What is watched: the directory or its nearest ancestor that exists.
    target: Option<Target>,
    event: Arc<Notify>,
    writes: Arc<AtomicU64>,
    pending: Arc<Pending>,
    /// When a change was told.
    told: Option<Instant>,
}

/// Files that are being written, or were there a moment ago.
#[derive(Debug, Default)]
struct Pending(Mutex<HashSet<PathBuf>>);

impl Pending {
    fn note(&self, event: &notify::Event) {
        let complete = match event.kind {
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Name(RenameMode::From)) => false,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => true,
            _ => return,
        };
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for path in &event.paths {
            // What begins with a dot is on its way to another name.
            let hidden = path.file_name().is_none_or(|name| name.as_bytes().starts_with(b"."));
            if complete || hidden {
                files.remove(path);
            } else {
                files.insert(path.clone());
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A directory by path and by identity, because another may come to stand at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Watch {
    /// Watches from now on: what is read after this and changes then is noticed.
    pub fn new(dir: &Path) -> Watch {
        let (event, writes) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let pending = Arc::<Pending>::default();
        let (sender, written, noted) = (event.clone(), writes.clone(), pending.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            event.iter().for_each(|event| noted.note(event));
            match event.map(|event| event.kind) {
                // Our own reading is an access too, and would wake us for ever.
                Ok(EventKind::Access(kind)) if kind != AccessKind::Close(AccessMode::Write) => {}
                // The end of it is told as well. A log that is written all the time has none, and is no change.
                Ok(EventKind::Modify(ModifyKind::Data(_))) => drop(written.fetch_add(1, Relaxed)),
                // An error may stand for lost events.
                _ => sender.notify_one(),
            }
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "watching files, so polling instead")).ok();
        // "" stands for the working directory in a path, but not for the system.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir }.to_owned();
        let mut watch = Watch { dir, watcher, target: None, event, writes, pending, told: None };
        watch.arm();
        watch
    }

    /// Completes after something happened in the directory and is complete: at once where a file was written to its end or
    /// renamed to its name, and else after nothing more for [`QUIET`]; or after [`INTERVAL`].
    /// Safe to drop and call again: an event that came in between is kept.
    pub async fn changed(&mut self) {
        let interval = if self.target.is_some() { INTERVAL } else { INTERVAL_BLIND };
        let deadline = Instant::now() + interval;
        let was_there = self.dir.is_dir();
        loop {
            if timeout_at(deadline, self.event.notified()).await.is_err() {
                break;
            }
            let latest = Instant::now() + LONGEST_WAIT;
            let often = self.told.is_some_and(|told| told.elapsed() < LONGEST_WAIT);
            while often || !self.pending.is_empty() {
                let quiet = (Instant::now() + QUIET).min(latest);
                let written = self.writes.load(Relaxed);
                if timeout_at(quiet, self.event.notified()).await.is_err() && self.writes.load(Relaxed) == written {
                    break;
                }
                if Instant::now() >= latest {
                    break;
                }
            }
            // Something happened in an ancestor, for example in a busy /tmp, and the directory is still not there.
            if was_there || self.arm() {
                break;
            }
            sleep_until(Instant::now() + QUIET).await;
        }
        self.pending.clear();
        self.told = Some(Instant::now());
        // Before the caller reads, so that nothing falls between its reading and the watch.
        self.arm();
    }

    /// Sees to it that the watch is on the directory, or on the nearest ancestor that exists. Whether it exists.
    fn arm(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return self.dir.is_dir() };
        for _ in 0..MOST_ROUNDS {
            let found = self.dir.ancestors().find_map(Target::of);
            if found == self.target {
                break;
            }
            if let Some(old) = self.target.take() {
                // It fails where the directory went, and then there is nothing to be undone.
                let _ = watcher.unwatch(&old.path);
            }
            let Some(found) = found else { break };
            if let Err(error) = watcher.watch(&found.path, RecursiveMode::NonRecursive) {
                tracing::debug!(%error, dir = %found.path.display(), "watching a directory, so polling instead");
                break;
            }
            // Once more: the next directory on the way may have been made before the watch was on.
            self.target = Some(found);
        }
        self.dir.is_dir()
    }
}

impl Target {
    fn of(path: &Path) -> Option<Target> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Target { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// Whether a change is told before the interval would have ended anyway.
    async fn told(watch: &mut Watch) -> bool {
        let start = Instant::now();
        watch.changed().await;
        start.elapsed() < INTERVAL / 2
    }

    #[tokio::test]
    async fn a_rename_into_the_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&dir.path().join("in"));
        fs::write(dir.path().join("new"), "1").unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        assert!(told(&mut watch).await, "the directory appears");
        fs::rename(dir.path().join("new"), dir.path().join("in/it")).unwrap();
        assert!(told(&mut watch).await, "a file appears");
        fs::write(dir.path().join("new"), "2").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("in/it")).unwrap();
        assert!(told(&mut watch).await, "the file is replaced");
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        fs::create_dir(&inside).unwrap();
        let mut watch = Watch::new(&inside);
        fs::rename(&inside, dir.path().join("old")).unwrap();
        watch.changed().await;
        fs::create_dir(&inside).unwrap();
        watch.changed().await;
        fs::write(inside.join("it"), "1").unwrap();
        assert!(told(&mut watch).await);
    }

    #[tokio::test]
    async fn what_is_complete_is_told_at_once_and_what_may_not_be_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(dir.path());
        let mut take = async |what: &str, act: &dyn Fn()| {
            // Not too soon after the last one.
            tokio::time::sleep(LONGEST_WAIT + QUIET).await;
            act();
            let start = Instant::now();
            assert!(told(&mut watch).await, "{what}");
            start.elapsed()
        };
        let mut soonest = LONGEST_WAIT;
        for round in 0..20 {
            let replace = || {
                fs::write(dir.path().join(".new"), round.to_string()).unwrap();
                fs::rename(dir.path().join(".new"), &file).unwrap();
            };
            soonest = soonest.min(take("a file is replaced", &replace).await);
            let write = || fs::write(&file, round.to_string()).unwrap();
            soonest = soonest.min(take("a file is written", &write).await);
            if soonest < QUIET / 4 {
                break;
            }
        }
        assert!(soonest < QUIET / 4, "at once is {soonest:?}");
        assert!(take("a file goes", &|| fs::remove_file(&file).unwrap()).await >= QUIET);
    }

    #[tokio::test]
    async fn what_is_written_is_told_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = fs::File::create(dir.path().join("log")).unwrap();
        let mut watch = Watch::new(dir.path());
        log.write_all(b"a line\n").unwrap();
        log.sync_all().unwrap();
        assert!(!told(&mut watch).await, "it goes on being written");
        drop(log);
        assert!(told(&mut watch).await);
    }

    #[tokio::test]
    async fn reading_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("it"), "1").unwrap();
        let mut watch = Watch::new(dir.path());
        fs::read(dir.path().join("it")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!told(&mut watch).await);
    }
}

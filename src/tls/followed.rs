//! Who looks at the files again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use toml::Spanned;

use super::Refused;
use super::files::Files;
use crate::watch::Watch;

/// Something that is made from files, and made anew from other ones without anybody who uses it noticing.
pub trait Kept: Send + Sync {
    /// What it is for, as the log should call it.
    fn name(&self) -> &str;

    /// What it is made from.
    fn paths(&self) -> Vec<&Spanned<PathBuf>>;

    /// Makes it from what the files hold now. Says what there is to warn of.
    ///
    /// # Errors
    /// If a file is bad. Then all stays as it was.
    fn make(&self, files: &Files) -> Result<Vec<String>, Refused>;

    /// By which content it knows the files it was asked to be made from last.
    fn digest(&self) -> &Mutex<[u8; 32]>;
}

/// Whether these are other contents than the last.
fn remember(kept: &dyn Kept, digest: [u8; 32]) -> bool {
    let mut last = kept.digest().lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *last, digest) != digest
}

/// All that is made from files. What nobody else holds any more is forgotten.
#[derive(Default)]
pub struct Followed {
    all: Mutex<Vec<Weak<dyn Kept>>>,
    /// There are others now, or files that may have changed.
    look: Arc<Notify>,
}

impl Followed {
    /// Follows its files from now on.
    pub fn add(&self, kept: &Arc<impl Kept + 'static>) {
        let kept: Weak<dyn Kept> = Arc::downgrade(&(kept.clone() as Arc<dyn Kept>));
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        self.look.notify_one();
    }

    /// Looks again whenever something happens where the files lie, or SIGHUP comes. Does not end.
    pub async fn follow(self: Arc<Self>) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        let mut watched = Watched { look: self.look.clone(), tasks: JoinSet::new(), dirs: BTreeMap::new() };
        loop {
            let asked = tokio::select! {
                () = self.look.notified() => false,
                _ = hangup.recv() => true,
            };
            let all = self.alive();
            // Before the files are read, so that no change falls between.
            let paths = all.iter().flat_map(|it| it.paths()).map(|it| it.get_ref().as_path());
            watched.only(paths);
            all.iter().for_each(|it| again(&**it, asked));
        }
    }

    fn alive(&self) -> Vec<Arc<dyn Kept>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Makes it anew if its files are not what they were, or if somebody asked for it.
fn again(kept: &dyn Kept, asked: bool) {
    let files = Files::read(kept.paths());
    if !remember(kept, files.digest()) && !asked {
        return;
    }
    let name = kept.name();
    match kept.make(&files) {
        Ok(warnings) => {
            tracing::info!(of = name, "TLS files taken over");
            warnings.iter().for_each(|warning| tracing::warn!(of = name, "{warning}"));
        }
        Err(Refused { file, reason, .. }) => {
            let file = file.display();
            tracing::error!(of = name, %file, reason, "TLS files refused, those before stay");
        }
    }
}

/// The directories in which files lie, each with a task that tells of changes.
struct Watched {
    look: Arc<Notify>,
    tasks: JoinSet<()>,
    dirs: BTreeMap<PathBuf, tokio::task::AbortHandle>,
}

impl Watched {
    /// Watches the directories of these files and no others.
    ///
    /// The directory of the path as it is written: there the name is renamed over, or the link replaced, which is how
    /// certificates are renewed (also Kubernetes', which replaces a link `..data` beside them). What else may happen
    /// to a link's target is noticed when [`Watch`] looks without an event.
    fn only<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let dirs: std::collections::BTreeSet<&Path> = files.filter_map(Path::parent).collect();
        self.dirs.retain(|dir, task| {
            let wanted = dirs.contains(&**dir);
            if !wanted {
                task.abort();
            }
            wanted
        });
        while self.tasks.try_join_next().is_some() {}
        for dir in dirs {
            if self.dirs.contains_key(dir) {
                continue;
            }
            let (mut watch, look) = (Watch::new(dir), self.look.clone());
            let task = self.tasks.spawn(async move {
                loop {
                    watch.changed().await;
                    look.notify_one();
                }
            });
            self.dirs.insert(dir.to_owned(), task);
        }
    }
}

//! The last good texts on disk, beside the snapshot of the services, so that a gateway starts with them while ZooKeeper is
//! down, and with the last good one of a znode that has a bad one now.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Texts by the names of their znodes.
pub type Kept = Arc<BTreeMap<Arc<str>, Arc<str>>>;

/// Grows when an older gateway could misread the file.
const FORMAT: u32 = 1;

/// The least time between two writes, and how long a failed one rests.
const INTERVAL: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    root: String,
    texts: Kept,
}

/// The file for the texts of this kind that belongs to a snapshot of services.
pub fn beside(snapshot: &Path, kind: &str) -> PathBuf {
    let mut path = snapshot.as_os_str().to_owned();
    path.push(format!(".{kind}"));
    path.into()
}

/// What was kept of the znode `root`, blocking; nothing if there is no file yet.
///
/// # Errors
/// The file cannot be read or understood, or belongs to another znode.
pub fn load(path: &Path, root: &str) -> Result<Kept> {
    let read = || -> Result<Kept> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
            text => text?,
        };
        let file: File = serde_json::from_slice(&text)?;
        ensure!(file.format == FORMAT, "its format is {}, not {FORMAT}", file.format);
        ensure!(file.root == root, "it is of {}, not of {root}", file.root);
        Ok(file.texts)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// Writes what `texts` shows to `path` for ever, whenever that changes.
pub async fn keep(path: PathBuf, root: String, mut texts: watch::Receiver<Kept>) {
    let mut saved = texts.borrow_and_update().clone();
    loop {
        let Ok(next) = texts.wait_for(|texts| *texts != saved).await.map(|texts| texts.clone()) else { return };
        let (file, to) = (File { format: FORMAT, root: root.clone(), texts: next.clone() }, path.clone());
        let result = tokio::task::spawn_blocking(move || save(&to, &file)).await;
        match result.map_err(anyhow::Error::from).flatten() {
            Ok(()) => {
                saved = next;
                tokio::time::sleep(INTERVAL).await;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "keeping what ZooKeeper says");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Replaces the file at once: whoever reads it sees the old or the new one.
fn save(path: &Path, file: &File) -> Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Two gateways may share the path while one takes over from the other.
    let temporary = directory.join(format!(".{}.{}.tmp", file.root.replace('/', "_"), std::process::id()));
    let write = || -> Result<()> {
        fs::write(&temporary, serde_json::to_vec(file)?)?;
        fs::File::open(&temporary)?.sync_all()?;
        Ok(fs::rename(&temporary, path)?)
    };
    write().with_context(|| format!("writing {}", path.display())).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_loaded_and_what_is_another_s_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = beside(&dir.path().join("snapshot.json"), "routes");
        assert!(load(&path, "/r").unwrap().is_empty());
        let texts: Kept = Arc::new([(Arc::from("a"), Arc::from("x = 1"))].into());
        save(&path, &File { format: FORMAT, root: "/r".into(), texts: texts.clone() }).unwrap();
        assert_eq!(load(&path, "/r").unwrap(), texts);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        assert!(format!("{:#}", load(&path, "/other").unwrap_err()).contains("it is of /r, not of /other"));
        fs::write(&path, "{").unwrap();
        assert!(load(&path, "/r").is_err());
    }
}

//! The snapshot file: the last good services on disk, so that the gateway starts while its registry is down.
//!
//! Knows files, not ZooKeeper. What is written was read from the registry; what is loaded is a start, never a truth.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Service, Services, State, View, layouts};

/// Grows when an older gateway could misread the file.
const FORMAT: u32 = 1;

/// The least time between two writes: a rolling deployment changes the services many times a second, and a start from
/// a file that is two seconds old is as good.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a failed write rests, so that a full disk does not become a full log.
const RETRY: Duration = Duration::from_secs(30);

/// The largest file that is loaded. 100,000 endpoints take 20 MB.
const SIZE_LIMIT: u64 = 512 << 20;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    root: &'a str,
    saved_at: u64,
    services: &'a Services,
}

/// What says whether the rest can be read at all.
#[derive(Deserialize)]
struct Head {
    format: u32,
    root: String,
}

#[derive(Deserialize)]
struct Read {
    services: Services,
}

/// Reads the services that were saved for the same `root`, blocking. `None` if there is no file yet.
///
/// # Errors
/// The file cannot be read or understood, or belongs to another root or format.
pub fn load(path: &Path, root: &str) -> Result<Option<Services>> {
    let read = |file: File| -> Result<Services> {
        let about = file.metadata()?;
        ensure!(about.is_file(), "it is not a regular file");
        ensure!(about.len() <= SIZE_LIMIT, "it is larger than {SIZE_LIMIT} bytes");
        let text = std::io::read_to_string(BufReader::new(file))?;
        let head: Head = serde_json::from_str(&text)?;
        ensure!(head.format == FORMAT, "its format is {}, not {FORMAT}", head.format);
        ensure!(head.root == root, "its root is {}, not {root}", head.root);
        let Read { mut services } = serde_json::from_str(&text)?;
        services.retain(|name, _| !name.is_empty() && !name.contains('/'));
        for service in services.values_mut() {
            // A hand may have edited the file, and others rely on the order.
            let endpoints = layouts::in_order(service.endpoints.iter().cloned());
            let mut retained = service.retained.clone();
            retained.sort_by_key(|it| it.endpoint.address);
            retained.dedup_by_key(|it| it.endpoint.address);
            retained.retain(|it| endpoints.iter().all(|one| one.address != it.endpoint.address));
            *service = Arc::new(Service { endpoints, retained, ..Service::clone(service) });
        }
        Ok(services)
    };
    // Not to hang on a fifo; a regular file does not care.
    match OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path) {
        Ok(file) => read(file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
    .with_context(|| format!("reading the snapshot {}", path.display()))
}

/// `O_NONBLOCK` on Linux, without a dependency for one number.
const NONBLOCK: i32 = 0o4000;

/// Replaces the file at once with `services`, blocking: whoever reads it sees the old or the new one.
///
/// # Errors
/// The directory cannot be written. The old file then stays.
pub fn save(path: &Path, root: &str, services: &Services) -> Result<()> {
    // With the process id, because two gateways may share the path while one takes over from the other.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> Result<()> {
        // A left-over of a process with our id; `create_new` never follows a link that someone put there.
        let _ = fs::remove_file(&temporary);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let saved_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, &Written { format: FORMAT, root, saved_at, services })?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Without it a power cut may bring back the old file, which is no harm.
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
        Ok(())
    };
    write().with_context(|| format!("writing the snapshot {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Writes what `views` shows to `path` for ever, at most every two seconds and off the event loop. `saved` is what the
/// file holds already.
///
/// A view that is still [`State::Starting`] was never read, and so never replaces a good file.
pub async fn keep(path: PathBuf, root: String, mut views: watch::Receiver<View>, mut saved: Option<Arc<Services>>) {
    loop {
        let fresh = |view: &View| {
            view.state != State::Starting && saved.as_ref().is_none_or(|saved| !Arc::ptr_eq(saved, &view.services))
        };
        let Ok(services) = views.wait_for(fresh).await.map(|view| view.services.clone()) else { return };
        let (path, root, written) = (path.clone(), root.clone(), services.clone());
        let result = tokio::task::spawn_blocking(move || save(&path, &root, &written)).await;
        match result.map_err(anyhow::Error::from).flatten() {
            Ok(()) => {
                saved = Some(services);
                tokio::time::sleep(INTERVAL).await;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "registry snapshot");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Layout;

    fn services(names: &[&str]) -> Services {
        let body = br#"{"Attrs":{"weight":"3","zone":"z","k":"v"}}"#;
        let znode = layouts::read(Layout::Auto, "10.0.0.1:80", body).unwrap();
        let service = || Arc::new(layouts::service([("10.0.0.1:80", &znode)].into_iter(), |_| None));
        names.iter().map(|name| (Arc::from(*name), service())).collect()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.snapshot.json");
        assert_eq!(load(&path, "/services").unwrap(), None);
        let saved = services(&["a", "服务 %2F?#"]);
        save(&path, "/services", &services(&["old"])).unwrap();
        save(&path, "/services", &saved).unwrap();
        assert_eq!(load(&path, "/services").unwrap(), Some(saved));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn a_file_that_does_not_fit_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        save(&path, "/services", &services(&["a"])).unwrap();
        let why = |root: &str| format!("{:#}", load(&path, root).unwrap_err());
        assert!(why("/other").contains("its root is /services, not /other"), "{}", why("/other"));
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, good.replace("\"format\":1", "\"format\":2")).unwrap();
        assert!(why("/services").contains("its format is 2, not 1"), "{}", why("/services"));
        for bad in ["", "{}", &good[..good.len() / 2], "\u{0}"] {
            fs::write(&path, bad).unwrap();
            assert!(why("/services").contains("reading the snapshot"), "{bad}");
        }
        assert!(format!("{:#}", load(directory.path(), "/services").unwrap_err()).contains("not a regular file"));
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(save(&directory.path().join("missing/snapshot"), "/services", &services(&["a"])).is_err());
        // A directory in the way of the rename.
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(save(&path, "/services", &services(&["a"])).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn an_edited_file_is_put_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        let one =
            |address: &str| format!(r#"{{"address":"{address}","scheme":"http","weight":1,"zone":"","labels":[]}}"#);
        let endpoints = ["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"].map(one).join(",");
        let text = format!(
            r#"{{"services":{{"a":{{"endpoints":[{endpoints}]}},"":{{"endpoints":[]}}}},"root":"/","format":1}}"#
        );
        fs::write(&path, text).unwrap();
        let loaded = load(&path, "/").unwrap().unwrap();
        assert_eq!(loaded.len(), 1);
        let order: Vec<String> = loaded["a"].endpoints.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(order, ["10.0.0.1:80", "10.0.0.2:80"]);
    }

    #[tokio::test]
    async fn a_view_that_was_never_read_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        save(&path, "/services", &services(&["good"])).unwrap();
        let (out, views) = watch::channel(View::default());
        let writer = tokio::spawn(keep(path.clone(), "/services".into(), views, None));
        out.send_replace(View { services: Arc::default(), state: State::Starting });
        tokio::task::yield_now().await;
        // The writer takes one view after the other: had it written the first, it would now rest for two seconds.
        let live = View { services: Arc::new(services(&["new"])), state: State::Live };
        out.send_replace(live.clone());
        let asked = std::time::Instant::now();
        while load(&path, "/services").unwrap().unwrap() != *live.services {
            assert!(asked.elapsed() < Duration::from_millis(1500), "not written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(out);
        writer.abort();
    }
}

//! What starts following the fleet's znodes, beginning with what was kept of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::kept;
use super::plugins::{Pins, Status, follow};
use super::routes::Routes;
use super::{PLUGINS, ROUTES};
use crate::config::{self, Config};
use crate::registry::zookeeper::texts::{Texts, supervise};
use crate::registry::{State, Stats};

/// What the fleet's tasks count, by what the metrics call them.
pub type Counted = Vec<(&'static str, Arc<Stats>)>;

/// Follows the routes in ZooKeeper, if there are to be any, beginning with those that were kept.
pub async fn routes(config: &Config, counted: &mut Counted) -> Option<Routes> {
    let zookeeper = config.registry.zookeeper.as_ref()?;
    let znode = &zookeeper.routes.as_ref()?.0;
    let (texts, kept) = texts(zookeeper, znode, "routes", (ROUTES, counted)).await;
    Some(Routes::new(znode, texts, kept))
}

/// Follows which versions of plugins ZooKeeper wants, if it is to say so. Waits for it, and for files to be fetched, as long
/// as `patience` lasts: the configuration may name these plugins.
pub async fn plugins(
    config: &Config,
    counted: &mut Counted,
    patience: Duration,
) -> (Pins, watch::Receiver<Arc<Vec<Status>>>) {
    let (pins, (out, mut status)) = (Pins::default(), watch::channel(Arc::default()));
    let znode = |it: &config::ZooKeeper| Some((it.clone(), it.plugins.as_ref()?.0.clone()));
    let Some((zookeeper, znode)) = config.registry.zookeeper.as_ref().and_then(znode) else { return (pins, status) };
    let (texts, kept) = texts(&zookeeper, &znode, "plugins", (PLUGINS, counted)).await;
    let mut names: Vec<Arc<str>> = kept.borrow().keys().cloned().collect();
    let mut read = texts.clone();
    let following = follow(znode, texts, config.plugins.fetch.clone(), kept, pins.clone(), out);
    tokio::spawn(following);
    let settled = async {
        if names.is_empty() {
            let texts = read.wait_for(|texts| texts.state != State::Starting).await;
            names = texts.map(|texts| texts.all.keys().cloned().collect()).unwrap_or_default();
        }
        let is = |all: &[Status], name: &Arc<str>| all.iter().any(|it| it.name == *name && it.settled);
        let _ = status.wait_for(|all| names.iter().all(|name| is(all, name))).await;
    };
    if tokio::time::timeout(patience, settled).await.is_err() {
        tracing::warn!(waited = ?patience, "not all plugins that ZooKeeper names are there; starting without them");
    }
    (pins, status)
}

/// Follows the texts below a znode, and finds and keeps the good ones on disk where there is a snapshot.
async fn texts(
    zookeeper: &config::ZooKeeper,
    znode: &str,
    kind: &str,
    (name, counted): (&'static str, &mut Counted),
) -> (watch::Receiver<Texts>, watch::Sender<kept::Kept>) {
    let good = watch::Sender::default();
    if let Some(snapshot) = &zookeeper.snapshot {
        let (path, place) = (kept::beside(snapshot, kind), zookeeper.place(znode));
        let (file, of) = (path.clone(), place.clone());
        let loaded = tokio::task::spawn_blocking(move || kept::load(&file, &of)).await;
        match loaded.map_err(anyhow::Error::from).flatten() {
            Ok(loaded) => drop(good.send_replace(loaded)),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "ignoring what was kept of ZooKeeper"),
        }
        tokio::spawn(kept::keep(path, place, good.subscribe()));
    }
    let (out, texts) = watch::channel(Texts::default());
    let stats = Arc::new(Stats::default());
    counted.push((name, stats.clone()));
    let (zookeeper, path) = (zookeeper.clone(), znode.to_owned());
    tokio::spawn(async move { supervise(zookeeper, path, out, stats).await });
    (texts, good)
}

//! Texts from ZooKeeper: the data of the children of one znode, followed as services are, see [`super`].
//!
//! What the texts mean is nobody's business here; there are few of them, and small, so each change is a whole new map.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client::{AddWatchMode, Client, Error, EventType, PersistentWatcher, WatchedEvent};

use super::{QUIET, REFUSED, SAFETY_INTERVAL, Throttle, ready, restarted, session};
use crate::config;
use crate::registry::{State, Stats};

/// Bytes of a text. A route has some hundred.
const SIZE: usize = 64 << 10;

/// Requests under way at once.
const WINDOW: usize = 64;

/// What a znode says, or why that cannot be told.
pub type Text = Result<Arc<str>, &'static str>;

/// All texts of a directory at one moment, by the names of their znodes.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// The last good state; kept whatever happens to ZooKeeper. Of a znode that cannot be understood, why.
    pub all: Arc<BTreeMap<Arc<str>, Text>>,
    /// How far to trust it.
    pub state: State,
}

/// Follows the children of `path` for ever, and puts what they say into `out` whenever that changes.
pub async fn supervise(config: config::ZooKeeper, path: String, out: watch::Sender<Texts>, stats: Arc<Stats>) -> ! {
    let config = Arc::new(config);
    let start = || {
        let (config, path, out, counted) = (config.clone(), path.clone(), out.clone(), stats.clone());
        async move { Follower::new(&config, path, out, counted).follow().await }
    };
    restarted(start, &stats.restarts, Duration::from_secs(1)).await
}

struct Follower<'a> {
    config: &'a config::ZooKeeper,
    /// Without a `/` at the end.
    path: String,
    out: watch::Sender<Texts>,
    stats: Arc<Stats>,
    all: Arc<BTreeMap<Arc<str>, Text>>,
    unreachable: Throttle,
    refused: Throttle,
}

/// What to read again.
#[derive(Default)]
struct Hints {
    everything: bool,
    names: BTreeSet<Arc<str>>,
}

impl<'a> Follower<'a> {
    fn new(config: &'a config::ZooKeeper, path: String, out: watch::Sender<Texts>, stats: Arc<Stats>) -> Follower<'a> {
        let (path, all) = (path.trim_end_matches('/').to_owned(), out.borrow().all.clone());
        Follower { config, path, out, stats, all, unreachable: Throttle::default(), refused: Throttle::default() }
    }

    /// One session after the other.
    async fn follow(mut self) -> ! {
        let mut failures: u32 = 0;
        loop {
            let reads = self.stats.full_reads.load(Relaxed);
            match session::open(self.config, failures).await {
                Ok(session) => {
                    self.stats.sessions.fetch_add(1, Relaxed);
                    let Err(error) = self.serve(&session.client).await;
                    tracing::info!(path = self.path, reason = format!("{error:#}"), "ZooKeeper session ended");
                }
                Err(error) => self.unreachable.say(|unsaid| {
                    tracing::warn!(path = self.path, error = format!("{error:#}"), unsaid, "ZooKeeper is out of reach");
                }),
            }
            self.stale();
            let useful = self.stats.full_reads.load(Relaxed) != reads;
            failures = if useful { 0 } else { failures.saturating_add(1) };
            sleep(session::pause(failures, fastrand::f64())).await;
        }
    }

    /// One session, until it ends; the error says why.
    async fn serve(&mut self, client: &Client) -> Result<Infallible> {
        let mut watcher = None;
        loop {
            session::usable(client).await?;
            let mut states = client.state_watcher();
            let Err(error) = self.epoch(client, &mut watcher).await;
            if ready(states.changed()).await.is_some() {
                self.stats.disconnects.fetch_add(1, Relaxed);
                continue;
            }
            self.stale();
            self.refused.say(|unsaid| {
                let error = format!("{error:#}");
                tracing::warn!(path = self.path, error, unsaid, "ZooKeeper refused; what was read last stays");
            });
            let _ = timeout(REFUSED, states.changed()).await;
        }
    }

    /// From one session event to the next: watch, read everything, follow the hints.
    async fn epoch(&mut self, client: &Client, watcher: &mut Option<PersistentWatcher>) -> Result<Infallible> {
        session::catch_up(client).await?;
        let armed = session::answered(client, client.watch(&self.path, AddWatchMode::PersistentRecursive)).await;
        let armed = armed.with_context(|| format!("watching {}, which needs ZooKeeper 3.6 or newer", self.path))?;
        // Only now may the old one go: the last watcher of a path takes the server's watch with it.
        let watcher = watcher.insert(armed);
        self.read(client, Hints { everything: true, ..Hints::default() }).await?;
        loop {
            let safety = Instant::now() + SAFETY_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0);
            let mut hints = Hints::default();
            tokio::select! {
                event = watcher.changed() => self.note(&mut hints, &event)?,
                () = sleep_until(safety) => hints.everything = true,
            }
            let due = Instant::now() + QUIET;
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(due) => break,
                    event = watcher.changed() => self.note(&mut hints, &event)?,
                }
            }
            self.read(client, hints).await?;
        }
    }

    /// Takes an event in. An error ends the epoch.
    fn note(&self, hints: &mut Hints, event: &WatchedEvent) -> Result<()> {
        if event.event_type == EventType::Session {
            bail!("the connection became {}", event.session_state);
        }
        match event.path.strip_prefix(&*self.path) {
            Some("") => hints.everything |= event.event_type != EventType::NodeDataChanged,
            Some(below) => match below.strip_prefix('/') {
                Some(name) if !name.contains('/') => drop(hints.names.insert(name.into())),
                _ => {}
            },
            None => {}
        }
        Ok(())
    }

    /// Reads again what is hinted at, and tells it if it is news.
    async fn read(&mut self, client: &Client, hints: Hints) -> Result<()> {
        let mut next = BTreeMap::new();
        let names: Vec<Arc<str>> = if hints.everything {
            match session::answered(client, async { Ok::<_, Error>(client.list_children(&self.path).await) }).await? {
                Ok(names) => names.into_iter().map(Arc::from).collect(),
                Err(Error::NoNode) => Vec::new(),
                Err(error) => return Err(error).with_context(|| format!("listing {}", self.path)),
            }
        } else {
            next = BTreeMap::clone(&self.all);
            hints.names.iter().for_each(|name| drop(next.remove(name)));
            hints.names.into_iter().collect()
        };
        for names in names.chunks(WINDOW) {
            // Each request is sent here; the futures only wait for the answers.
            let asked: Vec<_> = names.iter().map(|name| client.get_data(&format!("{}/{name}", self.path))).collect();
            for (name, answer) in names.iter().zip(asked) {
                match session::answered(client, async { Ok::<_, Error>(answer.await) }).await? {
                    Ok((bytes, _)) => drop(next.insert(name.clone(), text(bytes))),
                    Err(Error::NoNode) => {}
                    Err(Error::NoAuth) => drop(next.insert(name.clone(), Err("it may not be read"))),
                    Err(error) => return Err(error).with_context(|| format!("reading {}/{name}", self.path)),
                }
            }
        }
        self.stats.full_reads.fetch_add(u64::from(hints.everything), Relaxed);
        if *self.all != next {
            self.all = Arc::new(next);
        } else if self.out.borrow().state == State::Live {
            return Ok(());
        }
        self.tell(State::Live);
        Ok(())
    }

    /// Says that what was live is not followed any more.
    fn stale(&mut self) {
        if self.out.borrow().state == State::Live {
            self.tell(State::Stale);
        }
    }

    fn tell(&self, state: State) {
        self.stats.publishes.fetch_add(1, Relaxed);
        self.out.send_replace(Texts { all: self.all.clone(), state });
    }
}

fn text(bytes: Vec<u8>) -> Text {
    if bytes.len() > SIZE {
        return Err("it is larger than 64 KiB");
    }
    String::from_utf8(bytes).map(Arc::from).map_err(|_| "it is not UTF-8")
}

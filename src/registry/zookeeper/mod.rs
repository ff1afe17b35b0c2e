//! Services from ZooKeeper: the only home of its client.
//!
//! One persistent-recursive watch on the root is armed *before* everything is read, and again after *every* session
//! event, followed by a whole read. This is not a matter of taste: events of a disconnection are lost by the server's
//! design, and version 0.11.2 of the client loses persistent watches on each reconnection without a word. Between two
//! whole reads an event is a hint to read its znode again; a failed read never replaces what is known.
//!
//! [`session`] opens and gives up sessions, [`read`] asks, [`hints`] says what to ask, [`tree`] knows the answers. What
//! is done in which order is here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client::{AddWatchMode, Client, EventType, PersistentWatcher, WatchedEvent};

use self::hints::{Happened, Hints};
use self::tree::{Bad, Changes, Tree};
use super::{Services, State, Stats, View, persist};
use crate::config;

mod hints;
mod read;
mod session;
mod tree;

/// How long after the first event it is read again: what one transaction changes then becomes one view.
const QUIET: Duration = Duration::from_millis(2);

/// The least time between two views: a burst of a thousand changes becomes a dozen views, not a thousand.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);

/// How often everything is read although no event asked for it, give or take a quarter. It finds nothing unless there
/// is a bug, in the server, the client or here, which must not last.
const SAFETY_INTERVAL: Duration = Duration::from_secs(300);

/// How long a refused read rests, for example of a root that we may not list. No event tells when it may succeed.
const REFUSED: Duration = Duration::from_secs(2);

/// The longest that a whole read after a reconnection is put off.
const SPREAD: Duration = Duration::from_secs(1);

/// How many names a log line holds.
const NAMES_LOGGED: usize = 10;

/// How many events are taken in before other tasks of the thread get their turn.
const EVENTS_PER_TURN: usize = 256;

/// The least time between two log lines of one kind that a broken registry could repeat for ever.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Follows the registry for ever and puts a view into `out` each time something changed.
///
/// Starts with what `out` shows if it was ever read, else with the snapshot file, without waiting for ZooKeeper. May
/// panic, since the client can: see [`supervise`].
pub async fn run(config: &config::ZooKeeper, out: watch::Sender<View>, stats: Arc<Stats>) -> ! {
    let place = place(config);
    let mut saved = None;
    if out.borrow().state == State::Starting
        && let Some(path) = config.snapshot.clone()
    {
        let root = place.clone();
        let loaded = tokio::task::spawn_blocking(move || persist::load(&path, &root)).await;
        match loaded.map_err(anyhow::Error::from).flatten() {
            Ok(Some(services)) => {
                tracing::info!(services = services.len(), "services from the snapshot file, until ZooKeeper is read");
                let services = Arc::new(services);
                saved = Some(services.clone());
                stats.publishes.fetch_add(1, Relaxed);
                out.send_replace(View { services, state: State::Stale });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "ignoring the snapshot file"),
        }
    }
    let keep = config.snapshot.clone().map(|path| persist::keep(path, place, out.subscribe(), saved));
    let source = Source::new(config, out, stats);
    let keep = async {
        if let Some(keep) = keep {
            keep.await;
        }
        std::future::pending().await
    };
    tokio::select! {
        never = source.follow() => never,
        never = keep => never,
    }
}

/// [`run`], started again a second after it panicked. What it published stays meanwhile.
pub async fn supervise(config: config::ZooKeeper, out: watch::Sender<View>, stats: Arc<Stats>) -> ! {
    let config = Arc::new(config);
    let start = || {
        let (config, out, stats) = (config.clone(), out.clone(), stats.clone());
        async move { run(&config, out, stats).await }
    };
    restarted(start, &stats.restarts, Duration::from_secs(1)).await
}

/// Runs what `start` gives as a task of its own, whose panic ends only the task, again and again.
async fn restarted<F>(start: impl Fn() -> F, restarts: &AtomicU64, rest: Duration) -> !
where
    F: Future<Output: Send> + Send + 'static,
{
    loop {
        // A set, because it ends its task when this future is dropped.
        let mut task = tokio::task::JoinSet::new();
        task.spawn(start());
        let ended = task.join_next().await;
        let error = ended.and_then(Result::err).map(|error| error.to_string());
        tracing::error!(error, "the ZooKeeper source ended; the last services stay, and it is started again");
        restarts.fetch_add(1, Relaxed);
        sleep(rest).await;
    }
}

/// Which znode of the ensemble the root is, including the chroot: what a snapshot file belongs to.
fn place(config: &config::ZooKeeper) -> String {
    let chroot = config.servers.0.find('/').map_or("", |at| &config.servers.0[at..]);
    let place = format!("{}{}", chroot.trim_end_matches('/'), config.root.0.trim_end_matches('/'));
    if place.is_empty() { "/".into() } else { place }
}

struct Source<'a> {
    config: &'a config::ZooKeeper,
    /// Without a trailing slash, and so empty for `/`.
    root: &'a str,
    out: watch::Sender<View>,
    stats: Arc<Stats>,
    tree: Tree,
    published: Instant,
    /// How long the last whole read took.
    effort: Duration,
    unreachable: Throttle,
    refused: Throttle,
    bad: Throttle,
}

impl<'a> Source<'a> {
    fn new(config: &'a config::ZooKeeper, out: watch::Sender<View>, stats: Arc<Stats>) -> Self {
        let tree = Tree::new(config.layout, out.borrow().services.clone());
        Source {
            config,
            root: config.root.0.trim_end_matches('/'),
            out,
            stats,
            tree,
            published: Instant::now(),
            effort: Duration::ZERO,
            unreachable: Throttle::default(),
            refused: Throttle::default(),
            bad: Throttle::default(),
        }
    }

    /// One session after the other.
    async fn follow(mut self) -> ! {
        let mut failures: u32 = 0;
        self.stale();
        loop {
            let reads = self.stats.full_reads.load(Relaxed);
            match session::open(self.config, failures).await {
                Ok(client) => {
                    self.stats.sessions.fetch_add(1, Relaxed);
                    let id = client.session_id();
                    tracing::info!(session = %id, servers = self.config.servers.0, "ZooKeeper session opened");
                    let Err(error) = self.serve(client).await;
                    tracing::info!(session = %id, reason = format!("{error:#}"), "ZooKeeper session ended");
                }
                Err(error) => self.unreachable.say(|unsaid| {
                    tracing::warn!(error = format!("{error:#}"), unsaid, "ZooKeeper is out of reach");
                }),
            }
            self.stale();
            let useful = self.stats.full_reads.load(Relaxed) != reads;
            failures = if useful { 0 } else { failures.saturating_add(1) };
            sleep(session::pause(failures)).await;
        }
    }

    /// One session, until it ends; the error says why.
    async fn serve(&mut self, client: Client) -> Result<Infallible> {
        let mut watcher = None;
        loop {
            session::usable(&client).await?;
            let mut states = client.state_watcher();
            let Err(error) = self.epoch(&client, &mut watcher).await;
            // Whether the connection lives is told by its state alone: requests on a lost one fail in several ways.
            if ready(states.changed()).await.is_some() {
                self.stats.disconnects.fetch_add(1, Relaxed);
                tracing::info!(reason = format!("{error:#}"), "ZooKeeper connection lost");
            } else {
                self.stale();
                self.refused.say(|unsaid| {
                    tracing::warn!(error = format!("{error:#}"), unsaid, "ZooKeeper refused; the last services stay");
                });
                let _ = timeout(REFUSED, states.changed()).await;
            }
        }
    }

    /// From one session event to the next: watch, read everything, follow the hints.
    async fn epoch(&mut self, client: &Client, watcher: &mut Option<PersistentWatcher>) -> Result<Infallible> {
        let path = if self.root.is_empty() { "/" } else { self.root };
        session::catch_up(client).await?;
        let armed = session::answered(client, client.watch(path, AddWatchMode::PersistentRecursive)).await;
        let armed = armed.with_context(|| format!("watching {path}, which needs ZooKeeper 3.6 or newer"))?;
        // Only now may the old one go: the last watcher of a path takes the server's watch with it.
        let watcher = watcher.insert(armed);
        // All gateways lose their connections at once. What takes long to read costs the servers as much, and so the
        // reads of large registries are spread, while those of small ones need not wait.
        sleep(self.effort.mul_f64(8.0 * fastrand::f64()).min(SPREAD)).await;
        self.read_everything(client).await?;
        self.publish();
        self.events(client, watcher).await
    }

    async fn events(&mut self, client: &Client, watcher: &mut PersistentWatcher) -> Result<Infallible> {
        let mut hints = Hints::default();
        let mut due = None;
        let mut safety = Instant::now() + SAFETY_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0);
        let mut taken = 0;
        loop {
            // The work stands first, so that a stream of events cannot put it off for ever.
            let woken = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(safety)) => None,
                event = watcher.changed() => Some(event),
            };
            match woken {
                Some(event) => {
                    if self.note(&mut hints, &event)? {
                        due.get_or_insert((Instant::now() + QUIET).max(self.published + PUBLISH_INTERVAL));
                    }
                    taken += 1;
                    if taken % EVENTS_PER_TURN == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                None if due.take().is_some() => self.apply(client, std::mem::take(&mut hints)).await?,
                None => {
                    self.check(client, watcher, &mut hints).await?;
                    due = Some(Instant::now());
                    safety = Instant::now() + SAFETY_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0);
                }
            }
        }
    }

    /// Takes an event in, and returns whether there is something to read. An error ends the epoch.
    fn note(&self, hints: &mut Hints, event: &WatchedEvent) -> Result<bool> {
        let happened = match event.event_type {
            EventType::Session => bail!("the connection became {}", event.session_state),
            EventType::NodeCreated => Happened::Created,
            EventType::NodeDeleted => Happened::Deleted,
            EventType::NodeDataChanged | EventType::NodeChildrenChanged => Happened::Changed,
        };
        Ok(hints.note(hints::place(self.root, &event.path), happened, |service| self.tree.follows(service)))
    }

    async fn apply(&mut self, client: &Client, hints: Hints) -> Result<()> {
        if hints.everything {
            self.read_everything(client).await?;
        } else {
            let (services, children) = session::answered(client, read::hinted(client, self.root, hints)).await?;
            for (service, found) in services {
                self.tree.set_service(&service, found);
            }
            for (service, child, body) in children {
                self.tree.set_child(&service, child, body);
            }
        }
        self.publish();
        Ok(())
    }

    async fn read_everything(&mut self, client: &Client) -> Result<()> {
        let started = Instant::now();
        let all = session::answered(client, read::everything(client, self.root)).await?;
        self.effort = started.elapsed();
        self.stats.full_reads.fetch_add(1, Relaxed);
        tracing::debug!(services = all.len(), elapsed = ?self.effort, "everything read");
        self.tree.replace(all);
        Ok(())
    }

    /// The slow safety check: whether events told all there is.
    async fn check(&mut self, client: &Client, watcher: &mut PersistentWatcher, hints: &mut Hints) -> Result<()> {
        let unreadable = self.tree.forbidden();
        self.read_everything(client).await?;
        // The server tells an event before it shows the value, and so the events of all that was read are here.
        while let Some(event) = ready(watcher.changed()).await {
            self.note(hints, &event)?;
        }
        // A changed ACL has no event.
        let untold = |name: &&Arc<str>| !hints.touches(name) && !unreadable.contains(*name);
        let changes = self.publish();
        let untold: Vec<_> = changes.services.iter().filter(untold).take(NAMES_LOGGED).collect();
        if !untold.is_empty() {
            self.stats.differences.fetch_add(1, Relaxed);
            tracing::error!(services = ?untold, "the safety check found changes of which no event had told");
        }
        Ok(())
    }

    /// Puts what is known now into the channel, if that is news.
    fn publish(&mut self) -> Changes {
        let bad = self.tree.take_bad();
        self.stats.bad_entries.fetch_add(bad.len() as u64, Relaxed);
        for Bad { service, child, reason } in bad {
            let path = format!("{}/{service}/{child}", self.root);
            self.bad.say(|unsaid| tracing::warn!(path, reason, unsaid, "leaving out a znode"));
        }
        let changes = self.tree.commit();
        if changes.is_none() && self.out.borrow().state == State::Live {
            return Changes::default();
        }
        let changes = changes.unwrap_or_default();
        let services = self.tree.published().clone();
        tracing::debug!(
            services = services.len(),
            changed = changes.services.len(),
            added = changes.added,
            removed = changes.removed,
            "services published"
        );
        if !changes.emptied.is_empty() {
            let names: Vec<_> = changes.emptied.iter().take(NAMES_LOGGED).collect();
            tracing::info!(services = ?names, count = changes.emptied.len(), "services lost their last endpoint");
        }
        self.send(services, State::Live);
        self.published = Instant::now();
        changes
    }

    /// Says that what was live is not followed any more.
    fn stale(&mut self) {
        if self.out.borrow().state == State::Live {
            self.send(self.tree.published().clone(), State::Stale);
        }
    }

    fn send(&self, services: Arc<Services>, state: State) {
        self.stats.publishes.fetch_add(1, Relaxed);
        self.out.send_replace(View { services, state });
    }
}

/// What `future` gives without waiting.
async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}

/// Keeps a log line that could repeat for ever to one in [`LOG_INTERVAL`].
#[derive(Default)]
struct Throttle {
    said: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    /// Calls `line` with the number of lines that were held back since the last one, or holds this one back.
    fn say(&mut self, line: impl FnOnce(u64)) {
        if self.said.is_some_and(|said| said.elapsed() < LOG_INTERVAL) {
            self.unsaid += 1;
        } else {
            line(std::mem::take(&mut self.unsaid));
            self.said = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[tokio::test]
    async fn a_source_that_panics_or_ends_is_started_again() {
        let restarts = Arc::new(AtomicU64::new(0));
        let panicked = Arc::new(AtomicBool::new(false));
        let start = || {
            let panicked = panicked.clone();
            async move { assert!(panicked.swap(true, Relaxed), "as the client may") }
        };
        tokio::select! {
            never = restarted(start, &restarts, Duration::from_millis(1)) => never,
            () = async { while restarts.load(Relaxed) < 3 { tokio::task::yield_now().await } } => {}
        }
    }

    #[test]
    fn the_place_of_a_root_includes_the_chroot() {
        let at = |servers: &str, root: &str| {
            let servers = config::Servers(servers.into());
            place(&config::ZooKeeper { servers, root: config::ZnodePath(root.into()), ..Default::default() })
        };
        assert_eq!(at("a:1,b:2", "/services"), "/services");
        assert_eq!(at("a:1,b:2/x/y", "/services"), "/x/y/services");
        assert_eq!(at("a:1/", "/"), "/");
        assert_eq!(at("a:1/x", "/"), "/x");
    }

    #[test]
    fn a_repeated_line_is_said_once() {
        let mut throttle = Throttle::default();
        let mut said = Vec::new();
        for _ in 0..3 {
            throttle.say(|unsaid| said.push(unsaid));
        }
        assert_eq!((said, throttle.unsaid), (vec![0], 2));
    }
}

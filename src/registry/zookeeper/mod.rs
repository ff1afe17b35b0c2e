//! Services from ZooKeeper: the only home of its client.
//!
//! One persistent-recursive watch on each root is armed *before* everything is read, and again after *every* session
//! event, followed by a whole read. This is not a matter of taste: events of a disconnection are lost by the server's
//! design, and version 0.11.2 of the client loses persistent watches on each reconnection without a word. Between two
//! whole reads an event is a hint to read its znode again; a failed read never replaces what is known. Servers before
//! 3.6 have no such watches: there, [`oneshot`] has one for each znode.
//!
//! [`session`] opens and gives up sessions, [`roots`] says what is read of each root, [`read`] asks, [`hints`] says what to
//! ask, [`tree`] knows the answers. What is done in which order is here.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client::{Client, Error, EventType, WatchedEvent};

use self::hints::{Happened, Hints, Place};
use self::hosts::Hosts;
use self::retain::{Moment, Settled, Terms};
use self::roots::{Below, Readable};
use self::tree::Tree;
use self::waiting::{Throttle, ready, until};
use self::watches::Watches;
use super::{Services, State, Stats, View, persist};
use crate::config;

mod hints;
mod hosts;
mod oneshot;
mod publish;
mod read;
mod retain;
pub mod registrar;
mod roots;
mod session;
pub mod texts;
mod tree;
mod tunnel;
mod waiting;
mod watches;

/// How long after the first event it is read again: what one transaction changes then becomes one view.
const QUIET: Duration = Duration::from_millis(1);

/// The least time between two views: a burst of a thousand changes becomes a dozen views, not a thousand.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);

/// How often everything is read although no event asked for it, give or take a quarter. It finds nothing unless there
/// is a bug, in the server, the client or here, which must not last.
const SAFETY_INTERVAL: Duration = Duration::from_secs(300);

/// How long a refused read rests, for example of a root that we may not list. No event tells when it may succeed.
const REFUSED: Duration = Duration::from_secs(2);

/// How long a whole read waits for the addresses of hosts that were not named before.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// The longest that a whole read after a reconnection is put off.
const SPREAD: Duration = Duration::from_secs(1);

/// How many names a log line holds.
const NAMES_LOGGED: usize = 10;

/// How many events are taken in before other tasks of the thread get their turn.
const EVENTS_PER_TURN: usize = 256;

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

/// Which znodes of the ensemble the roots are, including the chroot: what a snapshot file belongs to.
fn place(config: &config::ZooKeeper) -> String {
    let chroot = config.servers.0.find('/').map_or("", |at| &config.servers.0[at..]);
    let place = |root: &config::Root| {
        let place = format!("{}{}", chroot.trim_end_matches('/'), root.trimmed());
        let place = if place.is_empty() { "/".into() } else { place };
        if root.prefix.is_empty() { place } else { format!("{place} as {}", root.prefix) }
    };
    config.root.0.iter().map(place).collect::<Vec<_>>().join(", ")
}

struct Source<'a> {
    config: &'a config::ZooKeeper,
    /// Whether the servers are older than 3.6.
    old: bool,
    /// Never empty; of two services of one name that of the first counts.
    below: Vec<Below<'a>>,
    out: watch::Sender<View>,
    stats: Arc<Stats>,
    /// What was published last: of one root its tree's, without a copy.
    services: Arc<Services>,
    /// Names of services that another root has too.
    hidden: BTreeSet<Arc<str>>,
    /// Where the hosts are that znodes name.
    hosts: Hosts,
    published: Instant,
    /// How long the last whole read took.
    effort: Duration,
    unreachable: Throttle,
    refused: Throttle,
    bad: Throttle,
}

impl<'a> Source<'a> {
    fn new(config: &'a config::ZooKeeper, out: watch::Sender<View>, stats: Arc<Stats>) -> Self {
        let (services, now) = (out.borrow().services.clone(), Moment::now());
        let below = |root: &'a config::Root| {
            let layout = root.layout.unwrap_or(config.layout);
            let own = |(name, time): (&config::ServiceName, &config::Retention)| {
                Some((name.0.strip_prefix(&*root.prefix)?.into(), time.0))
            };
            let terms =
                Terms { all: config.retain.0, services: config.retain_services.iter().filter_map(own).collect() };
            let tree = Tree::new(layout, &root.prefix, services.clone(), terms, now);
            Below { root: root.trimmed(), tree, forbidden: false }
        };
        let below = config.root.0.iter().map(below).collect();
        Source {
            config,
            old: false,
            below,
            out,
            stats,
            services,
            hidden: BTreeSet::new(),
            hosts: Hosts::default(),
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
                Ok(session) => {
                    let client = session.client.clone();
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
            sleep(session::pause(failures, fastrand::f64())).await;
        }
    }

    /// One session, until it ends; the error says why.
    async fn serve(&mut self, client: Client) -> Result<Infallible> {
        let mut watches = Watches::Recursive(Vec::new());
        loop {
            session::usable(&client).await?;
            let mut states = client.state_watcher();
            let Err(error) = self.epoch(&client, &mut watches).await;
            if matches!(watches, Watches::Oneshot(_)) {
                // See its head. What was refused is refused in the next session as well.
                let lost = ready(states.changed()).await.is_some();
                self.stats.disconnects.fetch_add(u64::from(lost), Relaxed);
                self.stale();
                sleep(if lost { Duration::ZERO } else { REFUSED }).await;
                return Err(error);
            }
            if error.is::<Readable>() {
                tracing::info!("{error}");
                continue;
            }
            // Whether the connection lives is told by its state alone: requests on a lost one fail in several ways.
            if ready(states.changed()).await.is_some() {
                self.stats.disconnects.fetch_add(1, Relaxed);
                tracing::info!(reason = format!("{error:#}"), "ZooKeeper connection lost");
            } else {
                self.stale();
                if matches!(error.downcast_ref(), Some(Error::Unimplemented)) {
                    // Said already; the server is about to close the connection.
                    let _ = timeout(REFUSED, states.changed()).await;
                    continue;
                }
                self.refused.say(|unsaid| {
                    tracing::warn!(error = format!("{error:#}"), unsaid, "ZooKeeper refused; the last services stay");
                });
                let _ = timeout(REFUSED, states.changed()).await;
            }
        }
    }

    /// From one session event to the next: watch, read everything, follow the hints.
    async fn epoch(&mut self, client: &Client, watches: &mut Watches) -> Result<Infallible> {
        session::catch_up(client).await?;
        // Only now may the old ones go: the last watcher of a path takes the server's watch with it.
        *watches = Watches::arm(client, self.below.iter().map(Below::path), &mut self.old).await?;
        // All gateways lose their connections at once. What takes long to read costs the servers as much, and so the
        // reads of large registries are spread, while those of small ones need not wait.
        sleep(self.effort.mul_f64(8.0 * fastrand::f64()).min(SPREAD)).await;
        // What is missing now may have gone while nobody watched.
        for below in &mut self.below {
            below.tree.watches(false);
            below.forbidden = false;
        }
        self.read_everything(&mut watches.reader(client)).await?;
        self.publish();
        self.below.iter_mut().for_each(|below| below.tree.watches(true));
        self.events(client, watches).await
    }

    async fn events(&mut self, client: &Client, watches: &mut Watches) -> Result<Infallible> {
        let mut hints = self.no_hints();
        let mut due = None;
        let mut safety = Instant::now() + SAFETY_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0);
        let (mut taken, mut retry) = (0, Instant::now() + REFUSED);
        loop {
            let due_to_settle = self.below.iter().filter_map(|below| below.tree.due()).min();
            // The work stands first, so that a stream of events cannot put it off for ever.
            let woken = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(safety)) => None,
                () = until(due_to_settle) => {
                    self.settle(client, watches, &mut hints).await?;
                    continue;
                }
                () = sleep_until(retry), if self.misses_a_root() => {
                    self.try_forbidden(client).await?;
                    retry = Instant::now() + REFUSED;
                    continue;
                }
                answers = self.hosts.changed() => {
                    self.locate(&answers);
                    due.get_or_insert((Instant::now() + QUIET).max(self.published + PUBLISH_INTERVAL));
                    continue;
                }
                event = watches.next() => Some(event?),
            };
            match woken {
                Some((at, event)) => {
                    if self.note(&mut hints, at, &event)? {
                        due.get_or_insert((Instant::now() + QUIET).max(self.published + PUBLISH_INTERVAL));
                    }
                    taken += 1;
                    if taken % EVENTS_PER_TURN == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                None if due.take().is_some() => {
                    let hints = std::mem::replace(&mut hints, self.no_hints());
                    self.apply(&mut watches.reader(client), hints).await?;
                }
                None => {
                    self.check(client, watches, &mut hints).await?;
                    due = Some(Instant::now());
                    safety = Instant::now() + SAFETY_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0);
                }
            }
        }
    }

    /// For each root.
    fn no_hints(&self) -> Vec<Hints> {
        self.below.iter().map(|_| Hints::default()).collect()
    }

    /// Takes an event of the root `at` in, or of all that its path lies below, and returns whether there is something to
    /// read. An error ends the epoch.
    fn note(&mut self, hints: &mut [Hints], at: Option<usize>, event: &WatchedEvent) -> Result<bool> {
        let happened = match event.event_type {
            EventType::Session => bail!("the connection became {}", event.session_state),
            EventType::NodeCreated => Happened::Created,
            EventType::NodeDeleted => Happened::Deleted,
            EventType::NodeDataChanged => Happened::Changed,
            EventType::NodeChildrenChanged => Happened::ChildrenChanged,
        };
        let mut something = false;
        for (_, (Below { root, tree, .. }, hints)) in
            self.below.iter_mut().zip(hints).enumerate().filter(|(own, _)| at.is_none_or(|at| at == *own))
        {
            let place = hints::place(root, &event.path);
            if (&place, happened) == (&Place::Root, Happened::Deleted) {
                tree.root_gone(Moment::now());
            }
            let happened = match (at, &place, happened) {
                // A one-shot watch may tell of it after a read that has seen the next of that name, so that one is read.
                (None, Place::Child(..), Happened::Deleted) => Happened::Changed,
                _ => happened,
            };
            something |= hints.note(place, happened, |service| tree.follows(service));
        }
        Ok(something)
    }

    /// Judges what vanished, once all that went with it is known.
    async fn settle(&mut self, client: &Client, watches: &mut Watches, hints: &mut Vec<Hints>) -> Result<()> {
        // The server ends a session in one step, and tells of it before it answers anything else. So what went together
        // has been told after this answer, however busy everybody is.
        session::answered(client, client.check_stat("/")).await?;
        while let Some(event) = ready(watches.next()).await {
            let (at, event) = event?;
            self.note(hints, at, &event)?;
        }
        let hints = std::mem::replace(hints, self.no_hints());
        self.apply(&mut watches.reader(client), hints).await?;
        let now = Moment::now();
        for Below { root, tree, .. } in &mut self.below {
            let Settled { vanished, emptied, taken_away, expired, services } = tree.settle(now);
            self.stats.vanished.fetch_add(vanished as u64, Relaxed);
            let names: Vec<_> = services.iter().take(NAMES_LOGGED).collect();
            if emptied > 0 {
                self.stats.emptied.fetch_add(1, Relaxed);
                let endpoints = emptied;
                tracing::error!(root, endpoints, services = ?names, "registry emptied; its endpoints are retained");
            } else if vanished > 0 {
                let endpoints = vanished;
                tracing::warn!(root, endpoints, services = ?names, "endpoints vanished that nobody took away");
            }
            if expired > 0 {
                tracing::info!(root, endpoints = expired, services = ?names, "endpoints were retained for long enough");
            }
            if taken_away > 0 {
                tracing::debug!(root, endpoints = taken_away, services = ?names, "endpoints were taken away");
            }
        }
        self.publish();
        Ok(())
    }

    /// The slow safety check: whether events told all there is.
    async fn check(&mut self, client: &Client, watches: &mut Watches, hints: &mut [Hints]) -> Result<()> {
        let unreadable: Vec<_> = self.below.iter().map(|below| below.tree.forbidden()).collect();
        self.read_everything(&mut watches.reader(client)).await?;
        // The server tells an event before it shows the value, and so the events of all that was read are here.
        while let Some(event) = ready(watches.next()).await {
            let (at, event) = event?;
            self.note(hints, at, &event)?;
        }
        let changes = self.publish();
        // A changed ACL has no event.
        let told = |name: &str| {
            let mut all = self.below.iter().zip(&*hints).zip(&unreadable);
            all.any(|((below, hints), unreadable)| {
                below.tree.own(name).is_some_and(|own| hints.touches(own) || unreadable.contains(own))
            })
        };
        let untold: Vec<_> = changes.services.iter().filter(|name| !told(name)).take(NAMES_LOGGED).collect();
        if !untold.is_empty() {
            self.stats.differences.fetch_add(1, Relaxed);
            tracing::error!(services = ?untold, "the safety check found changes of which no event had told");
        }
        Ok(())
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
        let of = |servers: &str, root: Vec<config::Root>| {
            let servers = config::Servers(servers.into());
            place(&config::ZooKeeper { servers, root: config::Roots(root), ..Default::default() })
        };
        let at = |servers: &str, root: &str| of(servers, vec![config::Root::at(root)]);
        assert_eq!(at("a:1,b:2", "/services"), "/services");
        assert_eq!(at("a:1,b:2/x/y", "/services"), "/x/y/services");
        assert_eq!(at("a:1/", "/"), "/");
        assert_eq!(at("a:1/x", "/"), "/x");
        let named = config::Root { prefix: "b.".into(), ..config::Root::at("/b") };
        assert_eq!(of("a:1/x", vec![config::Root::at("/a"), named]), "/x/a, /x/b as b.");
    }
}

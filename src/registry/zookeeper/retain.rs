//! Whether an endpoint that vanished was taken away, or may still live. Pure: no ZooKeeper, and whoever asks says what
//! time it is.
//!
//! ZooKeeper says that a znode is gone and never why. The evidence is what went with it. Whoever takes an endpoint away
//! has a session for it, and that session mostly holds others that stay; Registrator takes the service's znode away with
//! its last endpoint. When a session ends, all that it held vanishes at once, and services' znodes stay. And when
//! services vanish in numbers, the registry was emptied, whatever the rest looks like.
//!
//! What vanishes together is not told together, so everything that vanishes waits for [`SETTLE`] without another loss,
//! and counts as retained for so long. Whoever asks for a judgement makes sure that nothing is on its way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::registry::{Endpoint, Retained, Service, Vanished};

/// How long after a loss another still belongs to it. Long enough for whoever deletes one znode after the other; short,
/// because for so long a service whose last endpoint was taken away does not know it.
const SETTLE: Duration = Duration::from_millis(50);

/// How long a loss waits at most, however many others follow.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// How long after its last endpoint a service's znode may go to have gone with it. Registrator takes a millisecond; what
/// comes later is ZooKeeper itself, which clears away empty containers once a minute.
const WITH_IT: Duration = Duration::from_secs(2);

/// So many services that lose their last endpoint together are no work of registrars.
const EMPTIED_SERVICES: usize = 10;

/// Endpoints retained at once. More than any registry has that we know of, so that it is only a limit to memory.
const LIMIT: usize = 200_000;

/// A moment on both clocks: the one that only moves forwards, and the one that people read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Moment {
        Moment { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// How long to retain endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// Zero: not at all.
    pub(super) all: Duration,
    /// For these services another time.
    pub(super) services: BTreeMap<Arc<str>, Duration>,
}

impl Terms {
    fn of(&self, service: &str) -> Duration {
        self.services.get(service).copied().unwrap_or(self.all)
    }
}

/// An endpoint that is not in the registry any more.
#[derive(Debug)]
struct Loss {
    endpoint: Endpoint,
    /// The session that held it; 0: none did. Unknown where only a snapshot file knew it.
    owner: Option<i64>,
    /// Whether we watched when it went.
    watched: bool,
    /// The service's znode went with it.
    with_service: bool,
    since: Moment,
    vanished: Vanished,
    until: Instant,
}

/// What [`Keeper::settle`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Services whose retained endpoints are others now.
    pub(super) services: HashSet<Arc<str>>,
    /// Endpoints that vanished without having been taken away.
    pub(super) vanished: usize,
    /// Endpoints of these that vanished because the registry was emptied.
    pub(super) emptied: usize,
    /// Endpoints that were taken away.
    pub(super) taken_away: usize,
    /// Endpoints whose time is over.
    pub(super) expired: usize,
}

/// Keeps account of sessions and of what vanished.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    terms: Terms,
    /// Znodes of endpoints, by the session that holds them.
    owners: HashMap<i64, u32>,
    /// By service, in the order of addresses.
    losses: HashMap<Arc<str>, BTreeMap<SocketAddr, Loss>>,
    /// How many losses there are of an address.
    addresses: HashMap<SocketAddr, u32>,
    /// Of the losses that nobody has judged: when the first was, and the last.
    open: Option<(Instant, Instant)>,
    /// No time of a judged one is over before.
    ends: Option<Instant>,
    /// When the root was deleted last.
    root_deleted: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(terms: Terms) -> Keeper {
        Keeper { terms, ..Keeper::default() }
    }

    /// Takes over what a snapshot file had retained.
    pub(super) fn remember(&mut self, service: &Arc<str>, retained: &[Retained], now: Moment) {
        for it in retained {
            let Ok(left) = it.until.duration_since(now.wall) else { continue };
            let until = now.instant + left.min(self.terms.of(service));
            // Judged or not, what saw it go is no more.
            let vanished = if it.vanished == Vanished::Now { Vanished::Unseen } else { it.vanished };
            let since = Moment { wall: it.since, ..now };
            let (endpoint, with_service) = (it.endpoint.clone(), false);
            self.ends = self.ends.into_iter().chain([until]).min();
            self.insert(service, Loss { endpoint, owner: None, watched: false, with_service, since, vanished, until });
        }
    }

    /// A znode of an endpoint is there that was not; `owner`: the session that holds it, 0 if none does.
    pub(super) fn holds(&mut self, owner: i64) {
        if owner != 0 {
            *self.owners.entry(owner).or_default() += 1;
        }
    }

    /// Such a znode is not there any more.
    pub(super) fn releases(&mut self, owner: i64) {
        if let Some(count) = self.owners.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&owner);
            }
        }
    }

    /// An endpoint is not there any more.
    pub(super) fn lost(
        &mut self,
        service: &Arc<str>,
        endpoint: &Endpoint,
        owner: Option<i64>,
        watched: bool,
        now: Moment,
    ) {
        let full = self.addresses.len() >= LIMIT;
        if self.terms.of(service).is_zero() || full {
            return;
        }
        let (endpoint, until) = (endpoint.clone(), now.instant + SETTLE_LIMIT);
        let (with_service, since, vanished) = (false, now, Vanished::Now);
        self.insert(service, Loss { endpoint, owner, watched, with_service, since, vanished, until });
        let first = self.open.map_or(now.instant, |(first, _)| first);
        self.open = Some((first, now.instant));
    }

    fn insert(&mut self, service: &Arc<str>, loss: Loss) {
        let address = loss.endpoint.address;
        if self.losses.entry(service.clone()).or_default().insert(address, loss).is_none() {
            *self.addresses.entry(address).or_default() += 1;
        }
    }

    /// An endpoint is there that was not. Returns the services for which one of the same address was retained: who
    /// listens there now is another.
    pub(super) fn found(&mut self, service: &Arc<str>, address: SocketAddr) -> Vec<Arc<str>> {
        self.remove(service, address);
        if !self.addresses.contains_key(&address) {
            return Vec::new();
        }
        let others = self.losses.iter().filter(|(_, losses)| losses.contains_key(&address));
        let others: Vec<Arc<str>> = others.map(|(name, _)| name.clone()).collect();
        others.iter().for_each(|name| self.remove(name, address));
        others
    }

    fn remove(&mut self, service: &Arc<str>, address: SocketAddr) {
        if let Some(losses) = self.losses.get_mut(service) {
            if losses.remove(&address).is_some()
                && let Some(count) = self.addresses.get_mut(&address)
            {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&address);
                }
            }
            if losses.is_empty() {
                self.losses.remove(service);
            }
        }
    }

    /// A service's znode is not there any more, and we saw it go.
    pub(super) fn service_gone(&mut self, service: &Arc<str>, now: Moment) {
        let Some(losses) = self.losses.get_mut(service) else { return };
        for loss in losses.values_mut().filter(|loss| loss.watched) {
            if now.instant.saturating_duration_since(loss.since.instant) < WITH_IT {
                loss.with_service = true;
                // It may have been judged too early.
                if loss.vanished == Vanished::Session {
                    loss.vanished = Vanished::Now;
                    self.open = self.open.or(Some((now.instant, now.instant)));
                }
            }
        }
    }

    /// The root is not there any more: no registrar takes it away.
    pub(super) fn root_gone(&mut self, now: Moment) {
        self.root_deleted = Some(now.instant);
    }

    /// When to [`Self::settle`] next.
    pub(super) fn due(&self) -> Option<Instant> {
        let judgement = self.open.map(|(first, last)| (last + SETTLE).min(first + SETTLE_LIMIT));
        judgement.into_iter().chain(self.ends).min()
    }

    /// Judges what has settled, and forgets what was retained for long enough. `endpoints`: how many the registry holds;
    /// `has`: whether a service has some.
    pub(super) fn settle(&mut self, endpoints: usize, has: impl Fn(&str) -> bool, now: Moment) -> Settled {
        let mut settled = Settled::default();
        let judges = self.open.is_some_and(|(first, last)| now.instant >= (last + SETTLE).min(first + SETTLE_LIMIT));
        let emptied = judges && self.is_emptied(endpoints, has, now);
        if judges {
            self.open = None;
        }
        self.ends = None;
        let mut away = Vec::new();
        for (service, losses) in &mut self.losses {
            for (address, loss) in losses {
                if loss.vanished != Vanished::Now {
                    if loss.until <= now.instant {
                        settled.expired += 1;
                        away.push((service.clone(), *address));
                    } else {
                        self.ends = self.ends.into_iter().chain([loss.until]).min();
                    }
                    continue;
                }
                if !judges {
                    continue;
                }
                settled.services.insert(service.clone());
                // While we watch, what is gone without its znode is what the registry does not want to be used.
                let holds = |owner| owner == 0 || self.owners.contains_key(&owner);
                let holds = loss.owner.map_or(loss.watched, holds);
                if !emptied && (holds || loss.with_service) {
                    settled.taken_away += 1;
                    away.push((service.clone(), *address));
                    continue;
                }
                loss.vanished = match (emptied, loss.watched) {
                    (true, _) => Vanished::Emptied,
                    (false, true) => Vanished::Session,
                    (false, false) => Vanished::Unseen,
                };
                loss.until = loss.since.instant + self.terms.of(service);
                self.ends = self.ends.into_iter().chain([loss.until]).min();
                settled.vanished += 1;
                settled.emptied += usize::from(emptied);
            }
        }
        for (service, address) in away {
            self.remove(&service, address);
            settled.services.insert(service);
        }
        settled
    }

    /// Whether what has been lost is so much that nobody can have taken it away: the root, many whole services, or half of
    /// everything.
    fn is_emptied(&self, endpoints: usize, has: impl Fn(&str) -> bool, now: Moment) -> bool {
        let open =
            |losses: &BTreeMap<SocketAddr, Loss>| losses.values().filter(|loss| loss.vanished == Vanished::Now).count();
        let lost: Vec<(&Arc<str>, usize)> =
            self.losses.iter().map(|(name, losses)| (name, open(losses))).filter(|(_, lost)| *lost > 0).collect();
        let services = lost.iter().filter(|(name, _)| !has(name)).count();
        let all: usize = lost.iter().map(|(_, lost)| lost).sum();
        let root = self.root_deleted.is_some_and(|at| now.instant.saturating_duration_since(at) < WITH_IT);
        root || services >= EMPTIED_SERVICES || services >= 2 && all >= endpoints
    }

    /// What is retained of a service, in the order of addresses.
    pub(super) fn of(&self, service: &str) -> Vec<Retained> {
        let Some(losses) = self.losses.get(service) else { return Vec::new() };
        let retained = losses.values().map(|loss| Retained {
            endpoint: loss.endpoint.clone(),
            vanished: loss.vanished,
            since: loss.since.wall,
            until: loss.since.wall + loss.until.saturating_duration_since(loss.since.instant),
        });
        retained.collect()
    }
}

/// The endpoints of `one` that are not among those of `other`, by their addresses.
pub(super) fn missing<'a>(one: Option<&'a Service>, other: Option<&'a Service>) -> impl Iterator<Item = &'a Endpoint> {
    let other: HashSet<SocketAddr> = addresses(other).collect();
    one.into_iter().flat_map(|it| &it.endpoints).filter(move |it| !other.contains(&it.address))
}

fn addresses(service: Option<&Service>) -> impl Iterator<Item = SocketAddr> {
    service.into_iter().flat_map(|it| &it.endpoints).map(|it| it.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Scheme;

    const MINUTE: Duration = Duration::from_secs(60);

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            address: ([10, 0, 0, 1], port).into(),
            scheme: Scheme::Http,
            weight: 1,
            zone: "".into(),
            labels: Vec::new(),
        }
    }

    /// A registry as the keeper sees it, and a clock.
    struct Play {
        keeper: Keeper,
        now: Moment,
        /// By service and port, the owner.
        there: BTreeMap<(Arc<str>, u16), i64>,
    }

    impl Play {
        fn of(all: &[(&str, u16, i64)]) -> Play {
            let mut keeper = Keeper::new(Terms { all: MINUTE, services: [("brief".into(), Duration::ZERO)].into() });
            all.iter().for_each(|(_, _, owner)| keeper.holds(*owner));
            let there = all.iter().map(|(name, port, owner)| ((Arc::from(*name), *port), *owner)).collect();
            Play { keeper, now: Moment::now(), there }
        }

        fn lose(&mut self, service: &str, ports: &[u16], watched: bool) {
            let name: Arc<str> = service.into();
            for port in ports {
                let owner = self.there.remove(&(name.clone(), *port)).unwrap();
                self.keeper.releases(owner);
                self.keeper.lost(&name, &endpoint(*port), Some(owner), watched, self.now);
            }
        }

        fn pass(&mut self, time: Duration) -> Settled {
            self.now = Moment { instant: self.now.instant + time, wall: self.now.wall + time };
            let there = &self.there;
            self.keeper.settle(there.len(), |service| there.keys().any(|(name, _)| &**name == service), self.now)
        }

        fn retained(&self, service: &str) -> Vec<(u16, Vanished)> {
            self.keeper.of(service).iter().map(|it| (it.endpoint.address.port(), it.vanished)).collect()
        }
    }

    #[test]
    fn while_others_of_its_session_stay_an_endpoint_was_taken_away() {
        let mut play = Play::of(&[("a", 1, 7), ("a", 2, 7), ("b", 3, 8)]);
        play.lose("a", &[1], true);
        assert_eq!(play.retained("a"), [(1, Vanished::Now)], "for a moment nobody knows");
        assert_eq!(play.pass(SETTLE / 2), Settled::default());
        let settled = play.pass(SETTLE);
        assert_eq!((settled.taken_away, settled.vanished, play.retained("a")), (1, 0, vec![]));
        assert!(play.keeper.due().is_none());
    }

    #[test]
    fn what_a_session_held_vanishes_with_it_and_is_retained_for_its_time() {
        let mut play = Play::of(&[("a", 1, 7), ("a", 2, 7), ("b", 3, 7), ("b", 4, 8), ("brief", 5, 7), ("c", 6, 8)]);
        // What the server tells piece by piece belongs together all the same.
        for (service, port) in [("brief", 5), ("a", 1), ("a", 2), ("b", 3)] {
            play.lose(service, &[port], true);
            play.pass(SETTLE / 2);
        }
        let settled = play.pass(SETTLE);
        assert_eq!((settled.taken_away, settled.vanished, settled.emptied), (0, 3, 0));
        assert_eq!(play.retained("a"), [(1, Vanished::Session), (2, Vanished::Session)]);
        assert_eq!((play.retained("b"), play.retained("brief")), (vec![(3, Vanished::Session)], vec![]));
        let due = play.keeper.due().unwrap().duration_since(play.now.instant);
        assert!(due < MINUTE && due > MINUTE / 2, "{due:?}");
        assert_eq!(play.keeper.found(&"a".into(), endpoint(1).address), [] as [Arc<str>; 0]);
        assert_eq!(play.retained("a"), [(2, Vanished::Session)]);
        assert_eq!(play.pass(MINUTE).expired, 2);
        assert!(play.keeper.losses.is_empty() && play.keeper.addresses.is_empty());
    }

    #[test]
    fn a_service_whose_znode_goes_with_its_last_endpoint_was_taken_away_whatever_the_session() {
        for late in [false, true] {
            let mut play = Play::of(&[("a", 1, 7), ("b", 2, 8)]);
            play.lose("a", &[1], true);
            if late {
                assert_eq!(play.pass(SETTLE).vanished, 1);
            }
            play.keeper.service_gone(&"a".into(), play.now);
            assert_eq!((play.pass(SETTLE).taken_away, play.retained("a")), (1, vec![]), "{late}");
        }
        // An empty container that ZooKeeper clears away later says nothing.
        let mut play = Play::of(&[("a", 1, 7), ("b", 2, 8)]);
        play.lose("a", &[1], true);
        play.pass(WITH_IT);
        play.keeper.service_gone(&"a".into(), play.now);
        play.pass(SETTLE);
        assert_eq!(play.retained("a"), [(1, Vanished::Session)]);
    }

    #[test]
    fn what_goes_unseen_is_retained_unless_its_session_goes_on() {
        let mut play = Play::of(&[("a", 1, 7), ("a", 2, 8), ("b", 3, 8), ("b", 4, 9), ("c", 5, 0), ("c", 6, 0)]);
        play.lose("a", &[1, 2], false);
        play.lose("c", &[5], false);
        play.keeper.service_gone(&"a".into(), play.now);
        let settled = play.pass(SETTLE);
        assert_eq!((settled.taken_away, settled.vanished), (2, 1));
        assert_eq!((play.retained("a"), play.retained("c")), (vec![(1, Vanished::Unseen)], vec![]));
    }

    #[test]
    fn an_emptied_registry_is_no_work_of_registrars() {
        // Half of everything, in more than one service; all by one session that goes on.
        let mut play = Play::of(&[("a", 1, 7), ("b", 2, 7), ("c", 3, 7), ("c", 4, 7)]);
        play.lose("a", &[1], true);
        play.keeper.service_gone(&"a".into(), play.now);
        play.lose("b", &[2], true);
        let settled = play.pass(SETTLE);
        assert_eq!((settled.emptied, play.retained("a")), (2, vec![(1, Vanished::Emptied)]));
        // One service with its root.
        let mut play = Play::of(&[("a", 1, 0)]);
        play.lose("a", &[1], true);
        play.keeper.service_gone(&"a".into(), play.now);
        play.keeper.root_gone(play.now);
        assert_eq!((play.pass(SETTLE).emptied, play.retained("a")), (1, vec![(1, Vanished::Emptied)]));
        // A few services of many, one after the other: that is a registrar's work.
        let all: Vec<(String, u16, i64)> = (0..100).map(|port| (format!("s{port}"), port + 1, 7)).collect();
        let all: Vec<_> = all.iter().map(|(name, port, owner)| (name.as_str(), *port, *owner)).collect();
        let mut play = Play::of(&all);
        for port in 0..5 {
            play.lose(&format!("s{port}"), &[port + 1], true);
        }
        assert_eq!(play.pass(SETTLE).taken_away, 5);
        for port in 10..20 {
            play.lose(&format!("s{port}"), &[port + 1], true);
        }
        assert_eq!(play.pass(SETTLE).emptied, 10);
    }

    #[test]
    fn losses_without_a_pause_are_judged_all_the_same() {
        let all: Vec<(&str, u16, i64)> = (1..200).map(|port| ("a", port, 7)).collect();
        let mut play = Play::of(&all);
        let mut judged = 0;
        for port in 1..150 {
            play.lose("a", &[port], true);
            judged += play.pass(SETTLE / 2).taken_away;
        }
        assert!(judged > 100, "{judged}");
    }

    #[test]
    fn an_address_that_another_service_gets_is_not_retained() {
        let mut play = Play::of(&[("a", 1, 7), ("b", 2, 8)]);
        play.lose("a", &[1], true);
        play.pass(SETTLE);
        assert_eq!(play.keeper.found(&"b".into(), endpoint(1).address), [Arc::from("a")]);
        assert_eq!(play.retained("a"), []);
    }

    #[test]
    fn what_a_snapshot_file_retained_has_its_time_left() {
        let mut play = Play::of(&[]);
        let since = play.now.wall - MINUTE / 2;
        let retained = |port, until| Retained { endpoint: endpoint(port), vanished: Vanished::Now, since, until };
        let all = [retained(1, since + MINUTE), retained(2, since)];
        play.keeper.remember(&"a".into(), &all, play.now);
        assert_eq!(play.retained("a"), [(1, Vanished::Unseen)]);
        assert_eq!(play.pass(MINUTE / 2).expired, 1);
    }
}

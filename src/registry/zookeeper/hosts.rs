//! Addresses of the hosts that registrars name where we need an IP address, looked up by the system (`/etc/hosts`, DNS).
//!
//! A name is looked up when a znode first has it and again every half minute, because the system does not tell how long
//! an answer holds. What is known stays until there is something better, so a resolver that is down harms nobody.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long an answer is believed.
const REFRESH: Duration = Duration::from_secs(30);

/// How long after a failure it is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// Questions under way at once. Each holds a thread, for as long as the resolver takes to give up.
const WINDOW: usize = 16;

/// Names that are looked up. With [`REFRESH`] that is three hundred questions a second, and enough.
const LIMIT: usize = 10_000;

/// A name that has an address now, or another one than before.
pub(super) type Answer = (Arc<str>, IpAddr);

#[derive(Debug, Default)]
struct Known {
    address: Option<IpAddr>,
    /// Whether there was an answer, or a failure.
    asked: bool,
    /// When it is to be asked for; none: it is being asked for.
    due: Option<Instant>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: HashMap<Arc<str>, Known>,
    /// Those that are not being looked up, by when they are to be.
    due: BTreeSet<(Instant, Arc<str>)>,
    running: JoinSet<(Arc<str>, std::io::Result<Vec<IpAddr>>)>,
    /// How many were not asked for even once.
    new: usize,
}

impl Hosts {
    /// Looks up a name from now on. Whether it does: there may be too many.
    pub(super) fn want(&mut self, name: &Arc<str>) -> bool {
        if self.names.contains_key(name) {
            return true;
        }
        if self.names.len() >= LIMIT {
            return false;
        }
        let now = Instant::now();
        self.names.insert(name.clone(), Known { due: Some(now), ..Known::default() });
        self.due.insert((now, name.clone()));
        self.new += 1;
        true
    }

    /// What was answered last.
    pub(super) fn address(&self, name: &str) -> Option<IpAddr> {
        self.names.get(name)?.address
    }

    /// Forgets all names but these.
    pub(super) fn keep(&mut self, used: &HashSet<Arc<str>>) {
        self.names.retain(|name, _| used.contains(name));
        self.due.retain(|(_, name)| used.contains(name));
        self.new = self.names.values().filter(|known| !known.asked).count();
    }

    /// The answers to the names that were never asked for, as far as they come before `limit`.
    pub(super) async fn first(&mut self, limit: Instant) -> Vec<Answer> {
        let mut all = Vec::new();
        while self.new > 0 {
            match timeout_at(limit, self.answers()).await {
                Ok(answers) => all.extend(answers),
                Err(_) => break,
            }
        }
        all
    }

    /// Waits until a name has another address than before; for ever if there are no names. May be dropped at any time.
    pub(super) async fn changed(&mut self) -> Vec<Answer> {
        loop {
            let answers = self.answers().await;
            if !answers.is_empty() {
                return answers;
            }
        }
    }

    /// Waits for a question to be answered, and takes all answers that are there; those that say nothing new are left
    /// out.
    async fn answers(&mut self) -> Vec<Answer> {
        let mut done = loop {
            self.ask();
            let next = self.due.first().map(|(at, _)| *at).filter(|_| self.running.len() < WINDOW);
            tokio::select! {
                Some(done) = self.running.join_next() => break Some(done),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                // No names, or none that is due, or all places are taken.
                else => std::future::pending::<()>().await,
            }
        };
        let mut answers = Vec::new();
        while let Some(result) = done {
            if let Ok((name, result)) = result {
                answers.extend(self.take(name, result));
            }
            done = self.running.try_join_next();
        }
        answers
    }

    /// Asks for what is due, as far as there are places.
    fn ask(&mut self) {
        let now = Instant::now();
        while self.running.len() < WINDOW && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.due.pop_first() else { break };
            if let Some(known) = self.names.get_mut(&name) {
                known.due = None;
            }
            self.running.spawn(async move {
                // The port is of no interest, but asked for.
                let found = tokio::net::lookup_host((&*name, 0)).await;
                let found = found.map(|all| all.map(|it| it.ip()).collect());
                (name, found)
            });
        }
    }

    fn take(&mut self, name: Arc<str>, result: std::io::Result<Vec<IpAddr>>) -> Option<Answer> {
        // It may have been forgotten meanwhile.
        let known = self.names.get_mut(&name)?;
        if !std::mem::replace(&mut known.asked, true) {
            self.new -= 1;
        }
        let chosen = result.as_ref().ok().and_then(|all| choose(all, known.address));
        if known.address.is_none() && chosen.is_none() {
            let error = result.err().map(|error| error.to_string());
            tracing::warn!(
                host = &*name,
                error,
                "looking up the host of an endpoint, which is left out until it is found"
            );
        }
        let rest = if chosen.is_some() { REFRESH.mul_f64(0.75 + fastrand::f64() / 2.0) } else { RETRY };
        let at = Instant::now() + rest;
        // Forgotten and wanted again meanwhile, it has a date already.
        if let Some(before) = known.due.replace(at) {
            self.due.remove(&(before, name.clone()));
        }
        self.due.insert((at, name.clone()));
        let changed = chosen.filter(|_| chosen != known.address)?;
        known.address = chosen;
        Some((name, changed))
    }
}

/// One of several addresses: the one we have if it is still there, so that answers in turning order change nothing;
/// else the least, IPv4 first.
fn choose(all: &[IpAddr], present: Option<IpAddr>) -> Option<IpAddr> {
    let good = |it: &&IpAddr| !it.is_unspecified() && !it.is_multicast();
    present.filter(|it| all.contains(it)).or_else(|| all.iter().filter(good).min().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_forgotten_when_nobody_wants_it() {
        let mut hosts = Hosts::default();
        assert!(hosts.want(&name("localhost")) && hosts.want(&name("localhost")));
        // Refused without asking anybody: no part of a name is that long.
        assert!(hosts.want(&name(&"a".repeat(64))));
        let answers = hosts.first(Instant::now() + Duration::from_secs(60)).await;
        assert!(matches!(&answers[..], [(host, ip)] if &**host == "localhost" && ip.is_loopback()), "{answers:?}");
        assert_eq!((hosts.new, hosts.due.len()), (0, 2), "both are asked again");
        assert_eq!(hosts.first(Instant::now()).await, [], "nothing is new");
        hosts.keep(&HashSet::from([name("localhost")]));
        assert_eq!((hosts.names.len(), hosts.due.len()), (1, 1));
    }

    #[test]
    fn an_address_that_is_still_there_stays() {
        let all: Vec<IpAddr> = ["::1", "10.0.0.2", "10.0.0.1"].iter().map(|it| it.parse().unwrap()).collect();
        assert_eq!(choose(&all, None), Some(all[2]));
        assert_eq!(choose(&all, Some(all[1])), Some(all[1]));
        assert_eq!(choose(&all[..1], Some(all[1])), Some(all[0]));
        assert_eq!((choose(&[], Some(all[0])), choose(&["0.0.0.0".parse().unwrap()], None)), (None, None));
    }

    #[tokio::test]
    async fn there_are_not_more_names_than_can_be_asked_for() {
        let mut hosts = Hosts::default();
        assert!((0..LIMIT).all(|n| hosts.want(&name(&format!("h{n}")))));
        assert!(!hosts.want(&name("one-more")) && hosts.want(&name("h7")));
    }

    #[tokio::test]
    async fn what_fails_later_keeps_its_address() {
        let mut hosts = Hosts::default();
        let name = name("web");
        hosts.want(&name);
        let ip: IpAddr = [10, 0, 0, 1].into();
        assert_eq!(hosts.take(name.clone(), Ok(vec![ip])), Some((name.clone(), ip)));
        assert_eq!(hosts.take(name.clone(), Err(std::io::ErrorKind::TimedOut.into())), None);
        assert_eq!(hosts.take(name.clone(), Ok(Vec::new())), None);
        assert_eq!(hosts.names[&name].address, Some(ip));
        assert_eq!(hosts.take("forgotten".into(), Ok(vec![ip])), None);
    }
}

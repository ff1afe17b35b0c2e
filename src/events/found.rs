//! What has happened from one snapshot to the next. Found by comparing, so that registries, plugins and health checks need
//! not know that anybody is told; what has not changed is the same `Arc`, and costs nothing to look at.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Events, Kind, Level, News};
use crate::plugin::Plugin;
use crate::plugin::library::Status;
use crate::registry::State;
use crate::routes::Route;
use crate::snapshot::{Current, Service, Snapshot};

/// Services of one publication that are told one by one; of more, one event says how many they are.
const SINGLE: usize = 10;

/// Endpoints, and names, that one event lists.
const LISTED: usize = 20;

/// What is news in `after`.
pub fn between(before: &Snapshot, after: &Snapshot) -> Vec<News> {
    let mut news = Vec::new();
    registries(before, after, &mut news);
    if before.version == 0 {
        news.push(begun(after));
    } else {
        services(before, after, &mut news);
    }
    plugins(before, after, &mut news);
    news
}

/// Tells of canaries that workers have rolled back, for ever.
pub async fn watch_canaries(current: Current, events: Arc<Events>) {
    let mut known = HashSet::new();
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    loop {
        looks.tick().await;
        rolled_back(&current.load(), &mut known).into_iter().for_each(|news| events.tell(news));
    }
}

/// Canaries that were found wanting since the last look; `known`: those that were told.
pub fn rolled_back(snapshot: &Snapshot, known: &mut HashSet<(usize, std::time::SystemTime)>) -> Vec<News> {
    let implicit = snapshot.services.values().filter_map(|service| service.implicit.as_ref());
    let routes = snapshot.routes.list().iter().chain(implicit);
    let found = |route: &Arc<Route>| -> Vec<News> {
        let told = route.canaries().filter_map(|canary| {
            let verdict = canary.verdict()?;
            // Routes to one service share its balancer's.
            if !known.insert((Arc::as_ptr(canary).addr(), verdict.at)) {
                return None;
            }
            let plugin = canary.binding.plugin.to_string();
            let text = format!("The canary {plugin} on {} was rolled back: {}.", route.name, verdict.reason);
            let fields = json!({ "plugin": plugin, "route": *route.name, "reason": verdict.reason });
            Some(News { kind: Kind::Plugin, level: Level::Warn, what: "rolled-back", subject: plugin, text, fields })
        });
        told.collect()
    };
    let news: Vec<News> = routes.flat_map(found).collect();
    if known.len() > 10_000 {
        // Verdicts of routes that are gone; the others are told once more at the worst.
        known.clear();
    }
    news
}

fn registries(before: &Snapshot, after: &Snapshot, news: &mut Vec<News>) {
    for (name, state) in &after.registries {
        let known = before.registries.iter().find(|(known, _)| known == name).map(|(_, state)| *state);
        if known == Some(*state) {
            continue;
        }
        let (level, what, text) = match state {
            State::Live => (Level::Info, "live", format!("The registry {name} is read and followed.")),
            State::Stale => {
                (Level::Warn, "stale", format!("The registry {name} is out of reach; what it said last stays."))
            }
            State::Starting if known.is_none() => {
                (Level::Warn, "starting", format!("The registry {name} has not answered yet."))
            }
            State::Starting => continue,
        };
        let fields = json!({ "state": state, "before": known });
        news.push(News { kind: Kind::Registry, level, what, subject: (*name).into(), text, fields });
    }
}

/// What there is at the start, in one event.
fn begun(snapshot: &Snapshot) -> News {
    let (services, endpoints) =
        (snapshot.services.len(), snapshot.services.values().map(|it| it.all.len()).sum::<usize>());
    let routes = snapshot.routes.list().len();
    let text = format!(
        "The gateway has begun with {}, {} and {}.",
        count(services, "service"),
        count(endpoints, "endpoint"),
        count(routes, "explicit route")
    );
    let fields = json!({ "services": services, "endpoints": endpoints, "routes": routes });
    News { kind: Kind::Gateway, level: Level::Info, what: "started", subject: "gateway".into(), text, fields }
}

/// How the endpoints of a service have changed.
#[derive(Default)]
struct Turnover {
    added: Vec<SocketAddr>,
    removed: Vec<SocketAddr>,
    changed: Vec<SocketAddr>,
}

impl Turnover {
    fn of(before: Option<&Service>, after: &Service) -> Turnover {
        if before.is_some_and(|before| Arc::ptr_eq(&before.all, &after.all) || Arc::ptr_eq(&before.spec, &after.spec)) {
            return Turnover::default();
        }
        let all = |service: Option<&Service>| -> BTreeMap<SocketAddr, _> {
            let endpoints = service.into_iter().flat_map(|it| it.all.iter());
            endpoints.map(|it| (it.spec.address, it.spec.clone())).collect()
        };
        let (mut before, after) = (all(before), all(Some(after)));
        let mut turnover = Turnover::default();
        for (address, spec) in after {
            match before.remove(&address) {
                None => turnover.added.push(address),
                Some(known) if known != spec => turnover.changed.push(address),
                Some(_) => {}
            }
        }
        turnover.removed = before.into_keys().collect();
        turnover
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

fn services(before: &Snapshot, after: &Snapshot, news: &mut Vec<News>) {
    let (mut turnovers, mut health) = (Vec::new(), Vec::new());
    let mut changed: Vec<(Option<&Arc<Service>>, &Arc<Service>)> = Vec::new();
    for service in after.services.values() {
        let known = before.services.get(&service.name);
        if known.is_none_or(|known| !Arc::ptr_eq(known, service)) {
            changed.push((known, service));
        }
    }
    changed.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    for (known, service) in changed {
        let turnover = Turnover::of(known.map(|it| &**it), service);
        if !turnover.is_empty() || known.is_none() {
            turnovers.push((known.is_none(), service, turnover));
        }
        standings(known.map(|it| &**it), service, &mut health);
    }
    if turnovers.len() > SINGLE {
        news.push(many(&turnovers));
    } else {
        news.extend(turnovers.iter().map(|(new, service, turnover)| one(*new, service, turnover)));
    }
    let rest = health.len().saturating_sub(LISTED);
    news.extend(health.into_iter().take(LISTED));
    if rest > 0 {
        let text = format!("{} more changed their health at the same time.", count(rest, "endpoint"));
        let (kind, level, fields) = (Kind::Health, Level::Warn, json!({ "endpoints": rest }));
        news.push(News { kind, level, what: "many", subject: "endpoints".into(), text, fields });
    }
}

fn one(new: bool, service: &Service, turnover: &Turnover) -> News {
    let name = service.name.to_string();
    let (added, removed) = (turnover.added.len(), turnover.removed.len());
    let now = match service.all.len() {
        0 => "none is left".to_owned(),
        1 => "1 serves it now".to_owned(),
        some => format!("{some} serve it now"),
    };
    let mut parts = Vec::new();
    let mut part = |list: &[SocketAddr], verb: &str| match list {
        [] => {}
        [address] => parts.push(format!("{address} {verb}")),
        list => parts.push(format!("{} endpoints {verb}", list.len())),
    };
    part(&turnover.added, "came");
    part(&turnover.removed, "left");
    part(&turnover.changed, "changed");
    let text = match (new, parts.is_empty()) {
        (true, _) => format!("{name} is new, with {}.", count(added, "endpoint")),
        (false, _) => format!("{name}: {}; {now}.", parts.join(", ")),
    };
    let (level, what) = match () {
        () if service.all.is_empty() && !new => (Level::Error, "empty"),
        () if new => (Level::Info, "new"),
        () if added == 0 && removed > 0 => (Level::Warn, "left"),
        () if removed == 0 && added > 0 => (Level::Info, "came"),
        () => (Level::Info, "changed"),
    };
    let listed = |list: &[SocketAddr]| list.iter().take(LISTED).map(SocketAddr::to_string).collect::<Vec<_>>();
    let fields = json!({
        "added": listed(&turnover.added),
        "removed": listed(&turnover.removed),
        "changed": listed(&turnover.changed),
        "endpoints": service.all.len(),
    });
    News { kind: Kind::Service, level, what, subject: name, text, fields }
}

fn many(turnovers: &[(bool, &Arc<Service>, Turnover)]) -> News {
    let sum = |of: &dyn Fn(&Turnover) -> usize| turnovers.iter().map(|(.., it)| of(it)).sum::<usize>();
    let (added, removed) = (sum(&|it| it.added.len()), sum(&|it| it.removed.len()));
    let new = turnovers.iter().filter(|(new, ..)| *new).count();
    let empty = turnovers.iter().filter(|(new, service, _)| !new && service.all.is_empty()).count();
    let services = count(turnovers.len(), "service");
    let text =
        format!("{services} changed at once: {new} new, {empty} left empty; {added} endpoints came, {removed} left.");
    let names: Vec<&str> = turnovers.iter().take(LISTED).map(|(_, service, _)| &*service.name).collect();
    let fields = json!({ "services": turnovers.len(), "new": new, "empty": empty, "added": added, "removed": removed,
        "names": names });
    let level = if empty > 0 { Level::Warn } else { Level::Info };
    News { kind: Kind::Service, level, what: "many", subject: "services".into(), text, fields }
}

/// Endpoints that are left out or back.
fn standings(known: Option<&Service>, service: &Service, news: &mut Vec<News>) {
    let mut tell = |level, what, address: SocketAddr, said: String, reason: Option<&str>| {
        let fields = json!({ "service": *service.name, "endpoint": address.to_string(), "reason": reason });
        let text = format!("{address} of {} {said}", service.name);
        news.push(News { kind: Kind::Health, level, what, subject: service.name.to_string(), text, fields });
    };
    for endpoint in service.all.iter() {
        let (id, address) = (endpoint.live.id, endpoint.spec.address);
        let before = known.and_then(|known| known.standings.get(&id));
        let after = service.standings.get(&id);
        let (was, is) = (before.and_then(|it| it.ejected.as_ref()), after.and_then(|it| it.ejected.as_ref()));
        match (was, is) {
            (was, Some(is)) if was.is_none_or(|was| was.since != is.since) => {
                tell(Level::Warn, "ejected", address, format!("is left out: {}.", is.reason), Some(&is.reason));
            }
            (Some(_), None) => tell(Level::Info, "returned", address, "is back after its rest.".into(), None),
            _ => {}
        }
        let (was, is) = (before.and_then(|it| it.unhealthy.as_ref()), after.and_then(|it| it.unhealthy.as_ref()));
        match (was, is) {
            (None, Some(is)) => {
                tell(Level::Warn, "unhealthy", address, format!("fails its checks: {}.", is.reason), Some(&is.reason));
            }
            (Some(_), None) => tell(Level::Info, "healthy", address, "passes its checks again.".into(), None),
            _ => {}
        }
    }
    let (level, what, said) = match (known.is_some_and(|known| known.panic), service.panic) {
        (false, true) => (Level::Error, "panic", "has too few endpoints that are well, so all are used."),
        (true, false) => (Level::Info, "calm", "has enough endpoints that are well again."),
        _ => return,
    };
    let (text, subject) = (format!("{} {said}", service.name), service.name.to_string());
    let fields = json!({ "endpoints": service.all.len(), "candidates": service.endpoints.len() });
    news.push(News { kind: Kind::Health, level, what, subject, text, fields });
}

fn plugins(before: &Snapshot, after: &Snapshot, news: &mut Vec<News>) {
    let known: BTreeMap<&str, &Status> = before.plugins.status.iter().map(|it| (&*it.name, it)).collect();
    for status in &after.plugins.status {
        let known = known.get(&*status.name).copied();
        plugin(known, status, before.version == 0, news);
    }
    let left: HashSet<&str> = after.plugins.status.iter().map(|it| &*it.name).collect();
    for (name, status) in known.iter().filter(|(name, _)| !left.contains(*name)) {
        let fields = json!({ "before": status.active.as_ref().map(|it| version(it)) });
        let text = format!("{name} is gone, and nothing takes its place.");
        let (kind, level, subject) = (Kind::Plugin, Level::Warn, (*name).to_owned());
        news.push(News { kind, level, what: "removed", subject, text, fields });
    }
}

fn plugin(known: Option<&Status>, status: &Status, first: bool, news: &mut Vec<News>) {
    let name = status.name.to_string();
    let mut tell = |level, what, text: String, fields: Value| {
        news.push(News { kind: Kind::Plugin, level, what, subject: name.clone(), text, fields });
    };
    let (was, is) = (known.and_then(|it| it.active.as_ref()), status.active.as_ref());
    let quarantined = status.quarantined.as_ref();
    let fresh = |it: &&crate::plugin::library::Quarantined| {
        known.and_then(|known| known.quarantined.as_ref()).is_none_or(|known| known.at != it.at)
    };
    if let Some(bad) = quarantined.filter(fresh) {
        let back = is.map_or_else(|| "nothing".to_owned(), told);
        let text = format!("{name} {} is quarantined: {}; {back} serves instead.", short(&bad.sha256), bad.reason);
        let fields = json!({ "sha256": bad.sha256, "reason": bad.reason, "after": is.map(|it| version(it)) });
        tell(Level::Error, "quarantined", text, fields);
    } else if let Some(is) = is
        && was.is_none_or(|was| was.id != is.id)
    {
        let fields = json!({ "before": was.map(|it| version(it)), "after": version(is),
            "compile_ms": is.compile_time.as_secs_f64() * 1e3 });
        match was {
            // What the gateway brings along is no news at its start.
            None if is.bundled && first => {}
            None if is.bundled => tell(Level::Info, "loaded", format!("{name}, {}, is in use now.", told(is)), fields),
            None => tell(Level::Info, "loaded", format!("{name} {} was loaded.", told(is)), fields),
            Some(was) if is.bundled => {
                let text = format!("The file of {name} is gone ({}); {} serves again.", told(was), told(is));
                tell(Level::Info, "restored", text, fields);
            }
            Some(was) => {
                tell(Level::Info, "swapped", format!("{name} was swapped: {} for {}.", told(is), told(was)), fields)
            }
        }
    } else if let (Some(was), None) = (was, is) {
        let what = if status.available {
            "the bundled one takes its place when it is needed"
        } else {
            "nothing takes its place"
        };
        let fields = json!({ "before": version(was) });
        tell(Level::Warn, "removed", format!("The file of {name} is gone; {what}."), fields);
    }
    let before = known.and_then(|it| it.refused.as_ref());
    if let Some(refused) = &status.refused
        && before.is_none_or(|before| before.at != refused.at)
    {
        let serves = is.map_or_else(|| "nothing serves".to_owned(), |it| format!("{} serves on", told(it)));
        let text = format!("The new file of {name} was refused: {}; {serves}.", refused.reason);
        tell(Level::Error, "refused", text, json!({ "reason": refused.reason, "serving": is.map(|it| version(it)) }));
    }
}

/// What a program is told of a version.
fn version(plugin: &Plugin) -> Value {
    json!({ "version": plugin.described.version, "sha256": plugin.described.sha256, "bundled": plugin.bundled })
}

/// What people are told of a version.
fn told(plugin: &Arc<Plugin>) -> String {
    let sha256 = short(&plugin.described.sha256);
    if plugin.bundled { format!("the bundled one ({sha256})") } else { sha256.to_owned() }
}

/// Enough of a hash to tell versions apart.
fn short(sha256: &str) -> &str {
    sha256.get(..8).unwrap_or(sha256)
}

fn count(count: usize, of: &str) -> String {
    if count == 1 { format!("1 {of}") } else { format!("{count} {of}s") }
}

//! What was read below the root, as a value: which znodes there are, what they say, and which services that makes.
//!
//! Pure: no ZooKeeper and no clock. A change costs its own service, and a service that did not change keeps its `Arc`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::hosts::Answer;
use super::retain::{self, Keeper, Moment, Settled, Terms};
use crate::config::Layout;
use crate::registry::layouts::{self, Reason, Znode, dubbo};
use crate::registry::{Endpoint, Service, Services};

/// What a read found of one service.
#[derive(Debug)]
pub(super) enum Found {
    /// Its children by name, each with its body.
    Children(Vec<(String, Body)>),
    /// There is a znode, but we may not list its children.
    Forbidden,
    /// There is no such znode.
    Missing,
}

/// What a read found of one child.
#[derive(Debug)]
pub(super) enum Body {
    /// What it says, and the session that holds it; 0 if none does.
    Read(Result<Znode, Reason>, i64),
    /// There is a znode, but we may not read it.
    Forbidden,
    /// There is no such znode.
    Missing,
}

impl Body {
    /// What is written in the znode `child` of a service.
    pub(super) fn of(layout: Layout, child: &str, bytes: &[u8], owner: i64) -> Body {
        Body::Read(layouts::read(layout, child, bytes), owner)
    }

    /// Has texts that both have only once.
    pub(super) fn share(&mut self, other: &Body) {
        if let (Body::Read(Ok(Znode::Endpoint(new)), _), Body::Read(Ok(Znode::Endpoint(other)), _)) = (self, other) {
            share(&mut new.endpoint, &other.endpoint);
        }
    }
}

/// A znode that was left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) service: Arc<str>,
    /// Empty: the service itself.
    pub(super) child: String,
    pub(super) reason: &'static str,
}

/// What [`Tree::commit`] changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Services that are new, gone or different.
    pub(super) services: Vec<Arc<str>>,
    /// Endpoints that were not there before.
    pub(super) added: usize,
    /// Endpoints that are not there any more.
    pub(super) removed: usize,
    /// Services that had endpoints and have none, or are gone.
    pub(super) emptied: Vec<Arc<str>>,
    /// Services whose layouts were not known before, or were others.
    pub(super) decided: Vec<(Arc<str>, Vec<Layout>)>,
}

impl Changes {
    /// Takes over those of another root.
    pub(super) fn append(&mut self, mut more: Changes) {
        self.services.append(&mut more.services);
        self.emptied.append(&mut more.emptied);
        self.decided.append(&mut more.decided);
        self.added += more.added;
        self.removed += more.removed;
    }
}

/// The znodes of one service.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<String, Child>,
    /// Its children cannot be listed; what was known of it stays.
    forbidden: bool,
}

/// One of them.
#[derive(Clone, Debug)]
struct Child {
    entry: Result<Znode, Reason>,
    /// The session that holds it; 0 if none does.
    owner: i64,
}

impl Node {
    /// Whether it is a service at all.
    fn is_service(&self, layout: Layout) -> bool {
        layout != Layout::Dubbo || self.forbidden || self.children.keys().any(|child| dubbo::is_provided(child))
    }

    /// Any of them.
    fn some_endpoint(&self) -> Option<&Endpoint> {
        self.children.values().find_map(|child| match &child.entry {
            Ok(Znode::Endpoint(read)) => Some(&read.endpoint),
            _ => None,
        })
    }

    /// Those that its children name.
    fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.children.values().filter_map(|child| match &child.entry {
            Ok(Znode::Endpoint(read)) => read.host.as_ref(),
            _ => None,
        })
    }

    /// What the children say together; `lookup` as for [`layouts::service`].
    fn service(&self, lookup: impl Fn(&str) -> Option<IpAddr>) -> Service {
        let good = self.children.iter().filter_map(|(name, child)| Some((name.as_str(), child.entry.as_ref().ok()?)));
        layouts::service(good, lookup)
    }
}

/// See the file's head.
pub(super) struct Tree {
    layout: Layout,
    /// What the names of its services begin with once they are published. Everything else here has them as znodes
    /// are called.
    prefix: Arc<str>,
    nodes: HashMap<Arc<str>, Node>,
    /// What vanished.
    keeper: Keeper,
    /// Who held what is not there any more, since the last commit.
    left: HashMap<(Arc<str>, SocketAddr), i64>,
    /// Whether events have told of everything since the last commit.
    watched: bool,
    /// Endpoints in `published`.
    endpoints: usize,
    /// What [`Self::commit`] returned last. Before the first read: what the snapshot file said.
    published: Arc<Services>,
    touched: HashSet<Arc<str>>,
    bad: Vec<Bad>,
    /// Where the hosts are that znodes name.
    hosts: HashMap<Arc<str>, IpAddr>,
    /// Those that nobody was asked for yet.
    unknown: HashSet<Arc<str>>,
}

impl Tree {
    /// `published`: what is known from before, also of other roots.
    pub(super) fn new(layout: Layout, prefix: &Arc<str>, published: Arc<Services>, terms: Terms, now: Moment) -> Tree {
        let own = || published.iter().filter(|(name, _)| name.starts_with(&**prefix));
        let published = match own().count() == published.len() {
            true => published,
            false => Arc::new(own().map(|(name, service)| (name.clone(), service.clone())).collect()),
        };
        let mut keeper = Keeper::new(terms);
        for (name, service) in published.iter().filter(|(_, service)| !service.retained.is_empty()) {
            keeper.remember(&name[prefix.len()..].into(), &service.retained, now);
        }
        Tree {
            layout,
            prefix: prefix.clone(),
            nodes: HashMap::new(),
            keeper,
            left: HashMap::new(),
            watched: false,
            endpoints: published.values().map(|service| service.endpoints.len()).sum(),
            published,
            touched: HashSet::new(),
            bad: Vec::new(),
            hosts: HashMap::new(),
            unknown: HashSet::new(),
        }
    }

    /// What its znodes are written in.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Says whether events tell of everything from now on, or what comes next may be news of before.
    pub(super) fn watches(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// The root was deleted.
    pub(super) fn root_gone(&mut self, now: Moment) {
        self.keeper.root_gone(now);
    }

    /// When to [`Self::settle`] next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.keeper.due()
    }

    /// Judges what vanished, see [`Keeper::settle`]. What follows is committed with the next [`Self::commit`].
    pub(super) fn settle(&mut self, now: Moment) -> Settled {
        let (prefix, published) = (&self.prefix, &self.published);
        let has = |own: &str| published.get(&*public(prefix, own)).is_some_and(|it| !it.endpoints.is_empty());
        let settled = self.keeper.settle(self.endpoints, has, now);
        self.touched.extend(settled.services.iter().cloned());
        settled
    }

    /// What the znode of the service is called that is published under this name; none: it cannot be of this root.
    pub(super) fn own<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&*self.prefix)
    }

    /// What was committed last.
    pub(super) fn published(&self) -> &Arc<Services> {
        &self.published
    }

    /// Whether the children of `service` are known, so that a single one of them can be [`Self::set_child`].
    pub(super) fn follows(&self, service: &str) -> bool {
        self.nodes.get(service).is_some_and(|node| !node.forbidden)
    }

    /// The services of which only old news is known, because they may not be read.
    pub(super) fn forbidden(&self) -> HashSet<Arc<str>> {
        self.nodes.iter().filter(|(_, node)| node.forbidden).map(|(name, _)| name.clone()).collect()
    }

    /// Takes over a read of everything.
    pub(super) fn replace(&mut self, all: Vec<(String, Found)>) {
        let before = self.published.keys().filter_map(|name| self.own(name)).map(|name| self.name(name));
        let mut gone: HashSet<Arc<str>> = self.nodes.keys().cloned().chain(before).collect();
        for (name, found) in all {
            gone.remove(name.as_str());
            self.set_service(&name, found);
        }
        for name in gone {
            self.set_service(&name, Found::Missing);
        }
    }

    /// Takes over a read of one service.
    pub(super) fn set_service(&mut self, name: &str, found: Found) {
        let name = self.name(name);
        self.touched.insert(name.clone());
        match found {
            Found::Missing => {
                let children = self.nodes.remove(&name).unwrap_or_default().children;
                children.into_values().for_each(|child| self.leaves(&name, child));
            }
            Found::Forbidden => {
                let node = self.nodes.entry(name.clone()).or_default();
                if !node.forbidden {
                    node.forbidden = true;
                    let reason = "its children may not be listed; what was known of it stays";
                    self.bad.push(Bad { service: name, child: String::new(), reason });
                }
            }
            Found::Children(children) => {
                let mut before = self.nodes.insert(name.clone(), Node::default()).unwrap_or_default().children;
                for (child, body) in children {
                    let known = before.remove(&child);
                    self.child(&name, child, body, known);
                }
                before.into_values().for_each(|child| self.leaves(&name, child));
            }
        }
    }

    /// Takes over a read of one child; `service` must be one that the tree [`Self::follows`], or nothing happens.
    pub(super) fn set_child(&mut self, service: &str, child: String, mut body: Body) {
        let name = self.name(service);
        let Some(node) = self.nodes.get_mut(&name) else { return };
        // Those that are read together have been compared already.
        if let Body::Read(Ok(Znode::Endpoint(read)), _) = &mut body
            && let Some(other) = node.some_endpoint()
        {
            share(&mut read.endpoint, other);
        }
        let known = node.children.remove(&child);
        self.touched.insert(name.clone());
        self.child(&name, child, body, known);
    }

    fn child(&mut self, service: &Arc<str>, child: String, body: Body, known: Option<Child>) {
        let (entry, owner) = match (body, &known) {
            (Body::Missing, _) => {
                known.into_iter().for_each(|known| self.leaves(service, known));
                return;
            }
            (Body::Forbidden, Some(known)) => (known.entry.clone(), known.owner),
            // The name may be enough.
            (Body::Forbidden, None) => (layouts::read(self.layout, &child, b""), 0),
            (Body::Read(entry, owner), _) => (entry, owner),
        };
        if let Err(reason) = &entry
            && known.as_ref().is_none_or(|known| known.entry != entry)
        {
            self.bad.push(Bad { service: service.clone(), child: child.clone(), reason: reason.as_str() });
        }
        if let Ok(Znode::Endpoint(read)) = &entry
            && let Some(host) = &read.host
            && !self.hosts.contains_key(host)
        {
            self.unknown.insert(host.clone());
        }
        self.keeper.holds(owner);
        known.into_iter().for_each(|known| self.leaves(service, known));
        if let Some(node) = self.nodes.get_mut(service) {
            node.children.insert(child, Child { entry, owner });
        }
    }

    /// A child is not there any more, or another is in its place.
    fn leaves(&mut self, service: &Arc<str>, child: Child) {
        self.keeper.releases(child.owner);
        if let Ok(Znode::Endpoint(read)) = child.entry {
            let address = read.endpoint.address;
            let address = if read.host.is_some() { unknown(address.port()) } else { address };
            self.left.insert((service.clone(), address), child.owner);
        }
    }

    /// What was left out since the last call; a znode that stays bad is told once.
    pub(super) fn take_bad(&mut self) -> Vec<Bad> {
        std::mem::take(&mut self.bad)
    }

    /// Hosts that were named since the last call and have no address yet.
    pub(super) fn take_unknown(&mut self) -> HashSet<Arc<str>> {
        std::mem::take(&mut self.unknown)
    }

    /// All hosts that are named now. Forgets the addresses of all others, and gives those without one to the next
    /// [`Self::take_unknown`].
    pub(super) fn hosts(&mut self) -> HashSet<Arc<str>> {
        let all: HashSet<Arc<str>> = self.nodes.values().flat_map(Node::hosts).cloned().collect();
        self.hosts.retain(|host, _| all.contains(host));
        self.unknown = all.iter().filter(|host| !self.hosts.contains_key(*host)).cloned().collect();
        all
    }

    /// Takes over where hosts are.
    pub(super) fn locate(&mut self, answers: &[Answer]) {
        if answers.is_empty() {
            return;
        }
        let changed: HashSet<&Arc<str>> = answers.iter().map(|(host, _)| host).collect();
        self.hosts.extend(answers.iter().cloned());
        let there = self.nodes.iter().filter(|(_, node)| node.hosts().any(|host| changed.contains(host)));
        self.touched.extend(there.map(|(name, _)| name.clone()));
    }

    /// The services now, and what differs from the last call; `None` if nothing does.
    pub(super) fn commit(&mut self, now: Moment) -> Option<Changes> {
        let mut changes = Changes::default();
        let mut next: Option<Services> = None;
        let mut touched: Vec<Arc<str>> = self.touched.drain().collect();
        // Whether a service may come up more than once.
        let mut twice = false;
        while let Some(own) = touched.pop() {
            let name = match &*self.prefix {
                "" => own.clone(),
                prefix => format!("{prefix}{own}").into(),
            };
            let old = next.as_ref().unwrap_or(&self.published).get(&name).cloned();
            let node = self.nodes.get(&own).filter(|node| node.is_service(self.layout));
            let mut new = match node {
                // Never listed since the start: the snapshot file may know it.
                Some(node) if node.forbidden && node.children.is_empty() => old.as_deref().cloned().unwrap_or_default(),
                Some(node) => node.service(|host| self.hosts.get(host).copied()),
                None => Service::default(),
            };
            let (mut added, mut removed) = (0, 0);
            for endpoint in retain::missing(Some(&new), old.as_deref()) {
                added += 1;
                let others = self.keeper.found(&own, endpoint.address);
                twice |= !others.is_empty();
                touched.extend(others);
            }
            for endpoint in retain::missing(old.as_deref(), Some(&new)) {
                removed += 1;
                let owner = self.left.get(&(own.clone(), endpoint.address));
                // A name that was looked up.
                let owner = owner.or_else(|| self.left.get(&(own.clone(), unknown(endpoint.address.port()))));
                self.keeper.lost(&own, endpoint, owner.copied(), self.watched, now);
            }
            if node.is_none() && self.watched {
                self.keeper.service_gone(&own, now);
            }
            new.retained = self.keeper.of(&own);
            let exists = node.is_some() || !new.retained.is_empty();
            let same = if exists { old.as_deref() == Some(&new) } else { old.is_none() };
            if same {
                continue;
            }
            changes.added += added;
            changes.removed += removed;
            self.endpoints = self.endpoints + added - removed;
            if new.endpoints.is_empty() && removed > 0 {
                changes.emptied.push(name.clone());
            }
            if exists
                && !new.layouts.is_empty()
                && old.is_none_or(|old| old.layouts != new.layouts)
                && self.layout == Layout::Auto
            {
                changes.decided.push((name.clone(), new.layouts.clone()));
            }
            changes.services.push(name.clone());
            let new = exists.then(|| Arc::new(new));
            let next = next.get_or_insert_with(|| Services::clone(&self.published));
            match new {
                Some(service) => next.insert(name, service),
                None => next.remove(&name),
            };
        }
        if twice {
            changes.services.sort();
            changes.services.dedup();
        }
        self.left.clear();
        self.published = Arc::new(next?);
        Some(changes)
    }

    /// The one allocation of a znode's name.
    fn name(&self, name: &str) -> Arc<str> {
        let known = self.nodes.get_key_value(name).map(|(name, _)| name);
        let published = || self.published.get_key_value(name).map(|(name, _)| name);
        let known = known.or_else(|| published().filter(|_| self.prefix.is_empty()));
        known.cloned().unwrap_or_else(|| Arc::from(name))
    }
}

/// Lets an endpoint have those texts in common with another one of its service that are the same: most are.
fn share(new: &mut Endpoint, other: &Endpoint) {
    if new.zone == other.zone {
        new.zone = other.zone.clone();
    }
    // Both are in the order of names.
    let mut others = other.labels.iter().peekable();
    for (name, value) in &mut new.labels {
        while others.next_if(|(other, _)| other < name).is_some() {}
        if let Some((known, its)) = others.peek().filter(|(other, _)| other == name) {
            *name = known.clone();
            if value == its {
                *value = its.clone();
            }
        }
    }
}

/// What a service is called once it is published.
fn public<'a>(prefix: &str, own: &'a str) -> Cow<'a, str> {
    if prefix.is_empty() { own.into() } else { format!("{prefix}{own}").into() }
}

/// In place of the address of an endpoint that has a name instead.
fn unknown(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::Vanished;

    fn all(services: &[(&str, &[&str])]) -> Vec<(String, Found)> {
        services.iter().map(|(name, children)| (name.to_string(), found(children))).collect()
    }

    fn empty(child: &str) -> Body {
        Body::of(Layout::Auto, child, b"", 0)
    }

    fn found(children: &[&str]) -> Found {
        Found::Children(children.iter().map(|child| (child.to_string(), empty(child))).collect())
    }

    fn tree(services: &[(&str, &[&str])]) -> Tree {
        let mut tree = Tree::new(Layout::Auto, &"".into(), Arc::default(), Terms::default(), Moment::now());
        tree.replace(all(services));
        tree.commit(Moment::now());
        tree
    }

    fn shown(tree: &Tree) -> Vec<String> {
        let line = |(name, service): (&Arc<str>, &Arc<Service>)| {
            let ports: Vec<_> = service.endpoints.iter().map(|endpoint| endpoint.address.port()).collect();
            format!("{name} {ports:?}")
        };
        let mut lines: Vec<String> = tree.published().iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn an_unchanged_service_keeps_its_arc() {
        let mut tree = tree(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.1:2"])]);
        let before = tree.published().clone();
        tree.replace(all(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.1:2", "10.0.0.1:3"])]));
        let changes = tree.commit(Moment::now()).unwrap();
        assert_eq!((changes.services, changes.added, changes.removed), (vec![Arc::from("b")], 1, 0));
        assert!(Arc::ptr_eq(&before["a"], &tree.published()["a"]));
        tree.replace(all(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.1:2", "10.0.0.1:3"])]));
        let before = tree.published().clone();
        assert_eq!(tree.commit(Moment::now()), None);
        assert!(Arc::ptr_eq(&before, tree.published()));
    }

    #[test]
    fn a_service_of_the_snapshot_file_keeps_its_arc_or_goes() {
        let known = tree(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.1:2"])]).published().clone();
        let mut tree = Tree::new(Layout::Auto, &"".into(), known.clone(), Terms::default(), Moment::now());
        tree.replace(all(&[("a", &["10.0.0.1:1"])]));
        let changes = tree.commit(Moment::now()).unwrap();
        assert_eq!((changes.removed, changes.emptied), (1, vec![Arc::from("b")]));
        assert!(Arc::ptr_eq(&known["a"], &tree.published()["a"]));
    }

    #[test]
    fn a_prefix_is_only_in_what_is_published() {
        let known = tree(&[("x.a", &["10.0.0.1:1"]), ("x.b", &["10.0.0.1:2"]), ("c", &[])]).published().clone();
        let mut tree = Tree::new(Layout::Auto, &"x.".into(), known.clone(), Terms::default(), Moment::now());
        assert_eq!(tree.published().len(), 2, "the third is of another root");
        tree.replace(all(&[("a", &["10.0.0.1:1"]), ("d", &[])]));
        let changes = tree.commit(Moment::now()).unwrap();
        assert_eq!((changes.services.len(), changes.emptied), (2, vec![Arc::from("x.b")]));
        assert_eq!(shown(&tree), ["x.a [1]", "x.d []"]);
        assert!(Arc::ptr_eq(&known["x.a"], &tree.published()["x.a"]));
        assert!(tree.follows("a") && !tree.follows("x.a"));
        assert_eq!((tree.own("x.a"), tree.own("a")), (Some("a"), None));
    }

    #[test]
    fn a_service_without_children_exists_and_one_without_a_znode_does_not() {
        let mut tree = tree(&[("a", &["10.0.0.1:1"])]);
        tree.set_child("a", "10.0.0.1:1".into(), Body::Missing);
        assert_eq!(tree.commit(Moment::now()).unwrap().emptied, [Arc::from("a")]);
        assert_eq!(shown(&tree), ["a []"]);
        tree.set_service("a", Found::Missing);
        assert_eq!(tree.commit(Moment::now()).unwrap().emptied, []);
        assert_eq!(shown(&tree), [""; 0]);
        tree.set_child("a", "10.0.0.1:1".into(), empty("10.0.0.1:1"));
        assert_eq!(tree.commit(Moment::now()), None, "a child of a service that is not there");
    }

    #[test]
    fn a_forbidden_service_keeps_what_was_known() {
        let known = tree(&[("file", &["10.0.0.1:1"])]).published().clone();
        let mut tree = Tree::new(Layout::Auto, &"".into(), known, Terms::default(), Moment::now());
        let read = |readable| -> Vec<(String, Found)> {
            let new = ("new".to_string(), Found::Forbidden);
            let file = ("file".to_string(), Found::Forbidden);
            let read = ("read".to_string(), if readable { found(&["10.0.0.1:2"]) } else { Found::Forbidden });
            vec![new, file, read]
        };
        for readable in [true, false, false] {
            tree.replace(read(readable));
            tree.commit(Moment::now());
            assert_eq!(shown(&tree), ["file [1]", "new []", "read [2]"]);
        }
        assert!(!tree.follows("read"));
        assert_eq!(tree.take_bad().len(), 3, "each is told once");
        tree.replace(all(&[("read", &["10.0.0.1:3"])]));
        tree.commit(Moment::now());
        assert_eq!(shown(&tree), ["read [3]"]);
    }

    #[test]
    fn what_dubbo_has_beside_interfaces_is_no_service() {
        let mut tree = Tree::new(Layout::Dubbo, &"".into(), Arc::default(), Terms::default(), Moment::now());
        let body = |child: &&str| (child.to_string(), Body::of(Layout::Dubbo, child, b"", 0));
        for (name, children) in [
            ("metadata", &["org.x.Demo"][..]),
            ("org.x.Demo", &["consumers", "providers", "providers/tri%3A%2F%2F10.0.0.1%3A1"]),
            ("org.x.Idle", &["providers"]),
            ("org.x.Wanted", &["consumers"]),
        ] {
            tree.set_service(name, Found::Children(children.iter().map(body).collect()));
        }
        tree.commit(Moment::now());
        assert_eq!(shown(&tree), ["org.x.Demo [1]", "org.x.Idle []"]);
        assert_eq!(tree.take_bad(), []);
    }

    #[test]
    fn hosts_are_asked_for_once_and_moved_when_they_move() {
        let named = |host: &str| Body::of(Layout::Auto, "x", format!(r#"{{"host":"{host}","port":80}}"#).as_bytes(), 0);
        let mut tree = tree(&[("a", &[]), ("b", &["10.0.0.1:1"])]);
        tree.set_child("a", "x".into(), named("Web"));
        tree.set_child("a", "y".into(), named("web"));
        let unknown = HashSet::from(["web".into()]);
        assert_eq!((tree.take_unknown(), tree.take_unknown()), (unknown.clone(), HashSet::new()));
        assert_eq!(tree.commit(Moment::now()), None, "it is not known where it is");
        for last in [1, 2] {
            tree.locate(&[("web".into(), [10, 0, 0, last].into()), ("other".into(), [10, 0, 0, 9].into())]);
            let changes = tree.commit(Moment::now()).unwrap();
            assert_eq!((changes.services, changes.added), (vec!["a".into()], 1), "twice the same address is one");
            assert_eq!(tree.published()["a"].endpoints[0].address, ([10, 0, 0, last], 80).into());
        }
        tree.set_child("a", "z".into(), named("web"));
        assert_eq!((tree.take_unknown(), tree.hosts()), (HashSet::new(), unknown));
        assert_eq!(tree.hosts.len(), 1, "nobody names the other");
    }

    #[test]
    fn texts_that_two_znodes_have_are_kept_once() {
        let read = |attributes: &str| {
            let body = format!(r#"{{"Attrs":{{"zone":"z",{attributes}}}}}"#);
            Body::of(Layout::Auto, "10.0.0.1:1", body.as_bytes(), 0)
        };
        let one = read(r#""a":"1","b":"2","d":"4","f":"6""#);
        let mut other = read(r#""b":"2","c":"3","d":"5","f":"6""#);
        other.share(&one);
        let of = |body: &Body| match body {
            Body::Read(Ok(Znode::Endpoint(read)), _) => read.endpoint.clone(),
            other => panic!("{other:?}"),
        };
        let (one, other) = (of(&one), of(&other));
        assert!(Arc::ptr_eq(&one.zone, &other.zone));
        let at = |endpoint: &Endpoint, name: &str| endpoint.labels.iter().find(|it| &*it.0 == name).cloned().unwrap();
        for (name, value) in [("b", true), ("d", false), ("f", true)] {
            let (one, other) = (at(&one, name), at(&other, name));
            assert_eq!((Arc::ptr_eq(&one.0, &other.0), Arc::ptr_eq(&one.1, &other.1)), (true, value), "{name}");
        }
        assert_eq!(&*at(&other, "d").1, "5");
    }

    #[test]
    fn what_is_decided_of_a_layout_is_told_once() {
        let nerve = || Body::of(Layout::Auto, "x", br#"{"host":"10.0.0.9","port":1}"#, 0);
        let told = |tree: &mut Tree| tree.commit(Moment::now()).unwrap().decided;
        let mut tree = tree(&[("a", &[])]);
        tree.set_child("a", "x".into(), nerve());
        assert_eq!(told(&mut tree), [("a".into(), vec![Layout::Nerve])]);
        tree.set_child("a", "10.0.0.1:1".into(), empty("10.0.0.1:1"));
        assert_eq!(told(&mut tree), [("a".into(), vec![Layout::Registrator, Layout::Nerve])]);
        tree.set_child("a", "10.0.0.1:2".into(), empty("10.0.0.1:2"));
        assert_eq!(told(&mut tree), []);
        let mut fixed = Tree::new(Layout::Nerve, &"".into(), Arc::default(), Terms::default(), Moment::now());
        fixed.replace(vec![("a".into(), Found::Children(vec![("x".into(), nerve())]))]);
        assert_eq!(told(&mut fixed), [], "nothing was to be decided");
    }

    #[test]
    fn a_forbidden_child_keeps_what_was_known_or_is_its_name() {
        let mut tree = tree(&[("a", &[])]);
        let body = Body::of(Layout::Auto, "10.0.0.1:1", br#"{"Attrs":{"weight":"7"}}"#, 0);
        tree.set_child("a", "10.0.0.1:1".into(), body);
        for child in ["10.0.0.1:1", "10.0.0.1:2"] {
            tree.set_child("a", child.into(), Body::Forbidden);
        }
        tree.commit(Moment::now());
        assert_eq!(tree.published()["a"].layouts, [Layout::Registrator]);
        let weights: Vec<u16> = tree.published()["a"].endpoints.iter().map(|endpoint| endpoint.weight).collect();
        assert_eq!(weights, [7, 1]);
    }

    #[test]
    fn a_znode_that_stays_bad_is_told_once() {
        let mut tree = tree(&[("a", &["x", "10.0.0.1:1"])]);
        let bad = tree.take_bad();
        assert_eq!((bad.len(), bad[0].child.as_str()), (1, "x"));
        tree.replace(all(&[("a", &["x", "10.0.0.1:1"])]));
        assert_eq!(tree.take_bad(), []);
        assert_eq!(shown(&tree), ["a [1]"]);
    }

    #[test]
    fn what_a_session_held_is_retained_when_it_goes_and_returns_as_it_was() {
        let terms = Terms { all: Duration::from_secs(60), ..Terms::default() };
        let mut now = Moment::now();
        let mut tree = Tree::new(Layout::Auto, &"".into(), Arc::default(), terms, now);
        let held = |children: &[(&str, i64)]| {
            let body = |(name, owner): &(&str, i64)| (name.to_string(), Body::of(Layout::Auto, name, b"", *owner));
            Found::Children(children.iter().map(body).collect())
        };
        tree.replace(vec![
            ("a".into(), held(&[("10.0.0.1:1", 7), ("10.0.0.1:2", 8)])),
            ("b".into(), held(&[("10.0.0.1:3", 7)])),
        ]);
        tree.commit(now);
        tree.watches(true);
        let retained = |tree: &Tree, service: &str| -> Vec<(u16, Vanished)> {
            let all = tree.published()[service].retained.iter();
            all.map(|it| (it.endpoint.address.port(), it.vanished)).collect()
        };
        // In two pieces, as events may come.
        tree.set_child("a", "10.0.0.1:1".into(), Body::Missing);
        assert_eq!(tree.commit(now).unwrap().removed, 1);
        tree.set_child("b", "10.0.0.1:3".into(), Body::Missing);
        tree.commit(now);
        assert_eq!(shown(&tree), ["a [2]", "b []"]);
        assert_eq!(retained(&tree, "b"), [(3, Vanished::Now)]);
        now.instant = tree.due().unwrap();
        assert_eq!(tree.settle(now).vanished, 2);
        tree.commit(now).unwrap();
        assert_eq!(
            (retained(&tree, "a"), retained(&tree, "b")),
            (vec![(1, Vanished::Session)], vec![(3, Vanished::Session)])
        );
        // Its registrar has another session now.
        tree.set_child("b", "10.0.0.1:3".into(), Body::of(Layout::Auto, "10.0.0.1:3", b"", 9));
        tree.set_child("a", "10.0.0.1:2".into(), Body::Missing);
        tree.commit(now);
        assert_eq!((shown(&tree), retained(&tree, "b")), (vec!["a []".into(), "b [3]".into()], vec![]));
        // A service without a znode stays for as long as something of it is retained.
        tree.watches(false);
        tree.replace(Vec::new());
        tree.commit(now);
        assert_eq!(shown(&tree), ["a []", "b []"]);
        now.instant = tree.due().unwrap();
        tree.settle(now);
        tree.commit(now);
        now.instant += Duration::from_secs(60);
        assert_eq!(tree.settle(now).expired, 3);
        assert_eq!(tree.commit(now).unwrap().services.len(), 2);
        assert_eq!((shown(&tree), tree.endpoints), (vec![], 0));
    }
}

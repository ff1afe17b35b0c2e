//! What was read below the root, as a value: which znodes there are, what they say, and which services that makes.
//!
//! Pure: no ZooKeeper and no clock. A change costs its own service, and a service that did not change keeps its `Arc`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Layout;
use crate::registry::layouts::{self, Reason};
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
    Bytes(Vec<u8>),
    /// There is a znode, but we may not read it.
    Forbidden,
    /// There is no such znode.
    Missing,
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
}

/// The znodes of one service.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<String, Result<Endpoint, Reason>>,
    /// Its children cannot be listed; what was known of it stays.
    forbidden: bool,
}

/// See the file's head.
pub(super) struct Tree {
    layout: Layout,
    nodes: HashMap<Arc<str>, Node>,
    /// What [`Self::commit`] returned last. Before the first read: what the snapshot file said.
    published: Arc<Services>,
    touched: HashSet<Arc<str>>,
    bad: Vec<Bad>,
}

impl Tree {
    pub(super) fn new(layout: Layout, published: Arc<Services>) -> Tree {
        Tree { layout, nodes: HashMap::new(), published, touched: HashSet::new(), bad: Vec::new() }
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
        let mut gone: HashSet<Arc<str>> = self.nodes.keys().chain(self.published.keys()).cloned().collect();
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
                self.nodes.remove(&name);
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
                let before = self.nodes.insert(name.clone(), Node::default()).unwrap_or_default();
                for (child, body) in children {
                    let known = before.children.get(&child);
                    self.child(&name, child, body, known);
                }
            }
        }
    }

    /// Takes over a read of one child; `service` must be one that the tree [`Self::follows`], or nothing happens.
    pub(super) fn set_child(&mut self, service: &str, child: String, body: Body) {
        let name = self.name(service);
        let Some(node) = self.nodes.get_mut(&name) else { return };
        let known = node.children.remove(&child);
        self.touched.insert(name.clone());
        self.child(&name, child, body, known.as_ref());
    }

    fn child(&mut self, service: &Arc<str>, child: String, body: Body, known: Option<&Result<Endpoint, Reason>>) {
        let entry = match (body, known) {
            (Body::Missing, _) => return,
            (Body::Forbidden, Some(known)) => known.clone(),
            // The name may be enough.
            (Body::Forbidden, None) => layouts::endpoint(self.layout, &child, b""),
            (Body::Bytes(body), _) => layouts::endpoint(self.layout, &child, &body),
        };
        if let Err(reason) = &entry
            && known != Some(&entry)
        {
            self.bad.push(Bad { service: service.clone(), child: child.clone(), reason: reason.as_str() });
        }
        if let Some(node) = self.nodes.get_mut(service) {
            node.children.insert(child, entry);
        }
    }

    /// What was left out since the last call; a znode that stays bad is told once.
    pub(super) fn take_bad(&mut self) -> Vec<Bad> {
        std::mem::take(&mut self.bad)
    }

    /// The services now, and what differs from the last call; `None` if nothing does.
    pub(super) fn commit(&mut self) -> Option<Changes> {
        let mut changes = Changes::default();
        let mut next: Option<Services> = None;
        for name in self.touched.drain() {
            let old = self.published.get(&name);
            let new = match self.nodes.get(&name) {
                None => None,
                // Never listed since the start: the snapshot file may know it.
                Some(node) if node.forbidden && node.children.is_empty() => Some(old.cloned().unwrap_or_default()),
                Some(node) => Some(Arc::new(layouts::service(node.children.values().flatten()))),
            };
            if old == new.as_ref() {
                continue;
            }
            let (before, after) = (addresses(old), addresses(new.as_ref()));
            let stayed = after.iter().filter(|address| before.contains(address)).count();
            changes.added += after.len() - stayed;
            changes.removed += before.len() - stayed;
            if after.is_empty() && !before.is_empty() {
                changes.emptied.push(name.clone());
            }
            changes.services.push(name.clone());
            let next = next.get_or_insert_with(|| Services::clone(&self.published));
            match new {
                Some(service) => next.insert(name, service),
                None => next.remove(&name),
            };
        }
        self.published = Arc::new(next?);
        Some(changes)
    }

    /// The one allocation of this name.
    fn name(&self, name: &str) -> Arc<str> {
        let known = self.nodes.get_key_value(name).map(|(name, _)| name);
        let known = known.or_else(|| self.published.get_key_value(name).map(|(name, _)| name));
        known.cloned().unwrap_or_else(|| Arc::from(name))
    }
}

fn addresses(service: Option<&Arc<Service>>) -> HashSet<SocketAddr> {
    service.into_iter().flat_map(|service| &service.endpoints).map(|endpoint| endpoint.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(services: &[(&str, &[&str])]) -> Vec<(String, Found)> {
        services.iter().map(|(name, children)| (name.to_string(), found(children))).collect()
    }

    fn found(children: &[&str]) -> Found {
        Found::Children(children.iter().map(|child| (child.to_string(), Body::Bytes(Vec::new()))).collect())
    }

    fn tree(services: &[(&str, &[&str])]) -> Tree {
        let mut tree = Tree::new(Layout::Auto, Arc::default());
        tree.replace(all(services));
        tree.commit();
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
        let changes = tree.commit().unwrap();
        assert_eq!((changes.services, changes.added, changes.removed), (vec![Arc::from("b")], 1, 0));
        assert!(Arc::ptr_eq(&before["a"], &tree.published()["a"]));
        tree.replace(all(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.1:2", "10.0.0.1:3"])]));
        let before = tree.published().clone();
        assert_eq!(tree.commit(), None);
        assert!(Arc::ptr_eq(&before, tree.published()));
    }

    #[test]
    fn a_service_of_the_snapshot_file_keeps_its_arc_or_goes() {
        let known = tree(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.1:2"])]).published().clone();
        let mut tree = Tree::new(Layout::Auto, known.clone());
        tree.replace(all(&[("a", &["10.0.0.1:1"])]));
        let changes = tree.commit().unwrap();
        assert_eq!((changes.removed, changes.emptied), (1, vec![Arc::from("b")]));
        assert!(Arc::ptr_eq(&known["a"], &tree.published()["a"]));
    }

    #[test]
    fn a_service_without_children_exists_and_one_without_a_znode_does_not() {
        let mut tree = tree(&[("a", &["10.0.0.1:1"])]);
        tree.set_child("a", "10.0.0.1:1".into(), Body::Missing);
        assert_eq!(tree.commit().unwrap().emptied, [Arc::from("a")]);
        assert_eq!(shown(&tree), ["a []"]);
        tree.set_service("a", Found::Missing);
        assert_eq!(tree.commit().unwrap().emptied, []);
        assert_eq!(shown(&tree), [""; 0]);
        tree.set_child("a", "10.0.0.1:1".into(), Body::Bytes(Vec::new()));
        assert_eq!(tree.commit(), None, "a child of a service that is not there");
    }

    #[test]
    fn a_forbidden_service_keeps_what_was_known() {
        let known = tree(&[("file", &["10.0.0.1:1"])]).published().clone();
        let mut tree = Tree::new(Layout::Auto, known);
        let read = |readable| -> Vec<(String, Found)> {
            let new = ("new".to_string(), Found::Forbidden);
            let file = ("file".to_string(), Found::Forbidden);
            let read = ("read".to_string(), if readable { found(&["10.0.0.1:2"]) } else { Found::Forbidden });
            vec![new, file, read]
        };
        for readable in [true, false, false] {
            tree.replace(read(readable));
            tree.commit();
            assert_eq!(shown(&tree), ["file [1]", "new []", "read [2]"]);
        }
        assert!(!tree.follows("read"));
        assert_eq!(tree.take_bad().len(), 3, "each is told once");
        tree.replace(all(&[("read", &["10.0.0.1:3"])]));
        tree.commit();
        assert_eq!(shown(&tree), ["read [3]"]);
    }

    #[test]
    fn a_forbidden_child_keeps_what_was_known_or_is_its_name() {
        let mut tree = tree(&[("a", &[])]);
        let body = br#"{"Attrs":{"weight":"7"}}"#.to_vec();
        tree.set_child("a", "10.0.0.1:1".into(), Body::Bytes(body));
        for child in ["10.0.0.1:1", "10.0.0.1:2"] {
            tree.set_child("a", child.into(), Body::Forbidden);
        }
        tree.commit();
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
}

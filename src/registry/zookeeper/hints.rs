//! What watch events make worth reading again. An event never carries the new value.

use std::collections::{HashMap, HashSet};

use crate::registry::layouts::dubbo::PROVIDERS;

/// Where a path lies below the root.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Root,
    Service(&'a str),
    Child(&'a str, &'a str),
    /// Deeper than endpoints are, or not below the root.
    Elsewhere,
}

/// Where `path` lies; `root` is without a trailing slash, and so empty for `/`.
pub(super) fn place<'a>(root: &str, path: &'a str) -> Place<'a> {
    let below = match path.strip_prefix(root) {
        Some("" | "/") => return Place::Root,
        Some(below) => below.strip_prefix('/'),
        None => None,
    };
    let Some(below) = below else { return Place::Elsewhere };
    match below.split_once('/') {
        None if is_own(root, below) => Place::Elsewhere,
        None => Place::Service(below),
        Some((service, child)) if is_child(child) && !is_own(root, service) => Place::Child(service, child),
        Some(_) => Place::Elsewhere,
    }
}

/// Whether endpoints are there: right below the service, or one znode deeper as Dubbo has them.
fn is_child(child: &str) -> bool {
    match child.split_once('/') {
        None => true,
        Some((parent, child)) => parent == PROVIDERS && !child.contains('/'),
    }
}

/// Whether it is ZooKeeper's own bookkeeping and no service.
pub(super) fn is_own(root: &str, service: &str) -> bool {
    root.is_empty() && service == "zookeeper"
}

/// What happened to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Created,
    Deleted,
    Changed,
    /// Some child was made or deleted: what one-shot watches tell instead of which.
    ChildrenChanged,
}

/// What to read again; a wider hint swallows the narrower ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    pub(super) everything: bool,
    pub(super) services: HashSet<String>,
    /// By service and child: whether it is there to be read. The last event decides.
    pub(super) children: HashMap<String, HashMap<String, bool>>,
}

impl Hints {
    /// Takes an event in; `follows` says of a service whether a single child of it can be updated. Returns whether
    /// there is something to do.
    pub(super) fn note(&mut self, place: Place<'_>, happened: Happened, follows: impl Fn(&str) -> bool) -> bool {
        match place {
            Place::Elsewhere => return false,
            // Nothing is written in the data of the root or of a service.
            Place::Root | Place::Service(_) if happened == Happened::Changed => return false,
            Place::Root => self.everything = true,
            Place::Service(service) => {
                self.children.remove(service);
                self.services.insert(service.to_owned());
            }
            Place::Child(service, _) if self.services.contains(service) => {}
            Place::Child(service, child) if happened != Happened::ChildrenChanged && follows(service) => {
                let children = self.children.entry(service.to_owned()).or_default();
                children.insert(child.to_owned(), happened != Happened::Deleted);
            }
            Place::Child(service, _) => {
                self.children.remove(service);
                self.services.insert(service.to_owned());
            }
        }
        true
    }

    /// Whether a hint is about this service.
    pub(super) fn touches(&self, service: &str) -> bool {
        self.everything || self.services.contains(service) || self.children.contains_key(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (root, path, expected) in [
            ("/s", "/s", Place::Root),
            ("/s", "/s/a", Place::Service("a")),
            ("/s", "/s/a/b", Place::Child("a", "b")),
            ("/s", "/s/a/b/c", Place::Elsewhere),
            ("/s", "/s/a/providers", Place::Child("a", "providers")),
            ("/s", "/s/a/providers/c", Place::Child("a", "providers/c")),
            ("/s", "/s/a/providers/c/d", Place::Elsewhere),
            ("/s", "/s/a/consumers/c", Place::Elsewhere),
            ("/s", "/sister", Place::Elsewhere),
            ("/s", "/s2/a", Place::Elsewhere),
            ("/s", "/s2", Place::Elsewhere),
            ("/s", "/s/zookeeper", Place::Service("zookeeper")),
            ("", "/", Place::Root),
            ("", "/a", Place::Service("a")),
            ("", "/a/b", Place::Child("a", "b")),
            ("", "/zookeeper", Place::Elsewhere),
            ("", "/zookeeper/quota", Place::Elsewhere),
        ] {
            assert_eq!(place(root, path), expected, "{root} {path}");
        }
    }

    #[test]
    fn the_last_event_of_a_child_decides() {
        let mut hints = Hints::default();
        assert!(hints.note(Place::Child("a", "x"), Happened::Created, |_| true));
        hints.note(Place::Child("a", "x"), Happened::Deleted, |_| true);
        hints.note(Place::Child("a", "y"), Happened::Deleted, |_| true);
        hints.note(Place::Child("a", "y"), Happened::Created, |_| true);
        assert_eq!(hints.children["a"], HashMap::from([("x".into(), false), ("y".into(), true)]));
    }

    #[test]
    fn a_service_swallows_its_children() {
        let mut hints = Hints::default();
        hints.note(Place::Child("a", "x"), Happened::Created, |_| true);
        hints.note(Place::Service("a"), Happened::Deleted, |_| true);
        hints.note(Place::Child("a", "y"), Happened::Created, |_| true);
        hints.note(Place::Child("unknown", "y"), Happened::Created, |service| service == "a");
        assert!(hints.children.is_empty());
        assert_eq!(hints.services, HashSet::from(["a".into(), "unknown".into()]));
        assert!(hints.touches("a") && !hints.touches("b"));
    }

    #[test]
    fn a_list_of_children_that_changed_is_read_with_its_service() {
        for place in [Place::Service("a"), Place::Child("a", PROVIDERS)] {
            let mut hints = Hints::default();
            hints.note(Place::Child("a", "x"), Happened::Changed, |_| true);
            assert!(hints.note(place, Happened::ChildrenChanged, |_| true));
            assert_eq!((hints.services.len(), hints.children.len()), (1, 0));
        }
        let mut hints = Hints::default();
        assert!(hints.note(Place::Root, Happened::ChildrenChanged, |_| true) && hints.everything);
    }

    #[test]
    fn data_of_the_root_and_of_services_is_no_hint() {
        let mut hints = Hints::default();
        assert!(!hints.note(Place::Root, Happened::Changed, |_| true));
        assert!(!hints.note(Place::Service("a"), Happened::Changed, |_| true));
        assert!(!hints.note(Place::Elsewhere, Happened::Created, |_| true));
        assert_eq!(hints, Hints::default());
    }
}

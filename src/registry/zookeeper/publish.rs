//! From what the trees know to views: the services of all roots together, and what is logged of a change.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::retain::Moment;
use super::roots::Below;
use super::tree::{Bad, Changes};
use super::{NAMES_LOGGED, Source};
use crate::registry::{Service, Services, State, View};

impl Source<'_> {
    /// Puts what is known now into the channel, if that is news.
    pub(super) fn publish(&mut self) -> Changes {
        let mut changes = None;
        for Below { root, tree, .. } in &mut self.below {
            let bad = tree.take_bad();
            self.stats.bad_entries.fetch_add(bad.len() as u64, Relaxed);
            for Bad { service, child, reason } in bad {
                let path = format!("{root}/{service}/{child}");
                self.bad.say(|unsaid| tracing::warn!(path, reason, unsaid, "leaving out a znode"));
            }
            if let Some(more) = tree.commit(Moment::now()) {
                changes.get_or_insert_with(Changes::default).append(more);
            }
        }
        if changes.is_none() && self.out.borrow().state == State::Live {
            return Changes::default();
        }
        let mut changes = changes.unwrap_or_default();
        self.services = self.merged();
        let services = self.services.clone();
        // Another root may have it.
        changes.emptied.retain(|name| services.get(name).is_none_or(|service| service.endpoints.is_empty()));
        tracing::debug!(
            services = services.len(),
            changed = changes.services.len(),
            added = changes.added,
            removed = changes.removed,
            "services published"
        );
        let mut decided: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, layouts) in &changes.decided {
            let layouts: Vec<&str> = layouts.iter().map(|it| it.as_str()).collect();
            decided.entry(layouts.join("+")).or_default().push(name);
        }
        for (layout, names) in &decided {
            let first = &names[..names.len().min(NAMES_LOGGED)];
            tracing::info!(layout, services = ?first, count = names.len(), "layout decided by what services' znodes show");
        }
        if !changes.emptied.is_empty() {
            let names: Vec<_> = changes.emptied.iter().take(NAMES_LOGGED).collect();
            tracing::info!(services = ?names, count = changes.emptied.len(), "services lost their last endpoint");
        }
        self.send(services, State::Live);
        self.published = Instant::now();
        changes
    }

    /// The services of all roots. Of one root its tree's own; else a copy of the names, which is a tenth of a
    /// millisecond for 5,000.
    fn merged(&mut self) -> Arc<Services> {
        let (first, others) = self.below.split_first().expect("a configuration has a root");
        if others.is_empty() {
            return first.tree.published().clone();
        }
        let mut all = Services::clone(first.tree.published());
        let mut hidden = BTreeSet::new();
        for below in others {
            for (name, service) in &**below.tree.published() {
                match all.entry(name.clone()) {
                    Entry::Vacant(place) => drop(place.insert(service.clone())),
                    Entry::Occupied(mut place) if is_left_over(place.get()) => drop(place.insert(service.clone())),
                    Entry::Occupied(_) => drop(hidden.insert(name.clone())),
                }
            }
        }
        if self.hidden != hidden && !hidden.is_empty() {
            let names: Vec<_> = hidden.iter().take(NAMES_LOGGED).collect();
            tracing::warn!(services = ?names, count = hidden.len(), "several roots have these services; the first counts");
        }
        self.hidden = hidden;
        Arc::new(all)
    }

    /// Says that what was live is not followed any more.
    pub(super) fn stale(&mut self) {
        if self.out.borrow().state == State::Live {
            self.send(self.services.clone(), State::Stale);
        }
    }

    fn send(&self, services: Arc<Services>, state: State) {
        self.stats.publishes.fetch_add(1, Relaxed);
        self.out.send_replace(View { services, state });
    }
}

/// Whether nothing is known of a service but what vanished.
fn is_left_over(service: &Service) -> bool {
    service.endpoints.is_empty() && !service.retained.is_empty()
}

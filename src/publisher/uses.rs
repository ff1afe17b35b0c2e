//! The uses of plugins: the same use keeps its binding, and with it its state, whatever else changes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use crate::config::plugins::Rollback;
use crate::config::{self, Balancer, Config, Defaults, Filter, Kind, OnFailure, PluginName, Used};
use crate::plugin::canary::{Canary, Shadow};
use crate::plugin::{Binding, Numbers, Slot};
use crate::routes::{Matcher, Route, Use};

/// The bindings of the plugins: the same use keeps its binding, and so its state, whatever else changes.
#[derive(Default)]
pub(super) struct Uses {
    pub(super) slots: FxHashMap<Arc<str>, Slot>,
    numbers: Vec<Numbers>,
    bindings: HashMap<Key, Weak<Binding>>,
    canaries: HashMap<(usize, u32, Rollback), Weak<Canary>>,
    shadows: HashMap<usize, Weak<Shadow>>,
}

/// Where the places of canaries begin, and those of shadows, so that the same plugin in the place of another is another
/// use.
const CANARY: usize = 1 << 16;
const SHADOW: usize = 2 << 16;

/// What makes two uses the same: the plugin, the kind, the configuration, and whose use it is (the service of a
/// balancer, the route of a filter, with its place among the filters).
type Key = (Slot, Kind, Arc<str>, Arc<str>, usize);

impl Uses {
    fn bind(&mut self, used: &Used, kind: Kind, whose: &Arc<str>, place: usize) -> Arc<Binding> {
        let Used { plugin: PluginName(plugin), config, .. } = used;
        let slot = *self.slots.entry(plugin.clone()).or_insert_with(|| {
            self.numbers.push(Numbers::default());
            self.numbers.len() - 1
        });
        let key = (slot, kind, config.clone(), whose.clone(), place);
        if let Some(binding) = self.bindings.get(&key).and_then(Weak::upgrade) {
            return binding;
        }
        let number = self.numbers[slot].take();
        let binding = Arc::new(Binding::new(slot, plugin.clone(), kind, config.clone(), number));
        self.bindings.insert(key, Arc::downgrade(&binding));
        binding
    }

    fn canary(&mut self, used: &config::Canary, kind: Kind, whose: &Arc<str>, place: usize) -> Arc<Canary> {
        let config::Canary { used, share, rollback } = used;
        let binding = self.bind(used, kind, whose, CANARY + place);
        let key = (Arc::as_ptr(&binding).addr(), *share, *rollback);
        // It lives as long as its binding, or the address would be another's.
        if let Some(known) = self.canaries.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let canary = Arc::new(Canary::new(binding, *share, *rollback));
        self.canaries.insert(key, Arc::downgrade(&canary));
        canary
    }

    fn shadow(&mut self, used: &Used, service: &Arc<str>, place: usize) -> Arc<Shadow> {
        let binding = self.bind(used, Kind::Balancer, service, SHADOW + place);
        let key = Arc::as_ptr(&binding).addr();
        if let Some(known) = self.shadows.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let shadow = Arc::new(Shadow::new(binding));
        self.shadows.insert(key, Arc::downgrade(&shadow));
        shadow
    }

    /// The route of these settings, with its bindings.
    pub(super) fn route(
        &mut self,
        name: Arc<str>,
        matcher: Matcher,
        service: &Arc<str>,
        settings: &Defaults,
        on_failure: OnFailure,
    ) -> Route {
        let mut filters = Vec::with_capacity(settings.filters.len());
        for (place, Filter { used, on_failure: own, canary }) in settings.filters.iter().enumerate() {
            let binding = self.bind(used, Kind::Filter, &name, place);
            let canary = canary.as_ref().map(|it| self.canary(it, Kind::Filter, &name, place));
            let (on_failure, from_files) = (own.unwrap_or(on_failure.filter), keys(used));
            filters.push(Use { binding, on_failure, from_files, canary, shadow: None });
        }
        let mut balancers = Vec::new();
        for (place, Balancer { used, on_failure: own, canary, shadow, .. }) in settings.balancer.chain().enumerate() {
            let binding = self.bind(used, Kind::Balancer, service, place);
            let canary = canary.as_ref().map(|it| self.canary(it, Kind::Balancer, service, place));
            let shadow = shadow.as_ref().map(|it| self.shadow(it, service, place));
            let (on_failure, from_files) = (own.unwrap_or(on_failure.balancer), keys(used));
            balancers.push(Use { binding, on_failure, from_files, canary, shadow });
        }
        Route {
            name,
            matcher,
            strip_prefix: settings.strip_prefix,
            service: service.clone(),
            balancers: balancers.into(),
            filters: filters.into(),
            timeout: settings.timeout,
            retries: settings.retries,
            max_body: settings.max_body.0,
            series: crate::series::OTHER,
        }
    }

    /// The uses of a plugin: kind and configuration, each once.
    pub(super) fn of(&self, plugin: &str) -> Vec<(Kind, Arc<str>)> {
        let Some(slot) = self.slots.get(plugin) else { return Vec::new() };
        let mut uses: Vec<_> = self
            .bindings
            .iter()
            .filter(|((of, ..), binding)| of == slot && binding.strong_count() > 0)
            .map(|((_, kind, config, ..), _)| (*kind, config.clone()))
            .collect();
        uses.sort();
        uses.dedup();
        uses
    }

    /// Lets go of the bindings that nothing uses any more.
    pub(super) fn forget(&mut self) {
        if self.bindings.len() > 2 * self.bindings.values().filter(|it| it.strong_count() > 0).count().max(16) {
            self.bindings.retain(|_, binding| binding.strong_count() > 0);
            self.canaries.retain(|_, canary| canary.strong_count() > 0);
            self.shadows.retain(|_, shadow| shadow.strong_count() > 0);
        }
    }
}

/// The keys whose values are texts of files.
fn keys(used: &Used) -> Box<[Box<str>]> {
    used.files.iter().map(|(key, _)| key.as_str().into()).collect()
}

/// Every use of a plugin that a configuration makes: plugin, kind, JSON.
pub fn uses(config: &Config) -> impl Iterator<Item = (&str, Kind, &str)> {
    config.uses().into_iter().map(|it| (&*it.used.plugin.0, it.kind, &*it.used.config))
}

/// The filters of a route, those of all routes first.
pub(super) fn all_filters(config: &Config, own: &[Filter]) -> Vec<Filter> {
    config.filters.iter().chain(own).cloned().collect()
}

//! The one writer of the snapshot: takes whole values from the registries, the configuration and the plugin
//! directory, and publishes what follows from them.
//!
//! Bursts are gathered for a moment, so that many changes become one snapshot. A change that cannot be used (a bad
//! configuration, a plugin that fails its trial) changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::file::{check_plugins, mistake_at};
use crate::config::mistakes::Mistakes;
use crate::config::upstream::Settings;
use crate::config::{Config, Defaults, ServiceName};
use crate::endpoint::budget::Budget;
use crate::endpoint::standing::{Moment, Standing, Verdicts};
use crate::events::{Events, found};
use crate::fleet;
use crate::plugin::library;
use crate::registry::{self, View};
use crate::routes::{Matcher, Route, Routes};
use crate::series::Names;
use crate::snapshot::{Current, Plugins, Rules, Service, Snapshot};
use crate::tls::{Connectors, Followed, Refused};

mod members;
mod tiers;
mod told;
mod uses;
mod waits;

use members::Members;
use tiers::Tiers;
use uses::{Uses, all_filters};
use waits::{others, until};

pub use told::refused;
pub use uses::uses;

/// How long to wait for more after a change: one ZooKeeper transaction arrives as many events, but within this.
const GATHER: Duration = Duration::from_millis(2);

/// Services that are gone but still answer 503 instead of 404. Names come from the registry, which may invent them
/// without end.
const REMEMBERED: usize = 10_000;

/// What requests of automatic and header routes are counted under.
const AUTO: &str = "auto";

/// What may change.
enum Event {
    /// A registry has a new view.
    Services,
    /// The configuration was read again, and has no mistake in itself.
    Config(Box<Config>),
    /// Routes in ZooKeeper have changed, or how far they can be trusted.
    Routes,
    /// A plugin file came, changed or went.
    Plugin(library::Change),
    /// A version of a plugin keeps failing.
    Failing,
    /// Workers or health checks have noted something of an endpoint, or the time of one that rests is over.
    Endpoints,
}

/// What must be looked at besides what has changed in itself.
#[derive(Clone, Copy, Default)]
struct Again {
    /// Everything: the configuration is another.
    all: bool,
    /// What was noted of endpoints.
    endpoints: bool,
}

/// A registry, as the publisher sees it.
pub struct Source {
    /// What the API calls it.
    pub name: &'static str,
    /// Its last view.
    pub view: watch::Receiver<View>,
}

/// The writer's own state: everything that outlives a snapshot.
pub struct Publisher {
    current: Current,
    library: library::Library,
    uses: Uses,
    /// The first that knows a service is believed.
    sources: Vec<Source>,
    config: Arc<Config>,
    /// A configuration that the plugins do not agree with; they may yet.
    refused: Option<Box<Config>>,
    /// Those in ZooKeeper, which stand after those of the configuration.
    remote: Option<fleet::routes::Routes>,
    remote_status: Arc<Vec<fleet::routes::Status>>,
    routes: Arc<Routes>,
    rules: Arc<Rules>,
    connectors: Connectors,
    /// Who looks after the connectors' files.
    followed: Arc<Followed>,
    /// How endpoints are treated where the configuration says nothing of their service.
    settings: Arc<Settings>,
    /// Notified by workers, see [`crate::endpoint::live`].
    alarm: Arc<Notify>,
    /// Notified by workers, see [`crate::plugin::Engine::alarm`].
    failing: Arc<Notify>,
    verdicts: watch::Receiver<Verdicts>,
    /// When the rest of an endpoint ends, the next.
    wake: Option<Instant>,
    published: Arc<Notify>,
    events: Arc<Events>,
    /// Of routes and of services.
    series: [Names; 2],
    /// Is told of a configuration that was taken over, and of the one before.
    told: Box<Told>,
}

/// See [`Publisher::telling`].
type Told = dyn Fn(&Config, &Config) + Send;

impl Publisher {
    /// Publishes the first snapshot. `verdicts`: what the health checks say.
    pub fn new(
        current: Current,
        library: library::Library,
        sources: Vec<Source>,
        verdicts: watch::Receiver<Verdicts>,
        (connectors, followed): (Connectors, Arc<Followed>),
        config: Config,
        events: Arc<Events>,
    ) -> Publisher {
        connectors.follow(&followed);
        let rules = Arc::new(Rules::new(&config));
        let series = [Names::new(config.metrics.routes, &[AUTO]), Names::new(config.metrics.services, &[])];
        let mut publisher = Publisher {
            current,
            library,
            uses: Uses::default(),
            sources,
            config: Arc::new(config),
            refused: None,
            remote: None,
            remote_status: Arc::default(),
            routes: Arc::default(),
            rules,
            connectors,
            followed,
            settings: Arc::default(),
            alarm: Arc::default(),
            failing: Arc::default(),
            verdicts,
            wake: None,
            published: Arc::default(),
            events,
            series,
            told: Box::new(|_, _| {}),
        };
        publisher.compile();
        publisher.publish(Again { all: true, endpoints: true });
        publisher
    }

    /// The same, told of plugins that keep failing.
    pub fn hearing(self, failing: Arc<Notify>) -> Publisher {
        Publisher { failing, ..self }
    }

    /// The same, with these routes besides those of the configuration.
    pub fn with_routes(mut self, remote: Option<fleet::routes::Routes>) -> Publisher {
        self.remote = remote;
        if self.remote.is_some() {
            self.take_routes(true);
            self.compile();
            self.publish(Again::default());
        }
        self
    }

    /// The same, which tells of each configuration that it takes over, with the one before.
    pub fn telling(self, told: impl Fn(&Config, &Config) + Send + 'static) -> Publisher {
        Publisher { told: Box::new(told), ..self }
    }

    /// Is notified of each snapshot. For one listener.
    pub fn published(&self) -> Arc<Notify> {
        self.published.clone()
    }

    /// Follows everything until `configs` and `plugins` are closed.
    pub async fn run(mut self, mut configs: mpsc::Receiver<Config>, mut plugins: mpsc::Receiver<library::Change>) {
        let changed = Arc::new(Notify::new());
        for source in &self.sources {
            let (mut view, changed) = (source.view.clone(), changed.clone());
            tokio::spawn(async move {
                // A source that ends has nothing new to say, and what it said stays.
                while view.changed().await.is_ok() {
                    changed.notify_one();
                }
            });
        }
        let mut texts = self.remote.as_ref().map(fleet::routes::Routes::changed);
        let (alarm, failing, mut verdicts) = (self.alarm.clone(), self.failing.clone(), self.verdicts.clone());
        loop {
            let event = tokio::select! {
                () = changed.notified() => Event::Services,
                () = alarm.notified() => Event::Endpoints,
                () = failing.notified() => Event::Failing,
                Ok(()) = verdicts.changed() => Event::Endpoints,
                Ok(()) = others(&mut texts) => Event::Routes,
                () = until(self.wake) => Event::Endpoints,
                Some(config) = configs.recv() => Event::Config(Box::new(config)),
                Some(change) = plugins.recv() => Event::Plugin(change),
                else => return,
            };
            let mut again = Again { all: false, endpoints: matches!(event, Event::Endpoints) };
            // Registries have gathered before they said something.
            let gathered = matches!(event, Event::Services);
            again.all |= self.take(event);
            if !gathered {
                tokio::time::sleep(GATHER).await;
            }
            while let Ok(config) = configs.try_recv() {
                again.all |= self.take(Event::Config(Box::new(config)));
            }
            while let Ok(change) = plugins.try_recv() {
                again.all |= self.take(Event::Plugin(change));
            }
            self.publish(again);
        }
    }

    /// Takes an event in; whether services must be looked at even if their endpoints are the same.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Services | Event::Endpoints => false,
            Event::Failing => {
                self.library.quarantine();
                false
            }
            Event::Routes => {
                if self.take_routes(false) {
                    self.use_routes();
                }
                false
            }
            Event::Config(config) => self.adopt(config),
            Event::Plugin(change) => {
                let uses = self.uses.of(change.name());
                self.library.apply(change, &uses);
                // A plugin and the routes that need it may come in any order.
                if self.take_routes(true) {
                    self.use_routes();
                }
                self.refused.take().is_some_and(|config| self.adopt(config))
            }
        }
    }

    /// Takes a new configuration over, if the plugins agree.
    fn adopt(&mut self, config: Box<Config>) -> bool {
        let known = |plugin: &str, kind, json: &str| self.library.check(plugin, kind, json);
        let mistakes = check_plugins(&config, &known);
        if !mistakes.is_empty() {
            tracing::error!("configuration refused, the one before stays:\n{mistakes}");
            self.events.tell(refused(&mistakes));
            self.refused = Some(config);
            return false;
        }
        match Connectors::load(&config) {
            Ok((connectors, warnings)) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                connectors.follow(&self.followed);
                self.connectors = connectors;
            }
            Err(refused) => {
                let mistakes = mistakes_of(&config, &refused);
                tracing::error!("configuration refused, the one before stays:\n{mistakes}");
                self.events.tell(self::refused(&mistakes));
                return false;
            }
        }
        self.refused = None;
        (self.told)(&self.config, &config);
        self.config = Arc::from(config);
        self.rules = Arc::new(Rules::new(&self.config));
        self.take_routes(true);
        self.use_routes();
        let routes = self.routes.list().len();
        tracing::info!(routes, "configuration loaded");
        self.events.tell(told::applied(routes));
        true
    }

    /// Takes in what ZooKeeper says of routes; whether there are other ones than before.
    fn take_routes(&mut self, all: bool) -> bool {
        let known = |plugin: &str, kind, json: &str| self.library.check(plugin, kind, json);
        let changed = self.remote.as_mut().is_some_and(|remote| remote.take(&self.config, &known, all));
        self.remote_status = Arc::new(self.remote.as_ref().map(|it| it.status(&self.config)).unwrap_or_default());
        changed
    }

    /// Makes the routes that there are now those of the next snapshot.
    fn use_routes(&mut self) {
        self.compile();
        self.library.try_again(|name| self.uses.of(name));
    }

    /// Makes of the configuration, and the routes besides it, what snapshots hold of them.
    fn compile(&mut self) {
        let config = self.config.clone();
        self.settings = Arc::new(config.upstream.over(Settings::default()));
        let all = config.routes.iter().map(toml::Spanned::get_ref);
        let all = all.chain(self.remote.iter().flat_map(|remote| remote.serving()));
        let routes = all.enumerate().map(|(order, route)| {
            let name: Arc<str> = match &route.host {
                Some(host) => format!("{}{}", host.0, route.path_prefix.as_str()).into(),
                None => route.path_prefix.as_str().into(),
            };
            let matcher = Matcher {
                host: route.host.as_ref().map(|host| host.0.clone()),
                prefix: route.path_prefix.clone(),
                methods: route.methods.iter().map(|method| method.0.clone()).collect(),
                // The configuration has checked them.
                headers: route
                    .headers
                    .iter()
                    .filter_map(|(name, value)| Some((name.0.parse().ok()?, value.clone())))
                    .collect(),
                order,
            };
            let settings = Defaults {
                strip_prefix: route.strip_prefix.unwrap_or(config.defaults.strip_prefix),
                balancer: route.balancer.clone().unwrap_or_else(|| config.defaults.balancer.clone()),
                filters: all_filters(&config, route.filters.as_ref().unwrap_or(&config.defaults.filters)),
                timeout: route.timeout.over(&config.defaults.timeout),
                retries: route.retries.unwrap_or(config.defaults.retries),
                max_body: route.max_body.unwrap_or(config.defaults.max_body),
            };
            let series = self.series[0].of(&name);
            let route = self.uses.route(name, matcher, &route.service.0, &settings, config.plugins.on_failure);
            Arc::new(Route { series, ..route })
        });
        let routes = routes.collect();
        self.routes = Arc::new(Routes::new(routes, config.header_routes.clone(), config.auto_routes.clone()));
    }

    /// The route that a service has without anybody writing one.
    fn implicit(&mut self, service: &Arc<str>) -> Option<Arc<Route>> {
        if !self.routes.implies(service) {
            return None;
        }
        let config = self.config.clone();
        let prefix = self.routes.auto_prefix().unwrap_or("/").trim_end_matches('/');
        let matcher = Matcher {
            host: None,
            prefix: crate::config::PathPrefix::root(),
            methods: Vec::new(),
            headers: Vec::new(),
            order: usize::MAX,
        };
        let name = format!("{prefix}/{service}").into();
        let settings = Defaults { filters: all_filters(&config, &config.defaults.filters), ..config.defaults.clone() };
        let route = self.uses.route(name, matcher, service, &settings, config.plugins.on_failure);
        // Each has one service, which is counted by itself.
        Some(Arc::new(Route { series: self.series[0].of(&AUTO.into()), ..route }))
    }

    /// Puts together what is known and makes it the current snapshot.
    fn publish(&mut self, again: Again) {
        let (before, now) = (self.current.load_full(), Moment::now());
        let views: Vec<(&'static str, View)> =
            self.sources.iter_mut().map(|source| (source.name, source.view.borrow_and_update().clone())).collect();

        let verdicts = self.verdicts.clone();
        let verdicts = verdicts.borrow();
        let same = |known: &Service| !(again.all || again.endpoints && members::outdated(known, &verdicts, now));
        let mut services: FxHashMap<Arc<str>, Arc<Service>> = FxHashMap::default();
        services.reserve(before.services.len());
        for (registry, view) in &views {
            for (name, spec) in view.services.iter() {
                if services.contains_key(name) {
                    continue;
                }
                let known = before.services.get(name);
                let service = match known {
                    Some(known)
                        if known.registry == Some(registry) && Arc::ptr_eq(&known.spec, spec) && same(known) =>
                    {
                        known.clone()
                    }
                    _ => self.service(name, spec, Some(registry), known, again.all, (&verdicts, now)),
                };
                services.insert(service.name.clone(), service);
            }
        }

        let empty = Arc::new(registry::Service::default());
        let gone: Vec<&Arc<Service>> =
            before.services.values().filter(|known| !services.contains_key(&known.name)).take(REMEMBERED).collect();
        for known in gone {
            let service = match known.registry {
                None if !again.all => known.clone(),
                _ => self.service(&known.name, &empty, None, Some(known), again.all, (&verdicts, now)),
            };
            services.insert(service.name.clone(), service);
        }

        let routes = self.remote.as_ref().map(|remote| (fleet::ROUTES, remote.state()));
        let status = self.library.status();
        let mut active = vec![None; self.uses.slots.len()];
        for (name, slot) in &self.uses.slots {
            active[*slot] = self.library.active(name).cloned();
        }
        self.uses.forget();
        self.wake = services.values().flat_map(|it| it.standings.values()).filter_map(Standing::ends).min();
        let after = Arc::new(Snapshot {
            version: before.version + 1,
            services,
            routes: self.routes.clone(),
            rules: self.rules.clone(),
            plugins: Arc::new(Plugins { active, status }),
            remote: self.remote_status.clone(),
            registries: views.into_iter().map(|(name, view)| (name, view.state)).chain(routes).collect(),
            series: self.series.each_ref().map(Names::list),
        });
        self.current.store(after.clone());
        found::between(&before, &after).into_iter().for_each(|news| self.events.tell(news));
        self.published.notify_one();
    }

    fn service(
        &mut self,
        name: &Arc<str>,
        spec: &Arc<registry::Service>,
        registry: Option<&'static str>,
        known: Option<&Arc<Service>>,
        again: bool,
        (verdicts, now): (&Verdicts, Moment),
    ) -> Arc<Service> {
        let settings = match known {
            Some(known) if !again => known.settings.clone(),
            known => {
                let settings = self.settings(name);
                // The same settings keep the endpoints that have them, and so the version of the list.
                known.map(|known| &known.settings).filter(|known| **known == settings).unwrap_or(&settings).clone()
            }
        };
        let known = known.map(|known| &**known);
        let Tiers { all, retained, given_up, makeshift } = Tiers::of(known, name, spec, &settings, &self.alarm);
        let Members { endpoints, standings, panic, warming } = members::judge(name, known, &all, verdicts, now);
        let budget = match known {
            Some(known) => known.budget.clone(),
            None => Arc::new(Budget::new(&settings.retry_budget, now.instant)),
        };
        let implicit = match known {
            Some(known) if !again => known.implicit.clone(),
            _ => self.implicit(name),
        };
        let series = known.map_or_else(|| self.series[1].of(name), |known| known.series);
        let (name, spec) = (name.clone(), spec.clone());
        let connector = self.connectors.of(&name).clone();
        Arc::new(Service {
            name,
            spec,
            registry,
            all,
            retained,
            given_up,
            makeshift,
            endpoints,
            standings,
            panic,
            warming,
            settings,
            budget,
            connector,
            implicit,
            series,
        })
    }

    /// How the endpoints of a service are treated.
    fn settings(&self, service: &Arc<str>) -> Arc<Settings> {
        let name = ServiceName(service.clone());
        match self.config.services.contains_key(&name) {
            true => Arc::new(self.config.settings(&name)),
            false => self.settings.clone(),
        }
    }
}

/// What is wrong with files that the configuration names.
pub fn mistakes_of(config: &Config, refused: &[Refused]) -> Mistakes {
    let all = refused.iter().map(|it| mistake_at(config, &it.at, it.to_string())).collect();
    Mistakes { file: config.source.path.clone(), all }
}

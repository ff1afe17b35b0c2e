//! Plugins as an operator writes of them: where they come from, what they may use, and where they are used.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};
use toml::Spanned;

use super::plugin_use::PluginUse;
use super::{ByteSize, Config, PluginName, Time, size, values};

/// Where plugins come from and what they may use.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plugins {
    /// The directory whose `NAME.wasm` files are plugins. It need not exist.
    pub dir: PathBuf,
    /// Linear memory of one instance. 64 KiB to 4 GiB.
    #[serde(deserialize_with = "size::memory_limit")]
    pub memory_limit: ByteSize,
    /// A call that takes more of its thread's time is stopped. 1 ms to 60 s.
    #[serde(deserialize_with = "values::call_timeout")]
    pub call_timeout: Time,
    /// What a failing plugin means to the request.
    pub on_failure: OnFailure,
    /// What plugins may do beyond what every one may, by name; `*`: all. Bundled plugins may what they need.
    pub capabilities: BTreeMap<String, BTreeSet<Capability>>,
    /// Where compiled plugins are kept, so that they are ready at once after a restart; nowhere if absent. Nobody else
    /// may be able to write there.
    pub cache: Option<PathBuf>,
    /// How plugins are fetched that ZooKeeper names with a URL; not at all if absent.
    pub fetch: Option<Fetch>,
}

/// How plugins are fetched.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Where they are kept.
    pub dir: PathBuf,
    /// The authorities that are believed; none: those that the system trusts.
    #[serde(default)]
    #[schemars(with = "Option<PathBuf>")]
    pub ca: Option<Spanned<PathBuf>>,
}

impl Default for Plugins {
    fn default() -> Self {
        Plugins {
            dir: "plugins".into(),
            memory_limit: ByteSize(64 << 20),
            call_timeout: Time(Duration::from_millis(10)),
            on_failure: OnFailure::default(),
            capabilities: BTreeMap::new(),
            cache: None,
            fetch: None,
        }
    }
}

impl Plugins {
    /// What the plugin of this name may do, if it is none of the bundled ones.
    pub fn capabilities(&self, name: &str) -> BTreeSet<Capability> {
        ["*", name].iter().filter_map(|it| self.capabilities.get(*it)).flatten().copied().collect()
    }
}

/// What a plugin may do only if the configuration says so.
#[derive(
    Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// To remember things by name, which costs memory.
    Store,
    /// To see and change bodies, which costs time and, as a whole, memory.
    Bodies,
}

impl Capability {
    /// All there are.
    pub const ALL: [Capability; 2] = [Capability::Store, Capability::Bodies];

    /// As it is written, which is also the interface's name.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Store => "store",
            Capability::Bodies => "bodies",
        }
    }
}

/// What a use asks of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// To pick endpoints.
    Balancer,
    /// To look at requests, responses or both.
    Filter,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Kind::Balancer => "balancer",
            Kind::Filter => "filter",
        })
    }
}

/// What a failing plugin means to the request, by its kind.
#[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnFailure {
    /// `fallback` or `reject`.
    pub balancer: BalancerFailure,
    /// `reject` or `skip`.
    pub filter: FilterFailure,
}

impl Default for OnFailure {
    fn default() -> Self {
        OnFailure { balancer: BalancerFailure::Fallback, filter: FilterFailure::Reject }
    }
}

/// What happens to a request whose balancer fails.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BalancerFailure {
    /// Native round robin decides.
    Fallback,
    /// 503.
    Reject,
}

/// What happens to a request one of whose filters fails.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilterFailure {
    /// 503: a filter may be what guards the route.
    Reject,
    /// As if the filter were not there.
    Skip,
}

/// A plugin with its configuration.
#[derive(Clone, Debug)]
pub struct Used {
    /// The name of the plugin.
    pub plugin: PluginName,
    /// What the plugin is configured with, as JSON; with the texts of `files`, once these were read.
    pub config: Arc<str>,
    /// Files whose texts become the values of keys of the configuration.
    pub files: Vec<(String, Spanned<PathBuf>)>,
    /// Where in the file it is written, in bytes; empty: a default of ours.
    pub at: Range<usize>,
}

/// A balancer in use: `"name"` or `{ plugin = "name", config = { … }, on_failure = "…", … }`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(from = "Spanned<PluginUse<BalancerFailure>>")]
pub struct Balancer {
    /// What picks.
    pub used: Used,
    /// Overrides [`OnFailure::balancer`].
    pub on_failure: Option<BalancerFailure>,
    /// Who picks where this one has no opinion, or fails and may; none: native round robin.
    pub fallback: Option<Box<Balancer>>,
    /// Another version, on a share of the picks.
    pub canary: Option<Canary>,
    /// One whose picks are only compared.
    pub shadow: Option<Used>,
}

impl Balancer {
    /// Without configuration.
    pub(super) fn named(name: &str) -> Balancer {
        let used = Used { plugin: PluginName(name.into()), config: "{}".into(), files: Vec::new(), at: 0..0 };
        Balancer { used, on_failure: None, fallback: None, canary: None, shadow: None }
    }

    /// This one and those that pick after it.
    pub fn chain(&self) -> impl Iterator<Item = &Balancer> {
        std::iter::successors(Some(self), |it| it.fallback.as_deref())
    }
}

/// A filter in use, written as a balancer is.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(from = "Spanned<PluginUse<FilterFailure>>")]
pub struct Filter {
    /// What looks.
    pub used: Used,
    /// Overrides [`OnFailure::filter`].
    pub on_failure: Option<FilterFailure>,
    /// Another version, on a share of the requests.
    pub canary: Option<Canary>,
}

/// Another version of a plugin, on a share of the calls, until it is found wanting.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What is called. Its configuration is that of the plugin in whose place it is, unless it has its own.
    pub used: Used,
    /// Its share, in millionths.
    pub share: u32,
    /// When it is left alone again.
    pub rollback: Rollback,
}

/// When a canary is left alone again.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// Calls before its rates are believed; three failures in a row count at once.
    pub after: u32,
    /// The share of its calls that may fail.
    pub failures: Share,
    /// How much larger the share of its requests may be that fail at the endpoint, or are answered with 5xx, than that of
    /// the others.
    pub errors: Share,
    /// How many times the mean an endpoint may have of its picks; 0: any number, because a balancer may have its reasons.
    /// Looked at when each endpoint could have had ten picks.
    // In hundredths, so that it can be compared and hashed.
    #[serde(deserialize_with = "times", serialize_with = "hundredths")]
    #[schemars(with = "f64", range(min = 0, max = 1000))]
    pub imbalance: u32,
}

impl Default for Rollback {
    fn default() -> Self {
        Rollback { after: 50, failures: Share(10_000), errors: Share(50_000), imbalance: 0 }
    }
}

/// A share in millionths, written in percent: `"5%"`, `"0.1%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share(pub u32);

impl Share {
    /// All of it.
    pub const WHOLE: u32 = 1_000_000;
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|it| it.trim_end().parse::<f64>().ok());
        let number = number.filter(|it| (0.0..=100.0).contains(it));
        let share = number.map(|it| Share((it * f64::from(Share::WHOLE / 100)).round() as u32));
        share.ok_or_else(|| format!("{text:?} is not a share from \"0%\" to \"100%\""))
    }
}

values::displayed! {
    Share: |it, out| write!(out, "{}%", f64::from(it.0) / f64::from(Share::WHOLE / 100)),
}

values::written_as_string! {
    Share: "a share like \"5%\"",
}

fn hundredths<S: serde::Serializer>(times: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(f64::from(*times) / 100.0)
}

/// A factor in hundredths: 1 to 1000, or 0.
fn times<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = f64::deserialize(from)?;
    match number == 0.0 || (1.0..=1000.0).contains(&number) {
        true => Ok((number * 100.0).round() as u32),
        false => Err(D::Error::custom(format!("{number} is not a factor from 1 to 1000, or 0 for none"))),
    }
}

/// A use of a plugin somewhere in a configuration.
#[derive(Clone, Copy, Debug)]
pub struct AnyUse<'a> {
    /// The plugin and its configuration.
    pub used: &'a Used,
    /// What it is used as.
    pub kind: Kind,
}

impl Config {
    /// Every use of a plugin, those of canaries and shadows too.
    pub fn uses(&self) -> Vec<AnyUse<'_>> {
        let mut all = Vec::new();
        let routes = || self.routes.iter().map(Spanned::get_ref);
        for balancer in routes().filter_map(|it| it.balancer.as_ref()).chain([&self.defaults.balancer]) {
            for it in balancer.chain() {
                let others = it.canary.iter().map(|it| &it.used).chain(&it.shadow);
                all.extend([&it.used].into_iter().chain(others).map(|used| AnyUse { used, kind: Kind::Balancer }));
            }
        }
        let filters = routes().filter_map(|it| it.filters.as_ref()).chain([&self.defaults.filters, &self.filters]);
        for it in filters.flatten() {
            let canary = it.canary.iter().map(|it| &it.used);
            all.extend([&it.used].into_iter().chain(canary).map(|used| AnyUse { used, kind: Kind::Filter }));
        }
        all
    }

    /// The files whose texts plugins are given.
    pub fn texts(&self) -> impl Iterator<Item = &Path> {
        self.uses().into_iter().flat_map(|it| &it.used.files).map(|(_, path)| path.get_ref().as_path())
    }

    /// Whether the other has the same text, and its plugins are given the same ones.
    pub fn is_as(&self, other: &Config) -> bool {
        let configs = |config: &'_ Config| config.uses().iter().map(|it| it.used.config.clone()).collect::<Vec<_>>();
        self.source.text == other.source.text && configs(self) == configs(other)
    }

    /// The same, to be changed.
    pub(super) fn uses_mut(&mut self) -> Vec<&mut Used> {
        fn of_balancer<'a>(it: &'a mut Balancer, all: &mut Vec<&'a mut Used>) {
            all.push(&mut it.used);
            all.extend(it.canary.iter_mut().map(|it| &mut it.used).chain(&mut it.shadow));
            if let Some(next) = &mut it.fallback {
                of_balancer(next, all);
            }
        }
        let mut all = Vec::new();
        of_balancer(&mut self.defaults.balancer, &mut all);
        let mut filters: Vec<&mut Filter> = self.defaults.filters.iter_mut().chain(&mut self.filters).collect();
        for route in self.routes.iter_mut().map(Spanned::get_mut) {
            route.balancer.iter_mut().for_each(|it| of_balancer(it, &mut all));
            filters.extend(route.filters.iter_mut().flatten());
        }
        for it in filters {
            all.push(&mut it.used);
            all.extend(it.canary.iter_mut().map(|it| &mut it.used));
        }
        all
    }
}

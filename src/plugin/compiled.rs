//! One version of one plugin: compiled, linked, and tried before it may serve.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::component::{self, Described};
use super::guest::{Calling, Code};
use super::host::LogBudget;
use super::seat::Record;
use super::{Binding, Engine, Instances, Kind, Numbers};
use crate::endpoint::Endpoints;
use crate::registry;
use anyhow::Result;

/// A plugin, shared by all workers, which make their instances of it.
pub struct Plugin {
    /// What routes call it.
    pub name: Arc<str>,
    /// What it is.
    pub described: Described,
    /// Whether it is one of those inside the gateway's own binary.
    pub bundled: bool,
    /// How it is called.
    pub calling: Calling,
    /// When it was compiled.
    pub loaded: SystemTime,
    /// How long that took.
    pub compile_time: Duration,
    /// What it did since, worker by worker.
    pub counters: Box<[Counters]>,
    /// Tells versions apart, also where the bytes are the same; never zero.
    pub id: u64,
    /// It keeps failing, in these words.
    pub(super) failing: OnceLock<String>,
    pub(super) record: Record,
    pub(super) log: Arc<LogBudget>,
    pub(super) code: Code,
}

/// What one worker counts of one plugin. On its own cache line, because it is written on every call.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    /// Calls of `pick`, `on-request` and `on-response`.
    pub calls: AtomicU64,
    /// Of these, the ones that trapped.
    pub traps: AtomicU64,
    /// Of these, the ones that were stopped.
    pub timeouts: AtomicU64,
    /// Of these, the ones that answered with nonsense.
    pub nonsense: AtomicU64,
    /// Calls whose time was taken: one in some.
    pub timed: AtomicU64,
    /// Nanoseconds of these together.
    pub nanoseconds: AtomicU64,
    /// Instances made.
    pub instances: AtomicU64,
}

/// One in how many calls has its time taken: asking the clock twice would cost a third of a pick.
const TIMED: u64 = 64;

impl Counters {
    /// Counts a call; the time if that is to be taken. Not of the first, which has an instance to set up.
    pub(super) fn call(&self) -> Option<Instant> {
        let calls = self.calls.load(Relaxed) + 1;
        // This worker is the only writer.
        self.calls.store(calls, Relaxed);
        calls.is_multiple_of(TIMED).then(Instant::now)
    }

    pub(super) fn took(&self, time: Duration) {
        self.timed.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Relaxed);
    }
}

impl Plugin {
    /// Compiles the bytes of a file. Takes about a millisecond for each KiB: not for a worker's thread.
    ///
    /// # Errors
    /// Why it cannot be a plugin, in words for its author.
    pub fn compile(engine: &Engine, name: Arc<str>, bytes: &[u8], bundled: bool, workers: usize) -> Result<Plugin> {
        Plugin::compile_for(engine, name, bytes, bundled, workers, false)
    }

    /// The same, to be called as a component even if it could be called directly.
    ///
    /// # Errors
    /// As above.
    pub fn compile_as_component(engine: &Engine, name: Arc<str>, bytes: &[u8]) -> Result<Plugin> {
        Plugin::compile_for(engine, name, bytes, false, 1, true)
    }

    fn compile_for(
        engine: &Engine,
        name: Arc<str>,
        bytes: &[u8],
        bundled: bool,
        workers: usize,
        as_component: bool,
    ) -> Result<Plugin> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let began = Instant::now();
        let (component, described) = component::read(bytes)?;
        let (code, calling) = Code::of(engine, &component::parts(&component), described.kinds, as_component)?;
        Ok(Plugin {
            name,
            described,
            bundled,
            calling,
            loaded: SystemTime::now(),
            compile_time: began.elapsed(),
            counters: (0..workers.max(1)).map(|_| Counters::default()).collect(),
            id: IDS.fetch_add(1, Relaxed),
            failing: OnceLock::new(),
            record: Record::default(),
            log: Arc::default(),
            code,
        })
    }

    /// Runs a throw-away instance as a worker would: starts it, configures it for each use, and lets a balancer
    /// pick once. Nothing of it touches the state of a real use.
    ///
    /// # Errors
    /// What went wrong, with the plugin's own words where it had any.
    pub fn trial(self: &Arc<Self>, engine: &Engine, uses: &[(Kind, Arc<str>)]) -> Result<(), String> {
        let mut instances = Instances::new(engine.clone(), None);
        let numbers = Numbers::default();
        instances.start(self).map_err(|failure| failure.to_string())?;
        for (kind, config) in uses {
            if !self.described.kinds.serve(*kind) {
                return Err(format!("it is a {}, and a route uses it as a {kind}", self.described.kinds));
            }
            let binding = Arc::new(Binding::new(0, self.name.clone(), *kind, config.clone(), numbers.take()));
            instances.trial(self, &binding, &sample()).map_err(|failure| match config.as_ref() {
                "{}" => failure.to_string(),
                config => format!("{failure} (configured with {config})"),
            })?;
        }
        Ok(())
    }

    /// The sum over all workers.
    pub fn total(&self, of: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| of(counters).load(Relaxed)).sum()
    }

    /// Mean nanoseconds of a call, from those whose time was taken; zero before the first.
    pub fn mean_nanoseconds(&self) -> u64 {
        self.total(|it| &it.nanoseconds).checked_div(self.total(|it| &it.timed)).unwrap_or(0)
    }
}

/// Three endpoints for a balancer to be tried on.
fn sample() -> Arc<Endpoints> {
    let endpoint = |port| registry::Endpoint {
        address: ([127, 0, 0, 1], port).into(),
        scheme: registry::Scheme::Http,
        weight: 1,
        zone: "".into(),
        labels: Vec::new(),
    };
    let service = registry::Service { endpoints: (1..=3).map(endpoint).collect(), ..Default::default() };
    Arc::new(Endpoints::new(&service, &Arc::default(), &Arc::default()))
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.name, self.described.sha256)
    }
}

//! Plugins: WebAssembly files that pick endpoints and rewrite requests and responses.
//!
//! Everything that knows wasmtime is in this folder. A [`Plugin`] is one version of one file, compiled and shared;
//! an [`instance::Instances`] is a worker's own set of running copies; a [`Binding`] is one configured use.
//! What a failure *means* to a request is not decided here: see [`crate::proxy`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod bindings;
pub mod bundled;
pub mod cache;
pub mod canary;
mod compiled;
pub mod component;
mod direct;
pub mod engine;
mod guest;
pub mod host;
pub mod instance;
pub mod library;
mod numbers;
pub mod rehearsal;
mod seat;
mod verdict;

pub use crate::config::Kind;
pub use compiled::{Counters, Plugin};
pub use engine::Engine;
pub use guest::Calling;
pub use instance::Instances;
pub use numbers::{Number, Numbers};

/// What a plugin can do, by the interfaces it exports. A file may be both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kinds {
    /// It exports `balancer`.
    pub balancer: bool,
    /// It exports `request-filter`.
    pub request_filter: bool,
    /// It exports `response-filter`.
    pub response_filter: bool,
    /// It exports `request-body-filter`.
    pub request_body_filter: bool,
    /// It exports `response-body-filter`.
    pub response_body_filter: bool,
}

impl Kinds {
    /// Whether a plugin of these kinds serves that use.
    pub fn serve(self, kind: Kind) -> bool {
        match kind {
            Kind::Balancer => self.balancer,
            Kind::Filter => self.filters(),
        }
    }

    /// Whether it is a filter of any kind.
    pub fn filters(self) -> bool {
        self.request_filter || self.response_filter
    }
}

impl std::fmt::Display for Kinds {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match (self.balancer, self.serve(Kind::Filter)) {
            (true, true) => "balancer and filter",
            (true, false) => "balancer",
            (false, true) => "filter",
            (false, false) => "nothing",
        };
        out.write_str(name)
    }
}

/// The place of a plugin's name in [`crate::snapshot::Snapshot::plugins`]; fixed for the life of the process, so
/// that routes need not change when a plugin does.
pub type Slot = usize;

/// One configured use of a plugin, with the state that outlives its instances and versions.
#[derive(Debug)]
pub struct Binding {
    /// The plugin's place among the plugins.
    pub slot: Slot,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// What the plugin is asked to do.
    pub kind: Kind,
    /// What the plugin is configured with, as JSON.
    pub config: Arc<str>,
    /// What the guest calls this use. Free again when the binding is dropped.
    number: Number,
    /// Tells two bindings apart that had the same number one after the other.
    generation: u64,
    sequence: AtomicU64,
    shared: host::Shared,
    store: Arc<host::Store>,
}

impl Binding {
    /// A binding with nothing in its state.
    pub fn new(slot: Slot, plugin: Arc<str>, kind: Kind, config: Arc<str>, number: Number) -> Binding {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        Binding {
            slot,
            plugin,
            kind,
            config,
            number,
            generation: GENERATIONS.fetch_add(1, Relaxed),
            sequence: AtomicU64::new(0),
            shared: host::Shared::default(),
            store: Arc::default(),
        }
    }

    /// The same use with a copy of its numbers, for whoever may change nothing.
    fn copy(&self, number: Number) -> Binding {
        let Binding { slot, plugin, kind, config, shared, .. } = self;
        let copy = Binding::new(*slot, plugin.clone(), *kind, config.clone(), number);
        Binding { shared: shared.copy(), ..copy }
    }

    /// Counts a pick, over all workers, and returns how many there were before.
    pub fn count(&self) -> u64 {
        self.sequence.fetch_add(1, Relaxed)
    }

    /// How many picks there were.
    pub fn counted(&self) -> u64 {
        self.sequence.load(Relaxed)
    }
}

/// What wasmtime says of a call that did not come to its end.
fn failure(error: wasmtime::Error) -> Failure {
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::Interrupt) => Failure::TimedOut,
        Some(trap) => Failure::Trapped(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
        None => Failure::Trapped(format!("{:#}", error.root_cause())),
    }
}

/// Why a call of a plugin brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no plugin of that name, or it is of another kind.
    Missing,
    /// It failed several times in a row and is left alone for a moment.
    Suspended,
    /// It did not return in time and was stopped.
    TimedOut,
    /// It trapped: a panic, memory over the limit, a bad access.
    Trapped(String),
    /// It refused its configuration or the endpoints, in its own words.
    Refused(String),
    /// It answered with what cannot be: an index out of range, a status that is none.
    Nonsense(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Missing => out.write_str("there is no such plugin"),
            Failure::Suspended => out.write_str("it failed repeatedly and is suspended for a moment"),
            Failure::TimedOut => out.write_str("it was stopped for taking too long"),
            Failure::Trapped(why) => write!(out, "it trapped: {why}"),
            Failure::Refused(why) => write!(out, "it refused: {why}"),
            Failure::Nonsense(why) => write!(out, "it answered with nonsense: {why}"),
        }
    }
}

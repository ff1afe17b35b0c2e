//! The one wasmtime engine of the process: how plugins are compiled, what they may use, and the clock that stops
//! them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, StoreLimits, StoreLimitsBuilder};

use super::bindings::moongate::plugin as wit;
use super::host::Host;

/// Stack of a guest. The default of 512 KiB is for hosts that run guests on fibers of their own; a worker has
/// 2 MiB and its own frames to keep.
const STACK: usize = 256 << 10;

/// Core instances, memories and tables in one plugin: a Python component has 21 core instances.
const PARTS: usize = 200;

/// Elements of one table. Tables are not in the memory limit, and a real plugin has hundreds.
const TABLE_ELEMENTS: usize = 100_000;

/// What a plugin may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of linear memory of one instance.
    pub memory: u64,
    /// How long one call may take; it is stopped at most half as long after.
    pub call: Duration,
}

/// The engine, cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) wasm: wasmtime::Engine,
    pub(super) linker: Arc<Linker<Host>>,
    limits: Limits,
    deadline: u64,
}

impl Engine {
    /// Builds the engine and starts its clock, a thread that ends with the last clone.
    ///
    /// # Errors
    /// If this machine is none that wasmtime knows.
    pub fn new(limits: Limits) -> Result<Engine> {
        let mut config = Config::new();
        // A third of the cost of a call, and no plugin of ours needs it: WIT has no `async` function.
        config.concurrency_support(false);
        config.epoch_interruption(true);
        config.wasm_memory64(false);
        config.max_wasm_stack(STACK);
        // A trap's text goes to the operator; frames without the plugin's debug information tell little.
        config.wasm_backtrace_max_frames(None);
        let wasm =
            wasmtime::Engine::new(&config).map_err(anyhow::Error::from).context("starting the WebAssembly engine")?;

        let mut linker = Linker::new(&wasm);
        let linked = [
            wit::types::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::filter_types::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::host::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::shared::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::endpoints::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::request_keys::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::request::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::response::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
        ];
        linked
            .into_iter()
            .collect::<wasmtime::Result<()>>()
            .map_err(anyhow::Error::from)
            .context("linking the plugin interface")?;

        let tick = tick(limits.call);
        let clock = wasm.weak();
        std::thread::Builder::new()
            .name("plugin-clock".into())
            .spawn(move || {
                // A thread and not a task: a guest that holds a worker must not hold the clock that stops it.
                while let Some(engine) = clock.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(tick);
                }
            })
            .context("starting the thread that stops plugins")?;

        // One more, because the tick that runs now may end at once.
        let deadline = limits.call.div_duration_f64(tick).ceil() as u64 + 1;
        Ok(Engine { wasm, linker: Arc::new(linker), limits, deadline })
    }

    /// Ticks until a call is stopped.
    pub(super) fn deadline(&self) -> u64 {
        self.deadline
    }

    /// What an instance may allocate.
    pub(super) fn store_limits(&self) -> StoreLimits {
        StoreLimitsBuilder::new()
            .memory_size(usize::try_from(self.limits.memory).unwrap_or(usize::MAX))
            .table_elements(TABLE_ELEMENTS)
            .instances(PARTS)
            .tables(PARTS)
            .memories(PARTS)
            .build()
    }
}

/// A quarter of the limit keeps the overrun small; once a millisecond is as often as is worth waking for, and
/// a hundred times a second as seldom as a stopped gateway may notice.
fn tick(limit: Duration) -> Duration {
    (limit / 4).clamp(Duration::from_millis(1), Duration::from_millis(10))
}

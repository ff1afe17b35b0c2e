//! The one wasmtime engine of the process: how plugins are compiled, what they may use, and the clock that stops
//! them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, EngineWeak, StoreLimitsBuilder, UpdateDeadline};

use super::bindings::moongate::plugin as wit;
use super::cache::{Cache, Compiled};
use super::direct;
use super::host::{Bounds, Host};

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
    /// How much of its thread's time one call may take; it is stopped at most half as much after; at the shortest limits, a
    /// millisecond.
    pub call: Duration,
}

/// The engine, cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) wasm: wasmtime::Engine,
    pub(super) linker: Arc<Linker<Host>>,
    /// The same functions for core modules that are called directly.
    pub(super) direct: Arc<wasmtime::Linker<Host>>,
    pub(super) clock: Arc<Clock>,
    /// Where this gateway stands; empty: nobody knows.
    pub(super) zone: Arc<str>,
    /// Where compiled plugins are kept.
    cache: Option<Cache>,
    /// Notified when a version keeps failing.
    pub(super) alarm: Arc<Notify>,
    limits: Limits,
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
            wit::store::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::endpoints::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::request_keys::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::request::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::response::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
            wit::bodies::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host),
        ];
        linked
            .into_iter()
            .collect::<wasmtime::Result<()>>()
            .map_err(anyhow::Error::from)
            .context("linking the plugin interface")?;
        let mut core = wasmtime::Linker::new(&wasm);
        direct::link(&mut core).map_err(anyhow::Error::from).context("linking the plugin interface")?;

        let clock = Clock::start(&wasm, limits.call).context("starting the thread that stops plugins")?;
        let (linker, direct, zone, alarm) = (Arc::new(linker), Arc::new(core), "".into(), Arc::default());
        Ok(Engine { wasm, linker, direct, zone, cache: None, alarm, limits, clock })
    }

    /// The same, with a directory for what is compiled.
    ///
    /// # Errors
    /// As for [`Cache::open`].
    pub fn caching(self, dir: &Path) -> Result<Engine> {
        let cache = Some(Cache::open(dir, &self.wasm)?);
        Ok(Engine { cache, ..self })
    }

    /// Notified when a version of a plugin keeps failing, see [`super::library::Library::quarantine`]. For one listener.
    pub fn alarm(&self) -> Arc<Notify> {
        self.alarm.clone()
    }

    /// Compiles a component or a core module, or finds it compiled.
    pub(super) fn compile<C: Compiled>(&self, bytes: &[u8]) -> Result<C> {
        if let Some(known) = self.cache.as_ref().and_then(|cache| cache.get(&self.wasm, bytes)) {
            return Ok(known);
        }
        let compiled = C::compile(&self.wasm, bytes).map_err(anyhow::Error::from);
        let compiled = compiled.with_context(|| format!("compiling the {}", C::KIND))?;
        self.cache.iter().for_each(|cache| cache.put(bytes, &compiled));
        Ok(compiled)
    }

    /// The same, in this place.
    pub fn standing(self, zone: Arc<str>) -> Engine {
        Engine { zone, ..self }
    }

    /// What an instance may allocate.
    pub(super) fn bounds(&self) -> Bounds {
        let limits = StoreLimitsBuilder::new()
            .memory_size(usize::try_from(self.limits.memory).unwrap_or(usize::MAX))
            .table_elements(TABLE_ELEMENTS)
            .instances(PARTS)
            .tables(PARTS)
            .memories(PARTS)
            .build();
        Bounds::new(limits)
    }
}

/// What stops plugins: a thread that counts the engine's epoch up. It rests while no plugin is called, because
/// hundreds of wake-ups a second are more than an idle gateway should cost.
#[derive(Debug)]
pub(super) struct Clock {
    tick: Duration,
    /// Ticks that a call may take.
    deadline: u32,
    /// Ticks that one may take that sets a plugin up.
    long: u32,
    /// A call began since the last tick.
    busy: AtomicBool,
    resting: AtomicBool,
    thread: OnceLock<Thread>,
}

/// How many times longer a call may take that sets a plugin up. It is made once for each change, and may have to build a
/// table of ten thousand endpoints.
const SET_UP: u32 = 5;

/// How many times longer a call may take at the most: one that has the longest body to look at.
const LONGEST: u32 = 1 + (16 << 20) / SHARE as u32;

/// Bytes of a body that may take as long as a call.
const SHARE: usize = 64 << 10;

/// How long the resting thread sleeps before it looks whether its engine is still there.
const REST: Duration = Duration::from_secs(1);

impl Clock {
    fn start(engine: &wasmtime::Engine, limit: Duration) -> std::io::Result<Arc<Clock>> {
        // Half of the limit is what a call may take too long.
        let tick = (limit / 2).clamp(Duration::from_millis(1), Duration::from_millis(10));
        let ticks = |limit: Duration| limit.div_duration_f64(tick).ceil() as u32;
        let (deadline, long) = (ticks(limit), ticks(limit * SET_UP));
        let (busy, resting) = (AtomicBool::new(true), AtomicBool::new(false));
        let clock = Arc::new(Clock { tick, deadline, long, busy, resting, thread: OnceLock::new() });
        let (counted, engine) = (clock.clone(), engine.weak());
        // A thread and not a task: a guest that holds a worker must not hold the clock that stops it.
        let running =
            std::thread::Builder::new().name("plugin-clock".into()).spawn(move || counted.run(&engine, tick))?;
        let _ = clock.thread.set(running.thread().clone());
        Ok(clock)
    }

    /// The same for a call that sets a plugin up: its start, `configure` and `update`.
    pub(super) fn wind_long(&self) -> Allowance {
        self.wind();
        Allowance { ticks: self.long, since: None }
    }

    /// The same for a call that has so many bytes to look at: each [`SHARE`] of them has the time of a call.
    pub(super) fn wind_for(&self, bytes: usize) -> Allowance {
        let Allowance { ticks, since } = self.wind();
        let shares = u32::try_from(1 + bytes / SHARE).unwrap_or(u32::MAX);
        Allowance { ticks: ticks.saturating_mul(shares), since }
    }

    /// To be called when a call begins; what it may take. Its first look at it is to be at the next tick.
    pub(super) fn wind(&self) -> Allowance {
        if !self.busy.load(Relaxed) {
            // Either we see that it rests, or it sees that we are busy: both sides write first and read then.
            self.busy.store(true, SeqCst);
            if self.resting.load(SeqCst)
                && let Some(thread) = self.thread.get()
            {
                thread.unpark();
            }
        }
        Allowance { ticks: self.deadline, since: None }
    }

    fn run(&self, engine: &EngineWeak, tick: Duration) {
        let mut quiet = 0;
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(tick);
            quiet = if self.busy.swap(false, SeqCst) { 0 } else { quiet + 1 };
            // A call that runs now has looked at its time at most so many ticks ago, or has been stopped.
            if quiet <= 2 * self.long.max(self.deadline.saturating_mul(LONGEST)) {
                continue;
            }
            self.resting.store(true, SeqCst);
            if !self.busy.load(SeqCst) {
                std::thread::park_timeout(REST);
            }
            self.resting.store(false, SeqCst);
        }
    }
}

/// What a call may take of its thread's time. Not of the clock on the wall: on a machine that has no time for us, a plugin
/// would be stopped that does nothing wrong. Asking for the thread's time costs a system call, so only a call is asked that
/// still runs when a tick ends: hardly any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    ticks: u32,
    /// The time of the thread when the first tick ended.
    since: Option<Duration>,
}

impl Allowance {
    /// To be called when a tick has ended that the call was to look at, in its thread.
    pub(super) fn look(&mut self, clock: &Clock) -> UpdateDeadline {
        // The clock may not rest while a call runs.
        clock.wind();
        let now = thread_time();
        let Some(since) = self.since else {
            self.since = Some(now);
            // Others are done already, and need not wait for this one.
            crate::http1::turn::send_now();
            return UpdateDeadline::Continue(self.ticks.into());
        };
        // A tenth less, because ticks and threads have different clocks.
        let allowed = (clock.tick * self.ticks).mul_f64(0.9);
        if now.saturating_sub(since) >= allowed { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) }
    }
}

/// What this thread has had of the processor.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_of_the_thread_counts() {
        let limits = Limits { memory: 1 << 20, call: Duration::from_millis(2) };
        let engine = Engine::new(limits).unwrap();
        let mut allowance = engine.clock.wind();
        assert!(matches!(allowance.look(&engine.clock), UpdateDeadline::Continue(2)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(
            matches!(allowance.look(&engine.clock), UpdateDeadline::Continue(1)),
            "it has waited, and done nothing"
        );
        let began = thread_time();
        while thread_time() - began < Duration::from_millis(2) {}
        assert!(matches!(allowance.look(&engine.clock), UpdateDeadline::Interrupt));
    }

    #[test]
    fn the_clock_rests_and_wakes() {
        let limits = Limits { memory: 1 << 20, call: Duration::from_millis(2) };
        let engine = Engine::new(limits).unwrap();
        let wait = |what: &str, condition: &dyn Fn() -> bool| {
            let began = std::time::Instant::now();
            while !condition() {
                assert!(began.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
                std::thread::yield_now();
            }
        };
        let resting = || engine.clock.resting.load(SeqCst);
        for _ in 0..3 {
            wait("it rests", &resting);
            engine.clock.wind();
            wait("it wakes", &|| !resting());
        }
    }
}

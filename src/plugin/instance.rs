//! A worker's own running copies of the plugins: made when first needed, told of their bindings and endpoint lists
//! before they are asked, thrown away when they fail.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use rustc_hash::FxHashMap;
use wasmtime::{Store, Trap};

use super::bindings::exports::moongate::plugin as exports;
use super::bindings::moongate::plugin::filter_types::{
    BodyVerdict as WitBodyVerdict, Reply as WitReply, Verdict as WitVerdict,
};
use super::bindings::moongate::plugin::types::Endpoint as WitEndpoint;
use super::engine::Clock;
use super::host::imports::{final_status, writable};
use super::host::{Exchange, Host, InHand, Picking, Piece, Show, Step};
use super::{Binding, Counters, Engine, Failure, Plugin, Slot};
use crate::endpoint::Endpoints;
use crate::message::{RequestHead, ResponseHead};

/// Failures in a row after which a plugin is left alone: a loop costs a worker the whole time limit, every time.
const PATIENCE: u32 = 3;

/// How long it is left alone at first; twice as long each time after.
const PAUSE: Duration = Duration::from_millis(100);

/// How long at most, so that a plugin that depends on something that came back is back soon as well.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Bindings in trouble that a worker remembers of one plugin: they are not told when a binding is gone.
const TROUBLES: usize = 10_000;

/// Bytes of a filter's own answer.
const REPLY_BODY: usize = 1 << 20;

/// Bytes of its head, counted as in an exchange's.
const REPLY_HEAD: usize = 64 << 10;

/// How many times longer a piece of a body may become; what becomes shorter than an own answer may be anything.
const GROWTH: usize = 16;

/// What the guest returns for "no opinion".
const NO_OPINION: u32 = u32::MAX;

/// What a pick is about, beside the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// How many picks the binding had before.
    pub sequence: u64,
    /// 0, then 1, 2, … for retries.
    pub attempt: u32,
    /// The indices that were tried.
    pub tried: &'a [u32],
    /// Who asks.
    pub client: IpAddr,
}

/// What a filter wants.
#[derive(Debug)]
pub enum Verdict {
    /// On to the next.
    Next,
    /// These bytes instead of the piece of a body that was shown.
    Replace(Vec<u8>),
    /// This answer, now.
    Respond(ResponseHead, Vec<u8>),
}

/// The instances of one worker, by the plugin's slot.
pub struct Instances {
    engine: Engine,
    /// None for a trial, which is not counted.
    worker: Option<usize>,
    seats: Vec<Seat>,
}

/// Where the instance of one plugin sits.
#[derive(Default)]
struct Seat {
    instance: Option<Instance>,
    /// Another version starts afresh.
    version: u64,
    /// Failures in a row of a binding, by its generation, so that one route's trouble is not another's; those of the
    /// start are under [`START`].
    troubles: FxHashMap<u64, Trouble>,
    recent: Recent,
}

/// How this version did lately, from the first failure of a second on.
struct Recent {
    since: Instant,
    /// The worker's count of calls at that moment.
    calls: u64,
    failures: u64,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { since: Instant::now(), calls: 0, failures: 0 }
    }
}

/// Failures in a second, and at least half of the calls, after which a version counts as one that keeps failing. A use
/// that is suspended reaches that within a third of a second.
const KEEPS_FAILING: u64 = 5;

/// How far back a version's failures count.
const LATELY: Duration = Duration::from_secs(1);

/// Stands for the plugin itself among the bindings' generations, which start at 1.
const START: u64 = 0;

/// Failures in a row.
#[derive(Default)]
struct Trouble {
    count: u32,
    until: Option<Instant>,
}

struct Instance {
    store: Store<Host>,
    clock: Arc<Clock>,
    configurable: exports::configurable::Guest,
    balancer: Option<exports::balancer::Guest>,
    request_filter: Option<exports::request_filter::Guest>,
    response_filter: Option<exports::response_filter::Guest>,
    request_body_filter: Option<exports::request_body_filter::Guest>,
    response_body_filter: Option<exports::response_body_filter::Guest>,
    /// What the guest knows of its bindings, by their number.
    bound: Vec<Option<Bound>>,
}

/// What the guest knows of one binding.
struct Bound {
    generation: u64,
    /// What it last had in `update`; taken out while it picks.
    endpoints: Option<Arc<Endpoints>>,
    /// It said no, in these words; it is not asked again until something changes.
    refused: Option<String>,
}

impl Instances {
    /// None yet. `worker` is the place of this worker's counters; without one nothing is counted.
    pub fn new(engine: Engine, worker: Option<usize>) -> Instances {
        Instances { engine, worker, seats: Vec::new() }
    }

    /// Asks a balancer for an index into `endpoints`; none if it has no opinion. `head` is only lent to it.
    ///
    /// # Errors
    /// Why there is no answer. The caller decides what then.
    pub fn pick(
        &mut self,
        plugin: &Arc<Plugin>,
        binding: &Arc<Binding>,
        endpoints: &Arc<Endpoints>,
        head: &mut RequestHead,
        turn: Turn<'_>,
    ) -> Result<Option<u32>, Failure> {
        self.call(plugin, binding, |instance| {
            instance.bind(binding)?;
            instance.update(binding, endpoints)?;
            instance.pick(binding, head, turn)
        })
    }

    /// Lends a filter an exchange, for one step of it. One that does not take part in such steps wants nothing. With
    /// what it wants comes how it wants to see the body, if it asked for that.
    ///
    /// # Errors
    /// As for [`Instances::pick`]; the exchange is then as the filter left it.
    pub fn filter(
        &mut self,
        plugin: &Arc<Plugin>,
        binding: &Arc<Binding>,
        exchange: Box<Exchange>,
        step: Step<'_>,
    ) -> (Box<Exchange>, Result<(Verdict, Option<Show>), Failure>) {
        let mut lent = Some(exchange);
        let outcome = self.call(plugin, binding, |instance| {
            instance.bind(binding)?;
            let Some(mut exchange) = lent.take() else { return Err(Failure::Missing) };
            exchange.enter(binding.generation, step);
            instance.store.data_mut().in_hand = InHand::Exchange(exchange);
            let verdict = instance.step(binding.number.value(), step);
            let mut asked = None;
            if let InHand::Exchange(mut exchange) = std::mem::take(&mut instance.store.data_mut().in_hand) {
                asked = exchange.leave();
                lent = Some(exchange);
            }
            Ok((verdict?, asked))
        });
        (lent.unwrap_or_else(|| unreachable!("the host gives back what it was lent")), outcome)
    }

    /// Starts an instance and throws it away.
    ///
    /// # Errors
    /// If none can be started at all.
    pub fn start(&self, plugin: &Plugin) -> Result<(), Failure> {
        Instance::start(&self.engine, plugin).map(|_| ())
    }

    /// Configures it for a binding and lets a balancer pick.
    ///
    /// # Errors
    /// As for [`Instances::pick`].
    pub fn trial(
        &mut self,
        plugin: &Arc<Plugin>,
        binding: &Arc<Binding>,
        endpoints: &Arc<Endpoints>,
    ) -> Result<(), Failure> {
        self.call(plugin, binding, |instance| {
            instance.bind(binding)?;
            if binding.kind != super::Kind::Balancer {
                return Ok(());
            }
            instance.update(binding, endpoints)?;
            let mut head = RequestHead::new(Method::GET, "/");
            let turn = Turn { sequence: 0, attempt: 0, tried: &[], client: IpAddr::from([127, 0, 0, 1]) };
            instance.pick(binding, &mut head, turn).map(|_| ())
        })
    }

    /// Bytes of linear memory that the plugin of this slot has here; none while it has no instance.
    pub fn memory(&self, slot: Slot) -> Option<u64> {
        Some(self.seats.get(slot)?.instance.as_ref()?.store.data().bounds.memory())
    }

    /// One call, counted; an instance that fails is thrown away, and one that keeps failing left alone.
    fn call<T>(
        &mut self,
        plugin: &Arc<Plugin>,
        binding: &Arc<Binding>,
        call: impl FnOnce(&mut Instance) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let worker = self.worker;
        let seat = self.seat(plugin, binding)?;
        let Some(instance) = &mut seat.instance else {
            return Err(Failure::Missing);
        };

        let counters = worker.and_then(|worker| plugin.counters.get(worker));
        let began = counters.and_then(Counters::call);
        let outcome = call(instance);
        if let (Some(counters), Some(began)) = (counters, began) {
            counters.took(began.elapsed());
        }

        match &outcome {
            // Almost always there is no trouble at all.
            Ok(_) if seat.troubles.is_empty() => {}
            Ok(_) => drop(seat.troubles.remove(&binding.generation)),
            Err(failure) => {
                if seat.failed(plugin, binding.generation, failure, counters) {
                    self.engine.alarm.notify_one();
                }
            }
        }
        outcome
    }

    /// The seat of this plugin with a running instance of this version in it.
    fn seat(&mut self, plugin: &Arc<Plugin>, binding: &Binding) -> Result<&mut Seat, Failure> {
        let slot = binding.slot;
        if self.seats.len() <= slot {
            self.seats.resize_with(slot + 1, Seat::default);
        }
        let seat = &mut self.seats[slot];
        if seat.version != plugin.id {
            *seat = Seat { version: plugin.id, ..Seat::default() };
        }
        if !seat.troubles.is_empty() && (seat.suspended(START) || seat.suspended(binding.generation)) {
            return Err(Failure::Suspended);
        }
        if seat.instance.is_some() {
            return Ok(seat);
        }
        let counters = self.worker.and_then(|worker| plugin.counters.get(worker));
        match Instance::start(&self.engine, plugin) {
            Ok(instance) => {
                if let Some(counters) = counters {
                    counters.instances.fetch_add(1, Relaxed);
                }
                seat.troubles.remove(&START);
                seat.instance = Some(instance);
                Ok(seat)
            }
            Err(failure) => {
                if seat.failed(plugin, START, &failure, counters) {
                    self.engine.alarm.notify_one();
                }
                Err(failure)
            }
        }
    }
}

impl Seat {
    fn suspended(&self, whose: u64) -> bool {
        let until = self.troubles.get(&whose).and_then(|trouble| trouble.until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes a failure; whether this version has just been found to keep failing.
    fn failed(&mut self, plugin: &Plugin, whose: u64, failure: &Failure, counters: Option<&Counters>) -> bool {
        let (poisoned, count) = match failure {
            Failure::Trapped(_) => (true, counters.map(|it| &it.traps)),
            Failure::TimedOut => (true, counters.map(|it| &it.timeouts)),
            Failure::Nonsense(_) => (false, counters.map(|it| &it.nonsense)),
            Failure::Refused(_) | Failure::Missing | Failure::Suspended => (false, None),
        };
        let mut keeps_failing = false;
        if let (Some(count), Some(counters)) = (count, counters) {
            count.fetch_add(1, Relaxed);
            keeps_failing = self.recent.failed(counters.calls.load(Relaxed), failure, plugin);
        }
        if !poisoned {
            return keeps_failing;
        }
        // After a trap no call may enter the store again.
        self.instance = None;
        if self.troubles.len() >= TROUBLES {
            self.troubles.clear();
        }
        let trouble = self.troubles.entry(whose).or_default();
        trouble.count += 1;
        if trouble.count < PATIENCE {
            return keeps_failing;
        }
        let pause = PAUSE.saturating_mul(1 << (trouble.count - PATIENCE).min(10)).min(LONGEST_PAUSE);
        trouble.until = Some(Instant::now() + pause);
        tracing::warn!(plugin = %plugin.name, %failure, failures = trouble.count, ?pause, "suspending a use of a plugin");
        keeps_failing
    }
}

impl Recent {
    /// Notes a failure; `calls` so far, this one too. Whether it is the one after which the version counts as failing.
    fn failed(&mut self, calls: u64, failure: &Failure, plugin: &Plugin) -> bool {
        if self.failures == 0 || self.since.elapsed() > LATELY {
            *self = Recent { since: Instant::now(), calls: calls.saturating_sub(1), failures: 0 };
        }
        self.failures += 1;
        let calls = calls - self.calls;
        if self.failures < KEEPS_FAILING || self.failures * 2 < calls {
            return false;
        }
        let (failures, within) = (self.failures, self.since.elapsed().as_millis());
        plugin
            .failing
            .set(format!("{failures} of {calls} calls failed within {within} ms; the last: {failure}"))
            .is_ok()
    }
}

impl Instance {
    fn start(engine: &Engine, plugin: &Plugin) -> Result<Instance, Failure> {
        let mut store = Store::new(
            &engine.wasm,
            Host::new(plugin.name.clone(), engine.zone.clone(), plugin.log.clone(), engine.bounds()),
        );
        store.limiter(|host| &mut host.bounds);
        store.epoch_deadline_trap();
        store.set_epoch_deadline(engine.clock.wind());
        let instance = plugin.pre.instantiate(&mut store).map_err(failure)?;
        let exports = &plugin.exports;
        let load = |error: wasmtime::Error| Failure::Nonsense(format!("{error:#}"));
        /// One interface, where it is exported.
        macro_rules! guest {
            ($name:ident) => {
                exports.$name.as_ref().map(|it| it.load(&mut store, &instance)).transpose().map_err(load)?
            };
        }
        Ok(Instance {
            configurable: exports.configurable.load(&mut store, &instance).map_err(load)?,
            balancer: guest!(balancer),
            request_filter: guest!(request_filter),
            response_filter: guest!(response_filter),
            request_body_filter: guest!(request_body_filter),
            response_body_filter: guest!(response_body_filter),
            store,
            clock: engine.clock.clone(),
            bound: Vec::new(),
        })
    }

    /// Winds up the clock for the next call of the guest.
    fn wind(&mut self) {
        self.store.set_epoch_deadline(self.clock.wind());
    }

    /// Makes sure that the guest is configured for this binding.
    fn bind(&mut self, binding: &Arc<Binding>) -> Result<(), Failure> {
        let number = binding.number.value() as usize;
        if self.bound.len() <= number {
            self.bound.resize_with(number + 1, || None);
        }
        match &self.bound[number] {
            Some(Bound { generation, refused: None, .. }) if *generation == binding.generation => {
                self.wind();
                self.store.data_mut().called = binding.number.value();
                return Ok(());
            }
            Some(Bound { generation, refused: Some(why), .. }) if *generation == binding.generation => {
                return Err(Failure::Refused(why.clone()));
            }
            _ => {}
        }
        self.bound[number] = None;
        self.wind();
        self.store.data_mut().adopt(binding);
        let outcome = self.configurable.call_configure(&mut self.store, binding.number.value(), &binding.config);
        self.store.data_mut().in_hand = InHand::Nothing;
        let refused = outcome.map_err(failure)?.err();
        self.bound[number] = Some(Bound { generation: binding.generation, endpoints: None, refused: refused.clone() });
        self.wind();
        refused.map_or(Ok(()), |why| Err(Failure::Refused(why)))
    }

    /// Makes sure that the guest's indices are those of this list.
    fn update(&mut self, binding: &Arc<Binding>, endpoints: &Arc<Endpoints>) -> Result<(), Failure> {
        let number = binding.number.value();
        let Some(Some(bound)) = self.bound.get_mut(number as usize) else {
            return Err(Failure::Missing);
        };
        if bound.endpoints.as_ref().is_some_and(|known| known.version == endpoints.version) {
            return Ok(());
        }
        let Some(balancer) = &self.balancer else {
            return Err(Failure::Missing);
        };
        // Whatever happens, the guest no longer knows the list it had.
        bound.endpoints = None;
        let list: Vec<WitEndpoint> = endpoints.iter().map(|endpoint| wit_endpoint(&endpoint.spec)).collect();
        balancer.call_update(&mut self.store, number, &list).map_err(failure)?.map_err(Failure::Refused)?;
        bound.endpoints = Some(endpoints.clone());
        self.wind();
        Ok(())
    }

    fn pick(&mut self, binding: &Binding, head: &mut RequestHead, turn: Turn<'_>) -> Result<Option<u32>, Failure> {
        let number = binding.number.value();
        let Some(Some(bound)) = self.bound.get_mut(number as usize) else {
            return Err(Failure::Missing);
        };
        let Some(balancer) = &self.balancer else {
            return Err(Failure::Missing);
        };
        let host = self.store.data_mut();
        let random = host.draw();
        let lent = host.wants_request();
        host.in_hand = InHand::Picking(Picking {
            // Moved, not cloned: the count of this `Arc` is shared by all workers.
            endpoints: bound.endpoints.take(),
            tried: turn.tried.to_vec(),
            head: lent.then(|| Box::new(std::mem::replace(head, RequestHead::new(Method::GET, "/")))),
            client: Some(turn.client),
        });
        let outcome = balancer.call_pick(&mut self.store, number, turn.sequence, random, turn.attempt);
        if let InHand::Picking(picking) = std::mem::take(&mut self.store.data_mut().in_hand) {
            bound.endpoints = picking.endpoints;
            if let Some(lent) = picking.head {
                *head = *lent;
            }
        }
        let index = outcome.map_err(failure)?;
        if index == NO_OPINION {
            return Ok(None);
        }
        let count = bound.endpoints.as_ref().map_or(0, |endpoints| endpoints.len());
        if index as usize >= count {
            return Err(Failure::Nonsense(format!("`pick` returned {index} of {count} endpoints")));
        }
        Ok(Some(index))
    }
}

impl Instance {
    /// Calls the interface that belongs to a step.
    fn step(&mut self, number: u32, step: Step<'_>) -> Result<Verdict, Failure> {
        let store = &mut self.store;
        match step {
            Step::Request { .. } => {
                let Some(guest) = &self.request_filter else { return Ok(Verdict::Next) };
                check(guest.call_on_request(store, number).map_err(failure)?)
            }
            Step::Response { .. } => {
                let Some(guest) = &self.response_filter else { return Ok(Verdict::Next) };
                check(guest.call_on_response(store, number).map_err(failure)?)
            }
            Step::RequestBody(Piece { bytes, last, .. }) => {
                let Some(guest) = &self.request_body_filter else { return Ok(Verdict::Next) };
                check_body(guest.call_on_request_body(store, number, bytes, last).map_err(failure)?, bytes.len())
            }
            Step::ResponseBody(Piece { bytes, last, .. }) => {
                let Some(guest) = &self.response_body_filter else { return Ok(Verdict::Next) };
                check_body(guest.call_on_response_body(store, number, bytes, last).map_err(failure)?, bytes.len())
            }
        }
    }
}

fn wit_endpoint(spec: &crate::registry::Endpoint) -> WitEndpoint {
    WitEndpoint {
        address: spec.address.to_string(),
        weight: spec.weight.into(),
        zone: spec.zone.as_ref().into(),
        labels: spec.labels.iter().map(|(name, value)| (name.as_ref().into(), value.as_ref().into())).collect(),
    }
}

fn failure(error: wasmtime::Error) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::TimedOut,
        Some(trap) => Failure::Trapped(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
        None => Failure::Trapped(format!("{:#}", error.root_cause())),
    }
}

/// A guest's answer is untrusted input.
fn check(verdict: WitVerdict) -> Result<Verdict, Failure> {
    match verdict {
        WitVerdict::Next => Ok(Verdict::Next),
        WitVerdict::Respond(reply) => answer(reply),
    }
}

/// The same, about a piece of a body of so many bytes.
fn check_body(verdict: WitBodyVerdict, bytes: usize) -> Result<Verdict, Failure> {
    match verdict {
        WitBodyVerdict::Next => Ok(Verdict::Next),
        WitBodyVerdict::Respond(reply) => answer(reply),
        WitBodyVerdict::Replace(by) if by.len() > bytes.saturating_mul(GROWTH).max(REPLY_BODY) => {
            Err(Failure::Nonsense(format!("it made {} bytes of a piece of {bytes}", by.len())))
        }
        WitBodyVerdict::Replace(by) => Ok(Verdict::Replace(by)),
    }
}

fn answer(WitReply { status, headers, body }: WitReply) -> Result<Verdict, Failure> {
    let status: StatusCode =
        final_status(status).ok_or_else(|| Failure::Nonsense(format!("it responded with status {status}")))?;
    if body.len() > REPLY_BODY {
        return Err(Failure::Nonsense(format!("it responded with {} bytes of body", body.len())));
    }
    let mut head = ResponseHead::new(status);
    for (name, value) in headers {
        if !writable(&name, &value) {
            return Err(Failure::Nonsense(format!("it responded with the header {name:?}: {value:?}")));
        }
        head.fields.append(&*name, value.as_bytes());
    }
    if head.fields.size() > REPLY_HEAD {
        return Err(Failure::Nonsense(format!("it responded with {} bytes of head", head.fields.size())));
    }
    Ok(Verdict::Respond(head, body))
}

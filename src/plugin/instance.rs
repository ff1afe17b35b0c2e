//! A worker's own running copies of the plugins: made when first needed, told of their bindings and endpoint lists
//! before they are asked, thrown away when they fail.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::Method;
use wasmtime::Store;

use super::engine::{Allowance, Clock};
use super::guest::Guest;
use super::host::{Exchange, Host, InHand, Picking, Skips, Step};
use super::seat::{START, Seat};
pub use super::verdict::{Said, Verdict};
use super::{Binding, Counters, Engine, Failure, Plugin, Slot};
use crate::endpoint::Endpoints;
use crate::message::RequestHead;

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

/// The instances of one worker, by the plugin's slot.
pub struct Instances {
    engine: Engine,
    /// None for a trial, which is not counted.
    worker: Option<usize>,
    seats: Vec<Seat>,
}

/// A running copy of a plugin.
pub(super) struct Instance {
    store: Store<Host>,
    clock: Arc<Clock>,
    guest: Guest,
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
    skips: Skips,
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
    ) -> (Box<Exchange>, Said<Failure>) {
        if self.skips(plugin, binding).has(step) {
            return (exchange, Ok((Verdict::Next, None)));
        }
        let mut lent = Some(exchange);
        let outcome = self.call(plugin, binding, |instance| {
            instance.bind(binding)?;
            // Perhaps it was configured just now.
            if instance.skips(binding).has(step) {
                return Ok((Verdict::Next, None));
            }
            let Some(mut exchange) = lent.take() else { return Err(Failure::Missing) };
            exchange.enter(binding.generation, step);
            if let Step::RequestBody(piece) | Step::ResponseBody(piece) = step {
                allow(&mut instance.store, instance.clock.wind_for(piece.bytes.len()));
            }
            instance.store.data_mut().in_hand = InHand::Exchange(exchange);
            let verdict = instance.guest.step(&mut instance.store, binding.number.value(), step);
            let mut asked = None;
            if let InHand::Exchange(mut exchange) = std::mem::take(&mut instance.store.data_mut().in_hand) {
                asked = exchange.leave();
                lent = Some(exchange);
            }
            Ok((verdict?, asked))
        });
        (lent.unwrap_or_else(|| unreachable!("the host gives back what it was lent")), outcome)
    }

    /// What a binding has said that it need not be called for; nothing before it was configured here.
    #[inline]
    fn skips(&self, plugin: &Plugin, binding: &Binding) -> Skips {
        let known = self.seats.get(binding.slot).filter(|seat| seat.version == plugin.id);
        known.and_then(|seat| seat.instance.as_ref()).map_or(Skips::default(), |instance| instance.skips(binding))
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

    /// What the plugin of this slot has declared of requests, see [`Host::declared`].
    pub(super) fn declared(&mut self, slot: Slot, head: &RequestHead, client: IpAddr) -> Vec<(String, Option<u64>)> {
        let instance = self.seats.get_mut(slot).and_then(|seat| seat.instance.as_mut());
        instance.map_or_else(Vec::new, |it| it.store.data_mut().declared(head, client))
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
            *seat = Seat::of(plugin.id);
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

/// What the next call of the guest may take.
fn allow(store: &mut Store<Host>, allowance: Allowance) {
    store.data_mut().allowance = allowance;
    store.set_epoch_deadline(1);
}

impl Instance {
    fn start(engine: &Engine, plugin: &Plugin) -> Result<Instance, Failure> {
        let mut store = Store::new(
            &engine.wasm,
            Host::new(plugin.name.clone(), engine.zone.clone(), plugin.log.clone(), engine.bounds()),
        );
        store.limiter(|host| &mut host.bounds);
        let clock = engine.clock.clone();
        store.epoch_deadline_callback(move |mut store| Ok(store.data_mut().allowance.look(&clock)));
        allow(&mut store, engine.clock.wind_long());
        let guest = plugin.code.start(&mut store)?;
        Ok(Instance { guest, store, clock: engine.clock.clone(), bound: Vec::new() })
    }

    /// What this binding has said that it need not be called for; nothing before it was configured.
    #[inline]
    fn skips(&self, binding: &Binding) -> Skips {
        let bound = self.bound.get(binding.number.value() as usize).and_then(Option::as_ref);
        bound.filter(|bound| bound.generation == binding.generation).map_or(Skips::default(), |bound| bound.skips)
    }

    /// Winds up the clock for the next call of the guest.
    fn wind(&mut self) {
        allow(&mut self.store, self.clock.wind());
    }

    /// The same for a call that sets it up.
    fn wind_long(&mut self) {
        allow(&mut self.store, self.clock.wind_long());
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
        self.wind_long();
        self.store.data_mut().adopt(binding);
        let outcome = self.guest.configure(&mut self.store, binding.number.value(), &binding.config);
        self.store.data_mut().in_hand = InHand::Nothing;
        let refused = outcome?.err();
        let skips = if refused.is_some() { Skips::default() } else { self.store.data().skips };
        let generation = binding.generation;
        self.bound[number] = Some(Bound { generation, endpoints: None, refused: refused.clone(), skips });
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
        // Whatever happens, the guest no longer knows the list it had.
        bound.endpoints = None;
        allow(&mut self.store, self.clock.wind_long());
        self.guest.update(&mut self.store, number, endpoints)?.map_err(Failure::Refused)?;
        bound.endpoints = Some(endpoints.clone());
        self.wind();
        Ok(())
    }

    fn pick(&mut self, binding: &Binding, head: &mut RequestHead, turn: Turn<'_>) -> Result<Option<u32>, Failure> {
        let number = binding.number.value();
        let Some(Some(bound)) = self.bound.get_mut(number as usize) else {
            return Err(Failure::Missing);
        };
        let host = self.store.data_mut();
        let random = host.draw();
        let lent = host.wants_request();
        host.in_hand = InHand::Picking(Picking {
            // Moved, not cloned: the count of this `Arc` is shared by all workers.
            endpoints: bound.endpoints.take(),
            tried: turn.tried.to_vec(),
            head: lent.then(|| Box::new(std::mem::replace(head, RequestHead::nothing()))),
            client: Some(turn.client),
        });
        let outcome = self.guest.pick(&mut self.store, number, (turn.sequence, random, turn.attempt));
        if let InHand::Picking(picking) = std::mem::take(&mut self.store.data_mut().in_hand) {
            bound.endpoints = picking.endpoints;
            if let Some(lent) = picking.head {
                *head = *lent;
            }
        }
        let index = outcome?;
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

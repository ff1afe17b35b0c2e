//! What a guest may call, and the state of one instance that these calls work on.
//!
//! A store's data is one [`Host`]. Before each call of the guest the host is told what is in hand ([`InHand`]), and
//! gives it back after: so there are no handles, and a guest that asks out of turn gets nothing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rustc_hash::FxHashMap;

mod bounds;
mod exchange;
pub(super) mod imports;
mod lifted;
mod store;

pub(super) use bounds::Bounds;
pub use exchange::{Answered, Exchange, Piece, Show, Step};
pub(crate) use store::Store;

use super::bindings::moongate::plugin::request_keys::Source;
use super::direct::Linear;
use super::engine::Allowance;
use crate::endpoint::Endpoints;
use crate::message::{Fields, Known, RequestHead};

/// Slots that one binding may open: a balancer needs a handful, and each is a cache line for good.
const SLOTS: usize = 64;

/// Keys that one instance may declare: they are compared one by one.
const KEYS: usize = 64;

/// Bytes of a log line that are kept.
const LOG_LINE: usize = 1024;

/// Log lines of one plugin in a second.
const LOG_LINES: u32 = 100;

/// How many log lines a plugin has had in this second, over all its instances: one that traps on every call has a
/// new instance every time.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    second: AtomicU64,
    lines: AtomicU32,
}

impl LogBudget {
    fn spend(&self) -> bool {
        let second = start().elapsed().as_secs();
        // Two threads at the turn of a second may both start it afresh; a few lines more do no harm.
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        self.lines.fetch_add(1, Relaxed) < LOG_LINES
    }
}

/// The numbers of a binding that all its instances share, by name.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<FxHashMap<Box<str>, Arc<Slot>>>);

/// A number on a cache line of its own: workers write these at the same time.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

impl Shared {
    /// The same numbers, which from now on are others.
    pub(super) fn copy(&self) -> Shared {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = |slot: &Slot| Arc::new(Slot(AtomicU64::new(slot.0.load(Relaxed))));
        Shared(Mutex::new(slots.iter().map(|(name, slot)| (name.clone(), copy(slot))).collect()))
    }

    fn open(&self, name: &str) -> wasmtime::Result<Arc<Slot>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return Ok(slot.clone());
        }
        if slots.len() == SLOTS {
            return Err(wasmtime::Error::msg(format!("a binding may open {SLOTS} slots")));
        }
        Ok(slots.entry(name.into()).or_default().clone())
    }
}

/// The store data of one instance.
pub(crate) struct Host {
    pub(crate) bounds: Bounds,
    pub(crate) in_hand: InHand,
    /// The number of the binding whose call is running.
    pub(crate) called: u32,
    /// What that may still take.
    pub(in crate::plugin) allowance: Allowance,
    /// The memory of a guest that is called directly; none while it may not call the host.
    pub(in crate::plugin) linear: Option<Box<Linear>>,
    /// What bindings remember, by their number.
    stores: Vec<Option<Arc<Store>>>,
    /// Of the binding that was configured last.
    pub(in crate::plugin) skips: Skips,
    zone: Arc<str>,
    plugin: Arc<str>,
    slots: Vec<Arc<Slot>>,
    /// Which of `slots` belong to a binding, so that configuring it again gives them back.
    opened: FxHashMap<u32, Vec<u32>>,
    free: Vec<u32>,
    keys: Vec<Source>,
    rng: fastrand::Rng,
    log: Arc<LogBudget>,
}

/// For which steps a binding need not be called.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::plugin) struct Skips {
    pub(in crate::plugin) requests: bool,
    pub(in crate::plugin) responses: bool,
}

impl Skips {
    #[inline]
    pub(in crate::plugin) fn has(self, step: Step<'_>) -> bool {
        match step {
            Step::Request { .. } => self.requests,
            Step::Response { .. } => self.responses,
            // Nobody is shown a body who has not asked for it.
            Step::RequestBody(_) | Step::ResponseBody(_) => false,
        }
    }
}

/// What the call that is running is about.
#[derive(Default)]
pub(crate) enum InHand {
    #[default]
    Nothing,
    Configuring(Arc<super::Binding>),
    Picking(Picking),
    // In a box: it is large, and this is moved at every pick.
    Exchange(Box<Exchange>),
}

/// A request that needs an endpoint.
#[derive(Default)]
pub(crate) struct Picking {
    pub(crate) endpoints: Option<Arc<Endpoints>>,
    pub(crate) tried: Vec<u32>,
    pub(crate) head: Option<Box<RequestHead>>,
    pub(crate) client: Option<IpAddr>,
}

impl Host {
    pub(crate) fn new(plugin: Arc<str>, zone: Arc<str>, log: Arc<LogBudget>, bounds: Bounds) -> Host {
        Host {
            bounds,
            in_hand: InHand::Nothing,
            called: 0,
            allowance: Allowance::default(),
            linear: None,
            stores: Vec::new(),
            skips: Skips::default(),
            zone,
            plugin,
            slots: Vec::new(),
            opened: FxHashMap::default(),
            free: Vec::new(),
            keys: Vec::new(),
            rng: fastrand::Rng::new(),
            log,
        }
    }

    /// A number for the guest's `pick`.
    pub(crate) fn draw(&mut self) -> u64 {
        self.rng.u64(..)
    }

    /// Whether the guest may ask for parts of the request when it picks.
    pub(crate) fn wants_request(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Makes a number mean this binding from now on, which is about to be configured.
    pub(crate) fn adopt(&mut self, binding: &Arc<super::Binding>) {
        let number = binding.number.value();
        // The slots of what it meant before may be used again.
        self.free.extend(self.opened.remove(&number).unwrap_or_default());
        let place = number as usize;
        if self.stores.len() <= place {
            self.stores.resize_with(place + 1, || None);
        }
        self.stores[place] = Some(binding.store.clone());
        self.called = number;
        self.skips = Skips::default();
        self.in_hand = InHand::Configuring(binding.clone());
    }

    fn slot(&self, slot: u32) -> Option<&AtomicU64> {
        self.slots.get(slot as usize).map(|slot| &slot.0)
    }

    fn endpoint(&self, index: u32) -> Option<&crate::endpoint::Live> {
        let InHand::Picking(Picking { endpoints: Some(endpoints), .. }) = &self.in_hand else {
            return None;
        };
        Some(&endpoints.get(index as usize)?.live)
    }

    /// What a filter is about.
    fn exchange(&self) -> Option<&Exchange> {
        if let InHand::Exchange(exchange) = &self.in_hand { Some(exchange) } else { None }
    }

    fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        if let InHand::Exchange(exchange) = &mut self.in_hand { Some(exchange) } else { None }
    }

    /// What the binding remembers that the call is about.
    fn store(&self) -> Option<&Store> {
        self.stores.get(self.called as usize)?.as_deref()
    }

    /// What the guest has declared of requests, and the hashes of what this one has of it.
    pub(crate) fn declared(&mut self, head: &RequestHead, client: IpAddr) -> Vec<(String, Option<u64>)> {
        self.in_hand =
            InHand::Picking(Picking { head: Some(Box::new(head.clone())), client: Some(client), ..Picking::default() });
        let hash = |key: usize| self.key(key as u32, twox_hash::XxHash3_64::oneshot);
        let name = |source: &Source| match source {
            Source::Path => "path".to_owned(),
            Source::Method => "method".to_owned(),
            Source::Authority => "host".to_owned(),
            Source::ClientAddress => "client address".to_owned(),
            Source::Header(name) => format!("header {name}"),
            Source::Cookie(name) => format!("cookie {name}"),
            Source::Query(name) => format!("query {name}"),
        };
        let declared = self.keys.iter().enumerate().map(|(at, source)| (name(source), hash(at))).collect();
        self.in_hand = InHand::Nothing;
        declared
    }

    /// Calls `with` with the bytes of a key's value.
    fn key<T>(&self, key: u32, with: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let InHand::Picking(Picking { head: Some(head), client, .. }) = &self.in_hand else {
            return None;
        };
        let value: Option<&[u8]> = match self.keys.get(key as usize)? {
            Source::Path => Some(head.target.path().as_bytes()),
            Source::Method => Some(head.method.as_str().as_bytes()),
            Source::Authority => head.fields.get(Known::Host),
            Source::ClientAddress => {
                return client.map(|client| with(client.to_string().as_bytes()));
            }
            Source::Header(name) => head.fields.get(&**name),
            Source::Cookie(name) => cookie(&head.fields, name.as_bytes()),
            Source::Query(name) => query(head.target.query().unwrap_or_default(), name).map(str::as_bytes),
        };
        value.map(with)
    }
}

/// The first cookie of that name (RFC 6265, section 4.2.1).
fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = fields.all(Known::Cookie).flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

/// The first query parameter of that name, as it was sent.
fn query<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// When this process first asked for the time.
pub(super) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_query_parameters_are_found_by_whole_name() {
        let mut headers = Fields::default();
        headers.append("cookie", b"session=a; id=b");
        headers.append("cookie", b"idx=c;  user=d=e");
        assert_eq!(cookie(&headers, b"id"), Some(&b"b"[..]));
        assert_eq!(cookie(&headers, b"user"), Some(&b"d=e"[..]));
        assert_eq!(cookie(&headers, b"use"), None);
        assert_eq!(query("idx=1&id=2&id=3&flag", "id"), Some("2"));
        assert_eq!((query("idx=1&flag", "id"), query("flag", "flag")), (None, None));
    }
}

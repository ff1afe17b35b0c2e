//! What the functions mean that WIT gives a guest, each a few lines over the [`Host`]; and what a plugin may write into a
//! head. They are called in two ways, which do nothing but pass on values: [`super::lifted`], and [`crate::plugin::direct`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::{Answered, Host, InHand, KEYS, LOG_LINE, Picking, Show, Store, start};
use crate::endpoint::Endpoints;
use crate::message::fields::{is_name, is_value};
use crate::message::{Fields, Known, RequestHead, ResponseHead, Target, known};
use crate::plugin::bindings::moongate::plugin::host::{Level, Step as Phase};
use crate::plugin::bindings::moongate::plugin::request_keys::Source;

/// Fields that frame a message or manage its connection, which a plugin could only break (RFC 9110, section 7.6.1).
const MANAGED: u64 = known::set([
    Known::Connection,
    Known::ContentLength,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::KeepAlive,
    Known::ProxyConnection,
]);

/// Whether a plugin may write this field.
pub(crate) fn writable(name: &str, value: &str) -> bool {
    is_name(name.as_bytes()) && is_value(value.as_bytes()) && Known::of(name.as_bytes()).bit() & MANAGED == 0
}

/// A status that ends a request: 200 to 599.
pub(crate) fn final_status(status: u16) -> Option<http::StatusCode> {
    (200..600).contains(&status).then(|| http::StatusCode::from_u16(status).ok())?
}

/// How a guest writes a field.
#[derive(Clone, Copy, Debug)]
pub(in crate::plugin) enum Write {
    /// In place of all values of that name.
    Set,
    /// Behind them.
    Append,
    /// None is left.
    Remove,
}

/// Whose head it is.
#[derive(Clone, Copy, Debug)]
pub(in crate::plugin) enum Of {
    Request,
    Response,
}

/// The interface `host`.
impl Host {
    pub(in crate::plugin) fn log(&self, level: Level, message: &str) {
        if !self.log.spend() {
            return;
        }
        let cut = message.floor_char_boundary(LOG_LINE);
        let (plugin, message) = (&*self.plugin, &message[..cut]);
        match level {
            Level::Trace => tracing::trace!(target: "plugin", plugin, "{message}"),
            Level::Debug => tracing::debug!(target: "plugin", plugin, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, "{message}"),
        }
    }

    pub(in crate::plugin) fn now() -> u64 {
        start().elapsed().as_nanos() as u64
    }

    pub(in crate::plugin) fn unix_ms() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
    }

    pub(in crate::plugin) fn zone(&self) -> &str {
        &self.zone
    }

    pub(in crate::plugin) fn skip(&mut self, step: Phase) {
        if let InHand::Configuring(_) = self.in_hand {
            match step {
                Phase::Request => self.skips.requests = true,
                Phase::Response => self.skips.responses = true,
            }
        }
    }
}

/// The interface `store`.
impl Host {
    pub(in crate::plugin) fn stored_number(&self, name: &str) -> u64 {
        self.store().map_or(0, |store| store.number(name, Instant::now()))
    }

    /// What was there before, and whether it was replaced.
    pub(in crate::plugin) fn store_exchange(&self, name: &str, numbers: (u64, u64), lasts_ms: u32) -> (u64, bool) {
        let exchange = |store: &Store| store.exchange(name, numbers, lasting(lasts_ms), Instant::now());
        self.store().map_or((0, false), exchange)
    }

    pub(in crate::plugin) fn stored_bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.store()?.read(name, Instant::now())
    }

    pub(in crate::plugin) fn store_bytes(&self, name: &str, value: &[u8], lasts_ms: u32) -> bool {
        self.store().is_some_and(|store| store.write(name, value, lasting(lasts_ms), Instant::now()))
    }

    pub(in crate::plugin) fn store_remove(&self, name: &str) {
        self.store().iter().for_each(|store| store.remove(name));
    }
}

/// Zero milliseconds are no end.
fn lasting(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}

/// The interface `shared`.
impl Host {
    pub(in crate::plugin) fn open(&mut self, name: &str) -> wasmtime::Result<u32> {
        let InHand::Configuring(binding) = &self.in_hand else {
            return Err(wasmtime::Error::msg("`shared.open` was called outside `configure`"));
        };
        let slot = binding.shared.open(name)?;
        let mine = self.opened.entry(binding.number.value()).or_default();
        if let Some(known) = mine.iter().find(|known| Arc::ptr_eq(&self.slots[**known as usize], &slot)) {
            return Ok(*known);
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        mine.push(number);
        Ok(number)
    }

    pub(in crate::plugin) fn slot_value(&self, slot: u32) -> u64 {
        self.slot(slot).map_or(0, |slot| slot.load(Relaxed))
    }

    pub(in crate::plugin) fn slot_set(&self, slot: u32, value: u64) {
        if let Some(slot) = self.slot(slot) {
            slot.store(value, Relaxed);
        }
    }

    pub(in crate::plugin) fn slot_add(&self, slot: u32, delta: u64) -> u64 {
        self.slot(slot).map_or(0, |slot| slot.fetch_add(delta, Relaxed))
    }

    pub(in crate::plugin) fn slot_exchange(&self, slot: u32, expected: u64, new: u64) -> u64 {
        let outcome = self.slot(slot).map(|slot| slot.compare_exchange(expected, new, Relaxed, Relaxed));
        outcome.map_or(0, |outcome| outcome.unwrap_or_else(|actual| actual))
    }
}

/// The interface `endpoints`.
impl Host {
    /// Those that are picked from.
    pub(in crate::plugin) fn endpoints(&self) -> Option<&Endpoints> {
        match &self.in_hand {
            InHand::Picking(Picking { endpoints: Some(endpoints), .. }) => Some(endpoints),
            _ => None,
        }
    }

    pub(in crate::plugin) fn count(&self) -> u32 {
        self.endpoints().map_or(0, |endpoints| endpoints.len() as u32)
    }

    pub(in crate::plugin) fn inflight(&self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.inflight())
    }

    pub(in crate::plugin) fn latency_us(&self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.latency().as_micros() as u32)
    }

    pub(in crate::plugin) fn peak_us(&self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.peak().as_micros() as u32)
    }

    pub(in crate::plugin) fn failures(&self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.failures())
    }

    pub(in crate::plugin) fn tried(&self, index: u32) -> bool {
        matches!(&self.in_hand, InHand::Picking(picking) if picking.tried.contains(&index))
    }

    pub(in crate::plugin) fn inflight_all(&self) -> impl ExactSizeIterator<Item = u32> {
        let all: &[_] = self.endpoints().map_or(&[], |endpoints| endpoints);
        all.iter().map(|endpoint| endpoint.live.inflight())
    }
}

/// The interface `request-keys`.
impl Host {
    pub(in crate::plugin) fn declare(&mut self, source: Source) -> wasmtime::Result<u32> {
        if !matches!(self.in_hand, InHand::Configuring(_)) {
            return Err(wasmtime::Error::msg("`request-keys.declare` was called outside `configure`"));
        }
        if let Some(known) = self.keys.iter().position(|key| same(key, &source)) {
            return Ok(known as u32);
        }
        if self.keys.len() == KEYS {
            return Err(wasmtime::Error::msg(format!("an instance may declare {KEYS} keys")));
        }
        self.keys.push(source);
        Ok(self.keys.len() as u32 - 1)
    }

    pub(in crate::plugin) fn key_hash(&self, key: u32) -> u64 {
        self.key(key, twox_hash::XxHash3_64::oneshot).unwrap_or(0)
    }

    /// Calls `with` with the text of a key's value, if it has one that is text.
    pub(in crate::plugin) fn key_text<T>(&self, key: u32, with: impl FnOnce(&str) -> T) -> Option<T> {
        self.key(key, |value| std::str::from_utf8(value).ok().map(with))?
    }
}

/// The generated type compares nothing by itself.
fn same(a: &Source, b: &Source) -> bool {
    match (a, b) {
        (Source::Path, Source::Path)
        | (Source::Method, Source::Method)
        | (Source::Authority, Source::Authority)
        | (Source::ClientAddress, Source::ClientAddress) => true,
        (Source::Header(a), Source::Header(b)) => a.eq_ignore_ascii_case(b),
        (Source::Cookie(a), Source::Cookie(b)) | (Source::Query(a), Source::Query(b)) => a == b,
        _ => false,
    }
}

/// The interface `request`.
impl Host {
    pub(in crate::plugin) fn method(&self) -> &str {
        self.exchange().map_or("", |exchange| exchange.head.method.as_str())
    }

    pub(in crate::plugin) fn path(&self) -> &str {
        self.exchange().map_or("", |exchange| exchange.head.target.as_str())
    }

    pub(in crate::plugin) fn original_path(&self) -> &str {
        self.exchange().map_or("", |exchange| exchange.original())
    }

    pub(in crate::plugin) fn authority(&self) -> &str {
        self.exchange().and_then(|exchange| exchange.head.authority()).unwrap_or_default()
    }

    pub(in crate::plugin) fn client_address(&self) -> Option<impl std::fmt::Display + use<>> {
        self.exchange().map(|exchange| exchange.client)
    }

    pub(in crate::plugin) fn set_path(&mut self, path: &str) -> bool {
        if self.request_mut(path.len()).is_none() {
            return false;
        }
        let target = Target::sendable(path.to_owned());
        let (Some(exchange), Some(target)) = (self.exchange_mut(), target) else { return false };
        exchange.redirect(target);
        true
    }

    pub(in crate::plugin) fn set_method(&mut self, method: &str) -> bool {
        let (Some(head), Ok(method)) = (self.request_mut(0), http::Method::from_bytes(method.as_bytes())) else {
            return false;
        };
        // A tunnel cannot be made of a request, and an endpoint would take what follows for one.
        if method == http::Method::CONNECT {
            return false;
        }
        head.method = method;
        true
    }

    pub(in crate::plugin) fn noted(&self) -> &[u8] {
        self.exchange().map_or(&[], |exchange| exchange.noted())
    }

    pub(in crate::plugin) fn note(&mut self, value: &[u8]) -> bool {
        self.exchange_mut().is_some_and(|exchange| exchange.note(value))
    }
}

/// The interface `response`, and what both heads have.
impl Host {
    pub(in crate::plugin) fn status(&self) -> u16 {
        self.response().map_or(0, |response| response.head.status.as_u16())
    }

    pub(in crate::plugin) fn set_status(&mut self, status: u16) -> bool {
        let (Some(head), Some(status)) = (self.response_mut(0), final_status(status)) else {
            return false;
        };
        head.status = status;
        true
    }

    pub(in crate::plugin) fn answered_by(&self) -> Option<impl std::fmt::Display + use<>> {
        self.response().map(|response| response.endpoint)
    }

    /// The first value of that name, if it is text.
    pub(in crate::plugin) fn field(&self, of: Of, name: &str) -> Option<&str> {
        self.fields(of)?.text(name)
    }

    /// Names in lower case, and values; those that are no text are left out.
    pub(in crate::plugin) fn all_fields(&self, of: Of) -> Vec<(String, String)> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let fields = self.fields(of).into_iter().flat_map(Fields::iter);
        fields.filter_map(|field| Some((text(field.name)?.to_ascii_lowercase(), text(field.value)?.into()))).collect()
    }

    /// Writes a field where it may be written to, if name and value may be written.
    pub(in crate::plugin) fn write(&mut self, of: Of, how: Write, name: &str, value: &str) -> bool {
        let more = if let Write::Remove = how { 0 } else { name.len() + value.len() };
        let fields = match of {
            Of::Request => self.request_mut(more).map(|head| &mut head.fields),
            Of::Response => self.response_mut(more).map(|head| &mut head.fields),
        };
        let Some(fields) = fields.filter(|_| writable(name, value)) else { return false };
        match how {
            Write::Set => fields.set(name, value.as_bytes()),
            Write::Append => fields.append(name, value.as_bytes()),
            Write::Remove => _ = fields.remove(name),
        }
        true
    }

    /// The interface `bodies`: asks for the body of the one or the other.
    pub(in crate::plugin) fn show(&mut self, of: Of, how: Show) -> bool {
        self.exchange_mut().is_some_and(|exchange| exchange.show(matches!(of, Of::Response), how))
    }

    fn fields(&self, of: Of) -> Option<&Fields> {
        match of {
            Of::Request => self.exchange().map(|exchange| &exchange.head.fields),
            Of::Response => self.response().map(|response| &response.head.fields),
        }
    }

    fn response(&self) -> Option<&Answered> {
        self.exchange()?.response.as_ref()
    }

    fn request_mut(&mut self, more: usize) -> Option<&mut RequestHead> {
        self.exchange_mut()?.request(more)
    }

    fn response_mut(&mut self, more: usize) -> Option<&mut ResponseHead> {
        self.exchange_mut()?.answer(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_a_message_is_not_for_plugins() {
        assert!(writable("X-Env", "prod"));
        for (name, value) in
            [("content-length", "1"), ("Transfer-Encoding", "chunked"), ("a b", "c"), ("a", "b\r\nc: d")]
        {
            assert!(!writable(name, value), "{name}: {value}");
        }
        assert_eq!((final_status(199), final_status(600)), (None, None));
    }
}

//! The functions that WIT gives a guest, each a few lines over the [`Host`]; and what a plugin may write into a head.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::{Answered, Host, InHand, KEYS, LOG_LINE, Picking, Show, Store, start};
use crate::message::fields::{is_name, is_value};
use crate::message::{Fields, Known, RequestHead, ResponseHead, Target, known};
use crate::plugin::bindings::moongate::plugin as wit;
use crate::plugin::bindings::moongate::plugin::bodies::Showing;
use crate::plugin::bindings::moongate::plugin::host::Level;
use crate::plugin::bindings::moongate::plugin::request_keys::Source;
use crate::plugin::bindings::moongate::plugin::store::Exchanged;
use crate::plugin::bindings::moongate::plugin::types::Header;

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

fn get(fields: &Fields, name: &str) -> Option<String> {
    fields.text(name).map(str::to_owned)
}

fn all(fields: &Fields) -> Vec<Header> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    fields
        .iter()
        .filter_map(|field| Some((text(field.name)?.to_ascii_lowercase(), text(field.value)?.into())))
        .collect()
}

/// Writes to what may be written to, if field and value may be written.
fn write(fields: Option<&mut Fields>, name: &str, value: &str, write: impl FnOnce(&mut Fields)) -> bool {
    let Some(fields) = fields.filter(|_| writable(name, value)) else { return false };
    write(fields);
    true
}

impl wit::types::Host for Host {}

impl wit::filter_types::Host for Host {}

impl wit::host::Host for Host {
    fn log(&mut self, level: Level, message: String) {
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

    fn now(&mut self) -> u64 {
        start().elapsed().as_nanos() as u64
    }

    fn unix_ms(&mut self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
    }

    fn random(&mut self) -> u64 {
        self.draw()
    }

    fn zone(&mut self) -> String {
        self.zone.as_ref().to_owned()
    }
}

impl wit::store::Host for Host {
    fn number(&mut self, name: String) -> u64 {
        self.store().map_or(0, |store| store.number(name, Instant::now()))
    }

    fn exchange(&mut self, name: String, expected: u64, new: u64, lasts_ms: u32) -> Exchanged {
        let exchange = |store: &Store| store.exchange(name, (expected, new), lasting(lasts_ms), Instant::now());
        let (before, replaced) = self.store().map_or((0, false), exchange);
        Exchanged { before, replaced }
    }

    fn read(&mut self, name: String) -> Option<Vec<u8>> {
        self.store()?.read(name, Instant::now())
    }

    fn write(&mut self, name: String, value: Vec<u8>, lasts_ms: u32) -> bool {
        self.store().is_some_and(|store| store.write(name, value, lasting(lasts_ms), Instant::now()))
    }

    fn remove(&mut self, name: String) {
        self.store().iter().for_each(|store| store.remove(&name));
    }
}

/// Zero milliseconds are no end.
fn lasting(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}

impl wit::shared::Host for Host {
    fn open(&mut self, name: String) -> wasmtime::Result<u32> {
        let InHand::Configuring(binding) = &self.in_hand else {
            return Err(wasmtime::Error::msg("`shared.open` was called outside `configure`"));
        };
        let slot = binding.shared.open(&name)?;
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

    fn get(&mut self, slot: u32) -> u64 {
        self.slot(slot).map_or(0, |slot| slot.load(Relaxed))
    }

    fn set(&mut self, slot: u32, value: u64) {
        if let Some(slot) = self.slot(slot) {
            slot.store(value, Relaxed);
        }
    }

    fn fetch_add(&mut self, slot: u32, delta: u64) -> u64 {
        self.slot(slot).map_or(0, |slot| slot.fetch_add(delta, Relaxed))
    }

    fn compare_exchange(&mut self, slot: u32, expected: u64, new: u64) -> u64 {
        let outcome = self.slot(slot).map(|slot| slot.compare_exchange(expected, new, Relaxed, Relaxed));
        outcome.map_or(0, |outcome| outcome.unwrap_or_else(|actual| actual))
    }
}

impl wit::endpoints::Host for Host {
    fn count(&mut self) -> u32 {
        match &self.in_hand {
            InHand::Picking(Picking { endpoints: Some(endpoints), .. }) => endpoints.len() as u32,
            _ => 0,
        }
    }

    fn inflight(&mut self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.inflight())
    }

    fn latency_us(&mut self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.latency().as_micros() as u32)
    }

    fn peak_us(&mut self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.peak().as_micros() as u32)
    }

    fn failures(&mut self, index: u32) -> u32 {
        self.endpoint(index).map_or(0, |live| live.failures())
    }

    fn tried(&mut self, index: u32) -> bool {
        matches!(&self.in_hand, InHand::Picking(picking) if picking.tried.contains(&index))
    }

    fn inflight_all(&mut self) -> Vec<u32> {
        match &self.in_hand {
            InHand::Picking(Picking { endpoints: Some(endpoints), .. }) => {
                endpoints.iter().map(|endpoint| endpoint.live.inflight()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl wit::request_keys::Host for Host {
    fn declare(&mut self, source: Source) -> wasmtime::Result<u32> {
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

    fn hash(&mut self, key: u32) -> u64 {
        self.key(key, twox_hash::XxHash3_64::oneshot).unwrap_or(0)
    }

    fn text(&mut self, key: u32) -> Option<String> {
        self.key(key, |value| String::from_utf8(value.to_vec()).ok())?
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

impl wit::request::Host for Host {
    fn method(&mut self) -> String {
        self.exchange().map_or(String::new(), |exchange| exchange.head.method.as_str().to_owned())
    }

    fn path(&mut self) -> String {
        self.exchange().map_or(String::new(), |exchange| exchange.head.target.as_str().to_owned())
    }

    fn original_path(&mut self) -> String {
        self.exchange().map_or(String::new(), |exchange| exchange.original.clone())
    }

    fn authority(&mut self) -> String {
        self.exchange().and_then(|exchange| exchange.head.authority()).unwrap_or_default().to_owned()
    }

    fn client_address(&mut self) -> String {
        self.exchange().map_or(String::new(), |exchange| exchange.client.to_string())
    }

    fn get(&mut self, name: String) -> Option<String> {
        get(&self.exchange()?.head.fields, &name)
    }

    fn headers(&mut self) -> Vec<Header> {
        self.exchange().map_or(Vec::new(), |exchange| all(&exchange.head.fields))
    }

    fn set(&mut self, name: String, value: String) -> bool {
        let fields = self.request_mut(name.len() + value.len()).map(|head| &mut head.fields);
        write(fields, &name, &value, |fields| fields.set(&*name, value.as_bytes()))
    }

    fn append(&mut self, name: String, value: String) -> bool {
        let fields = self.request_mut(name.len() + value.len()).map(|head| &mut head.fields);
        write(fields, &name, &value, |fields| fields.append(&*name, value.as_bytes()))
    }

    fn remove(&mut self, name: String) -> bool {
        let fields = self.request_mut(0).map(|head| &mut head.fields);
        write(fields, &name, "", |fields| _ = fields.remove(&*name))
    }

    fn set_path(&mut self, path: String) -> bool {
        let Some(head) = self.request_mut(path.len()) else { return false };
        let Some(target) = Target::sendable(path) else { return false };
        head.target = target;
        true
    }

    fn set_method(&mut self, method: String) -> bool {
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

    fn noted(&mut self) -> Vec<u8> {
        self.exchange().map_or(Vec::new(), |exchange| exchange.noted().to_vec())
    }

    fn note(&mut self, value: Vec<u8>) -> bool {
        self.exchange_mut().is_some_and(|exchange| exchange.note(value))
    }
}

impl wit::response::Host for Host {
    fn status(&mut self) -> u16 {
        self.response().map_or(0, |response| response.head.status.as_u16())
    }

    fn set_status(&mut self, status: u16) -> bool {
        let (Some(head), Some(status)) = (self.response_mut(0), final_status(status)) else {
            return false;
        };
        head.status = status;
        true
    }

    fn get(&mut self, name: String) -> Option<String> {
        get(&self.response()?.head.fields, &name)
    }

    fn headers(&mut self) -> Vec<Header> {
        self.response().map_or(Vec::new(), |response| all(&response.head.fields))
    }

    fn set(&mut self, name: String, value: String) -> bool {
        let fields = self.response_mut(name.len() + value.len()).map(|head| &mut head.fields);
        write(fields, &name, &value, |fields| fields.set(&*name, value.as_bytes()))
    }

    fn append(&mut self, name: String, value: String) -> bool {
        let fields = self.response_mut(name.len() + value.len()).map(|head| &mut head.fields);
        write(fields, &name, &value, |fields| fields.append(&*name, value.as_bytes()))
    }

    fn remove(&mut self, name: String) -> bool {
        let fields = self.response_mut(0).map(|head| &mut head.fields);
        write(fields, &name, "", |fields| _ = fields.remove(&*name))
    }

    fn endpoint(&mut self) -> String {
        self.response().map_or(String::new(), |response| response.endpoint.to_string())
    }
}

impl wit::bodies::Host for Host {
    fn show_request(&mut self, how: Showing) -> bool {
        self.exchange_mut().is_some_and(|exchange| exchange.show(false, how.into()))
    }

    fn show_response(&mut self, how: Showing) -> bool {
        self.exchange_mut().is_some_and(|exchange| exchange.show(true, how.into()))
    }
}

impl From<Showing> for Show {
    fn from(how: Showing) -> Show {
        match how {
            Showing::Pieces => Show::Pieces,
            Showing::Whole(most) => Show::Whole(most),
        }
    }
}

impl Host {
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

/// A status that ends a request: 200 to 599.
pub(crate) fn final_status(status: u16) -> Option<http::StatusCode> {
    (200..600).contains(&status).then(|| http::StatusCode::from_u16(status).ok())?
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

//! The functions of [`super::imports`] as a component calls them: wasmtime has made values of what the guest gave.

use super::imports::{Of, Write};
use super::{Host, Show};
use crate::plugin::bindings::moongate::plugin as wit;
use crate::plugin::bindings::moongate::plugin::bodies::Showing;
use crate::plugin::bindings::moongate::plugin::host::{Level, Step as Phase};
use crate::plugin::bindings::moongate::plugin::request_keys::Source;
use crate::plugin::bindings::moongate::plugin::store::Exchanged;
use crate::plugin::bindings::moongate::plugin::types::Header;

fn text(it: Option<impl std::fmt::Display>) -> String {
    it.map_or(String::new(), |it| it.to_string())
}

impl wit::types::Host for Host {}

impl wit::filter_types::Host for Host {}

impl wit::host::Host for Host {
    fn log(&mut self, level: Level, message: String) {
        Host::log(self, level, &message);
    }

    fn now(&mut self) -> u64 {
        Host::now()
    }

    fn unix_ms(&mut self) -> u64 {
        Host::unix_ms()
    }

    fn skip(&mut self, step: Phase) {
        Host::skip(self, step);
    }

    fn random(&mut self) -> u64 {
        self.draw()
    }

    fn zone(&mut self) -> String {
        Host::zone(self).to_owned()
    }
}

impl wit::store::Host for Host {
    fn number(&mut self, name: String) -> u64 {
        self.stored_number(&name)
    }

    fn exchange(&mut self, name: String, expected: u64, new: u64, lasts_ms: u32) -> Exchanged {
        let (before, replaced) = self.store_exchange(&name, (expected, new), lasts_ms);
        Exchanged { before, replaced }
    }

    fn read(&mut self, name: String) -> Option<Vec<u8>> {
        self.stored_bytes(&name)
    }

    fn write(&mut self, name: String, value: Vec<u8>, lasts_ms: u32) -> bool {
        self.store_bytes(&name, &value, lasts_ms)
    }

    fn remove(&mut self, name: String) {
        self.store_remove(&name);
    }
}

impl wit::shared::Host for Host {
    fn open(&mut self, name: String) -> wasmtime::Result<u32> {
        Host::open(self, &name)
    }

    fn get(&mut self, slot: u32) -> u64 {
        self.slot_value(slot)
    }

    fn set(&mut self, slot: u32, value: u64) {
        self.slot_set(slot, value);
    }

    fn fetch_add(&mut self, slot: u32, delta: u64) -> u64 {
        self.slot_add(slot, delta)
    }

    fn compare_exchange(&mut self, slot: u32, expected: u64, new: u64) -> u64 {
        self.slot_exchange(slot, expected, new)
    }
}

impl wit::endpoints::Host for Host {
    fn count(&mut self) -> u32 {
        Host::count(self)
    }

    fn inflight(&mut self, index: u32) -> u32 {
        Host::inflight(self, index)
    }

    fn latency_us(&mut self, index: u32) -> u32 {
        Host::latency_us(self, index)
    }

    fn peak_us(&mut self, index: u32) -> u32 {
        Host::peak_us(self, index)
    }

    fn failures(&mut self, index: u32) -> u32 {
        Host::failures(self, index)
    }

    fn tried(&mut self, index: u32) -> bool {
        Host::tried(self, index)
    }

    fn inflight_all(&mut self) -> Vec<u32> {
        Host::inflight_all(self).collect()
    }
}

impl wit::request_keys::Host for Host {
    fn declare(&mut self, source: Source) -> wasmtime::Result<u32> {
        Host::declare(self, source)
    }

    fn hash(&mut self, key: u32) -> u64 {
        self.key_hash(key)
    }

    fn text(&mut self, key: u32) -> Option<String> {
        self.key_text(key, str::to_owned)
    }
}

impl wit::request::Host for Host {
    fn method(&mut self) -> String {
        Host::method(self).to_owned()
    }

    fn path(&mut self) -> String {
        Host::path(self).to_owned()
    }

    fn original_path(&mut self) -> String {
        Host::original_path(self).to_owned()
    }

    fn authority(&mut self) -> String {
        Host::authority(self).to_owned()
    }

    fn client_address(&mut self) -> String {
        text(Host::client_address(self))
    }

    fn get(&mut self, name: String) -> Option<String> {
        self.field(Of::Request, &name).map(str::to_owned)
    }

    fn headers(&mut self) -> Vec<Header> {
        self.all_fields(Of::Request)
    }

    fn set(&mut self, name: String, value: String) -> bool {
        Host::write(self, Of::Request, Write::Set, &name, &value)
    }

    fn append(&mut self, name: String, value: String) -> bool {
        Host::write(self, Of::Request, Write::Append, &name, &value)
    }

    fn remove(&mut self, name: String) -> bool {
        Host::write(self, Of::Request, Write::Remove, &name, "")
    }

    fn set_path(&mut self, path: String) -> bool {
        Host::set_path(self, &path)
    }

    fn set_method(&mut self, method: String) -> bool {
        Host::set_method(self, &method)
    }

    fn noted(&mut self) -> Vec<u8> {
        Host::noted(self).to_vec()
    }

    fn note(&mut self, value: Vec<u8>) -> bool {
        Host::note(self, &value)
    }
}

impl wit::response::Host for Host {
    fn status(&mut self) -> u16 {
        Host::status(self)
    }

    fn set_status(&mut self, status: u16) -> bool {
        Host::set_status(self, status)
    }

    fn get(&mut self, name: String) -> Option<String> {
        self.field(Of::Response, &name).map(str::to_owned)
    }

    fn headers(&mut self) -> Vec<Header> {
        self.all_fields(Of::Response)
    }

    fn set(&mut self, name: String, value: String) -> bool {
        Host::write(self, Of::Response, Write::Set, &name, &value)
    }

    fn append(&mut self, name: String, value: String) -> bool {
        Host::write(self, Of::Response, Write::Append, &name, &value)
    }

    fn remove(&mut self, name: String) -> bool {
        Host::write(self, Of::Response, Write::Remove, &name, "")
    }

    fn endpoint(&mut self) -> String {
        text(self.answered_by())
    }
}

impl wit::bodies::Host for Host {
    fn show_request(&mut self, how: Showing) -> bool {
        self.show(Of::Request, how.into())
    }

    fn show_response(&mut self, how: Showing) -> bool {
        self.show(Of::Response, how.into())
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

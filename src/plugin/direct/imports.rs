//! The functions of [`crate::plugin::host::imports`] as a core module calls them, in the names and signatures that the
//! canonical ABI gives them.

use std::fmt::Write as _;

use wasmtime::{Error, Linker, Result};

use super::abi::{Call, bytes, give, give_numbers, give_pairs, host, lent, put, text};
use crate::plugin::bindings::moongate::plugin::host::{Level, Step as Phase};
use crate::plugin::bindings::moongate::plugin::request_keys::Source;
use crate::plugin::host::imports::{Of, Write};
use crate::plugin::host::{Host, Show};

/// The version under which they are defined; a plugin of another patch version has other names for them.
pub(super) const VERSION: &str = "0.1.0";

/// The interfaces that have functions.
pub(super) const INTERFACES: [&str; 8] =
    ["host", "shared", "store", "endpoints", "request-keys", "request", "response", "bodies"];

/// The full name of an interface.
pub(super) fn full(interface: &str, version: &str) -> String {
    format!("moongate:plugin/{interface}@{version}")
}

/// Defines all of them.
///
/// # Errors
/// None, unless two have one name.
pub(in crate::plugin) fn link(linker: &mut Linker<Host>) -> Result<()> {
    hosts(linker, &full("host", VERSION))?;
    shared(linker, &full("shared", VERSION))?;
    store(linker, &full("store", VERSION))?;
    endpoints(linker, &full("endpoints", VERSION))?;
    keys(linker, &full("request-keys", VERSION))?;
    request(linker, &full("request", VERSION))?;
    response(linker, &full("response", VERSION))?;
    for (it, of) in [(full("request", VERSION), Of::Request), (full("response", VERSION), Of::Response)] {
        fields(linker, &it, of)?;
    }
    let it = full("bodies", VERSION);
    for (name, of) in [("show-request", Of::Request), ("show-response", Of::Response)] {
        linker.func_wrap(&it, name, move |mut call: Call<'_>, how: u32, most: u32| {
            let how = match how {
                0 => Show::Pieces,
                1 => Show::Whole(most),
                other => return Err(no_case(other)),
            };
            Ok(u32::from(host(&mut call)?.show(of, how)))
        })?;
    }
    Ok(())
}

fn no_case(number: u32) -> Error {
    Error::msg(format!("there is no case {number} of a variant"))
}

fn hosts(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    linker.func_wrap(it, "log", |mut call: Call<'_>, level: u32, at: u32, length: u32| {
        let level = match level {
            0 => Level::Trace,
            1 => Level::Debug,
            2 => Level::Info,
            3 => Level::Warn,
            4 => Level::Error,
            other => return Err(no_case(other)),
        };
        let (memory, host) = lent(&mut call)?;
        host.log(level, text(memory, at, length)?);
        Ok(())
    })?;
    linker.func_wrap(it, "now", |mut call: Call<'_>| host(&mut call).map(|_| Host::now()))?;
    linker.func_wrap(it, "unix-ms", |mut call: Call<'_>| host(&mut call).map(|_| Host::unix_ms()))?;
    linker.func_wrap(it, "random", |mut call: Call<'_>| host(&mut call).map(Host::draw))?;
    linker.func_wrap(it, "skip", |mut call: Call<'_>, step: u32| {
        let step = match step {
            0 => Phase::Request,
            1 => Phase::Response,
            other => return Err(no_case(other)),
        };
        host(&mut call)?.skip(step);
        Ok(())
    })?;
    giving(linker, it, "zone", |host, out| out.extend_from_slice(host.zone().as_bytes()))
}

/// A function without parameters that returns bytes, or text.
fn giving(linker: &mut Linker<Host>, it: &str, name: &str, write: fn(&Host, &mut Vec<u8>)) -> Result<()> {
    linker.func_wrap(it, name, move |mut call: Call<'_>, to: u32| {
        give(&mut call, to, false, |_, host, out| {
            write(host, out);
            Ok(true)
        })
    })?;
    Ok(())
}

fn shared(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    linker.func_wrap(it, "open", |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        host.open(text(memory, at, length)?)
    })?;
    linker.func_wrap(it, "get", |mut call: Call<'_>, slot: u32| Ok(host(&mut call)?.slot_value(slot)))?;
    linker.func_wrap(it, "set", |mut call: Call<'_>, slot: u32, value: u64| {
        host(&mut call)?.slot_set(slot, value);
        Ok(())
    })?;
    linker.func_wrap(it, "fetch-add", |mut call: Call<'_>, slot: u32, delta: u64| {
        Ok(host(&mut call)?.slot_add(slot, delta))
    })?;
    linker.func_wrap(it, "compare-exchange", |mut call: Call<'_>, slot: u32, expected: u64, new: u64| {
        Ok(host(&mut call)?.slot_exchange(slot, expected, new))
    })?;
    Ok(())
}

fn store(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    linker.func_wrap(it, "number", |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        Ok(host.stored_number(text(memory, at, length)?))
    })?;
    linker.func_wrap(
        it,
        "exchange",
        |mut call: Call<'_>, at: u32, length: u32, expected: u64, new: u64, lasts_ms: u32, to: u32| {
            let (memory, host) = lent(&mut call)?;
            let (before, replaced) = host.store_exchange(text(memory, at, length)?, (expected, new), lasts_ms);
            let mut record = [0; 16];
            record[..8].copy_from_slice(&before.to_le_bytes());
            record[8] = replaced.into();
            put(memory, to, 8, &record)
        },
    )?;
    linker.func_wrap(it, "read", |mut call: Call<'_>, at: u32, length: u32, to: u32| {
        give(&mut call, to, true, |memory, host, out| {
            let found = host.stored_bytes(text(memory, at, length)?);
            found.iter().for_each(|found| out.extend_from_slice(found));
            Ok(found.is_some())
        })
    })?;
    linker.func_wrap(
        it,
        "write",
        |mut call: Call<'_>, at: u32, length: u32, value: u32, value_length: u32, lasts_ms: u32| {
            let (memory, host) = lent(&mut call)?;
            let (name, value) = (text(memory, at, length)?, bytes(memory, value, value_length)?);
            Ok(u32::from(host.store_bytes(name, value, lasts_ms)))
        },
    )?;
    linker.func_wrap(it, "remove", |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        host.store_remove(text(memory, at, length)?);
        Ok(())
    })?;
    Ok(())
}

fn endpoints(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    linker.func_wrap(it, "count", |mut call: Call<'_>| Ok(host(&mut call)?.count()))?;
    type Figure = fn(&Host, u32) -> u32;
    let figures: [(&str, Figure); 5] = [
        ("inflight", Host::inflight),
        ("latency-us", Host::latency_us),
        ("peak-us", Host::peak_us),
        ("failures", Host::failures),
        ("tried", |host, index| host.tried(index).into()),
    ];
    for (name, figure) in figures {
        linker.func_wrap(it, name, move |mut call: Call<'_>, index: u32| Ok(figure(host(&mut call)?, index)))?;
    }
    linker.func_wrap(it, "inflight-all", |mut call: Call<'_>, to: u32| give_numbers(&mut call, to))?;
    Ok(())
}

fn keys(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    linker.func_wrap(it, "declare", |mut call: Call<'_>, case: u32, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        let name = |case: fn(String) -> Source| text(memory, at, length).map(|it| case(it.to_owned()));
        let source = match case {
            0 => Source::Path,
            1 => Source::Method,
            2 => Source::Authority,
            3 => Source::ClientAddress,
            4 => name(Source::Header)?,
            5 => name(Source::Cookie)?,
            6 => name(Source::Query)?,
            other => return Err(no_case(other)),
        };
        host.declare(source)
    })?;
    linker.func_wrap(it, "hash", |mut call: Call<'_>, key: u32| Ok(host(&mut call)?.key_hash(key)))?;
    linker.func_wrap(it, "text", |mut call: Call<'_>, key: u32, to: u32| {
        give(&mut call, to, true, |_, host, out| {
            Ok(host.key_text(key, |text| out.extend_from_slice(text.as_bytes())).is_some())
        })
    })?;
    Ok(())
}

fn request(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    giving(linker, it, "method", |host, out| out.extend_from_slice(host.method().as_bytes()))?;
    giving(linker, it, "path", |host, out| out.extend_from_slice(host.path().as_bytes()))?;
    giving(linker, it, "original-path", |host, out| out.extend_from_slice(host.original_path().as_bytes()))?;
    giving(linker, it, "authority", |host, out| out.extend_from_slice(host.authority().as_bytes()))?;
    giving(linker, it, "client-address", |host, out| told(host.client_address(), out))?;
    giving(linker, it, "noted", |host, out| out.extend_from_slice(host.noted()))?;
    linker.func_wrap(it, "set-path", |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        Ok(u32::from(host.set_path(text(memory, at, length)?)))
    })?;
    linker.func_wrap(it, "set-method", |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        Ok(u32::from(host.set_method(text(memory, at, length)?)))
    })?;
    linker.func_wrap(it, "note", |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        Ok(u32::from(host.note(bytes(memory, at, length)?)))
    })?;
    Ok(())
}

fn told(it: Option<impl std::fmt::Display>, out: &mut Vec<u8>) {
    let mut text = String::new();
    it.iter().for_each(|it| write!(text, "{it}").unwrap_or(()));
    out.extend_from_slice(text.as_bytes());
}

fn response(linker: &mut Linker<Host>, it: &str) -> Result<()> {
    linker.func_wrap(it, "status", |mut call: Call<'_>| Ok(u32::from(host(&mut call)?.status())))?;
    linker.func_wrap(it, "set-status", |mut call: Call<'_>, status: u32| {
        // The ABI has it that what is more than 16 bits is cut off.
        Ok(u32::from(host(&mut call)?.set_status(status as u16)))
    })?;
    giving(linker, it, "endpoint", |host, out| told(host.answered_by(), out))
}

/// What requests and responses have in common.
fn fields(linker: &mut Linker<Host>, it: &str, of: Of) -> Result<()> {
    linker.func_wrap(it, "get", move |mut call: Call<'_>, at: u32, length: u32, to: u32| {
        give(&mut call, to, true, |memory, host, out| {
            let value = host.field(of, text(memory, at, length)?);
            value.iter().for_each(|value| out.extend_from_slice(value.as_bytes()));
            Ok(value.is_some())
        })
    })?;
    linker.func_wrap(it, "headers", move |mut call: Call<'_>, to: u32| {
        let all = host(&mut call)?.all_fields(of);
        give_pairs(&mut call, to, &all)
    })?;
    for (name, how) in [("set", Write::Set), ("append", Write::Append)] {
        linker.func_wrap(
            it,
            name,
            move |mut call: Call<'_>, at: u32, length: u32, value: u32, value_length: u32| {
                let (memory, host) = lent(&mut call)?;
                let (name, value) = (text(memory, at, length)?, text(memory, value, value_length)?);
                Ok(u32::from(host.write(of, how, name, value)))
            },
        )?;
    }
    linker.func_wrap(it, "remove", move |mut call: Call<'_>, at: u32, length: u32| {
        let (memory, host) = lent(&mut call)?;
        Ok(u32::from(host.write(of, Write::Remove, text(memory, at, length)?, "")))
    })?;
    Ok(())
}

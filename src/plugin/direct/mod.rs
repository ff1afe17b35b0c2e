//! Plugins called without the component model in between: the core module inside of a file is run by itself, and what the
//! canonical ABI asks of both sides is done here by hand. A call costs a fraction of what it costs through the component.
//!
//! The component stays the contract. What can be called directly is decided when a file is loaded, by [`shape::of`] and
//! [`signatures::differing`], and everything else goes the usual way; both ways end in the same functions of the
//! [`Host`], and `tests/it/paths.rs` compares them.

use wasmtime::{InstancePre, Module, Store, TypedFunc, WasmParams};

mod abi;
mod imports;
pub(super) mod shape;
pub(super) mod signatures;

pub(super) use abi::Linear;
pub(super) use imports::link;
use shape::Names;

use super::failure;
use super::guest::Outcome;
use super::host::{Host, Piece, Step};
use super::verdict::{Verdict, answer, replacement};
use super::{Engine, Failure};
use crate::endpoint::Endpoints;

/// A core module, linked, and what of it is called.
pub(super) struct Code {
    pre: InstancePre<Host>,
    names: Names,
}

/// A running copy of it.
pub(super) struct Guest {
    configure: Function<(u32, u32, u32)>,
    update: Option<Function<(u32, u32, u32)>>,
    pick: Option<Function<(u32, u64, u64, u32)>>,
    on_request: Option<Function<(u32,)>>,
    on_response: Option<Function<(u32,)>>,
    on_request_body: Option<Function<(u32, u32, u32, u32)>>,
    on_response_body: Option<Function<(u32, u32, u32, u32)>>,
}

/// A function of the guest.
struct Function<P> {
    call: TypedFunc<P, u32>,
    /// To be called with what it returned, when that has been read.
    post: Option<TypedFunc<(u32,), ()>>,
}

impl Code {
    /// Links a core module.
    ///
    /// # Errors
    /// If it wants what there is not, or in another signature.
    pub(super) fn link(engine: &Engine, module: &Module, names: Names) -> wasmtime::Result<Code> {
        // Those that were built for another patch version call the same functions by other names.
        let mut others: Vec<&str> = Vec::new();
        for import in module.imports() {
            if let Some((_, version)) = import.module().rsplit_once('@')
                && version != imports::VERSION
                && !others.contains(&version)
            {
                others.push(version);
            }
        }
        let pre = if others.is_empty() {
            engine.direct.instantiate_pre(module)?
        } else {
            let mut linker = wasmtime::Linker::clone(&engine.direct);
            for version in others {
                for it in imports::INTERFACES {
                    linker.alias_module(&imports::full(it, imports::VERSION), &imports::full(it, version))?;
                }
            }
            linker.instantiate_pre(module)?
        };
        Ok(Code { pre, names })
    }

    /// Starts an instance.
    ///
    /// # Errors
    /// If it cannot be, or does not come to an end.
    pub(super) fn start(&self, store: &mut Store<Host>) -> Result<Guest, Failure> {
        let instance = self.pre.instantiate(&mut *store).map_err(failure)?;
        let lacks = |error: wasmtime::Error| Failure::Nonsense(format!("{error:#}"));
        let memory = instance.get_memory(&mut *store, &self.names.memory);
        let memory = memory.ok_or_else(|| Failure::Nonsense("it does not export its memory".into()))?;
        let realloc = instance.get_typed_func(&mut *store, &self.names.realloc).map_err(lacks)?;
        store.data_mut().linear = Some(Box::new(Linear { memory, realloc, scratch: Vec::new() }));
        if let Some(name) = &self.names.initialize {
            let initialize = instance.get_typed_func::<(), ()>(&mut *store, name).map_err(lacks)?;
            initialize.call(&mut *store, ()).map_err(failure)?;
        }
        let configure = self.function(store, &instance, "configurable", "configure")?;
        Ok(Guest {
            configure: configure.ok_or_else(|| Failure::Nonsense("it does not export `configure`".into()))?,
            update: self.function(store, &instance, "balancer", "update")?,
            pick: self.function(store, &instance, "balancer", "pick")?,
            on_request: self.function(store, &instance, "request-filter", "on-request")?,
            on_response: self.function(store, &instance, "response-filter", "on-response")?,
            on_request_body: self.function(store, &instance, "request-body-filter", "on-request-body")?,
            on_response_body: self.function(store, &instance, "response-body-filter", "on-response-body")?,
        })
    }

    fn function<P: WasmParams>(
        &self,
        store: &mut Store<Host>,
        instance: &wasmtime::Instance,
        interface: &str,
        function: &str,
    ) -> Result<Option<Function<P>>, Failure> {
        let lacks = |error: wasmtime::Error| Failure::Nonsense(format!("{error:#}"));
        let Some(lifted) = self.names.lifted.iter().find(|it| is(&it.name, interface, function)) else {
            return Ok(None);
        };
        let call = instance.get_typed_func(&mut *store, &lifted.name).map_err(lacks)?;
        let post = lifted.post.as_ref().map(|name| instance.get_typed_func(&mut *store, name));
        Ok(Some(Function { call, post: post.transpose().map_err(lacks)? }))
    }
}

/// Whether a core export is this function: `moongate:plugin/INTERFACE@VERSION#FUNCTION`.
fn is(name: &str, interface: &str, function: &str) -> bool {
    let named = || {
        let rest = name.strip_prefix("moongate:plugin/")?.strip_prefix(interface)?.strip_prefix('@')?;
        Some(rest.split_once('#')?.1 == function)
    };
    named().unwrap_or(false)
}

/// What is read of the memory: values, or the word that they are nonsense.
type Read<T> = wasmtime::Result<Result<T, Failure>>;

impl<P: WasmParams> Function<P> {
    /// Calls it, and reads what it returned.
    fn call<T>(
        &self,
        store: &mut Store<Host>,
        params: P,
        read: impl FnOnce(&[u8], u32) -> Read<T>,
    ) -> Result<T, Failure> {
        let returned = self.call.call(&mut *store, params).map_err(failure)?;
        // The guest has come back, so nobody has taken it.
        let memory = store.data().linear.as_ref().ok_or_else(|| failure(abi::may_not_leave()))?.memory;
        let outcome = read(memory.data(&*store), returned).map_err(failure)?;
        if let Some(post) = &self.post {
            let linear = abi::take(store.data_mut()).map_err(failure)?;
            post.call(&mut *store, (returned,)).map_err(failure)?;
            store.data_mut().linear = Some(linear);
        }
        outcome
    }
}

/// Makes room in the guest's memory for what it is called with, during which it may not call the host.
fn lowering<T>(
    store: &mut Store<Host>,
    lower: impl FnOnce(&Linear, &mut Store<Host>) -> wasmtime::Result<T>,
) -> Result<T, Failure> {
    let linear = abi::take(store.data_mut()).map_err(failure)?;
    let lowered = lower(&linear, store).map_err(failure)?;
    store.data_mut().linear = Some(linear);
    Ok(lowered)
}

impl Guest {
    /// Calls `configure`; its words where it refuses.
    pub(super) fn configure(&self, store: &mut Store<Host>, number: u32, config: &str) -> Outcome<Result<(), String>> {
        let at = lowering(store, |linear, store| linear.lower(store, config.as_bytes()))?;
        self.configure.call(store, (number, at, config.len() as u32), said)
    }

    /// Calls `update`; its words where it refuses.
    pub(super) fn update(
        &self,
        store: &mut Store<Host>,
        number: u32,
        endpoints: &Endpoints,
    ) -> Outcome<Result<(), String>> {
        let update = self.update.as_ref().ok_or(Failure::Missing)?;
        let list = lowering(store, |linear, store| lower_endpoints(linear, store, endpoints))?;
        update.call(store, (number, list, endpoints.len() as u32), said)
    }

    /// Calls `pick`.
    pub(super) fn pick(
        &self,
        store: &mut Store<Host>,
        number: u32,
        (sequence, random, attempt): (u64, u64, u32),
    ) -> Outcome<u32> {
        let pick = self.pick.as_ref().ok_or(Failure::Missing)?;
        pick.call(store, (number, sequence, random, attempt), |_, index| Ok(Ok(index)))
    }

    /// Calls what belongs to a step.
    pub(super) fn step(&self, store: &mut Store<Host>, number: u32, step: Step<'_>) -> Outcome<Verdict> {
        match step {
            Step::Request { .. } => head_step(self.on_request.as_ref(), store, number),
            Step::Response { .. } => head_step(self.on_response.as_ref(), store, number),
            Step::RequestBody(piece) => body_step(self.on_request_body.as_ref(), store, number, piece),
            Step::ResponseBody(piece) => body_step(self.on_response_body.as_ref(), store, number, piece),
        }
    }
}

fn head_step(function: Option<&Function<(u32,)>>, store: &mut Store<Host>, number: u32) -> Outcome<Verdict> {
    let Some(function) = function else { return Ok(Verdict::Next) };
    function.call(store, (number,), |memory, at| {
        let verdict = abi::record::<24>(memory, at, 4)?;
        match verdict[0] {
            0 => Ok(Ok(Verdict::Next)),
            1 => reply(memory, &verdict[4..]),
            other => Err(no_case(other)),
        }
    })
}

fn body_step(
    function: Option<&Function<(u32, u32, u32, u32)>>,
    store: &mut Store<Host>,
    number: u32,
    Piece { bytes, last, .. }: Piece<'_>,
) -> Outcome<Verdict> {
    let Some(function) = function else { return Ok(Verdict::Next) };
    let at = lowering(store, |linear, store| linear.lower(store, bytes))?;
    function.call(store, (number, at, bytes.len() as u32, last.into()), |memory, at| {
        let verdict = abi::record::<24>(memory, at, 4)?;
        match verdict[0] {
            0 => Ok(Ok(Verdict::Next)),
            1 => {
                let (at, length) = abi::list(verdict, 4);
                let by = abi::bytes(memory, at, length)?;
                Ok(replacement(by, bytes.len()).map(|by| Verdict::Replace(by.to_vec())))
            }
            2 => reply(memory, &verdict[4..]),
            other => Err(no_case(other)),
        }
    })
}

fn no_case(number: u8) -> wasmtime::Error {
    wasmtime::Error::msg(format!("there is no case {number} of a variant"))
}

/// A `result<_, string>`.
fn said(memory: &[u8], at: u32) -> Read<Result<(), String>> {
    let result = abi::record::<12>(memory, at, 4)?;
    match result[0] {
        0 => Ok(Ok(Ok(()))),
        1 => {
            let (at, length) = abi::list(result, 4);
            Ok(Ok(Err(abi::text(memory, at, length)?.to_owned())))
        }
        other => Err(no_case(other)),
    }
}

/// A `reply`, which is looked at before it is copied: it may be as long as the guest's memory.
fn reply(memory: &[u8], reply: &[u8]) -> Read<Verdict> {
    let (headers, body) = (abi::list(reply, 4), abi::list(reply, 12));
    let headers = abi::records::<16>(memory, headers, 4)?;
    let body = abi::bytes(memory, body.0, body.1)?;
    let mut headers = headers.iter().map(|pair| {
        let [name, value] = [0, 8].map(|offset| abi::list(pair, offset));
        Ok((abi::text(memory, name.0, name.1)?, abi::text(memory, value.0, value.1)?))
    });
    let status = u16::from_le_bytes([reply[0], reply[1]]);
    let mut broken = None;
    let fine = headers.by_ref().map_while(|it: wasmtime::Result<_>| it.map_err(|error| broken = Some(error)).ok());
    let verdict = answer(status, fine, body);
    match broken {
        Some(error) => Err(error),
        None => Ok(verdict),
    }
}

/// A `list<endpoint>`.
fn lower_endpoints(linear: &Linear, store: &mut Store<Host>, endpoints: &Endpoints) -> wasmtime::Result<u32> {
    const SIZE: usize = 28;
    let list = linear.room(store, 4, SIZE * endpoints.len())?;
    let mut address = String::new();
    for (place, endpoint) in endpoints.iter().enumerate() {
        let spec = &endpoint.spec;
        address.clear();
        std::fmt::Write::write_fmt(&mut address, format_args!("{}", spec.address)).unwrap_or(());
        let at = linear.lower(store, address.as_bytes())?;
        let zone = linear.lower(store, spec.zone.as_bytes())?;
        let labels = spec.labels.iter().map(|(name, value)| (&**name, &**value));
        let labels = abi::lower_pairs(linear, store, labels)?;
        let words = [
            at,
            address.len() as u32,
            spec.weight.into(),
            zone,
            spec.zone.len() as u32,
            labels,
            spec.labels.len() as u32,
        ];
        let mut record = [0; SIZE];
        record.as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le_bytes());
        abi::put(linear.memory.data_mut(&mut *store), list + (SIZE * place) as u32, 4, &record)?;
    }
    Ok(list)
}

//! A running copy of a plugin as it is called: directly or as a component, which makes no difference to anybody but the clock.

use wasmtime::component::{Component, InstancePre};
use wasmtime::{Module, Store};

use super::bindings::exports::moongate::plugin as exports;
use super::bindings::moongate::plugin::types::Endpoint as WitEndpoint;
use super::component::Parts;
use super::host::{Host, Piece, Step};
use super::verdict::{Verdict, check, check_body};
use super::{Engine, Failure, Kinds, direct, failure};
use crate::endpoint::Endpoints;

/// What a call brought.
pub(super) type Outcome<T> = Result<T, Failure>;

/// How the functions of a plugin are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calling {
    /// Those of its core module, by themselves.
    Directly,
    /// Through the component that it is; why not directly.
    AsComponent(String),
}

impl Calling {
    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Calling::Directly => "directly",
            Calling::AsComponent(_) => "as a component",
        }
    }

    /// Why not directly.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Calling::Directly => None,
            Calling::AsComponent(why) => Some(why),
        }
    }
}

/// What instances are made of.
pub(super) enum Code {
    Direct(direct::Code),
    Component(InstancePre<Host>, Indices),
}

/// A running copy.
// Nearly all are called directly; a box would be one more place to go to in every call.
#[allow(clippy::large_enum_variant)]
pub(super) enum Guest {
    Direct(direct::Guest),
    Component(Lifted),
}

impl Code {
    /// Compiles and links a plugin, to be called directly if that can be. `as_component`: not even then.
    ///
    /// # Errors
    /// If it is not valid, or wants what there is not.
    pub(super) fn of(
        engine: &Engine,
        parts: &Parts<'_>,
        kinds: Kinds,
        as_component: bool,
    ) -> anyhow::Result<(Code, Calling)> {
        let why_not = match &parts.shape {
            _ if as_component => "it was asked for".to_owned(),
            Err(why) => why.clone(),
            Ok(shape) => {
                let module: Module = engine.compile(shape.module)?;
                match direct::Code::link(engine, &module, shape.names.clone()) {
                    Ok(code) => return Ok((Code::Direct(code), Calling::Directly)),
                    // As a component it has the same trouble, and better words for it; or there is more to it than we know.
                    Err(error) => format!("{error:#}"),
                }
            }
        };
        let component: Component = engine.compile(parts.component)?;
        let pre = engine.linker.instantiate_pre(&component);
        let pre = pre.map_err(|error| anyhow::Error::from(error).context("linking the component"))?;
        let indices = Indices::of(&pre, kinds).map_err(anyhow::Error::from)?;
        Ok((Code::Component(pre, indices), Calling::AsComponent(why_not)))
    }

    /// Starts an instance.
    ///
    /// # Errors
    /// If it cannot be, or does not come to an end.
    pub(super) fn start(&self, store: &mut Store<Host>) -> Outcome<Guest> {
        match self {
            Code::Direct(code) => code.start(store).map(Guest::Direct),
            Code::Component(pre, indices) => Lifted::start(pre, indices, store).map(Guest::Component),
        }
    }
}

impl Guest {
    /// Calls `configure`; its words where it refuses.
    pub(super) fn configure(&self, store: &mut Store<Host>, number: u32, config: &str) -> Outcome<Result<(), String>> {
        match self {
            Guest::Direct(guest) => guest.configure(store, number, config),
            Guest::Component(guest) => guest.configurable.call_configure(store, number, config).map_err(failure),
        }
    }

    /// Calls `update`; its words where it refuses.
    pub(super) fn update(&self, store: &mut Store<Host>, number: u32, list: &Endpoints) -> Outcome<Result<(), String>> {
        match self {
            Guest::Direct(guest) => guest.update(store, number, list),
            Guest::Component(guest) => {
                let balancer = guest.balancer.as_ref().ok_or(Failure::Missing)?;
                let list: Vec<WitEndpoint> = list.iter().map(|endpoint| wit_endpoint(&endpoint.spec)).collect();
                balancer.call_update(store, number, &list).map_err(failure)
            }
        }
    }

    /// Calls `pick`.
    #[inline]
    pub(super) fn pick(&self, store: &mut Store<Host>, number: u32, turn: (u64, u64, u32)) -> Outcome<u32> {
        match self {
            Guest::Direct(guest) => guest.pick(store, number, turn),
            Guest::Component(guest) => {
                let balancer = guest.balancer.as_ref().ok_or(Failure::Missing)?;
                let (sequence, random, attempt) = turn;
                balancer.call_pick(store, number, sequence, random, attempt).map_err(failure)
            }
        }
    }

    /// Calls what belongs to a step; one that has nothing for it wants nothing.
    #[inline]
    pub(super) fn step(&self, store: &mut Store<Host>, number: u32, step: Step<'_>) -> Outcome<Verdict> {
        match self {
            Guest::Direct(guest) => guest.step(store, number, step),
            Guest::Component(guest) => guest.step(store, number, step),
        }
    }
}

/// Where the exports of a component are.
pub(super) struct Indices {
    configurable: exports::configurable::GuestIndices,
    balancer: Option<exports::balancer::GuestIndices>,
    request_filter: Option<exports::request_filter::GuestIndices>,
    response_filter: Option<exports::response_filter::GuestIndices>,
    request_body_filter: Option<exports::request_body_filter::GuestIndices>,
    response_body_filter: Option<exports::response_body_filter::GuestIndices>,
}

impl Indices {
    fn of(pre: &InstancePre<Host>, kinds: Kinds) -> wasmtime::Result<Indices> {
        /// Those of one interface, where it is exported.
        macro_rules! of {
            ($name:ident) => {
                kinds.$name.then(|| exports::$name::GuestIndices::new(pre)).transpose()?
            };
        }
        Ok(Indices {
            configurable: exports::configurable::GuestIndices::new(pre)?,
            balancer: of!(balancer),
            request_filter: of!(request_filter),
            response_filter: of!(response_filter),
            request_body_filter: of!(request_body_filter),
            response_body_filter: of!(response_body_filter),
        })
    }
}

/// A running component.
pub(super) struct Lifted {
    configurable: exports::configurable::Guest,
    balancer: Option<exports::balancer::Guest>,
    request_filter: Option<exports::request_filter::Guest>,
    response_filter: Option<exports::response_filter::Guest>,
    request_body_filter: Option<exports::request_body_filter::Guest>,
    response_body_filter: Option<exports::response_body_filter::Guest>,
}

impl Lifted {
    fn start(pre: &InstancePre<Host>, indices: &Indices, store: &mut Store<Host>) -> Outcome<Lifted> {
        let instance = pre.instantiate(&mut *store).map_err(failure)?;
        let load = |error: wasmtime::Error| Failure::Nonsense(format!("{error:#}"));
        /// One interface, where it is exported.
        macro_rules! guest {
            ($name:ident) => {
                indices.$name.as_ref().map(|it| it.load(&mut *store, &instance)).transpose().map_err(load)?
            };
        }
        Ok(Lifted {
            configurable: indices.configurable.load(&mut *store, &instance).map_err(load)?,
            balancer: guest!(balancer),
            request_filter: guest!(request_filter),
            response_filter: guest!(response_filter),
            request_body_filter: guest!(request_body_filter),
            response_body_filter: guest!(response_body_filter),
        })
    }

    fn step(&self, store: &mut Store<Host>, number: u32, step: Step<'_>) -> Outcome<Verdict> {
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

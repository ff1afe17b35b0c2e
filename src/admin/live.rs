//! How the gateway does, for the dashboard, which asks every second: short names, and only what has changed since the last
//! time. The dashboard and this belong together, so it is no part of the API and may change with any version.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::{FxHashMap, FxHasher};
use serde_json::{Value, json};

use super::{State, api, prometheus};
use crate::endpoint::Endpoint;
use crate::proxy::metrics::Worker;
use crate::snapshot::{Service, Snapshot};

/// What one watcher has been told, by hash.
#[derive(Default)]
pub(super) struct Known {
    services: FxHashMap<Arc<str>, u64>,
    plugins: u64,
    routes: u64,
}

impl Known {
    /// What is news.
    pub(super) fn update(&mut self, state: &State) -> String {
        let snapshot = state.current.load_full();
        let mut told = json!({ "t": milliseconds(SystemTime::now()), "g": gateway(state, &snapshot) });
        let (mut changed, mut seen) = (Vec::new(), FxHashMap::default());
        for service in snapshot.services.values() {
            let text = service_of(service);
            let hash = hash(&text);
            if self.services.remove(&service.name) != Some(hash) {
                changed.push(text);
            }
            seen.insert(service.name.clone(), hash);
        }
        let gone = std::mem::replace(&mut self.services, seen);
        told["gone"] = gone.keys().map(|name| &**name).collect();
        let mut parts = vec![("s", format!("[{}]", changed.join(",")))];
        let plugins = api::plugins(&snapshot, &state.announced.borrow());
        let routes = routes(&snapshot);
        for (known, key, text) in [(&mut self.plugins, "p", plugins), (&mut self.routes, "routes", routes)] {
            let hash = hash(&text);
            if std::mem::replace(known, hash) != hash {
                parts.push((key, text));
            }
        }
        // Put together as text: what has not changed is not parsed only to be written again.
        let mut out = told.to_string();
        out.pop();
        for (key, text) in parts {
            out.push_str(&format!(",\"{key}\":{text}"));
        }
        out.push('}');
        out
    }
}

fn hash(text: &str) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(text)
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as u64)
}

fn gateway(state: &State, snapshot: &Snapshot) -> Value {
    let sum = |of: &dyn Fn(&Worker) -> &AtomicU64| -> u64 { state.workers.iter().map(|it| of(it).load(Relaxed)).sum() };
    let classes: Vec<u64> = (0..6).map(|class| sum(&|it| &it.all.classes[class])).collect();
    let buckets: Vec<u64> =
        (0..=crate::proxy::metrics::BOUNDS.len()).map(|at| sum(&|it| &it.all.buckets[at])).collect();
    let process = prometheus::Process::read();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "snapshot": snapshot.version,
        "started": milliseconds(state.started),
        "ready": snapshot.ready(),
        "stopping": state.stop.borrow().is_some(),
        "workers": state.workers.len(),
        "listeners": state.listeners.iter().map(|it| it.bound.to_string()).collect::<Vec<_>>(),
        "registries": snapshot.registries.iter().map(|(name, state)| json!([name, state])).collect::<Vec<_>>(),
        "classes": classes,
        "buckets": buckets,
        "bounds_us": crate::proxy::metrics::BOUNDS,
        "us": sum(&|it| &it.all.microseconds),
        "retries": sum(&|it| &it.retries),
        "fallbacks": sum(&|it| &it.fallbacks),
        "connections": sum(&|it| &it.accepted).saturating_sub(sum(&|it| &it.closed)),
        "memory": process.resident,
        "cpu": process.cpu,
    })
}

/// One service: `[address, health, candidate, weight, zone, in flight, latency in us, picks, failed, connections, reason]`
/// for each endpoint.
fn service_of(service: &Service) -> String {
    let endpoints: Vec<Value> = service.all.iter().map(|it| endpoint(service, it)).collect();
    let route = service.implicit.as_ref().map(|it| &*it.name);
    let source = service.registry;
    json!({ "n": *service.name, "src": source, "r": route, "panic": service.panic, "e": endpoints }).to_string()
}

fn endpoint(service: &Service, endpoint: &Endpoint) -> Value {
    let (spec, live) = (&endpoint.spec, &endpoint.live);
    let (health, reason) = api::health(service, endpoint);
    let (load, (picks, failed)) = (live.load(), live.totals());
    json!([
        spec.address.to_string(),
        health,
        service.endpoints.has(endpoint),
        spec.weight,
        *spec.zone,
        load.requests,
        live.latency().as_micros() as u64,
        picks,
        failed,
        load.connections,
        reason,
    ])
}

/// The explicit routes, and what all automatic ones are.
fn routes(snapshot: &Snapshot) -> String {
    let explicit: Vec<Value> = snapshot.routes.list().iter().map(|it| api::route(it, "explicit")).collect();
    let mut implicit = snapshot.services.values().filter_map(|it| it.implicit.as_ref());
    let sample = implicit.next().map(|it| api::route(it, "auto"));
    let count = implicit.count() + usize::from(sample.is_some());
    json!({ "explicit": explicit, "auto": { "prefix": snapshot.routes.auto_prefix(), "count": count, "sample": sample } })
        .to_string()
}

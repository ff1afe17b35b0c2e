//! The admin API's JSON. Fields are only ever added.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config::plugins::Share;
use crate::endpoint::Endpoint;
use crate::plugin::library::Status;
use crate::routes::{Route, Use};
use crate::snapshot::{Service, Snapshot};

/// All services with their endpoints, by name.
pub(super) fn services(snapshot: &Snapshot) -> String {
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let registries: Vec<Value> =
        snapshot.registries.iter().map(|(name, state)| json!({ "name": name, "state": state })).collect();
    let services: Vec<Value> = services.into_iter().map(|it| service(it)).collect();
    json!({ "version": snapshot.version, "registries": registries, "services": services }).to_string()
}

fn service(service: &Service) -> Value {
    let endpoints: Vec<Value> = service.all.iter().map(|it| endpoint(service, it)).collect();
    json!({
        "name": *service.name,
        "source": service.registry,
        "route": service.implicit.as_ref().map(|route| &*route.name),
        "panic": service.panic,
        "retries_refused": service.budget.exhausted(),
        "endpoints": endpoints,
    })
}

fn endpoint(service: &Service, endpoint: &Endpoint) -> Value {
    let (spec, live) = (&endpoint.spec, &endpoint.live);
    let (picks, failed) = live.totals();
    let (checks_passed, checks_failed) = live.checks();
    let load = live.load();
    let labels: serde_json::Map<String, Value> =
        spec.labels.iter().map(|(name, value)| (name.to_string(), value.as_ref().into())).collect();
    let standing = service.standings.get(&live.id);
    let unhealthy = standing.and_then(|it| it.unhealthy.as_ref());
    let ejected = standing.and_then(|it| it.ejected.as_ref());
    // The checks have the last word: they will not pass because a rest is over.
    let (health, reason, since) = match (unhealthy, ejected) {
        (Some(it), _) => ("unhealthy", Some(&it.reason), Some(it.since)),
        (None, Some(it)) => ("ejected", Some(&it.reason), Some(it.since)),
        (None, None) => ("healthy", None, None),
    };
    json!({
        "address": spec.address.to_string(),
        "scheme": spec.scheme,
        "weight": spec.weight,
        "zone": *spec.zone,
        "labels": labels,
        "source": service.registry,
        "health": health,
        "reason": reason.map(|it| &**it),
        "since": since.map(time),
        "until": ejected.filter(|_| health == "ejected").map(|it| time(it.until)),
        "candidate": service.endpoints.has(endpoint),
        "inflight": load.requests,
        "connections": load.connections,
        "pending": load.pending,
        "latency_us": live.latency().as_micros() as u64,
        "failures_per_thousand": live.failures(),
        "picks": picks,
        "failed": failed,
        "refused": live.refused(),
        "ejections": live.ejections(),
        "checks_passed": checks_passed,
        "checks_failed": checks_failed,
    })
}

/// All routes: the explicit ones in the order of the file, then those of the services, by name.
pub(super) fn routes(snapshot: &Snapshot) -> String {
    let mut implicit: Vec<&Route> =
        snapshot.services.values().filter_map(|service| service.implicit.as_deref()).collect();
    implicit.sort_by(|a, b| a.name.cmp(&b.name));
    let explicit = snapshot.routes.list().iter().map(|it| route(it, "explicit"));
    let routes: Vec<Value> = explicit.chain(implicit.into_iter().map(|it| route(it, "auto"))).collect();
    json!({ "version": snapshot.version, "routes": routes }).to_string()
}

fn route(route: &Route, kind: &str) -> Value {
    let matcher = &route.matcher;
    let headers: serde_json::Map<String, Value> =
        matcher.headers.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
    json!({
        "name": *route.name,
        "kind": kind,
        "path_prefix": if kind == "auto" { &*route.name } else { matcher.prefix.as_str() },
        "host": matcher.host,
        "methods": matcher.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(),
        "headers": headers,
        "service": *route.service,
        "strip_prefix": route.strip_prefix,
        "balancer": route.balancers.first().map(used),
        "fallback": route.balancers.iter().skip(1).map(used).collect::<Vec<_>>(),
        "filters": route.filters.iter().map(used).collect::<Vec<_>>(),
        "timeout": {
            "connect": humantime::format_duration(route.timeout.connect.0).to_string(),
            "header": humantime::format_duration(route.timeout.header.0).to_string(),
            "idle": humantime::format_duration(route.timeout.idle.0).to_string(),
        },
        "retries": route.retries,
    })
}

fn used<F: std::fmt::Debug>(it: &Use<F>) -> Value {
    // It was JSON when it was configured. What came from files is as secret as those.
    let mut config: Value = serde_json::from_str(&it.binding.config).unwrap_or_default();
    for key in &it.from_files {
        config[&**key] = "(from a file)".into();
    }
    let mut value = json!({
        "plugin": *it.binding.plugin,
        "config": config,
        "on_failure": format!("{:?}", it.on_failure).to_lowercase(),
    });
    if let Some(canary) = &it.canary {
        let (verdict, figures) = (canary.verdict(), canary.figures());
        value["canary"] = json!({
            "plugin": *canary.binding.plugin,
            "share": f64::from(canary.share) / f64::from(Share::WHOLE),
            "state": if verdict.is_some() { "rolled-back" } else { "active" },
            "reason": verdict.as_ref().map(|it| &it.reason),
            "since": verdict.as_ref().map(|it| time(it.at)),
            "calls": figures.calls,
            "failures": figures.failures,
            "requests": figures.requests,
            "errors": figures.errors,
        });
    }
    if let Some(shadow) = &it.shadow {
        let [same, different, failures] =
            [&shadow.same, &shadow.different, &shadow.failures].map(|it| it.load(Relaxed));
        value["shadow"] =
            json!({ "plugin": *shadow.binding.plugin, "same": same, "different": different, "failures": failures });
    }
    value
}

/// What became of each plugin, by name.
pub(super) fn plugins(snapshot: &Snapshot) -> String {
    let plugins: Vec<Value> = snapshot.plugins.status.iter().map(plugin).collect();
    json!({ "version": snapshot.version, "plugins": plugins }).to_string()
}

fn plugin(status: &Status) -> Value {
    let (refused, quarantined) = (status.refused.as_ref(), status.quarantined.as_ref());
    let state = match (&status.active, quarantined) {
        (_, Some(_)) => "quarantined",
        (Some(_), None) => "active",
        (None, None) if status.available => "available",
        (None, None) => "failed",
    };
    // What was taken out of service is graver than what never served.
    let error = quarantined.map(|it| (&it.reason, it.at)).or(refused.map(|it| (&it.reason, it.at)));
    let mut value = json!({
        "name": *status.name,
        "state": state,
        "error": error.map(|it| it.0),
        "error_at": error.map(|it| time(it.1)),
        "quarantined": quarantined.map(|it| json!({ "sha256": it.sha256, "reason": it.reason, "at": time(it.at) })),
        "bundled": status.available,
    });
    if let (Some(plugin), Some(value)) = (&status.active, value.as_object_mut()) {
        let described = &plugin.described;
        let more = json!({
            "kind": described.kinds.to_string(),
            "version": described.version,
            "wit": described.wit,
            "sha256": described.sha256,
            "size": described.size,
            "capabilities": described.capabilities.iter().map(|it| it.name()).collect::<Vec<_>>(),
            "bundled": plugin.bundled,
            "loaded_at": time(plugin.loaded),
            "compile_ms": plugin.compile_time.as_secs_f64() * 1e3,
            "picks": plugin.total(|it| &it.calls),
            "traps": plugin.total(|it| &it.traps),
            "timeouts": plugin.total(|it| &it.timeouts),
            "nonsense": plugin.total(|it| &it.nonsense),
            "instances": plugin.total(|it| &it.instances),
            "mean_call_ns": plugin.mean_nanoseconds(),
        });
        value.extend(more.as_object().cloned().unwrap_or_default());
    }
    value
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

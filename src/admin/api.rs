//! The admin API's JSON. Fields are only ever added.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config::plugins::Share;
use crate::config::secret;
use crate::endpoint::Endpoint;
use crate::fleet::plugins::Status as Announcement;
use crate::fleet::routes::Refused;
use crate::plugin::library::Status;
use crate::registry::{self, Retained};
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
        "layout": layout(&service.spec),
        "out": service.spec.out,
        "route": service.implicit.as_ref().map(|route| &*route.name),
        "panic": service.panic,
        "tier": if service.makeshift { 2 } else { 1 },
        "retained": retained(service),
        "retries_refused": service.budget.exhausted(),
        "endpoints": endpoints,
    })
}

/// What vanished from the registry but may still live: the service's second tier.
fn retained(service: &Service) -> Vec<Value> {
    let given_up = |it: &Retained| service.given_up.contains(&(it.endpoint.address, it.since));
    let all = service.spec.retained.iter().map(|it| {
        json!({
            "address": it.endpoint.address.to_string(),
            "reason": it.vanished.as_str(),
            "since": time(it.since),
            "until": time(it.until),
            "state": if given_up(it) { "dead" } else if service.makeshift { "used" } else { "spare" },
        })
    });
    all.collect()
}

/// How its endpoints are written, if that can differ and there are any.
fn layout(service: &registry::Service) -> Option<String> {
    let names: Vec<&str> = service.layouts.iter().map(|it| it.as_str()).collect();
    (!names.is_empty()).then(|| names.join("+"))
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
    let (health, reason) = health(service, endpoint);
    let since = unhealthy.map(|it| it.since).or(ejected.map(|it| it.since));
    json!({
        "address": spec.address.to_string(),
        "scheme": spec.scheme,
        "weight": spec.weight,
        "zone": *spec.zone,
        "labels": labels,
        "source": service.registry,
        "tier": if endpoint.retained { 2 } else { 1 },
        "health": health,
        "reason": reason,
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

/// Whether an endpoint is well, and if not, why.
pub(super) fn health<'a>(service: &'a Service, endpoint: &Endpoint) -> (&'static str, Option<&'a str>) {
    let standing = service.standings.get(&endpoint.live.id);
    let unhealthy = standing.and_then(|it| it.unhealthy.as_ref());
    let ejected = standing.and_then(|it| it.ejected.as_ref());
    // The checks have the last word: they will not pass because a rest is over.
    match (unhealthy, ejected) {
        (Some(it), _) => ("unhealthy", Some(&it.reason)),
        (None, Some(it)) => ("ejected", Some(&it.reason)),
        (None, None) => ("healthy", None),
    }
}

/// All routes: the explicit ones in the order of the file, then those of the services, by name.
pub(super) fn routes(snapshot: &Snapshot) -> String {
    let mut implicit: Vec<&Route> =
        snapshot.services.values().filter_map(|service| service.implicit.as_deref()).collect();
    implicit.sort_by(|a, b| a.name.cmp(&b.name));
    let explicit = snapshot.routes.list().iter().enumerate().map(|(place, it)| {
        let mut value = route(it, "explicit");
        let remote = snapshot.remote.iter().find(|it| it.place == Some(place));
        value["znode"] = remote.map(|it| it.znode.as_str()).into();
        value["hidden_by"] = remote.and_then(|it| it.hidden_by.as_deref()).into();
        value
    });
    let routes: Vec<Value> = explicit.chain(implicit.into_iter().map(|it| route(it, "auto"))).collect();
    let refused = snapshot.remote.iter().filter_map(|it| {
        let Refused { reason, at } = it.refused.as_ref()?;
        Some(json!({ "znode": it.znode, "error": reason, "at": time(*at), "serving": it.place.is_some() }))
    });
    let refused: Vec<Value> = refused.collect();
    json!({ "version": snapshot.version, "routes": routes, "refused": refused }).to_string()
}

pub(super) fn route(route: &Route, kind: &str) -> Value {
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
    let mut config = secret::shown(&it.binding.config);
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

/// What became of each plugin, by name, and which versions ZooKeeper wants.
pub(super) fn plugins(snapshot: &Snapshot, announced: &[Announcement]) -> String {
    let mut plugins: Vec<Value> = snapshot.plugins.status.iter().map(plugin).collect();
    for it in announced {
        let wanted = json!({
            "znode": *it.znode,
            "sha256": it.announced.as_ref().map(|it| &it.sha256.0),
            "url": it.announced.as_ref().and_then(|it| Some(it.url.as_ref()?.0.to_string())),
            "settled": it.settled,
            "error": it.refused.as_ref().map(|it| &it.reason),
            "error_at": it.refused.as_ref().map(|it| time(it.at)),
        });
        match plugins.iter_mut().find(|known| known["name"] == *it.name) {
            Some(known) => known["announced"] = wanted,
            // Nothing of it has come yet.
            None => plugins
                .push(json!({ "name": *it.name, "state": "failed", "error": wanted["error"], "announced": wanted })),
        }
    }
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
        // The file that lies there now; `error` may be about another, which is worse.
        "refused": refused.map(|it| json!({ "reason": it.reason, "at": time(it.at) })),
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
            "called": plugin.calling.word(),
            "not_directly": plugin.calling.why_not(),
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

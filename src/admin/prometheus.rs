//! The counters as Prometheus text (exposition format 0.0.4).

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::State;
use crate::endpoint::Endpoint;
use crate::error::KINDS;
use crate::plugin::canary::Canary;
use crate::proxy::metrics::{BOUNDS, Worker};
use crate::registry;
use crate::routes::Route;
use crate::server::listener::Listener;
use crate::snapshot::{Service, Snapshot};

/// What this text is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub(super) fn text(state: &State, snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(16 << 10);
    // Writing to a string does not fail.
    let _ = requests(&mut out, state)
        .and_then(|()| listeners(&mut out, state))
        .and_then(|()| endpoints(&mut out, snapshot))
        .and_then(|()| plugins(&mut out, snapshot))
        .and_then(|()| tried(&mut out, snapshot))
        .and_then(|()| registries(&mut out, state, snapshot));
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// A label's value, escaped.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                char => out.write_char(char)?,
            }
        }
        Ok(())
    }
}

fn requests(out: &mut String, state: &State) -> fmt::Result {
    let workers = &state.workers;
    let sum = |of: &dyn Fn(&Worker) -> &AtomicU64| -> u64 { workers.iter().map(|it| of(it).load(Relaxed)).sum() };

    head(out, "moongate_requests_total", "counter", "Requests answered, by class of the status.")?;
    for class in 1..6 {
        writeln!(out, "moongate_requests_total{{code=\"{class}xx\"}} {}", sum(&|it| &it.responses[class]))?;
    }
    let name = "moongate_request_duration_seconds";
    head(out, name, "histogram", "Time from a request to the head of its response.")?;
    let mut below = 0;
    for (at, bound) in BOUNDS.iter().enumerate() {
        below += sum(&|it| &it.buckets[at]);
        writeln!(out, "{name}_bucket{{le=\"{}\"}} {below}", *bound as f64 / 1e6)?;
    }
    below += sum(&|it| &it.buckets[BOUNDS.len()]);
    writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {below}")?;
    writeln!(out, "{name}_sum {}\n{name}_count {below}", sum(&|it| &it.microseconds) as f64 / 1e6)?;

    head(out, "moongate_request_errors_total", "counter", "Requests without a response of an endpoint, by reason.")?;
    for (at, kind) in KINDS.iter().enumerate() {
        writeln!(out, "moongate_request_errors_total{{reason=\"{kind}\"}} {}", sum(&|it| &it.errors[at]))?;
    }
    let mut single = |name: &str, kind: &str, help: &str, value: u64| {
        head(out, name, kind, help)?;
        writeln!(out, "{name} {value}")
    };
    single("moongate_retries_total", "counter", "Requests sent to another endpoint.", sum(&|it| &it.retries))?;
    let fallbacks = sum(&|it| &it.fallbacks);
    single("moongate_balancer_fallbacks_total", "counter", "Picks made in place of a failed balancer.", fallbacks)?;
    let connects = sum(&|it| &it.connects);
    single("moongate_upstream_connects_total", "counter", "Connections opened to endpoints.", connects)?;
    let (accepted, closed) = (sum(&|it| &it.accepted), sum(&|it| &it.closed));
    single("moongate_connections_accepted_total", "counter", "Client connections accepted.", accepted)?;
    let abused = "HTTP/2 connections ended for floods of resets or of frames that carry nothing.";
    single("moongate_connections_abusive_total", "counter", abused, sum(&|it| &it.abused))?;
    let dropped = state.log.as_ref().map_or(0, |log| log.dropped());
    single("moongate_access_log_dropped_total", "counter", "Lines that the disk was too slow for.", dropped)?;
    single("moongate_connections_open", "gauge", "Client connections open.", accepted.saturating_sub(closed))
}

fn listeners(out: &mut String, state: &State) -> fmt::Result {
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Listener) -> u64| {
        head(out, name, kind, help)?;
        for listener in &state.listeners {
            writeln!(out, "{name}{{listener=\"{}\"}} {}", listener.bound, value(listener))?;
        }
        Ok(())
    };
    let open = "Connections open, or in their handshake.";
    each("moongate_listener_connections", "gauge", open, &|it| it.open().into())?;
    let refused = "Connections closed at once because there were too many.";
    each("moongate_listener_refused_total", "counter", refused, &|it| it.refused.load(Relaxed))?;
    let failed = "TLS handshakes that came to nothing.";
    each("moongate_listener_failed_handshakes_total", "counter", failed, &|it| it.failed_handshakes.load(Relaxed))
}

fn endpoints(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Service, &Endpoint) -> f64| {
        head(out, name, kind, help)?;
        for service in &services {
            for endpoint in service.all.iter() {
                let (name_label, address) = (Label(&service.name), endpoint.spec.address);
                let value = value(service, endpoint);
                writeln!(out, "{name}{{service=\"{name_label}\",endpoint=\"{address}\"}} {value}")?;
            }
        }
        Ok(())
    };
    let picks = "Requests sent to an endpoint.";
    each("moongate_endpoint_picks_total", "counter", picks, &|_, it| it.live.totals().0 as f64)?;
    let failed = "Requests that an endpoint did not answer.";
    each("moongate_endpoint_failures_total", "counter", failed, &|_, it| it.live.totals().1 as f64)?;
    let inflight = "Requests whose response has not ended.";
    each("moongate_endpoint_inflight", "gauge", inflight, &|_, it| it.live.inflight().into())?;
    let connections = "Connections, idle ones too.";
    each("moongate_endpoint_connections", "gauge", connections, &|_, it| it.live.load().connections.into())?;
    let latency = "Decaying mean time to the head of a response.";
    each("moongate_endpoint_latency_seconds", "gauge", latency, &|_, it| it.live.latency().as_secs_f64())?;
    let candidate = "1 if requests go to the endpoint.";
    each("moongate_endpoint_candidate", "gauge", candidate, &|service, it| f64::from(service.endpoints.has(it)))?;
    let ejections = "Times the endpoint was left out because of failures.";
    each("moongate_endpoint_ejections_total", "counter", ejections, &|_, it| it.live.ejections() as f64)?;
    let refused = "Requests that an endpoint did not get because of a limit.";
    each("moongate_endpoint_refused_total", "counter", refused, &|_, it| it.live.refused() as f64)?;
    let passed = "Active checks that passed.";
    each("moongate_endpoint_checks_passed_total", "counter", passed, &|_, it| it.live.checks().0 as f64)?;
    let failed = "Active checks that failed.";
    each("moongate_endpoint_checks_failed_total", "counter", failed, &|_, it| it.live.checks().1 as f64)?;

    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Service) -> u64| {
        head(out, name, kind, help)?;
        for service in &services {
            writeln!(out, "{name}{{service=\"{}\"}} {}", Label(&service.name), value(service))?;
        }
        Ok(())
    };
    each("moongate_service_endpoints", "gauge", "Endpoints of a service.", &|it| it.all.len() as u64)?;
    let candidates = "Endpoints of a service that requests go to.";
    each("moongate_service_candidates", "gauge", candidates, &|it| it.endpoints.len() as u64)?;
    let panic = "1 if too few endpoints are well, so that all are used.";
    each("moongate_service_panic", "gauge", panic, &|it| it.panic.into())?;
    let refused = "Retries that the budget did not allow.";
    each("moongate_service_retries_refused_total", "counter", refused, &|it| it.budget.exhausted())
}

fn plugins(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let active: Vec<_> = snapshot.plugins.status.iter().filter_map(|it| it.active.as_ref()).collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&crate::plugin::Plugin) -> f64| {
        head(out, name, "counter", help)?;
        for plugin in &active {
            writeln!(out, "{name}{{plugin=\"{}\"}} {}", Label(&plugin.name), value(plugin))?;
        }
        Ok(())
    };
    each("moongate_plugin_calls_total", "Calls of the version that serves.", &|it| it.total(|it| &it.calls) as f64)?;
    each("moongate_plugin_traps_total", "Calls that trapped.", &|it| it.total(|it| &it.traps) as f64)?;
    each("moongate_plugin_timeouts_total", "Calls that were stopped.", &|it| it.total(|it| &it.timeouts) as f64)?;
    let instances = "Instances made.";
    each("moongate_plugin_instances_total", instances, &|it| it.total(|it| &it.instances) as f64)?;

    head(out, "moongate_plugin_refused", "gauge", "1 if the file in the plugin directory cannot serve.")?;
    for status in &snapshot.plugins.status {
        let refused = u8::from(status.refused.is_some());
        writeln!(out, "moongate_plugin_refused{{plugin=\"{}\"}} {refused}", Label(&status.name))?;
    }
    let quarantined = "1 if the file's version was taken out of service because it kept failing.";
    head(out, "moongate_plugin_quarantined", "gauge", quarantined)?;
    for status in &snapshot.plugins.status {
        let quarantined = u8::from(status.quarantined.is_some());
        writeln!(out, "moongate_plugin_quarantined{{plugin=\"{}\"}} {quarantined}", Label(&status.name))?;
    }
    Ok(())
}

/// Versions that are tried on requests, by route and plugin.
fn tried(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let implicit = snapshot.services.values().filter_map(|service| service.implicit.as_ref());
    let routes: Vec<_> = snapshot.routes.list().iter().chain(implicit).collect();
    let mut canaries: Vec<_> = routes.iter().flat_map(|route| route.canaries().map(|it| (&route.name, it))).collect();
    // Routes to one service share its balancer's, and a series may be there once.
    let (mut seen, mut known) = (HashSet::new(), HashSet::new());
    canaries.retain(|(route, it)| seen.insert(Arc::as_ptr(it).addr()) && known.insert((*route, &it.binding.plugin)));
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Canary) -> u64| {
        if canaries.is_empty() {
            return Ok(());
        }
        head(out, name, kind, help)?;
        for (route, canary) in &canaries {
            let (route, plugin) = (Label(route), Label(&canary.binding.plugin));
            writeln!(out, "{name}{{route=\"{route}\",plugin=\"{plugin}\"}} {}", value(canary))?;
        }
        Ok(())
    };
    let (calls, failures) = ("Calls of a canary.", "Calls of a canary that failed.");
    each("moongate_canary_calls_total", "counter", calls, &|it| it.figures().calls)?;
    each("moongate_canary_failures_total", "counter", failures, &|it| it.figures().failures)?;
    let errors = "Requests decided by a canary that failed at the endpoint.";
    each("moongate_canary_errors_total", "counter", errors, &|it| it.figures().errors)?;
    let back = "1 if the canary was found wanting and is called no more.";
    each("moongate_canary_rolled_back", "gauge", back, &|it| it.verdict().is_some().into())?;

    let of = |route: &Arc<Route>| -> Vec<_> {
        route.balancers.iter().filter_map(|it| Some((route.name.clone(), it.shadow.clone()?))).collect()
    };
    let mut shadows: Vec<_> = routes.iter().flat_map(|route| of(route)).collect();
    shadows.retain(|(_, it)| seen.insert(Arc::as_ptr(it).addr()));
    if shadows.is_empty() {
        return Ok(());
    }
    head(out, "moongate_shadow_picks_total", "counter", "Picks of a shadow beside those that counted.")?;
    for (route, shadow) in &shadows {
        let (route, plugin) = (Label(route), Label(&shadow.binding.plugin));
        let outcomes = [("same", &shadow.same), ("different", &shadow.different), ("failed", &shadow.failures)];
        for (outcome, count) in outcomes {
            let labels = format!("route=\"{route}\",plugin=\"{plugin}\",outcome=\"{outcome}\"");
            writeln!(out, "moongate_shadow_picks_total{{{labels}}} {}", count.load(Relaxed))?;
        }
    }
    Ok(())
}

fn registries(out: &mut String, state: &State, snapshot: &Snapshot) -> fmt::Result {
    head(out, "moongate_snapshot_version", "counter", "Snapshots published.")?;
    writeln!(out, "moongate_snapshot_version {}", snapshot.version)?;
    head(out, "moongate_registry_up", "gauge", "1 if the registry is followed now.")?;
    for (name, state) in &snapshot.registries {
        let up = u8::from(*state == registry::State::Live);
        writeln!(out, "moongate_registry_up{{registry=\"{name}\"}} {up}")?;
    }
    let mut each = |name: &str, help: &str, value: &dyn Fn(&registry::Stats) -> &AtomicU64| {
        head(out, name, "counter", help)?;
        for (registry, stats) in &state.registries {
            writeln!(out, "{name}{{registry=\"{registry}\"}} {}", value(stats).load(Relaxed))?;
        }
        Ok(())
    };
    each("moongate_registry_sessions_total", "Sessions opened.", &|it| &it.sessions)?;
    each("moongate_registry_disconnects_total", "Connections lost.", &|it| &it.disconnects)?;
    each("moongate_registry_full_reads_total", "Complete reads.", &|it| &it.full_reads)?;
    let differences = "Complete reads that found what the events had not told.";
    each("moongate_registry_differences_total", differences, &|it| &it.differences)?;
    each("moongate_registry_bad_entries_total", "Entries that were left out.", &|it| &it.bad_entries)?;
    each("moongate_registry_publishes_total", "Views published.", &|it| &it.publishes)?;
    each("moongate_registry_restarts_total", "Times the registry's task was started again.", &|it| &it.restarts)
}

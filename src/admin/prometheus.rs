//! All metrics: what there is and what it is called. How that is written is in [`super::exposition`].
//!
//! Names follow the conventions of Prometheus, and every label has a bounded number of values: classes, kinds, and names of
//! which those beyond a limit are `other`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::State;
use super::exposition::Kind::{Counter, Gauge, Histogram, Info, Summary};
use super::exposition::{Exposition, Format, Kind};
use crate::endpoint::Endpoint;
use crate::error::KINDS;
use crate::plugin::Plugin;
use crate::plugin::canary::Canary;
use crate::proxy::metrics::{Answers, BOUNDS, Grid, Worker};
use crate::registry;
use crate::routes::Route;
use crate::series::OTHER_NAME;
use crate::server::listener::Listener;
use crate::snapshot::{Service, Snapshot};

/// All metrics.
pub(super) fn text(state: &State, snapshot: &Snapshot, format: Format) -> String {
    let mut out = Exposition::new(format);
    requests(&mut out, state);
    traces(&mut out, state);
    placed(&mut out, state, snapshot);
    listeners(&mut out, state);
    endpoints(&mut out, state, snapshot);
    services(&mut out, snapshot);
    plugins(&mut out, snapshot);
    tried(&mut out, snapshot);
    registries(&mut out, state, snapshot);
    process(&mut out, state);
    out.finish()
}

/// What several workers have counted.
struct Sum {
    classes: [u64; 6],
    buckets: [u64; BOUNDS.len() + 1],
    microseconds: u64,
}

impl Sum {
    fn of<'a>(all: impl Iterator<Item = &'a Answers>) -> Sum {
        let mut sum = Sum { classes: [0; 6], buckets: [0; BOUNDS.len() + 1], microseconds: 0 };
        for answers in all {
            let pairs = sum.classes.iter_mut().zip(&answers.classes);
            let pairs = pairs.chain(sum.buckets.iter_mut().zip(&answers.buckets));
            pairs.chain([(&mut sum.microseconds, &answers.microseconds)]).for_each(|(to, of)| *to += of.load(Relaxed));
        }
        sum
    }
}

fn requests(out: &mut Exposition, state: &State) {
    let workers = &state.workers;
    let all = Sum::of(workers.iter().map(|it| &it.all));
    out.family("moongate_requests", Counter, "Requests answered, by class of the status.");
    for class in 1..6 {
        out.put(&[("code", &format!("{class}xx"))], all.classes[class]);
    }
    out.family("moongate_request_duration_seconds", Histogram, "Time from a request to the head of its response.");
    out.histogram(&[], &all.buckets, all.microseconds);

    let sum = |of: &dyn Fn(&Worker) -> &AtomicU64| -> u64 { workers.iter().map(|it| of(it).load(Relaxed)).sum() };
    out.family("moongate_request_errors", Counter, "Requests without a response of an endpoint, by reason.");
    for (at, kind) in KINDS.iter().enumerate() {
        out.put(&[("reason", kind)], sum(&|it| &it.errors[at]));
    }
    let (accepted, closed) = (sum(&|it| &it.accepted), sum(&|it| &it.closed));
    let dropped = state.log.upgrade().map_or(0, |log| log.dropped());
    let singles: [(&str, Kind, &str, u64); 8] = [
        ("moongate_retries", Counter, "Requests sent to another endpoint.", sum(&|it| &it.retries)),
        ("moongate_balancer_fallbacks", Counter, "Picks made in place of a failed balancer.", sum(&|it| &it.fallbacks)),
        ("moongate_upstream_connects", Counter, "Connections opened to endpoints.", sum(&|it| &it.connects)),
        ("moongate_connections_accepted", Counter, "Client connections accepted.", accepted),
        (
            "moongate_connections_abusive",
            Counter,
            "HTTP/2 connections ended for floods of resets or of frames that carry nothing.",
            sum(&|it| &it.abused),
        ),
        ("moongate_access_log_dropped", Counter, "Lines that the disk was too slow for.", dropped),
        ("moongate_connections_open", Gauge, "Client connections open.", accepted.saturating_sub(closed)),
        ("moongate_workers", Gauge, "Threads that serve.", workers.len() as u64),
    ];
    for (name, kind, help, value) in singles {
        out.family(name, kind, help);
        out.put(&[], value);
    }
}

fn traces(out: &mut Exposition, state: &State) {
    let Some(traces) = &state.traces else { return };
    let help = "Spans: taken by the collector, dropped because it was too slow, or refused by it.";
    out.family("moongate_trace_spans", Counter, help);
    for (outcome, count) in traces.outcomes() {
        out.put(&[("outcome", outcome)], count);
    }
}

/// Requests of each route and of each service.
fn placed(out: &mut Exposition, state: &State, snapshot: &Snapshot) {
    let [routes, services] = &snapshot.series;
    let grids = |of: fn(&Worker) -> &Grid| state.workers.iter().map(|it| of(it)).collect::<Vec<&Grid>>();
    for (label, names, grids) in
        [("route", routes, grids(|it| &it.routes)), ("service", services, grids(|it| &it.services))]
    {
        let counted = |number: usize| {
            let answers: Vec<&Answers> = grids.iter().filter_map(|it| it.get(number as u32)).collect();
            (!answers.is_empty()).then(|| Sum::of(answers.into_iter()))
        };
        let sums: Vec<(&str, Sum)> =
            names.iter().enumerate().filter_map(|(number, name)| Some((&**name, counted(number)?))).collect();
        // A route or service without a request has no line: most of a large registry is idle.
        let sums: Vec<_> = sums.into_iter().filter(|(_, sum)| sum.buckets.iter().any(|it| *it > 0)).collect();
        let help =
            format!("Requests answered, by {label} and class of the status; names beyond the limit are \"other\".");
        out.family(&format!("moongate_{label}_requests"), Counter, &help);
        for (name, sum) in &sums {
            for class in 1..6 {
                out.put(&[(label, name), ("code", &format!("{class}xx"))], sum.classes[class]);
            }
        }
        let help = format!("Time from a request to the head of its response, by {label}.");
        out.family(&format!("moongate_{label}_request_duration_seconds"), Histogram, &help);
        for (name, sum) in &sums {
            out.histogram(&[(label, name)], &sum.buckets, sum.microseconds);
        }
    }
}

fn listeners(out: &mut Exposition, state: &State) {
    let mut each = |name: &str, kind: Kind, help: &str, value: &dyn Fn(&Listener) -> u64| {
        out.family(name, kind, help);
        for listener in &state.listeners {
            out.put(&[("listener", &listener.bound.to_string())], value(listener));
        }
    };
    let open = "Connections open, or in their handshake.";
    each("moongate_listener_connections", Gauge, open, &|it| it.open().into());
    let refused = "Connections closed at once because there were too many.";
    each("moongate_listener_refused", Counter, refused, &|it| it.refused.load(Relaxed));
    let failed = "TLS handshakes that came to nothing.";
    each("moongate_listener_failed_handshakes", Counter, failed, &|it| it.failed_handshakes.load(Relaxed));
}

fn sorted(snapshot: &Snapshot) -> Vec<&Arc<Service>> {
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

fn endpoints(out: &mut Exposition, state: &State, snapshot: &Snapshot) {
    let services = sorted(snapshot);
    let all: Vec<(&Service, &Endpoint)> =
        services.iter().flat_map(|service| service.all.iter().map(move |it| (&***service, &**it))).collect();
    let (named, rest) = all.split_at(all.len().min(state.endpoint_series));
    let named: Vec<_> = named.iter().map(|(service, it)| (*service, *it, it.spec.address.to_string())).collect();
    let mut each = |name: &str, kind: Kind, help: &str, value: &dyn Fn(&Service, &Endpoint) -> f64| {
        out.family(name, kind, help);
        for (service, endpoint, address) in &named {
            out.put(&[("service", &service.name), ("endpoint", address)], value(service, endpoint));
        }
        if !rest.is_empty() {
            let values = rest.iter().map(|(service, it)| value(service, it));
            // Of times the longest; everything else can be added up.
            let value = if name.ends_with("_seconds") { values.fold(0.0, f64::max) } else { values.sum::<f64>() };
            out.put(&[("service", OTHER_NAME), ("endpoint", OTHER_NAME)], value);
        }
    };
    let picks = "Requests sent to an endpoint.";
    each("moongate_endpoint_picks", Counter, picks, &|_, it| it.live.totals().0 as f64);
    let failed = "Requests that an endpoint did not answer.";
    each("moongate_endpoint_failures", Counter, failed, &|_, it| it.live.totals().1 as f64);
    let inflight = "Requests whose response has not ended.";
    each("moongate_endpoint_inflight", Gauge, inflight, &|_, it| it.live.inflight().into());
    let connections = "Connections, idle ones too.";
    each("moongate_endpoint_connections", Gauge, connections, &|_, it| it.live.load().connections.into());
    let pending = "Requests that wait for a connection.";
    each("moongate_endpoint_pending", Gauge, pending, &|_, it| it.live.load().pending.into());
    let latency = "Decaying mean time to the head of a response.";
    each("moongate_endpoint_latency_seconds", Gauge, latency, &|_, it| it.live.latency().as_secs_f64());
    let candidate = "1 if requests go to the endpoint.";
    each("moongate_endpoint_candidate", Gauge, candidate, &|service, it| f64::from(service.endpoints.has(it)));
    let ejections = "Times the endpoint was left out because of failures.";
    each("moongate_endpoint_ejections", Counter, ejections, &|_, it| it.live.ejections() as f64);
    let refused = "Requests that an endpoint did not get because of a limit.";
    each("moongate_endpoint_refused", Counter, refused, &|_, it| it.live.refused() as f64);
    let passed = "Active checks that passed.";
    each("moongate_endpoint_checks_passed", Counter, passed, &|_, it| it.live.checks().0 as f64);
    let failed = "Active checks that failed.";
    each("moongate_endpoint_checks_failed", Counter, failed, &|_, it| it.live.checks().1 as f64);
}

fn services(out: &mut Exposition, snapshot: &Snapshot) {
    let names = &snapshot.series[1];
    let services = sorted(snapshot);
    let mut each = |name: &str, kind: Kind, help: &str, value: &dyn Fn(&Service) -> u64| {
        out.family(name, kind, help);
        let mut values: BTreeMap<&str, u64> = BTreeMap::new();
        for service in &services {
            *values.entry(names.get(service.series as usize).map_or(OTHER_NAME, |it| &**it)).or_default() +=
                value(service);
        }
        for (service, value) in values {
            out.put(&[("service", service)], value);
        }
    };
    each("moongate_service_endpoints", Gauge, "Endpoints of a service.", &|it| it.all.len() as u64);
    let candidates = "Endpoints of a service that requests go to.";
    each("moongate_service_candidates", Gauge, candidates, &|it| it.endpoints.len() as u64);
    let retained = "Endpoints that vanished from the registry but may still live.";
    each("moongate_service_retained_endpoints", Gauge, retained, &|it| it.retained.len() as u64);
    let makeshift = "1 if requests go to retained endpoints, because there are no others.";
    each("moongate_service_on_retained", Gauge, makeshift, &|it| it.makeshift.into());
    let panic = "1 if too few endpoints are well, so that all are used.";
    each("moongate_service_panic", Gauge, panic, &|it| it.panic.into());
    let refused = "Retries that the budget did not allow.";
    each("moongate_service_retries_refused", Counter, refused, &|it| it.budget.exhausted());
}

fn plugins(out: &mut Exposition, snapshot: &Snapshot) {
    let active: Vec<_> = snapshot.plugins.status.iter().filter_map(|it| it.active.as_ref()).collect();
    out.family("moongate_plugin", Info, "The version that serves.");
    for plugin in &active {
        let described = &plugin.described;
        let labels = [
            ("plugin", &*plugin.name),
            ("kind", &described.kinds.to_string()),
            ("version", described.version.as_deref().unwrap_or_default()),
            ("sha256", &described.sha256),
            ("bundled", if plugin.bundled { "true" } else { "false" }),
        ];
        out.put(&labels, 1);
    }
    let mut each = |name: &str, help: &str, value: &dyn Fn(&Plugin) -> u64| {
        out.family(name, Counter, help);
        for plugin in &active {
            out.put(&[("plugin", &plugin.name)], value(plugin));
        }
    };
    each("moongate_plugin_calls", "Calls of the version that serves.", &|it| it.total(|it| &it.calls));
    each("moongate_plugin_traps", "Calls that trapped.", &|it| it.total(|it| &it.traps));
    each("moongate_plugin_timeouts", "Calls that were stopped.", &|it| it.total(|it| &it.timeouts));
    each("moongate_plugin_nonsense", "Calls that answered with what cannot be.", &|it| it.total(|it| &it.nonsense));
    each("moongate_plugin_instances", "Instances made.", &|it| it.total(|it| &it.instances));
    let time = "Time of calls, of one in 64.";
    out.family("moongate_plugin_call_duration_seconds", Summary, time);
    for plugin in &active {
        let (count, nanoseconds) = (plugin.total(|it| &it.timed), plugin.total(|it| &it.nanoseconds));
        out.summary(&[("plugin", &plugin.name)], count, nanoseconds as f64 / 1e9);
    }
    out.family("moongate_plugin_loaded_timestamp_seconds", Gauge, "When the version that serves was compiled.");
    for plugin in &active {
        out.put(&[("plugin", &plugin.name)], timestamp(plugin.loaded));
    }

    out.family("moongate_plugin_refused", Gauge, "1 if the file in the plugin directory cannot serve.");
    for status in &snapshot.plugins.status {
        out.put(&[("plugin", &status.name)], u8::from(status.refused.is_some()));
    }
    let quarantined = "1 if the file's version was taken out of service because it kept failing.";
    out.family("moongate_plugin_quarantined", Gauge, quarantined);
    for status in &snapshot.plugins.status {
        out.put(&[("plugin", &status.name)], u8::from(status.quarantined.is_some()));
    }
}

/// Versions that are tried on requests, by route and plugin.
fn tried(out: &mut Exposition, snapshot: &Snapshot) {
    let names = &snapshot.series[0];
    let implicit = snapshot.services.values().filter_map(|service| service.implicit.as_ref());
    let routes: Vec<_> = snapshot.routes.list().iter().chain(implicit).collect();
    let name = |route: &Arc<Route>| names.get(route.series as usize).map_or(OTHER_NAME, |it| &**it);
    let mut seen = HashSet::new();
    // Those of one label are added up; the verdict of one is that of all.
    let mut canaries: BTreeMap<(&str, &str), Vec<&Arc<Canary>>> = BTreeMap::new();
    for route in &routes {
        for canary in route.canaries() {
            // Routes to one service share its balancer's.
            if seen.insert(Arc::as_ptr(canary).addr()) {
                canaries.entry((name(route), &*canary.binding.plugin)).or_default().push(canary);
            }
        }
    }
    let mut each =
        |metric: &str, kind: Kind, help: &str, value: &dyn Fn(&Canary) -> u64, together: fn(u64, u64) -> u64| {
            out.family(metric, kind, help);
            for ((route, plugin), all) in &canaries {
                let value = all.iter().map(|it| value(it)).fold(0, together);
                out.put(&[("route", route), ("plugin", plugin)], value);
            }
        };
    let (calls, failures) = ("Calls of a canary.", "Calls of a canary that failed.");
    each("moongate_canary_calls", Counter, calls, &|it| it.figures().calls, |a, b| a + b);
    each("moongate_canary_failures", Counter, failures, &|it| it.figures().failures, |a, b| a + b);
    let errors = "Requests decided by a canary that failed at the endpoint.";
    each("moongate_canary_errors", Counter, errors, &|it| it.figures().errors, |a, b| a + b);
    let back = "1 if the canary was found wanting and is called no more.";
    each("moongate_canary_rolled_back", Gauge, back, &|it| it.verdict().is_some().into(), u64::max);

    let mut shadows: BTreeMap<(&str, Arc<str>), [u64; 3]> = BTreeMap::new();
    for route in &routes {
        for shadow in route.balancers.iter().filter_map(|it| it.shadow.as_ref()) {
            if seen.insert(Arc::as_ptr(shadow).addr()) {
                let sums = shadows.entry((name(route), shadow.binding.plugin.clone())).or_default();
                let counts = [&shadow.same, &shadow.different, &shadow.failures];
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
            }
        }
    }
    out.family("moongate_shadow_picks", Counter, "Picks of a shadow beside those that counted.");
    for ((route, plugin), counts) in &shadows {
        for (outcome, count) in ["same", "different", "failed"].iter().zip(counts) {
            out.put(&[("route", route), ("plugin", plugin), ("outcome", outcome)], count);
        }
    }
}

fn registries(out: &mut Exposition, state: &State, snapshot: &Snapshot) {
    out.family("moongate_snapshot_version", Gauge, "Snapshots published since the start.");
    out.put(&[], snapshot.version);
    out.family("moongate_registry_up", Gauge, "1 if the registry is followed now.");
    for (name, state) in &snapshot.registries {
        out.put(&[("registry", name)], u8::from(*state == registry::State::Live));
    }
    let age = "How long what the registry said last has not been confirmed; 0 while it is followed.";
    out.family("moongate_registry_age_seconds", Gauge, age);
    for (name, up) in &snapshot.registries {
        let since = state.events.registry_changed(name).unwrap_or(state.started);
        let age = SystemTime::now().duration_since(since).unwrap_or_default().as_secs_f64();
        out.put(&[("registry", name)], if *up == registry::State::Live { 0.0 } else { age });
    }
    let mut each = |name: &str, help: &str, value: &dyn Fn(&registry::Stats) -> &AtomicU64| {
        out.family(name, Counter, help);
        for (registry, stats) in &state.registries {
            out.put(&[("registry", registry)], value(stats).load(Relaxed));
        }
    };
    each("moongate_registry_sessions", "Sessions opened.", &|it| &it.sessions);
    each("moongate_registry_disconnects", "Connections lost.", &|it| &it.disconnects);
    each("moongate_registry_full_reads", "Complete reads.", &|it| &it.full_reads);
    let differences = "Complete reads that found what the events had not told.";
    each("moongate_registry_differences", differences, &|it| &it.differences);
    each("moongate_registry_bad_entries", "Entries that were left out.", &|it| &it.bad_entries);
    each("moongate_registry_publishes", "Views published: changes that were seen.", &|it| &it.publishes);
    let vanished = "Endpoints that vanished without having been taken away.";
    each("moongate_registry_vanished_endpoints", vanished, &|it| &it.vanished);
    let emptied = "Times the registry was found emptied, or half of it.";
    each("moongate_registry_mass_losses", emptied, &|it| &it.emptied);
    each("moongate_registry_restarts", "Times the registry's task was started again.", &|it| &it.restarts);
}

fn process(out: &mut Exposition, state: &State) {
    out.family("moongate_build", Info, "What this gateway is.");
    out.put(&[("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)], 1);
    let Process { cpu, resident, virt, open_files, most_files } = Process::read();
    out.family("process_cpu_seconds", Counter, "Time of the processor, in user and system mode.");
    out.put(&[], cpu);
    out.family("process_start_time_seconds", Gauge, "When the process began, since the epoch.");
    out.put(&[], timestamp(state.started));
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory that is really there.", resident),
        ("process_virtual_memory_bytes", "Addresses that are taken.", virt),
        ("process_open_fds", "Open files and sockets.", open_files),
        ("process_max_fds", "Files and sockets that may be open.", most_files),
    ] {
        out.family(name, Gauge, help);
        out.put(&[], value);
    }
}

fn timestamp(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64())
}

/// What the system says of this process; zeros where it says nothing.
#[derive(Default)]
pub(super) struct Process {
    /// Seconds.
    pub(super) cpu: f64,
    /// Bytes.
    pub(super) resident: u64,
    virt: u64,
    open_files: u64,
    most_files: u64,
}

/// Linux counts processor time in these for programs, whatever it does itself.
const TICKS: f64 = 100.0;

impl Process {
    pub(super) fn read() -> Process {
        let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (status, stat, limits) = (text("status"), text("stat"), text("limits"));
        let kibibytes = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        // The name of the program, in parentheses, may have anything in it.
        let figures: Vec<&str> = stat.rsplit_once(')').map_or("", |it| it.1).split_whitespace().collect();
        let ticks = |at: usize| figures.get(at).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Process {
            cpu: (ticks(11) + ticks(12)) / TICKS,
            resident: kibibytes("VmRSS:"),
            virt: kibibytes("VmSize:"),
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |it| it.count() as u64),
            most_files: most.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(0),
        }
    }
}

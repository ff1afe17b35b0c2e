//! `/api/v1/explain`: what would become of a request, without one. Every answer comes from the code that decides about
//! requests, only that balancers are [rehearsed](crate::plugin::rehearsal) and nothing is counted.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use super::query::Query;
use crate::endpoint::Endpoint;
use crate::error::RequestError;
use crate::message::{Known, RequestHead};
use crate::plugin::rehearsal::{Rehearsed, rehearse};
use crate::plugin::{Binding, Engine, Plugin};
use crate::proxy::headers::{self, Client};
use crate::proxy::{locate, pick, told};
use crate::routes::{Route, Use};
use crate::snapshot::{Service, Snapshot};

/// Endpoints that are listed; the counts are of all.
const LISTED: usize = 500;

/// The request that is asked about.
pub(super) struct Asked {
    head: RequestHead,
    peer: IpAddr,
    secure: bool,
}

impl Asked {
    /// What the query says.
    ///
    /// # Errors
    /// What it should have said.
    pub(super) fn read(query: &Query) -> Result<Asked, String> {
        let path = query.get("path").unwrap_or("/");
        if !path.starts_with('/') {
            return Err(format!("path {path:?} does not start with a slash"));
        }
        let method = query.get("method").unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method"))?;
        let peer = match query.get("client") {
            Some(text) => text.parse().map_err(|_| format!("client {text:?} is no IP address"))?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let mut head = RequestHead::new(method, path);
        head.fields.append(Known::Host, query.get("host").unwrap_or("localhost").as_bytes());
        for header in query.all("header") {
            let (name, value) = header.split_once(':').ok_or_else(|| format!("header {header:?} is not name:value"))?;
            let name = http::HeaderName::from_bytes(name.trim().as_bytes())
                .map_err(|_| format!("{name:?} is no header's name"))?;
            let value = http::HeaderValue::from_str(value.trim())
                .map_err(|_| format!("the value of the header {name} has bytes that no header may have"))?;
            match name.as_str() {
                "host" => head.fields.set(Known::Host, value.as_bytes()),
                name => head.fields.append(name, value.as_bytes()),
            }
        }
        Ok(Asked { head, peer, secure: query.get("scheme") == Some("https") })
    }
}

/// What would become of it. May take as long as calls of plugins may: not for the thread that answers.
pub(super) fn explain(snapshot: &Snapshot, engine: &Engine, asked: Asked) -> Value {
    let Asked { mut head, peer, secure } = asked;
    let mut answer = json!({
        "version": snapshot.version,
        "request": {
            "method": head.method.as_str(),
            "path": head.target.as_str(),
            "host": head.fields.text(Known::Host),
            "client": peer.to_string(),
        },
        "route": null,
        "pick": null,
    });
    if let Some(explain) = &snapshot.rules.explain {
        head.fields.remove(&*explain.header);
    }
    let client = Client::new(peer, secure, &snapshot.rules);
    let settled = headers::settle(&mut head, &snapshot.rules.paths)
        .and_then(|()| headers::introduce(&mut head, &client, &snapshot.rules));
    let client = match settled {
        Ok(client) => client,
        Err(error) => {
            answer["refused"] = refused(&error);
            answer["summary"] = json!([format!("It is refused before a route is looked for: {error}.")]);
            return answer;
        }
    };
    answer["request"]["path"] = head.target.as_str().into();
    answer["request"]["client"] = client.to_string().into();

    let known = |name: &str| snapshot.services.get(name).is_some_and(|it| it.implicit.is_some());
    let (looked, rest) = snapshot.routes.looked(&head, &known);
    answer["looked_at"] = looked
        .iter()
        .map(|it| json!({ "name": it.name, "service": it.service, "chosen": it.chosen, "why": it.why }))
        .collect();
    answer["not_listed"] = rest.into();
    let why = looked.iter().find(|it| it.chosen).map(|it| it.why.clone()).unwrap_or_default();
    let located = match locate(snapshot, &mut head) {
        Ok(located) => located,
        Err(error) => {
            answer["refused"] = refused(&error);
            answer["summary"] = json!([format!("No route takes it: {error}.")]);
            return answer;
        }
    };
    let route = located.route;
    let mut summary = vec![format!("The route {} takes it: {why}.", route.name)];
    answer["route"] = json!({
        "name": *route.name,
        "service": *route.service,
        "why": why,
        "strip_prefix": route.strip_prefix,
        "retries": route.retries,
    });
    answer["sends"] = head.target.as_str().into();
    answer["filters"] = route.filters.iter().map(|it| filter(snapshot, it)).collect();
    if !route.filters.is_empty() {
        let names: Vec<&str> = route.filters.iter().map(|it| &*it.binding.plugin).collect();
        summary.push(format!("Filters see it first, in this order: {}. They were not run.", names.join(", ")));
    }
    match located.service {
        None => {
            answer["refused"] = refused(&RequestError::NoEndpoint);
            summary.push(format!("There is no service {}, so the answer is 503.", route.service));
        }
        Some(service) => decide(snapshot, engine, (route, service), &mut head, client, (&mut answer, &mut summary)),
    }
    answer["summary"] = summary.into();
    answer
}

fn refused(error: &RequestError) -> Value {
    json!({ "status": error.status().as_u16(), "reason": error.to_string() })
}

/// Which endpoint it would be.
fn decide(
    snapshot: &Snapshot,
    engine: &Engine,
    (route, service): (&Route, &Service),
    head: &mut RequestHead,
    client: IpAddr,
    (answer, summary): (&mut Value, &mut Vec<String>),
) {
    let (all, candidates) = (service.all.len(), service.endpoints.len());
    answer["service"] = json!({
        "name": *service.name,
        "source": service.registry,
        "endpoints": all,
        "candidates": candidates,
        "panic": service.panic,
    });
    answer["endpoints"] = service.all.iter().take(LISTED).map(|it| endpoint(service, it)).collect();
    let out: Vec<String> = service
        .all
        .iter()
        .filter_map(|it| Some(format!("{} ({})", it.spec.address, told::why_out(service, it)?)))
        .take(5)
        .collect();
    let panic = if service.panic { " Too few are well, so all are used." } else { "" };
    summary.push(format!(
        "The service {} has {all} endpoints, of which {candidates} are candidates.{panic}",
        service.name
    ));
    if !out.is_empty() {
        summary.push(format!("Out, or not wholly in: {}.", out.join(", ")));
    }

    let sequence = route.balancers.first().map_or(0, |it| it.binding.counted());
    answer["sequence"] = sequence.into();
    let mut decided: Option<(u32, String, bool)> = None;
    let mut balancers = Vec::new();
    for used in &route.balancers {
        let (mut told, picked) = ask(snapshot, engine, &used.binding, service, head, client);
        told["asked"] = decided.is_none().into();
        told["on_failure"] = format!("{:?}", used.on_failure).to_lowercase().into();
        if let Some(canary) = &used.canary {
            let (mut other, _) = ask(snapshot, engine, &canary.binding, service, head, client);
            let whole = crate::config::plugins::Share::WHOLE;
            other["share"] = (f64::from(canary.share) / f64::from(whole)).into();
            other["state"] = if canary.verdict().is_some() { "rolled-back" } else { "active" }.into();
            told["canary"] = other;
        }
        if decided.is_none() {
            decided = picked.map(|(index, certain)| (index, used.binding.plugin.to_string(), certain));
            let name = &used.binding.plugin;
            match (&decided, told["error"].as_str()) {
                (Some(_), _) => {}
                (None, Some(error)) => summary.push(format!("The balancer {name} would fail: {error}.")),
                (None, None) => summary.push(format!("The balancer {name} has no opinion.")),
            }
        }
        balancers.push(told);
    }
    answer["balancers"] = balancers.into();
    let endpoints = &service.endpoints;
    let native = pick::native(endpoints, sequence, &[]).map(|index| (index, "native".to_owned(), true));
    answer["native"] = native.as_ref().map(|it| endpoints[it.0 as usize].spec.address.to_string()).into();
    let Some((index, by, certain)) = decided.or(native) else {
        answer["refused"] = refused(&RequestError::NoEndpoint);
        summary.push("No endpoint is left, so the answer is 503.".into());
        return;
    };
    let address = endpoints[index as usize].spec.address;
    answer["pick"] = json!({ "address": address.to_string(), "by": by, "certain": certain });
    let whose = match &*by {
        "native" => "The gateway's own round robin".to_owned(),
        by => format!("The balancer {by}"),
    };
    summary.push(match certain {
        true => format!("{whose} would pick {address}."),
        false => format!("{whose} would pick {address} this time; it draws lots, and the next may be another."),
    });
    let warming = service.warming.as_ref().and_then(|it| it.share(index, Instant::now()));
    if let Some(share) = warming {
        let percent = u32::from(share) * 100 / 65_536;
        summary.push(format!(
            "{address} is warming up: of what is meant for it, it takes {percent} %, and others the rest."
        ));
    }
    if let Some(limit) = Some(endpoints[index as usize].settings.max_requests).filter(|it| *it > 0)
        && endpoints[index as usize].live.inflight() >= limit
    {
        summary.push(format!("{address} is at its limit of {limit} requests, so it would go to another."));
    }
}

/// Lets a balancer pick in a rehearsal: what is told of it, and the index it would be, and whether it is always the same.
fn ask(
    snapshot: &Snapshot,
    engine: &Engine,
    binding: &Binding,
    service: &Service,
    head: &mut RequestHead,
    client: IpAddr,
) -> (Value, Option<(u32, bool)>) {
    let plugin = snapshot.plugins.get(binding.slot);
    let mut told = version(&binding.plugin, plugin.map(|it| &**it));
    told["sequence"] = binding.counted().into();
    let Some(plugin) = plugin else {
        told["error"] = crate::plugin::Failure::Missing.to_string().into();
        return (told, None);
    };
    if service.endpoints.is_empty() {
        return (told, None);
    }
    let Rehearsed { picks, keys } = match rehearse(engine, plugin, binding, &service.endpoints, head, client) {
        Ok(rehearsed) => rehearsed,
        Err(failure) => {
            told["error"] = failure.to_string().into();
            return (told, None);
        }
    };
    // As text: JavaScript has no integers of 64 bits.
    let key =
        |(name, hash): &(String, Option<u64>)| json!({ "key": name, "hash": hash.map(|it| format!("{it:016x}")) });
    told["keys"] = keys.iter().map(key).collect();
    let address = |index: u32| service.endpoints[index as usize].spec.address.to_string();
    let certain = picks.windows(2).all(|pair| pair[0] == pair[1]);
    told["certain"] = certain.into();
    let first = picks.first().copied().flatten();
    told["pick"] = first.map(address).into();
    if !certain {
        let mut others: Vec<String> = picks.iter().flatten().map(|index| address(*index)).collect();
        others.sort();
        others.dedup();
        told["might_pick"] = others.into();
    }
    (told, first.map(|index| (index, certain)))
}

fn version(name: &str, plugin: Option<&Plugin>) -> Value {
    json!({
        "plugin": name,
        "version": plugin.and_then(|it| it.described.version.clone()),
        "sha256": plugin.map(|it| &it.described.sha256),
        "bundled": plugin.map(|it| it.bundled),
    })
}

fn filter<F: std::fmt::Debug>(snapshot: &Snapshot, used: &Use<F>) -> Value {
    let mut told = version(&used.binding.plugin, snapshot.plugins.get(used.binding.slot).map(|it| &**it));
    told["on_failure"] = format!("{:?}", used.on_failure).to_lowercase().into();
    if let Some(canary) = &used.canary {
        told["canary"] = (&*canary.binding.plugin).into();
    }
    told
}

fn endpoint(service: &Service, endpoint: &Endpoint) -> Value {
    let (spec, live) = (&endpoint.spec, &endpoint.live);
    let load = live.load();
    json!({
        "address": spec.address.to_string(),
        "candidate": service.endpoints.has(endpoint),
        "out": told::why_out(service, endpoint),
        "weight": spec.weight,
        "zone": *spec.zone,
        "inflight": load.requests,
        "connections": load.connections,
        "latency_us": live.latency().as_micros() as u64,
        "peak_us": live.peak().as_micros() as u64,
        "failures_per_thousand": live.failures(),
    })
}

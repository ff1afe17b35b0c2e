//! Envoy's configuration.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Layout, Need, TRUSTED};

pub(super) fn lacks(need: Need) -> Option<&'static str> {
    match need {
        Need::TargetSize => Some("one limit for the whole head"),
        Need::ClientConnections => Some("no limit of connections from one address"),
        _ => None,
    }
}

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn typed(kind: &str, mut value: Value) -> Value {
    value["@type"] = format!("{TYPES}.{kind}").into();
    value
}

fn address(of: SocketAddr) -> Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}

fn cluster(name: &str, to: &[SocketAddr], http: Value, more: Value) -> Value {
    let endpoints: Vec<Value> = to.iter().map(|it| json!({ "endpoint": { "address": address(*it) } })).collect();
    let options = typed("upstreams.http.v3.HttpProtocolOptions", json!({ "explicit_http_config": http }));
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
        "circuit_breakers": { "thresholds": [{ "max_requests": 64, "max_connections": 64, "max_pending_requests": 64 }] },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        cluster[key] = value.clone();
    }
    cluster
}

fn clusters(layout: &Layout<'_>) -> Vec<Value> {
    let o = layout.origins;
    let h1 = || json!({ "http_protocol_options": { "enable_trailers": true } });
    let h2 = || json!({ "http2_protocol_options": {} });
    let plain = |name: &str, to: &[SocketAddr]| cluster(name, to, h1(), Value::Null);
    let tls = typed(
        "transport_sockets.tls.v3.UpstreamTlsContext",
        json!({
            "sni": "origin.test",
            "common_tls_context": { "validation_context": {
                "trusted_ca": { "filename": layout.certificate("ca.pem") },
                "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": "origin.test" } }],
            } },
        }),
    );
    let tls = json!({ "transport_socket": { "name": "tls", "typed_config": tls } });
    let outlier = json!({ "outlier_detection": {
        "consecutive_5xx": 5, "interval": "1s", "base_ejection_time": "10s", "max_ejection_percent": 50,
    } });
    let check = json!({ "health_checks": [{
        "timeout": "1s", "interval": "0.5s", "no_traffic_interval": "0.5s", "unhealthy_threshold": 2,
        "healthy_threshold": 1, "http_health_check": { "path": "/health" },
    }] });
    vec![
        plain("main", &[o.main.address]),
        plain("admin", &[o.admin.address]),
        plain("pair", &[o.dead, o.second.address]),
        plain("dead", &[o.dead]),
        plain("two", &[o.two[0].address, o.two[1].address]),
        cluster("flaky", &[o.flaky[0].address, o.flaky[1].address], h1(), outlier),
        cluster("checked", &[o.checked[0].address, o.checked[1].address], h1(), check),
        cluster("h2", &[o.h2.address], h2(), Value::Null),
        cluster("tls", &[o.tls.address], h1(), tls.clone()),
        cluster("tls-wrong", &[o.tls_wrong.address], h1(), tls),
    ]
}

fn routes() -> Vec<Value> {
    let retry = json!({
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 2,
        "retry_back_off": { "base_interval": "0.01s" },
        "retriable_request_headers": [{ "name": ":method", "string_match": { "safe_regex": { "regex": "GET|HEAD" } } }],
    });
    let to = |cluster: &str| json!({ "cluster": cluster, "timeout": "0s", "retry_policy": retry });
    let route = |name: &str, cluster: &str| json!({ "match": { "path_separated_prefix": format!("/{name}") }, "route": to(cluster) });
    let mut small = route("small", "main");
    let limit = typed("filters.http.buffer.v3.BufferPerRoute", json!({ "buffer": { "max_request_bytes": 1_048_576 } }));
    small["typed_per_filter_config"] = json!({ "envoy.filters.http.buffer": limit });
    let mut upgrades = route("ws", "main");
    upgrades["route"]["idle_timeout"] = "10s".into();
    let mut all = vec![small, upgrades];
    for name in ["admin", "pair", "dead", "two", "flaky", "checked", "tls", "tls-wrong"] {
        all.push(route(name, name));
    }
    all.extend([route("h2c", "h2"), route("grpc", "h2")]);
    // WebSocket over HTTP/2 matches as CONNECT; it is an upgrade for the endpoint like any other.
    all.push(json!({ "match": { "prefix": "/" }, "route": to("main") }));
    all
}

fn manager(trusted: bool) -> Value {
    let strip =
        ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"].map(|it| json!({ "remove": it }));
    let strip = typed("http.early_header_mutation.header_mutation.v3.HeaderMutation", json!({ "mutations": strip }));
    let off = typed("filters.http.buffer.v3.Buffer", json!({ "max_request_bytes": 1_048_576 }));
    let filters = json!([
        { "name": "envoy.filters.http.buffer", "typed_config": off, "disabled": true },
        { "name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router", json!({})) },
    ]);
    let mut manager = json!({
        "stat_prefix": "all",
        "codec_type": "AUTO",
        "use_remote_address": true,
        "xff_num_trusted_hops": if trusted { 1 } else { 0 },
        "via": "1.1 envoy",
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": 16,
        "request_headers_timeout": "1s",
        "stream_idle_timeout": "2s",
        "delayed_close_timeout": "0.1s",
        "drain_timeout": "0.1s",
        "common_http_protocol_options": {
            "idle_timeout": "2s", "max_headers_count": 100, "headers_with_underscores_action": "DROP_HEADER",
        },
        "http_protocol_options": { "enable_trailers": true, "accept_http_10": true, "default_host_for_http_10": "none" },
        "http2_protocol_options": { "max_concurrent_streams": 100, "allow_connect": true },
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes() }] },
        "http_filters": filters,
    });
    if !trusted {
        manager["early_header_mutation_extensions"] = json!([{ "name": "strip", "typed_config": strip }]);
    }
    typed("filters.network.http_connection_manager.v3.HttpConnectionManager", manager)
}

fn listener(name: &str, at: SocketAddr, tls: &[Value]) -> Value {
    let chain = |of: Value, trusted: bool, tls: Option<&Value>| {
        let filter = json!({ "name": "http", "typed_config": manager(trusted) });
        let mut chain = json!({ "filter_chain_match": of, "filters": [filter] });
        if let Some(tls) = tls {
            chain["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
        }
        chain
    };
    let known = json!({ "source_prefix_ranges": [{ "address_prefix": TRUSTED, "prefix_len": 32 }] });
    let chains = match tls {
        [] => vec![chain(known, true, None), chain(json!({}), false, None)],
        [one] => vec![chain(json!({}), false, Some(one))],
        [a, b, ..] => {
            let b_only = json!({ "server_names": ["b.test"] });
            vec![chain(b_only, false, Some(b)), chain(json!({}), false, Some(a))]
        }
    };
    json!({
        "name": name,
        "address": address(at),
        "listener_filters": [{
            "name": "tls_inspector",
            "typed_config": typed("filters.listener.tls_inspector.v3.TlsInspector", json!({})),
        }],
        "listener_filters_timeout": "1s",
        "per_connection_buffer_limit_bytes": 65_536,
        "filter_chains": chains,
    })
}

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> io::Result<Vec<String>> {
    let at = layout.at;
    let file = |name: &str, kind: &str| json!({ "filename": layout.certificate(&format!("{name}.{kind}")) });
    let context = |name: &str, client: bool| {
        let pair = json!({ "certificate_chain": file(name, "pem"), "private_key": file(name, "key") });
        let mut common = json!({
            "tls_certificates": [pair],
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
        });
        if client {
            common["validation_context"] = json!({ "trusted_ca": file("ca", "pem") });
        }
        let context = json!({ "common_tls_context": common, "require_client_certificate": client });
        typed("transport_sockets.tls.v3.DownstreamTlsContext", context)
    };
    let mut plain = listener("plain", at.plain, &[]);
    // Nothing to inspect where there is no TLS.
    plain["listener_filters"] = json!([]);
    let limit = typed(
        "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        json!({ "max_active_downstream_connections": 600 }),
    );
    let config = json!({
        "static_resources": {
            "listeners": [
                plain,
                listener("tls", at.tls, &[context("a", false), context("b", false)]),
                listener("mtls", at.mtls, &[context("a", true)]),
            ],
            "clusters": clusters(layout),
        },
        "overload_manager": { "resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": limit,
        }] },
    });
    let file = layout.write("envoy.json", &config.to_string())?;
    let fixed = ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning", "-c"];
    Ok(fixed.iter().map(|&it| it.to_owned()).chain([file]).collect())
}

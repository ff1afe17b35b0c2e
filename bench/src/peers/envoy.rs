//! Envoy's configuration.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Layout, Missing, skip, target};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn typed(kind: &str, mut value: Value) -> Value {
    value["@type"] = format!("{TYPES}.{kind}").into();
    value
}

fn address(of: SocketAddr) -> Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}

fn cluster(layout: &Layout<'_>) -> Value {
    let endpoint = |it: &SocketAddr| json!({ "endpoint": { "address": address(*it) } });
    let endpoints: Vec<Value> = layout.origins.iter().map(endpoint).collect();
    let many = 1_000_000;
    json!({
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": { "cluster_name": "origin", "endpoints": [{ "lb_endpoints": endpoints }] },
        "circuit_breakers": { "thresholds": [{
            "max_requests": many, "max_connections": many, "max_pending_requests": many, "max_retries": many,
        }] },
    })
}

/// Sets one header by WebAssembly, as Moongate's filter does.
fn wasm(file: &str) -> Value {
    let code = json!({ "local": { "filename": file } });
    let vm = json!({ "runtime": "envoy.wasm.runtime.v8", "code": code });
    typed("filters.http.wasm.v3.Wasm", json!({ "config": { "name": "set-header", "vm_config": vm } }))
}

fn listener(layout: &Layout<'_>, name: &str, at: SocketAddr, filters: &[Value], tls: Option<&Value>) -> Value {
    let manager = json!({
        "stat_prefix": "bench",
        "codec_type": "AUTO",
        "use_remote_address": true,
        "generate_request_id": false,
        "common_http_protocol_options": { "idle_timeout": "300s" },
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }],
        }] },
        "http_filters": filters,
    });
    let manager = typed("filters.network.http_connection_manager.v3.HttpConnectionManager", manager);
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": manager }] });
    if let Some(tls) = tls {
        chain["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
    }
    let mut listener =
        json!({ "name": name, "address": address(at), "filter_chains": [chain], "tcp_backlog_size": 4096 });
    if layout.shape.workers > 1 {
        listener["connection_balance_config"] = json!({ "exact_balance": {} });
    }
    listener
}

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> Result<Vec<String>, Missing> {
    let mut filters = Vec::new();
    if layout.shape.wasm {
        let Ok(file) = target().join("bench/envoy-filter.wasm").canonicalize() else {
            return skip("Envoy's proxy-wasm filter is not built (bench/peers)");
        };
        filters.push(json!({ "name": "wasm", "typed_config": wasm(&file.display().to_string()) }));
    }
    let router = typed("filters.http.router.v3.Router", json!({}));
    filters.push(json!({ "name": "envoy.filters.http.router", "typed_config": router }));
    let certificates = layout.certificates;
    let pair = json!({
        "certificate_chain": { "filename": certificates.certificate },
        "private_key": { "filename": certificates.key },
    });
    let tls = typed(
        "transport_sockets.tls.v3.DownstreamTlsContext",
        json!({ "common_tls_context": {
            "tls_certificates": [pair],
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": { "tls_maximum_protocol_version": "TLSv1_3" },
        } }),
    );
    let config = json!({ "static_resources": {
        "listeners": [
            listener(layout, "plain", layout.plain, &filters, None),
            listener(layout, "tls", layout.tls, &filters, Some(&tls)),
        ],
        "clusters": [cluster(layout)],
    } });
    let file = layout.write("envoy.json", &config.to_string())?;
    let workers = layout.shape.workers.to_string();
    let fixed = ["--disable-hot-restart", "--concurrency", &workers, "--log-level", "error", "-c"];
    Ok(fixed.iter().map(|&it| it.to_owned()).chain([file]).collect())
}

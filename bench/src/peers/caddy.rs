//! Caddy's configuration.

use anyhow::Result;
use serde_json::{Value, json};

use super::Layout;

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> Result<Vec<String>> {
    let upstreams: Vec<Value> = layout.origins.iter().map(|it| json!({ "dial": it.to_string() })).collect();
    let keep = layout.origins.len().max(128);
    let proxy = json!({
        "handler": "reverse_proxy",
        "upstreams": upstreams,
        "transport": {
            "protocol": "http", "versions": ["1.1"],
            "keep_alive": { "max_idle_conns": keep, "max_idle_conns_per_host": keep },
        },
        "load_balancing": { "selection_policy": { "policy": "round_robin" } },
    });
    let server = |listen: std::net::SocketAddr| {
        json!({
            "listen": [listen.to_string()],
            "protocols": ["h1", "h2", "h2c"],
            "automatic_https": { "disable": true },
            "routes": [{ "handle": [proxy] }],
        })
    };
    let mut tls = server(layout.tls);
    tls["tls_connection_policies"] = json!([{ "fallback_sni": "bench.test" }]);
    let certificates = layout.certificates;
    let config = json!({
        "admin": { "disabled": true, "config": { "persist": false } },
        "storage": { "module": "file_system", "root": layout.dir },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": {
            "tls": {
                "certificates": { "load_files": [{
                    "certificate": certificates.certificate, "key": certificates.key,
                }] },
                "disable_ocsp_stapling": true,
            },
            "http": { "servers": { "plain": server(layout.plain), "tls": tls } },
        },
    });
    let file = layout.write("caddy.json", &config.to_string())?;
    Ok(vec!["run".into(), "--config".into(), file])
}

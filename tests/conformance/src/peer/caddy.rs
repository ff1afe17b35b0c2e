//! Caddy's configuration.

use std::io;

use serde_json::{Value, json};

use super::{Layout, Need, TRUSTED};

pub(super) fn lacks(need: Need) -> Option<&'static str> {
    match need {
        Need::ListenerConnections | Need::ClientConnections => Some("no limit of connections"),
        Need::FieldCount => Some("no limit of the number of fields"),
        Need::TargetSize => Some("one limit for the whole head"),
        _ => None,
    }
}

fn proxy(to: &[std::net::SocketAddr], transport: Value, more: Value) -> Value {
    let upstreams: Vec<Value> = to.iter().map(|it| json!({ "dial": it.to_string() })).collect();
    let mut proxy = json!({
        "handler": "reverse_proxy",
        "upstreams": upstreams,
        "transport": transport,
        "load_balancing": { "retries": 2, "selection_policy": { "policy": "round_robin" } },
        "health_checks": { "passive": { "unhealthy_request_count": 64 } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        proxy[key] = value.clone();
    }
    proxy
}

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> io::Result<Vec<String>> {
    let (o, at) = (layout.origins, layout.at);
    let ca = layout.certificate("ca.pem");
    let plain = json!({
        "protocol": "http", "versions": ["1.1"], "dial_timeout": "1s", "response_header_timeout": "2s",
        "read_timeout": "2s", "write_timeout": "2s",
    });
    let mut h2c = plain.clone();
    h2c["versions"] = json!(["h2c"]);
    let mut tls = plain.clone();
    tls["tls"] = json!({ "server_name": "origin.test", "ca": { "provider": "file", "pem_files": [ca] } });
    let mut patient = plain.clone();
    patient["read_timeout"] = json!("10s");
    let route = |name: &str, handle: Vec<Value>| {
        let paths = [format!("/{name}"), format!("/{name}/*")];
        json!({ "match": [{ "path": paths }], "handle": handle, "terminal": true })
    };
    let to = |it: std::net::SocketAddr| proxy(&[it], plain.clone(), Value::Null);
    let both = |pair: &[crate::origin::Origin; 2], more: Value| {
        proxy(&[pair[0].address, pair[1].address], plain.clone(), more)
    };
    let passive = json!({ "health_checks": { "passive": {
        "fail_duration": "10s", "max_fails": 5, "unhealthy_status": [500], "unhealthy_request_count": 64,
    } } });
    let active = json!({ "health_checks": { "active": {
        "uri": "/health", "interval": "500ms", "timeout": "1s", "expect_status": 2, "fails": 2, "passes": 1,
    } } });
    let mut routes = vec![
        route("admin", vec![to(o.admin.address)]),
        route("small", vec![json!({ "handler": "request_body", "max_size": 1_048_576 }), to(o.main.address)]),
        route("ws", vec![proxy(&[o.main.address], patient, Value::Null)]),
        route("pair", vec![proxy(&[o.dead, o.second.address], plain.clone(), Value::Null)]),
        route("dead", vec![to(o.dead)]),
        route("two", vec![both(&o.two, Value::Null)]),
        route("flaky", vec![both(&o.flaky, passive)]),
        route("checked", vec![both(&o.checked, active)]),
        route("h2c", vec![proxy(&[o.h2.address], h2c.clone(), Value::Null)]),
        route("grpc", vec![proxy(&[o.h2.address], h2c, Value::Null)]),
        route("tls", vec![proxy(&[o.tls.address], tls.clone(), Value::Null)]),
        route("tls-wrong", vec![proxy(&[o.tls_wrong.address], tls, Value::Null)]),
    ];
    routes.push(json!({ "handle": [to(o.main.address)] }));
    let server = |listen: std::net::SocketAddr, policies: Value| {
        let mut server = json!({
            "listen": [listen.to_string()],
            "protocols": ["h1", "h2", "h2c"],
            "read_header_timeout": "1s", "idle_timeout": "2s", "read_timeout": "4s",
            "max_header_bytes": 16384,
            "automatic_https": { "disable": true },
            "trusted_proxies": { "source": "static", "ranges": [format!("{TRUSTED}/32")] },
            "routes": routes,
        });
        if !policies.is_null() {
            server["tls_connection_policies"] = policies;
        }
        server
    };
    let files = |name: &str| {
        let file = |kind: &str| layout.certificate(&format!("{name}.{kind}"));
        json!({ "certificate": file("pem"), "key": file("key") })
    };
    let required = json!([{
        "fallback_sni": "a.test",
        "client_authentication": { "mode": "require_and_verify", "ca": { "provider": "file", "pem_files": [ca] } },
    }]);
    let config = json!({
        "admin": { "disabled": true, "config": { "persist": false } },
        "storage": { "module": "file_system", "root": layout.dir },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": {
            "tls": { "certificates": { "load_files": [files("a"), files("b")] }, "disable_ocsp_stapling": true },
            "http": { "servers": {
                "plain": server(at.plain, Value::Null),
                "tls": server(at.tls, json!([{ "fallback_sni": "a.test" }])),
                "mtls": server(at.mtls, required),
            } },
        },
    });
    let file = layout.write("caddy.json", &config.to_string())?;
    Ok(vec!["run".into(), "--config".into(), file])
}

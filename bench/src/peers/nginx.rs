//! nginx's configuration.

use std::fmt::Write as _;

use anyhow::Result;

use super::Layout;

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> Result<Vec<String>> {
    // Workers that it starts as another user must get at their files.
    let _ = std::fs::set_permissions(layout.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let mut servers = String::new();
    for origin in layout.origins {
        let _ = writeln!(servers, "        server {origin};");
    }
    let (routes, services) = (layout.shape.routes, layout.shape.services);
    // What is kept for each service is memory from the start, and only few requests go to one at the same time.
    let keep = if services > 0 { 16 } else { layout.origins.len().max(128) };
    let (mut upstreams, mut locations) = (String::new(), String::new());
    for nth in 0..services.max(1) {
        let _ = writeln!(
            upstreams,
            "    upstream s{nth} {{
{servers}        keepalive {keep};
        keepalive_requests 1000000000;
    }}"
        );
    }
    for nth in 0..routes.max(services) {
        let service = if services > 0 { nth } else { 0 };
        let _ = writeln!(locations, "        location /bench/r{nth} {{ proxy_pass http://s{service}; }}");
    }
    if locations.is_empty() {
        locations.push_str("        location / { proxy_pass http://s0; }\n");
    }
    let text = format!(
        "daemon off;
worker_processes {workers};
pid nginx.pid;
error_log stderr error;
worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{upstreams}    server {{
        listen {plain} backlog=4096;
        listen {http2} http2 backlog=4096;
        listen {tls} ssl backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_request_buffering off;
{locations}    }}
}}
",
        workers = layout.shape.workers,
        plain = layout.plain,
        http2 = layout.http2,
        tls = layout.tls,
        certificate = layout.certificates.certificate.display(),
        key = layout.certificates.key.display(),
    );
    let file = layout.write("nginx.conf", &text)?;
    Ok(["-p", ".", "-c", &file].map(str::to_owned).into())
}

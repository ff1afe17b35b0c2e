//! nginx's configuration.

use std::io;

use super::{Layout, Need, TRUSTED};

pub(super) fn lacks(need: Need) -> Option<&'static str> {
    match need {
        Need::ExtendedConnect => Some("no RFC 8441"),
        Need::HealthCheck => Some("active checks are in the commercial version"),
        Need::ListenerConnections => Some("connections are limited for the whole process only"),
        Need::ClientConnections => Some("limit_conn counts requests, not connections"),
        Need::FieldCount => Some("no limit of the number of fields"),
        Need::OnePort => Some("a port is HTTP/1.1 or HTTP/2"),
        Need::H2Endpoint | Need::Outlier | Need::InFlight | Need::TargetSize => None,
    }
}

/// A location that sets one of its own needs all of them again.
const FIELDS: &str = "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $xff;
    proxy_set_header X-Forwarded-Proto $proto; proxy_set_header X-Forwarded-Host $forwarded_host;
    proxy_set_header Forwarded $forwarded; proxy_set_header Via $via;";

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> io::Result<Vec<String>> {
    let o = layout.origins;
    let (dir, at) = (layout.dir.display(), layout.at);
    let locations = format!(
        "
        location = /admin {{ proxy_pass http://admin; }}
        location /admin/ {{ proxy_pass http://admin; }}
        location / {{ proxy_pass http://main; }}
        location /ws {{
            proxy_pass http://main;
            {FIELDS}
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 10s; proxy_send_timeout 10s;
        }}
        location /small {{ client_max_body_size 1m; proxy_pass http://main; }}
        location /pair {{ proxy_pass http://pair; }}
        location /dead {{ proxy_pass http://dead; }}
        location /two {{ proxy_pass http://two; }}
        location /flaky {{ proxy_next_upstream error timeout http_500; proxy_pass http://flaky; }}
        location /h2c {{ grpc_pass grpc://h2; }}
        location /grpc {{ grpc_pass grpc://h2; }}
        location /tls {{ {tls} proxy_pass https://tls; }}
        location /tls-wrong {{ {tls} proxy_pass https://tls_wrong; }}
        ",
        tls = format_args!(
            "proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name origin.test; proxy_ssl_server_name on;",
            layout.certificate("ca.pem")
        ),
    );
    let upstream = |name: &str, servers: &[std::net::SocketAddr]| {
        let servers: String = servers.iter().map(|it| format!("server {it} max_fails=5 fail_timeout=10s; ")).collect();
        format!("upstream {name} {{ {servers} keepalive 64; }}\n")
    };
    let upstreams = [
        upstream("main", &[o.main.address]),
        upstream("admin", &[o.admin.address]),
        upstream("pair", &[o.dead, o.second.address]),
        upstream("dead", &[o.dead]),
        upstream("two", &[o.two[0].address, o.two[1].address]),
        upstream("flaky", &[o.flaky[0].address, o.flaky[1].address]),
        upstream("h2", &[o.h2.address]),
        upstream("tls", &[o.tls.address]),
        upstream("tls_wrong", &[o.tls_wrong.address]),
    ]
    .concat();
    let certificate = |name: &str| {
        let file = |kind: &str| layout.certificate(&format!("{name}.{kind}"));
        format!("ssl_certificate {}; ssl_certificate_key {};", file("pem"), file("key"))
    };
    let (a, b, ca) = (certificate("a"), certificate("b"), layout.certificate("ca.pem"));
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
    uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
    client_header_timeout 1s; client_body_timeout 2s; send_timeout 2s; keepalive_timeout 2s;
    client_header_buffer_size 1k; large_client_header_buffers 2 8k; client_max_body_size 0;
    http2_max_concurrent_streams 100;
    set_real_ip_from {TRUSTED}; real_ip_header X-Forwarded-For; real_ip_recursive on;
    geo $realip_remote_addr $known {{ default 0; {TRUSTED}/32 1; }}
    map $known $xff {{ 0 $remote_addr; 1 $proxy_add_x_forwarded_for; }}
    map $known$http_x_forwarded_proto $proto {{ default $scheme; ~^1(?<told>https?)$ $told; }}
    map $known$http_x_forwarded_host $forwarded_host {{ default $http_host; ~^1(?<told_host>.+)$ $told_host; }}
    map $known $forwarded {{ 0 ''; 1 $http_forwarded; }}
    map $http_via $via {{ '' '1.1 nginx'; default '$http_via, 1.1 nginx'; }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    limit_conn_zone $server_port zone=all:1m; limit_conn all 64; limit_conn_status 503;
    proxy_http_version 1.1; proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_busy_buffers_size 32k; proxy_buffering off; proxy_request_buffering off;
    proxy_connect_timeout 1s; proxy_read_timeout 2s; proxy_send_timeout 2s;
    grpc_connect_timeout 1s; grpc_read_timeout 2s; grpc_send_timeout 2s;
    {FIELDS}
    proxy_set_header Connection '';
    {grpc_fields}
    {upstreams}
    server {{ listen {plain}; {locations} }}
    server {{ listen {h2} http2; {locations} }}
    server {{ listen {tls} ssl http2 default_server; server_name a.test; {a} ssl_protocols TLSv1.2 TLSv1.3; {locations} }}
    server {{ listen {tls} ssl http2; server_name b.test; {b} ssl_protocols TLSv1.2 TLSv1.3; {locations} }}
    server {{ listen {mtls} ssl http2; {a} ssl_client_certificate {ca}; ssl_verify_client on; {locations} }}
}}
",
        grpc_fields = FIELDS.replace("proxy_set_header", "grpc_set_header"),
        plain = at.plain,
        h2 = at.h2,
        tls = at.tls,
        mtls = at.mtls,
    );
    Ok(vec![
        "-p".into(),
        dir.to_string(),
        "-e".into(),
        "stderr".into(),
        "-c".into(),
        layout.write("nginx.conf", &text)?,
    ])
}

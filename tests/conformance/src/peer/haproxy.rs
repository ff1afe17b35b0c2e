//! HAProxy's configuration.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use super::{Layout, Need, TRUSTED};

pub(super) fn lacks(need: Need) -> Option<&'static str> {
    match need {
        Need::TargetSize => Some("one limit for the whole head"),
        _ => None,
    }
}

const DEFAULTS: &str = "
global
    maxconn 4000
    nbthread 1
    expose-experimental-directives
    tune.http.maxhdr 101
    tune.h2.max-concurrent-streams 100
defaults
    mode http
    maxconn 600
    timeout connect 1s
    timeout client 2s
    timeout server 2s
    timeout tunnel 10s
    timeout http-request 1s
    timeout http-keep-alive 2s
    timeout queue 100ms
    http-reuse safe
    retries 2
    option redispatch 1
    retry-on conn-failure empty-response
    default-server inter 500ms
";

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> io::Result<Vec<String>> {
    let (o, at) = (layout.origins, layout.at);
    let mut text = DEFAULTS.to_owned();
    let (a, b, ca) = (layout.certificate("a.both"), layout.certificate("b.both"), layout.certificate("ca.pem"));
    let tls = format!("ssl crt {a} crt {b} alpn h2,http/1.1 ssl-min-ver TLSv1.2");
    let _ = write!(
        text,
        "
frontend all
    bind {plain}
    bind {tls_at} {tls}
    bind {mtls_at} {tls} ca-file {ca} verify required
    acl known src {TRUSTED}
    stick-table type ip size 10k expire 10s store conn_cur
    tcp-request connection track-sc0 src
    tcp-request connection reject if {{ sc0_conn_cur gt 400 }}
    http-request normalize-uri fragment-strip
    http-request normalize-uri percent-decode-unreserved strict
    http-request normalize-uri path-merge-slashes
    http-request normalize-uri path-strip-dot
    http-request normalize-uri path-strip-dotdot full
    http-request del-header X-Forwarded-For unless known
    http-request del-header X-Forwarded-Host unless known
    http-request del-header X-Forwarded-Proto unless known
    http-request del-header Forwarded unless known
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }} !known
    http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }} !known
    http-request set-header X-Forwarded-Host %[req.hdr(host)] unless known
    http-request add-header Via '1.1 haproxy'
    http-request disable-l7-retry unless METH_GET
    http-request deny deny_status 413 if {{ path_beg /small }} {{ req.body_size gt 1048576 }}
    option forwardfor
",
        plain = at.plain,
        tls_at = at.tls,
        mtls_at = at.mtls,
    );
    let check = "check observe layer7 error-limit 5 on-error mark-down inter 10s";
    let verify = format!("ssl verify required ca-file {ca} verifyhost origin.test sni str(origin.test)");
    let both = |pair: &[crate::origin::Origin; 2]| [pair[0].address, pair[1].address];
    let backends: [(&str, Vec<SocketAddr>, &str); 11] = [
        ("admin", vec![o.admin.address], ""),
        ("pair", vec![o.dead, o.second.address], ""),
        ("dead", vec![o.dead], ""),
        ("two", both(&o.two).into(), ""),
        ("flaky", both(&o.flaky).into(), check),
        ("checked", both(&o.checked).into(), "check inter 500ms rise 1 fall 2"),
        ("h2c", vec![o.h2.address], "proto h2"),
        ("grpc", vec![o.h2.address], "proto h2"),
        ("tls-wrong", vec![o.tls_wrong.address], &verify),
        ("tls", vec![o.tls.address], &verify),
        ("main", vec![o.main.address], ""),
    ];
    for (name, _, _) in &backends[..10] {
        let _ = writeln!(text, "    use_backend {name} if {{ path /{name} }} || {{ path_beg /{name}/ }}");
    }
    text.push_str("    default_backend main\n");
    for (name, servers, options) in &backends {
        let _ = writeln!(text, "backend {name}");
        if *name == "checked" {
            text.push_str("    option httpchk GET /health\n    http-check expect status 200-399\n");
        }
        for (nth, server) in servers.iter().enumerate() {
            let _ = writeln!(text, "    server s{nth} {server} maxconn 64 {options}");
        }
    }
    Ok(vec!["-db".into(), "-f".into(), layout.write("haproxy.cfg", &text)?])
}

//! HAProxy's configuration.

use std::fmt::Write as _;

use anyhow::Result;

use super::Layout;

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> Result<Vec<String>> {
    let mut text = format!(
        "global
    nbthread {threads}
    maxconn 8000
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 30s
    option forwardfor
    http-reuse always
frontend bench
    bind {plain}
    bind {tls} ssl crt {both} alpn h2,http/1.1
    default_backend origin
backend origin
    balance roundrobin
",
        threads = layout.shape.workers,
        plain = layout.plain,
        tls = layout.tls,
        both = layout.certificates.both.display(),
    );
    for (nth, origin) in layout.origins.iter().enumerate() {
        let _ = writeln!(text, "    server s{nth} {origin}");
    }
    Ok(vec!["-db".into(), "-f".into(), layout.write("haproxy.cfg", &text)?])
}

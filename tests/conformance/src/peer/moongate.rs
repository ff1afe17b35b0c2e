//! Moongate's configuration.

use std::fmt::Write as _;
use std::io;

use super::{Layout, TRUSTED};

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> io::Result<Vec<String>> {
    let (o, at) = (layout.origins, layout.at);
    let services = [
        ("main", vec![o.main.address], "http"),
        ("admin", vec![o.admin.address], "http"),
        ("pair", vec![o.dead, o.second.address], "http"),
        ("dead", vec![o.dead], "http"),
        ("two", vec![o.two[0].address, o.two[1].address], "http"),
        ("flaky", vec![o.flaky[0].address, o.flaky[1].address], "http"),
        ("checked", vec![o.checked[0].address, o.checked[1].address], "http"),
        ("h2c", vec![o.h2.address], "h2c"),
        ("tls", vec![o.tls.address], "https"),
        ("tls_wrong", vec![o.tls_wrong.address], "https"),
    ];
    let mut text = String::new();
    for (name, addresses, scheme) in services {
        let endpoint = |it: &_| format!("{{ address = \"{it}\", scheme = \"{scheme}\" }}");
        let endpoints: Vec<String> = addresses.iter().map(endpoint).collect();
        let _ = writeln!(text, "[services.{name}]\nendpoints = [{}]", endpoints.join(", "));
    }
    layout.write("services.toml", &text)?;

    let certificate = |name: &str| {
        let file = |kind: &str| layout.certificate(&format!("{name}.{kind}"));
        format!("{{ certificate = \"{}\", key = \"{}\" }}", file("pem"), file("key"))
    };
    let (a, b, ca) = (certificate("a"), certificate("b"), layout.certificate("ca.pem"));
    let mut text = format!(
        "listen = \"{plain}\"
admin = \"127.0.0.1:0\"
workers = 2
trusted_proxies = [\"{TRUSTED}\"]
[[listeners]]
address = \"{tls}\"
tls.certificates = [{a}, {b}]
[[listeners]]
address = \"{mtls}\"
tls.certificates = [{a}]
tls.client_ca = \"{ca}\"
[limits]
header_size = \"16KiB\"
headers = 100
uri = \"8KiB\"
header_timeout = \"1s\"
idle_timeout = \"2s\"
connections = 600
connections_per_client = 400
requests = 64
[limits.http2]
streams = 100
[registry.file]
path = \"services.toml\"
[defaults]
timeout = {{ connect = \"1s\", header = \"2s\", idle = \"2s\", stream = \"10s\" }}
strip_prefix = false
[upstream.tls]
ca = \"{ca}\"
server_name = \"origin.test\"
[services.flaky]
outlier = {{ consecutive = 5, eject = \"10s\", status = \"500-599\" }}
[services.checked]
health_check = {{ path = \"/health\", interval = \"500ms\", timeout = \"1s\", healthy = 1, unhealthy = 2 }}
[[routes]]
path_prefix = \"/\"
service = \"main\"
[[routes]]
path_prefix = \"/small\"
service = \"main\"
max_body = \"1MiB\"
[[routes]]
path_prefix = \"/grpc\"
service = \"h2c\"
[[routes]]
path_prefix = \"/tls-wrong\"
service = \"tls_wrong\"
",
        plain = at.plain,
        tls = at.tls,
        mtls = at.mtls,
    );
    for name in ["admin", "pair", "dead", "two", "flaky", "checked", "h2c", "tls"] {
        let _ = writeln!(text, "[[routes]]\npath_prefix = \"/{name}\"\nservice = \"{name}\"");
    }
    std::fs::create_dir_all(layout.dir.join("plugins"))?;
    Ok(vec!["run".into(), "--config".into(), layout.write("moongate.toml", &text)?])
}

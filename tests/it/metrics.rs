//! Metrics: two formats, read by Prometheus' own reference parser, and a dashboard for Grafana that asks for what there is.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{get, get_with};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

/// Reads a text with the parser of `python3-prometheus-client`, which `tests/setup` installs: the names of the families and
/// of the samples, and how many of the latter there are.
fn parsed(format: &str, text: &str) -> (BTreeSet<String>, BTreeSet<String>, usize) {
    let program = "
import sys, json
from prometheus_client import parser, openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
parse = {'text': parser, 'openmetrics': openmetrics_parser}[sys.argv[1]].text_string_to_metric_families
families = list(parse(sys.stdin.read()))
names = [family.name for family in families]
assert len(names) == len(set(names)), 'a family is there twice'
samples = [sample for family in families for sample in family.samples]
keys = [(it.name, tuple(sorted(it.labels.items()))) for it in samples]
assert len(keys) == len(set(keys)), 'a sample is there twice'
for family in families:
    assert family.documentation and family.type != 'unknown', family.name
print(json.dumps([names, sorted({it.name for it in samples}), len(samples)]))
";
    // The distribution's own, which has the package, whatever else is in the path.
    let mut python = Command::new("/usr/bin/python3");
    let python = python.args(["-c", program, format]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = python.expect("starting python3, which tests/setup installs");
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the parser refuses {format}:\n{text}");
    let names = |it: &Value| it.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    (names(&read[0]), names(&read[1]), read[2].as_u64().unwrap() as usize)
}

/// The names of metrics that a query of Prometheus asks for.
fn asked_for(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.filter(|it| it.starts_with("moongate_") || it.starts_with("process_"))
}

#[tokio::test]
async fn both_formats_are_read_and_names_are_bounded() {
    let (dir, origin) = (TempDir::new().unwrap(), Origin::start().await);
    let endpoint = |name: &str| format!("[services.{name}]\nendpoints = [{{ address = \"{}\" }}]\n", origin.name());
    let all: String = ["a", "b", "c", "d"].map(endpoint).concat();
    fs::write(dir.path().join("services.toml"), all).unwrap();
    let gateway = Gateway::start_in(
        dir,
        r#"
        workers = 2
        [metrics]
        routes = 1
        services = 2
        endpoints = 3
        [registry.file]
        path = "services.toml"
        [auto_routes]
        [defaults]
        balancer = { plugin = "round-robin", shadow = "random", canary = { plugin = "weighted", share = "50%" } }
        [[routes]]
        path_prefix = "/one"
        service = "a"
        [[routes]]
        path_prefix = "/two"
        service = "b"
        "#,
    );
    for path in ["/one/", "/two/", "/two/", "/a/", "/b/", "/c/", "/d/"] {
        assert_eq!(get(gateway.http, path).await.status, StatusCode::OK);
    }
    assert_eq!(get(gateway.http, "/none").await.status, StatusCode::NOT_FOUND);
    for (metric, count) in [
        ("moongate_requests_total{code=\"2xx\"}", 7.0),
        ("moongate_requests_total{code=\"4xx\"}", 1.0),
        ("moongate_route_requests_total{route=\"/one\",code=\"2xx\"}", 1.0),
        ("moongate_route_requests_total{route=\"other\",code=\"2xx\"}", 2.0),
        ("moongate_route_requests_total{route=\"auto\",code=\"2xx\"}", 4.0),
        ("moongate_route_request_duration_seconds_count{route=\"auto\"}", 4.0),
        ("moongate_route_request_duration_seconds_bucket{route=\"auto\",le=\"+Inf\"}", 4.0),
    ] {
        assert_eq!(gateway.metric(metric).await, count, "{metric}");
    }
    let text = get(gateway.admin, "/metrics").await;
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let host = gateway.admin.to_string();
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4";
    let request = http::Request::get("/metrics").header("host", &host).header("accept", accept);
    let request = request.body(http_body_util::Full::default()).unwrap();
    let open = crate::support::client::Client::to(gateway.admin).await.send(request).await.unwrap();
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text().ends_with("\n# EOF\n") && !text.text().contains("EOF"));

    // How many services there are, two have a name; which of the four depends on nothing that matters.
    let services = |metric: &str| {
        let start = format!("{metric}{{service=\"");
        let names =
            text.text().lines().filter_map(|line| line.strip_prefix(&start)?.split('"').next().map(str::to_owned));
        names.collect::<BTreeSet<_>>()
    };
    for metric in ["moongate_service_requests_total", "moongate_service_endpoints"] {
        assert!(services(metric).len() == 3 && services(metric).contains("other"), "{:?}", services(metric));
    }
    assert_eq!(services("moongate_endpoint_picks_total").len(), 4, "three by name, and the rest");

    let (_, samples, count) = parsed("text", text.text());
    let (families, open_samples, open_count) = parsed("openmetrics", open.text());
    assert_eq!((&samples, count), (&open_samples, open_count), "both formats have the same");
    assert!(families.len() > 50 && count > 200, "{} families, {count} samples", families.len());
    for name in &families {
        let known = name.starts_with("moongate_") || name.starts_with("process_");
        assert!(known && !name.ends_with("_total"), "{name}");
    }
    get_with(gateway.http, "/one/", &[]).await;

    // What Grafana is to show is there.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/grafana/moongate.json");
    let board: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let (mut queries, mut panels) = (Vec::new(), 0);
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
            panels += 1;
        }
    }
    queries.extend(
        board["templating"]["list"].as_array().unwrap().iter().filter_map(|it| Some(it["query"].as_str()?.to_owned())),
    );
    assert!(panels > 12, "{panels}");
    let heads: BTreeSet<&str> =
        text.text().lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for query in &queries {
        for name in asked_for(query) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name);
            assert!(heads.contains(name) || heads.contains(family), "{name} of {query:?} does not exist");
        }
    }
}

//! Traces: from the caller through the gateway to the endpoint, and from the gateway to a collector, whose messages are read
//! with OpenTelemetry's own definitions.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::client::{get, get_with};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::raw::serving;
use crate::support::service::{logged, nobody};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector that keeps the spans it gets.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start(status: StatusCode) -> Collector {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = spans.clone();
        let address = serving(move |request: Request<hyper::body::Incoming>| {
            let kept = kept.clone();
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let packed = request.headers().get("content-encoding").is_some_and(|it| it == "gzip");
                let mut body = request.into_body().collect().await.unwrap().to_bytes();
                if packed {
                    body = unpacked(&body);
                }
                let message = ExportTraceServiceRequest::decode(body).unwrap();
                for of_resource in message.resource_spans {
                    let names = of_resource.resource.unwrap().attributes;
                    assert!(names.iter().any(|it| it.key == "service.name"));
                    kept.lock().unwrap().extend(of_resource.scope_spans.into_iter().flat_map(|it| it.spans));
                }
                let body = Full::<Bytes>::default().map_err(|never| match never {}).boxed();
                Response::builder().status(status).body(body).unwrap()
            }
        })
        .await;
        Collector { address, spans }
    }

    /// The spans of a trace, once there are so many requests in it.
    async fn spans(&self, trace: &str, requests: usize) -> Vec<Span> {
        let of_trace = || {
            let all = self.spans.lock().unwrap();
            all.iter().filter(|it| hex(&it.trace_id) == trace).cloned().collect::<Vec<_>>()
        };
        let count = || of_trace().iter().filter(|it| it.kind == 2).count();
        eventually(&format!("{requests} requests arrive"), async || count() >= requests).await;
        of_trace()
    }
}

/// We send nothing packed, but others do.
fn unpacked(bytes: &[u8]) -> Bytes {
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Shorter than a pipe holds.
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    gzip.wait_with_output().unwrap().stdout.into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    let value = span.attributes.iter().find(|it| it.key == key).and_then(|it| it.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?} in {span:?}"),
    }
}

/// An endpoint that answers with the trace headers that it was sent.
async fn echo() -> Origin {
    Origin::answering(|request, _| {
        let said = |name| request.headers().get(name).map_or("none", |it| it.to_str().unwrap()).to_owned();
        Response::new(Full::from(format!("{} {}", said("traceparent"), said("tracestate"))))
    })
    .await
}

fn gateway(endpoints: &[String], config: &str) -> Gateway {
    let dir = tempfile::TempDir::new().unwrap();
    let endpoints: Vec<String> = endpoints.iter().map(|it| format!("{{ address = \"{it}\" }}")).collect();
    let services = format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", "));
    std::fs::write(dir.path().join("services.toml"), services).unwrap();
    Gateway::start_in(
        dir,
        &format!("workers = 1\n{config}\n[registry.file]\npath = \"services.toml\"\n[auto_routes]\n"),
    )
}

#[tokio::test]
async fn a_trace_goes_from_the_caller_through_the_gateway_to_the_endpoint() {
    let (collector, echo) = (Collector::start(StatusCode::OK).await, echo().await);
    let config = format!(
        "[tracing]\nendpoint = \"http://{}\"\nsample = \"0%\"\n[access_log]\npath = \"a.log\"\n[upstream]\n\
         outlier = {{ consecutive = 0 }}\n",
        collector.address
    );
    let gone = nobody();
    let gateway = gateway(&[gone.to_string(), echo.name()], &config);
    let caller = [("traceparent", CALLER), ("tracestate", "a=b,c=d")];
    // One of two in turn is nobody, so that one of these is tried twice.
    let mut told = Vec::new();
    for _ in 0..2 {
        let reply = get_with(gateway.http, "/s/user?id=1", &caller).await;
        assert_eq!(reply.status, StatusCode::OK);
        let (parent, state) = reply.text().split_once(' ').unwrap();
        assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && parent.ends_with("-01"), "{parent}");
        assert_eq!(state, "a=b,c=d");
        told.push(parent[36..52].to_owned());
    }
    // Another that nobody asked to follow.
    let reply = get(gateway.http, "/s/").await;
    assert!(reply.text().ends_with("-00 none"), "{}", reply.text());

    // An exchange's spans come together.
    let spans = collector.spans(&CALLER[3..35], 2).await;
    let (servers, clients): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|it| it.kind == 2);
    assert_eq!(servers.len(), 2);
    for server in &servers {
        assert_eq!((hex(&server.parent_span_id), &*server.trace_state), (CALLER[36..52].to_owned(), "a=b,c=d"));
        assert_eq!(server.name, "GET /s");
        assert_eq!(text(server, "url.path"), "/s/user");
        assert_eq!((text(server, "moongate.service"), text(server, "moongate.endpoint")), ("s", &*echo.name()));
        assert!(server.status.is_none());
        let own: Vec<_> = clients.iter().filter(|it| it.parent_span_id == server.span_id).collect();
        assert!(!own.is_empty());
        let within = |it: &Span| {
            server.start_time_unix_nano <= it.start_time_unix_nano && it.end_time_unix_nano <= server.end_time_unix_nano
        };
        assert!(own.iter().all(|it| within(it)));
    }
    let answered: Vec<&&Span> = clients.iter().filter(|it| it.status.is_none()).collect();
    // What the endpoints were told as their parents are these spans.
    let mut parents: Vec<String> = answered.iter().map(|it| hex(&it.span_id)).collect();
    parents.sort();
    told.sort();
    assert_eq!(parents, told);
    assert!(answered.iter().all(|it| text(it, "url.full") == format!("http://{}/user", echo.name())));
    let failed = clients.iter().find(|it| it.status.is_some()).unwrap();
    assert_eq!((text(failed, "error.type"), text(failed, "moongate.endpoint")), ("connect", &*gone.to_string()));
    let exported = spans.len() as f64;
    eventually("they are counted", async || {
        gateway.metric("moongate_trace_spans_total{outcome=\"exported\"}").await == exported
    })
    .await;
    let lines = || std::fs::read_to_string(gateway.path("a.log")).unwrap_or_default();
    eventually("the access log has them", async || lines().lines().count() == 3).await;
    assert_eq!(lines().matches(&format!(" trace={} ", &CALLER[3..35])).count(), 2, "{}", lines());
}

/// A collector that is not of this project, and passes on what it has understood.
struct Rotel(std::process::Child);

impl Rotel {
    async fn start(to: SocketAddr) -> (Rotel, SocketAddr) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/rotel-agent");
        let http = nobody();
        let mut command = Command::new(&program);
        command.args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--batch-timeout", "100ms"]);
        command.args(["--otlp-exporter-endpoint", &format!("http://{to}")]);
        command.args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", "127.0.0.1:0"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let rotel = Rotel(child.unwrap_or_else(|error| panic!("{}: {error}; run tests/setup", program.display())));
        eventually("the collector listens", async || tokio::net::TcpStream::connect(http).await.is_ok()).await;
        (rotel, http)
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_collector_of_others_takes_and_passes_on_what_is_sent() {
    let (behind, echo) = (Collector::start(StatusCode::OK).await, echo().await);
    let (_rotel, collector) = Rotel::start(behind.address).await;
    let gateway = gateway(&[echo.name()], &format!("[tracing]\nendpoint = \"http://{collector}\"\nsample = \"0%\"\n"));
    for _ in 0..3 {
        assert_eq!(get_with(gateway.http, "/s/user", &[("traceparent", CALLER)]).await.status, StatusCode::OK);
    }
    eventually("they are counted", async || {
        gateway.metric("moongate_trace_spans_total{outcome=\"exported\"}").await == 6.0
    })
    .await;
    let spans = behind.spans(&CALLER[3..35], 3).await;
    let (servers, clients): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|it| it.kind == 2);
    assert!(servers.iter().all(|it| hex(&it.parent_span_id) == CALLER[36..52] && text(it, "url.path") == "/s/user"));
    assert!(clients.iter().all(|it| servers.iter().any(|server| server.span_id == it.parent_span_id)));
    assert_eq!((servers.len(), clients.len()), (3, 3));
    assert_eq!(gateway.metric("moongate_trace_spans_total{outcome=\"failed\"}").await, 0.0);
}

#[tokio::test]
async fn a_bad_context_is_replaced_and_without_tracing_nothing_is() {
    let (collector, echo) = (Collector::start(StatusCode::OK).await, echo().await);
    let config = format!("[tracing]\nendpoint = \"http://{}\"\nsample = \"0%\"\n", collector.address);
    let (with, without) = (gateway(&[echo.name()], &config), gateway(&[echo.name()], ""));
    let ask = async |gateway: &Gateway, parents: &[&str], state: &str| {
        let mut headers: Vec<(&str, &str)> = parents.iter().map(|it| ("traceparent", *it)).collect();
        headers.push(("tracestate", state));
        get_with(gateway.http, "/s/", &headers).await.text().to_owned()
    };
    let unfollowed = CALLER.replace("-01", "-00");
    assert_eq!(ask(&with, &[&unfollowed], "a=b").await, format!("{unfollowed} a=b"));
    let upper = CALLER.to_uppercase();
    for bad in [&["nonsense"][..], &[&*upper], &[CALLER, CALLER]] {
        let told = ask(&with, bad, "a=b").await;
        let (parent, state) = told.split_once(' ').unwrap();
        assert!(parent.len() == 55 && parent.ends_with("-00") && !bad.contains(&parent), "{bad:?}: {parent}");
        assert_eq!(state, "none", "it belonged to what was bad");
    }
    for any in ["nonsense", CALLER] {
        assert_eq!(ask(&without, &[any], "a=b").await, format!("{any} a=b"));
    }
    assert!(collector.spans.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_nobody_a_request_and_the_share_is_changed_at_once() {
    let (collector, echo) = (Collector::start(StatusCode::BAD_REQUEST).await, echo().await);
    let config = format!("[tracing]\nendpoint = \"http://{}\"\nsample = \"0%\"\n", collector.address);
    let gateway = gateway(&[echo.name()], &config);
    get(gateway.http, "/s/").await;
    let file = gateway.path("moongate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("\"0%\"", "\"100%\"").replace("workers = 1", "workers = 2");
    std::fs::write(gateway.path("new"), text).unwrap();
    std::fs::rename(gateway.path("new"), &file).unwrap();
    for key in ["tracing.sample", "workers"] {
        logged(&gateway, &format!("key=\"{key}\"")).await;
    }
    let log = gateway.log();
    let line = |key: &str| log.lines().find(|it| it.contains(&format!("key=\"{key}\""))).unwrap_or_default().to_owned();
    let sample = line("tracing.sample");
    assert!(sample.contains("configuration changed") && sample.contains("0%") && sample.contains("100%"), "{log}");
    assert!(line("workers").contains("this key takes effect at the next start"), "{log}");
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);
    eventually("they are counted", async || {
        gateway.metric("moongate_trace_spans_total{outcome=\"failed\"}").await == 2.0
    })
    .await;
    eventually("it is said", async || gateway.log().contains("the collector takes no spans, they are lost")).await;
    assert_eq!(collector.spans.lock().unwrap().len(), 2);
}

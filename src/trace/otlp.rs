//! Spans as OTLP has them, in protobuf: `ExportTraceServiceRequest` of
//! <https://github.com/open-telemetry/opentelemetry-proto>, version 1. Names of attributes are those of OpenTelemetry's
//! semantic conventions for HTTP, 1.23 and later; what they do not know begins with `moongate.`.
//!
//! By hand, because it is six small messages; a test reads them with the project's own definitions.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use http::Method;

use super::{Attempt, Exchange};

/// The version of the semantic conventions.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.23.0";

/// How a span came about: it serves a request, or makes one.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// The status of a span that went wrong.
const ERROR: u64 = 2;

/// The spans of these requests as one message.
pub(super) fn request(service: &str, exchanges: &[Box<Exchange>]) -> Vec<u8> {
    let clock = Clock { instant: Instant::now(), time: SystemTime::now() };
    let mut out = Message::default();
    out.message(1, |of_resource| {
        of_resource.message(1, |resource| {
            resource.attribute(1, "service.name", service);
            resource.attribute(1, "service.version", env!("CARGO_PKG_VERSION"));
            resource.attribute(1, "telemetry.sdk.name", "moongate");
            resource.attribute(1, "telemetry.sdk.language", "rust");
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.text(1, "moongate");
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            for exchange in exchanges {
                of_scope.message(2, |span| server(span, exchange, &clock));
                for (number, attempt) in exchange.attempts.iter().enumerate() {
                    of_scope.message(2, |span| client(span, exchange, number, attempt, &clock));
                }
            }
            of_scope.text(3, CONVENTIONS);
        });
    });
    out.0
}

/// The request as its caller sees it.
fn server(span: &mut Message, exchange: &Exchange, clock: &Clock) {
    let parent = exchange.parent.map(|it| it.0);
    let (method, original) = method(&exchange.method);
    let name = exchange.route.as_ref().map(|(route, _)| format!("{} {route}", span_method(method)));
    let name = name.unwrap_or_else(|| span_method(method).to_owned());
    head(span, exchange, (&exchange.span.0, parent.as_ref().map(<[u8; 8]>::as_slice)), &name, SERVER);
    span.time(7, clock.at(exchange.began));
    span.time(8, clock.at(exchange.ended));
    span.attribute(9, "http.request.method", method);
    original.iter().for_each(|it| span.attribute(9, "http.request.method_original", it));
    span.attribute(9, "url.path", &exchange.path);
    span.attribute(9, "url.scheme", if exchange.secure { "https" } else { "http" });
    if let Some(host) = &exchange.host {
        address(span, host);
    }
    span.attribute(9, "client.address", &exchange.client.to_string());
    span.attribute(9, "network.protocol.name", "http");
    span.attribute(9, "network.protocol.version", exchange.version);
    exchange.agent.iter().for_each(|it| span.attribute(9, "user_agent.original", it));
    if let Some((route, service)) = &exchange.route {
        span.attribute(9, "http.route", route);
        span.attribute(9, "moongate.route", route);
        span.attribute(9, "moongate.service", service);
    }
    span.attribute(9, "moongate.request_id", &exchange.id);
    if let Some(last) = exchange.attempts.last().filter(|it| it.status.is_some()) {
        span.attribute(9, "moongate.endpoint", &last.endpoint.to_string());
    }
    let status = exchange.status.map(|it| it.as_u16());
    status.iter().for_each(|it| span.number(9, "http.response.status_code", u64::from(*it)));
    // A client that was wrong is no error of the server's.
    let failed = status.is_none_or(|it| it >= 500);
    if failed {
        let left = if status.is_none() { "client-left" } else { "" };
        error(span, exchange.error.unwrap_or(left), status);
    }
    flags(span, exchange.parent.is_some());
}

/// An attempt as the endpoint's caller.
fn client(span: &mut Message, exchange: &Exchange, number: usize, attempt: &Attempt, clock: &Clock) {
    let (method, original) = method(&exchange.method);
    head(span, exchange, (&attempt.span.0, Some(&exchange.span.0)), span_method(method), CLIENT);
    span.time(7, clock.at(attempt.began));
    span.time(8, clock.at(attempt.ended.unwrap_or(exchange.ended)));
    span.attribute(9, "http.request.method", method);
    original.iter().for_each(|it| span.attribute(9, "http.request.method_original", it));
    span.attribute(9, "url.full", &format!("{}://{}{}", attempt.scheme, attempt.endpoint, attempt.path));
    span.attribute(9, "server.address", &attempt.endpoint.ip().to_string());
    span.number(9, "server.port", attempt.endpoint.port().into());
    span.attribute(9, "moongate.endpoint", &attempt.endpoint.to_string());
    if let Some((_, service)) = &exchange.route {
        span.attribute(9, "moongate.service", service);
    }
    if number > 0 {
        span.number(9, "http.request.resend_count", number as u64);
    }
    let status = attempt.status.map(|it| it.as_u16());
    status.iter().for_each(|it| span.number(9, "http.response.status_code", u64::from(*it)));
    let failed = status.is_none_or(|it| it >= 400);
    if failed {
        let left = if status.is_none() { "client-left" } else { "" };
        error(span, attempt.error.unwrap_or(left), status);
    }
    flags(span, false);
}

/// What every span has.
fn head(span: &mut Message, exchange: &Exchange, (id, parent): (&[u8], Option<&[u8]>), name: &str, kind: u64) {
    span.bytes(1, &exchange.trace.0);
    span.bytes(2, id);
    exchange.state.iter().for_each(|it| span.text(3, it));
    parent.iter().for_each(|it| span.bytes(4, it));
    span.text(5, name);
    span.unsigned(6, kind);
}

/// The flags of the trace: it is followed, and whether its parent is elsewhere is known.
fn flags(span: &mut Message, elsewhere: bool) {
    const KNOWN: u32 = 0x100;
    const ELSEWHERE: u32 = 0x200;
    span.tag(16, 5);
    let flags = 1 | KNOWN | if elsewhere { ELSEWHERE } else { 0 };
    span.0.extend_from_slice(&flags.to_le_bytes());
}

fn error(span: &mut Message, why: &str, status: Option<u16>) {
    let code = status.map(|it| it.to_string()).unwrap_or_default();
    let kind = if why.is_empty() { &code } else { why };
    span.attribute(9, "error.type", kind);
    span.message(15, |status| {
        if !why.is_empty() {
            status.text(2, why);
        }
        status.unsigned(3, ERROR);
    });
}

/// A host, with its port if it has one.
fn address(span: &mut Message, host: &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, port.parse::<u16>().ok()),
        _ => (host, None),
    };
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let name = bare.filter(|it| it.parse::<IpAddr>().is_ok()).unwrap_or(name);
    span.attribute(9, "server.address", name);
    port.iter().for_each(|it| span.number(9, "server.port", u64::from(*it)));
}

/// The method, if it is one of those that everybody knows: anybody can send any other, and there must be a limit to how many
/// there are. And what it was otherwise.
fn method(method: &Method) -> (&str, Option<&str>) {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    if KNOWN.contains(method) { (method.as_str(), None) } else { ("_OTHER", Some(method.as_str())) }
}

/// The method in a span's name.
fn span_method(method: &str) -> &str {
    if method == "_OTHER" { "HTTP" } else { method }
}

/// The time of day, for moments that the monotonic clock has measured.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    /// Nanoseconds since 1970.
    fn at(&self, at: Instant) -> u64 {
        let time = match at.checked_duration_since(self.instant) {
            Some(later) => self.time.checked_add(later),
            None => self.time.checked_sub(self.instant.saturating_duration_since(at)),
        };
        let since = time.and_then(|it| it.duration_since(SystemTime::UNIX_EPOCH).ok());
        u64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A message of protobuf: <https://protobuf.dev/programming-guides/encoding/>.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn tag(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn unsigned(&mut self, field: u64, number: u64) {
        self.tag(field, 0);
        self.varint(number);
    }

    fn time(&mut self, field: u64, nanoseconds: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&nanoseconds.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn attribute(&mut self, field: u64, key: &str, value: &str) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any.text(1, value));
        });
    }

    fn number(&mut self, field: u64, key: &str, value: u64) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any.unsigned(3, value));
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use http::StatusCode;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
    use prost::Message as _;

    use super::*;
    use crate::trace::{SpanId, TraceId};

    pub(in crate::trace) fn exchange() -> Exchange {
        let began = Instant::now();
        let attempt = |number: u8, status: Option<StatusCode>| Attempt {
            span: SpanId([number; 8]),
            endpoint: ([10, 0, 0, number], 3000).into(),
            scheme: "http",
            path: "/user".into(),
            began: began + Duration::from_millis(number.into()),
            ended: Some(began + Duration::from_millis(u64::from(number) + 5)),
            status,
            error: status.is_none().then_some("connect"),
        };
        Exchange {
            trace: TraceId([7; 16]),
            span: SpanId([9; 8]),
            parent: Some(SpanId([8; 8])),
            state: Some("a=b".into()),
            began,
            ended: began + Duration::from_millis(20),
            method: Method::from_bytes(b"PURGE").unwrap(),
            path: "/shop/user".into(),
            host: Some("[::1]:8080".into()),
            secure: true,
            version: "2",
            client: Ipv4Addr::LOCALHOST.into(),
            agent: Some("curl/8".into()),
            id: "seven".into(),
            route: Some(("/shop".into(), "service_1".into())),
            status: Some(StatusCode::OK),
            error: None,
            attempts: vec![attempt(1, None), attempt(2, Some(StatusCode::OK))],
        }
    }

    fn attribute<'a>(all: &'a [KeyValue], key: &str) -> Option<&'a Value> {
        let found: Vec<_> = all.iter().filter(|it| it.key == key).collect();
        assert!(found.len() <= 1, "{key} is there twice");
        found.first().and_then(|it| it.value.as_ref()).and_then(|it| it.value.as_ref())
    }

    fn assert_attributes(all: &[KeyValue], wanted: &[(&str, Value)]) {
        for (key, value) in wanted {
            assert_eq!(attribute(all, key), Some(value), "{key}");
        }
    }

    #[test]
    fn the_definitions_of_the_project_read_what_we_write() {
        let text = |it: &str| Value::StringValue(it.into());
        let exchange = exchange();
        let request = ExportTraceServiceRequest::decode(&*request("gate", &[Box::new(exchange)])).unwrap();
        let [of_resource] = &request.resource_spans[..] else { panic!("one resource") };
        assert_attributes(&of_resource.resource.as_ref().unwrap().attributes, &[("service.name", text("gate"))]);
        let [of_scope] = &of_resource.scope_spans[..] else { panic!("one scope") };
        assert_eq!(of_scope.scope.as_ref().unwrap().name, "moongate");
        let [server, failed, answered] = &of_scope.spans[..] else { panic!("three spans: {of_scope:?}") };
        for span in &of_scope.spans {
            assert_eq!((&span.trace_id[..], &*span.trace_state), (&[7; 16][..], "a=b"));
            assert!(span.start_time_unix_nano < span.end_time_unix_nano);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
            assert!(now.abs_diff(span.start_time_unix_nano) < 60_000_000_000);
        }
        assert_eq!((&server.span_id[..], &server.parent_span_id[..]), (&[9; 8][..], &[8; 8][..]));
        assert_eq!((&*server.name, server.kind, server.flags), ("HTTP /shop", 2, 0x301));
        assert_eq!(server.end_time_unix_nano - server.start_time_unix_nano, 20_000_000);
        assert!(server.status.is_none());
        let wanted = [
            ("http.request.method", text("_OTHER")),
            ("http.request.method_original", text("PURGE")),
            ("url.path", text("/shop/user")),
            ("url.scheme", text("https")),
            ("server.address", text("::1")),
            ("server.port", Value::IntValue(8080)),
            ("client.address", text("127.0.0.1")),
            ("user_agent.original", text("curl/8")),
            ("http.route", text("/shop")),
            ("moongate.service", text("service_1")),
            ("moongate.endpoint", text("10.0.0.2:3000")),
            ("http.response.status_code", Value::IntValue(200)),
        ];
        assert_attributes(&server.attributes, &wanted);
        assert_eq!((failed.kind, &failed.parent_span_id[..], failed.flags), (3, &[9; 8][..], 0x101));
        assert_eq!(failed.status.as_ref().map(|it| (it.code, &*it.message)), Some((2, "connect")));
        assert_attributes(&failed.attributes, &[("error.type", text("connect"))]);
        assert!(attribute(&failed.attributes, "http.request.resend_count").is_none());
        let wanted = [
            ("url.full", text("http://10.0.0.2:3000/user")),
            ("server.address", text("10.0.0.2")),
            ("server.port", Value::IntValue(3000)),
            ("http.request.resend_count", Value::IntValue(1)),
            ("http.response.status_code", Value::IntValue(200)),
        ];
        assert_attributes(&answered.attributes, &wanted);
        assert!(answered.status.is_none());
    }

    #[test]
    fn nobody_who_left_was_answered() {
        let exchange = Exchange { status: None, attempts: Vec::new(), route: None, parent: None, ..exchange() };
        let request = ExportTraceServiceRequest::decode(&*request("gate", &[Box::new(exchange)])).unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((&*span.name, span.flags, span.status.as_ref().unwrap().code), ("HTTP", 0x101, 2));
        assert!(span.parent_span_id.is_empty());
        assert_attributes(&span.attributes, &[("error.type", Value::StringValue("client-left".into()))]);
    }
}

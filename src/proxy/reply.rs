//! Answers of the gateway's own.

use std::time::{Instant, SystemTime};

use http::StatusCode;

use super::body::Body;
use super::{Response, grpc};
use crate::error::RequestError;
use crate::message::{Known, RequestHead, ResponseHead};

const TEXT: &str = "text/plain; charset=utf-8";

/// Methods that are passed on to endpoints, as `Allow` names them; any other token is passed on as well.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// How a client wants to be told of an error.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// In a line of text.
    Text,
    /// As `application/problem+json` (RFC 9457).
    Problem,
    /// In gRPC's way, which depends on when the caller gives up.
    Grpc(Option<Instant>),
}

impl Form {
    /// What fits a request. `until`: when the caller of gRPC gives up.
    pub fn of(head: &RequestHead, until: Option<Instant>) -> Form {
        if head.is_grpc() {
            return Form::Grpc(until);
        }
        let problem = head.fields.all(Known::Accept).any(|value| memchr::memmem::find(value, b"json").is_some());
        if problem { Form::Problem } else { Form::Text }
    }
}

/// One line of text, or what else the client wants; with the request's id, without internal addresses.
pub fn error(error: &RequestError, id: &str, form: Form) -> Response {
    let (status, phrase) = (error.status(), error.phrase());
    let mut response = match form {
        Form::Grpc(until) => grpc::error(error, until.is_some_and(|until| until <= Instant::now())),
        Form::Problem => {
            let document = serde_json::json!({
                "title": status.canonical_reason().unwrap_or_default(),
                "status": status.as_u16(),
                "detail": phrase,
                "request_id": id,
            });
            own(status, "application/problem+json", document.to_string())
        }
        Form::Text if id.is_empty() => own(status, TEXT, format!("{} {phrase}\n", status.as_u16())),
        Form::Text => own(status, TEXT, format!("{} {phrase} (request {id})\n", status.as_u16())),
    };
    let fields = &mut response.head.fields;
    if !id.is_empty() {
        fields.append(Known::XRequestId, id.as_bytes());
    }
    if error.may_pass() {
        // As long as a registrar takes to bring an endpoint back, about.
        fields.append(Known::RetryAfter, b"1");
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.append(Known::Allow, METHODS);
    }
    response
}

/// What stands at `/` where no route does.
pub fn welcome() -> Response {
    let text = "Moongate, an HTTP gateway.\n\nNo route matches /. Services are found under the routes of the \
                configuration; with automatic routes on, under /<service>/.\n";
    own(StatusCode::OK, TEXT, text.to_owned())
}

/// What the gateway says of itself: `OPTIONS *` is about the server, not about a resource (RFC 9110, section 9.3.7).
pub fn options() -> Response {
    let mut response = own(StatusCode::OK, TEXT, String::new());
    response.head.fields.remove(Known::ContentType);
    response.head.fields.append(Known::Allow, METHODS);
    response
}

/// An answer that a filter made.
pub fn by_filter(mut head: ResponseHead, body: Vec<u8>) -> Response {
    head.fields.set(Known::Server, b"moongate");
    Response::own(head, Body::Full(body.into()))
}

fn own(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut head = ResponseHead::new(status);
    head.fields.append(Known::Server, b"moongate");
    head.fields.append(Known::ContentType, content_type.as_bytes());
    Response::own(head, Body::Full(body.into()))
}

/// The date as responses carry it (RFC 9110, section 5.6.7), written once a second.
#[derive(Default)]
pub struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// Now.
    pub fn date(&mut self) -> &[u8] {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        self.text.as_bytes()
    }
}

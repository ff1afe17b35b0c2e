//! Answers of the gateway's own.

use std::time::SystemTime;

use http::StatusCode;

use super::Response;
use super::body::Body;
use crate::error::RequestError;
use crate::message::{Known, RequestHead, ResponseHead};

/// Methods that are passed on to endpoints, as `Allow` names them; any other token is passed on as well.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whether an error is to be told as `application/problem+json` (RFC 9457).
pub fn wants_problem(head: &RequestHead) -> bool {
    head.fields.all(Known::Accept).any(|value| memchr::memmem::find(value, b"json").is_some())
}

/// One line of text, or a problem document; with the request's id, without internal addresses.
pub fn error(error: &RequestError, id: &str, problem: bool) -> Response {
    let (status, phrase) = (error.status(), error.phrase());
    let (content_type, body) = if problem {
        let document = serde_json::json!({
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": phrase,
            "request_id": id,
        });
        ("application/problem+json", document.to_string())
    } else if id.is_empty() {
        ("text/plain; charset=utf-8", format!("{} {phrase}\n", status.as_u16()))
    } else {
        ("text/plain; charset=utf-8", format!("{} {phrase} (request {id})\n", status.as_u16()))
    };
    let mut response = own(status, content_type, body);
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
    own(StatusCode::OK, "text/plain; charset=utf-8", text.to_owned())
}

/// What the gateway says of itself: `OPTIONS *` is about the server, not about a resource (RFC 9110, section 9.3.7).
pub fn options() -> Response {
    let mut response = own(StatusCode::OK, "text/plain; charset=utf-8", String::new());
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

//! Answers of the gateway's own.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode, request};

use super::body::Body;
use super::headers::REQUEST_ID;
use crate::error::RequestError;

const SERVER: HeaderValue = HeaderValue::from_static("moongate");

/// Whether an error is to be told as `application/problem+json` (RFC 9457).
pub fn wants_problem(head: &request::Parts) -> bool {
    let mut accepted = head.headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("json")))
}

/// One line of text, or a problem document; with the request's id, without internal addresses.
pub fn error(error: &RequestError, id: &HeaderValue, problem: bool) -> Response<Body> {
    let (status, phrase) = (error.status(), error.phrase());
    let id_text = id.to_str().unwrap_or_default();
    let (content_type, body) = if problem {
        let document = serde_json::json!({
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": phrase,
            "request_id": id_text,
        });
        ("application/problem+json", document.to_string())
    } else {
        ("text/plain; charset=utf-8", format!("{} {phrase} (request {id_text})\n", status.as_u16()))
    };
    let mut response = own(status, content_type, body);
    response.headers_mut().insert(REQUEST_ID, id.clone());
    if matches!(error, RequestError::NoEndpoint | RequestError::Overloaded) {
        // As long as a registrar takes to bring an endpoint back, about, or a queue to shrink.
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What stands at `/` where no route does.
pub fn welcome() -> Response<Body> {
    let text = "Moongate, an HTTP gateway.\n\nNo route matches /. Services are found under the routes of the \
                configuration; with automatic routes on, under /<service>/.\n";
    own(StatusCode::OK, "text/plain; charset=utf-8", text.to_owned())
}

/// An answer that a filter made.
pub fn by_filter(answer: Response<Vec<u8>>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::SERVER, SERVER);
    Response::from_parts(head, Body::Full(body.into()))
}

fn own(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::Full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::SERVER, SERVER);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

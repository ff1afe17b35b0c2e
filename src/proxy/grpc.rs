//! What a gateway has to know of gRPC: how its calls are told that no endpoint has answered, and how long they may take. The
//! rest is HTTP/2 with trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::Response;
use super::body::Body;
use crate::error::RequestError;
use crate::http2::respond::Source;
use crate::message::{BodyError, Fields, Frame, Known, Length, RequestHead, ResponseHead};

/// `DEADLINE_EXCEEDED`.
const LATE: &[u8] = b"4";

/// `UNAVAILABLE`.
const UNAVAILABLE: &[u8] = b"14";

/// When the caller of a call of gRPC gives up; none: it is no such call, or never. Beyond eight digits it is no timeout.
pub fn until(head: &RequestHead) -> Option<Instant> {
    if !head.is_grpc() {
        return None;
    }
    let (unit, digits) = head.fields.get("grpc-timeout")?.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let time = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Instant::now().checked_add(time)
}

/// An error as gRPC is told of it: with status 200 and nothing but a head ("Trailers-Only"). `late`: the caller's time is over.
pub fn error(error: &RequestError, late: bool) -> Response {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.fields.append(Known::Server, b"moongate");
    head.fields.append(Known::ContentType, b"application/grpc");
    head.fields.append("grpc-status", if late { LATE } else { code(error.status()) });
    head.fields.append("grpc-message", encoded(error.phrase()).as_bytes());
    Response::own(head, Body::Full(bytes::Bytes::new()))
}

/// A body that is told by a status at its end if it breaks off: of a stream that is only taken back, callers make one that
/// says nothing.
pub struct Ending {
    body: Body,
    /// The response is one of gRPC.
    told: bool,
    until: Option<Instant>,
}

impl Ending {
    /// The body behind this head. `until`: when the caller gives up.
    pub fn new(head: &ResponseHead, body: Body, until: Option<Instant>) -> Ending {
        // A body of announced length that ends too early is malformed, whatever follows it.
        let told = head.is_grpc() && body.length() == Length::Unknown;
        Ending { body, told, until }
    }
}

impl Source for Ending {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match Source::poll_frame(&mut self.body, context) {
            Poll::Ready(Some(Err(error))) if self.told => {
                tracing::debug!(%error, "a response broke off");
                let late = self.until.is_some_and(|until| until <= Instant::now());
                let (code, why) = match late {
                    true => (LATE, "the caller's time is over"),
                    false => (UNAVAILABLE, "the endpoint's answer broke off"),
                };
                let mut status = Fields::default();
                status.append("grpc-status", code);
                status.append("grpc-message", encoded(why).as_bytes());
                Poll::Ready(Some(Ok(Frame::Trailers(status))))
            }
            frame => frame,
        }
    }

    fn is_over(&self) -> bool {
        self.body.is_over()
    }

    fn meanwhile(&mut self, context: &mut Context<'_>) {
        self.body.meanwhile(context);
    }
}

/// The code that a client would make of this status
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
fn code(status: StatusCode) -> &'static [u8] {
    match status {
        // INTERNAL
        StatusCode::BAD_REQUEST => b"13",
        // UNAUTHENTICATED
        StatusCode::UNAUTHORIZED => b"16",
        // PERMISSION_DENIED
        StatusCode::FORBIDDEN => b"7",
        // UNIMPLEMENTED
        StatusCode::NOT_FOUND => b"12",
        // UNAVAILABLE
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => UNAVAILABLE,
        // UNKNOWN
        _ => b"2",
    }
}

/// Text as `grpc-message` has it: percent-encoded but for what is printable.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let of = |content_type: &str, timeout: &str| {
            let mut head = RequestHead::new(http::Method::POST, "/");
            head.fields.append("content-type", content_type.as_bytes());
            head.fields.append("grpc-timeout", timeout.as_bytes());
            until(&head).map(|until| until.saturating_duration_since(Instant::now()))
        };
        for (timeout, seconds) in
            [("1H", 3600.0), ("2M", 120.0), ("99999999S", 99999999.0), ("1500m", 1.5), ("0n", 0.0)]
        {
            let left = of("application/grpc+proto", timeout).unwrap().as_secs_f64();
            assert!(left <= seconds && left > seconds - 1.0, "{timeout}: {left}");
        }
        for timeout in ["", "S", "1", "1x", "-1S", "123456789S", "1 S"] {
            assert_eq!(of("application/grpc", timeout), None, "{timeout}");
        }
        assert_eq!(of("text/plain", "1S"), None);
    }

    #[test]
    fn errors_are_told_in_the_head() {
        let told = |error: RequestError, late| {
            let response = super::error(&error, late);
            assert_eq!((response.head.status, response.body.is_over()), (StatusCode::OK, true));
            let text = |name: &str| response.head.fields.text(name).unwrap().to_owned();
            (text("grpc-status"), text("grpc-message"))
        };
        let told_of = |error| told(error, false).0;
        assert_eq!(told(RequestError::NoRoute, false), ("12".into(), "no route matches this request".into()));
        assert_eq!(told_of(RequestError::Malformed("x")), "13");
        assert_eq!(told_of(RequestError::NoEndpoint), "14");
        assert_eq!(told_of(RequestError::HeaderTimeout(Duration::ZERO)), "14");
        assert_eq!(told(RequestError::HeaderTimeout(Duration::ZERO), true).0, "4");
        assert_eq!(told_of(RequestError::Panic), "2");
        assert_eq!(encoded("100 % \u{e4}\n"), "100 %25 %C3%A4%0A");
    }
}

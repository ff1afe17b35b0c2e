//! Bounds the bodies of requests and responses.
//!
//! ```toml
//! filters = [{ plugin = "body-limit", config = { request = "10MiB", response = "50MiB" } }]
//! ```
//!
//! A request that says how long it is, and is too long, is refused before anything of it is read, with 413. One that does
//! not say is counted as it passes, and refused where it gets too long. So is a response, with 502; where its head is
//! already on its way, the exchange is broken off instead. Bytes are counted as they are sent, compressed or not. The
//! gateway's own `max_body` bounds requests too, for less work; this is for responses, and for limits that filters decide.

use moongate_plugin::{
    BodyVerdict, Config, Reply, Request, RequestBodyFilter, RequestFilter, Response, ResponseBodyFilter,
    ResponseFilter, Show, Size, Verdict,
};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    request: Option<Size>,
    response: Option<Size>,
}

/// Bytes; none: any number.
#[derive(Debug, PartialEq)]
struct BodyLimit {
    request: Option<u64>,
    response: Option<u64>,
}

impl TryFrom<Options> for BodyLimit {
    type Error = String;

    fn try_from(Options { request, response }: Options) -> Result<Self, String> {
        if request.is_none() && response.is_none() {
            return Err("nothing is bounded: give `request` or `response`, such as \"10MiB\"".into());
        }
        Ok(Self { request: request.map(|size| size.0), response: response.map(|size| size.0) })
    }
}

/// What is known of a body by the head of its message.
#[derive(Debug, PartialEq)]
enum Expected {
    Fits,
    TooLong,
    /// Only counting can tell.
    Unsaid,
}

impl Expected {
    /// By `content-length`. What is no number there is not believed, but counted.
    fn of(length: Option<&str>, most: u64) -> Self {
        match length.map(str::parse::<u64>) {
            Some(Ok(length)) if length > most => Self::TooLong,
            Some(Ok(_)) => Self::Fits,
            Some(Err(_)) | None => Self::Unsaid,
        }
    }
}

/// Bytes that have passed in an exchange, as they are noted: a response can come while the request is still being sent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Passed {
    request: u64,
    response: u64,
}

impl Passed {
    fn of(noted: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = noted.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        Self { request: number(0), response: number(8) }
    }

    fn bytes(self) -> Vec<u8> {
        [self.request.to_le_bytes(), self.response.to_le_bytes()].concat()
    }
}

/// Counts a piece; false if that is too much.
fn fits(passed: &mut u64, piece: &[u8], most: Option<u64>) -> bool {
    *passed = passed.saturating_add(piece.len() as u64);
    most.is_none_or(|most| *passed <= most)
}

fn too_long_request() -> Reply {
    Reply::text(413, "the body of the request is too long")
}

fn too_long_response() -> Reply {
    Reply::text(502, "the body of the response is too long")
}

/// Whether a response has no body, whatever `content-length` says (RFC 9110, section 8.6).
fn bodiless(method: &str, status: u16) -> bool {
    method == "HEAD" || matches!(status, 204 | 304)
}

impl RequestFilter for BodyLimit {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let Some(most) = self.request else { return Verdict::Next };
        match Expected::of(request.header("content-length").as_deref(), most) {
            Expected::TooLong => return Verdict::Respond(too_long_request()),
            Expected::Unsaid => drop(request.show_body(Show::Pieces)),
            Expected::Fits => {}
        }
        Verdict::Next
    }
}

impl ResponseFilter for BodyLimit {
    fn on_response(&mut self, request: Request, response: Response) -> Verdict {
        let Some(most) = self.response else { return Verdict::Next };
        if bodiless(&request.method(), response.status()) {
            return Verdict::Next;
        }
        match Expected::of(response.header("content-length").as_deref(), most) {
            Expected::TooLong => return Verdict::Respond(too_long_response()),
            Expected::Unsaid => drop(response.show_body(Show::Pieces)),
            Expected::Fits => {}
        }
        Verdict::Next
    }
}

impl RequestBodyFilter for BodyLimit {
    fn on_request_body(&mut self, request: Request, piece: Vec<u8>, _last: bool) -> BodyVerdict {
        let mut passed = Passed::of(&request.noted());
        if !fits(&mut passed.request, &piece, self.request) || !request.note(&passed.bytes()) {
            return BodyVerdict::Respond(too_long_request());
        }
        BodyVerdict::Next
    }
}

impl ResponseBodyFilter for BodyLimit {
    fn on_response_body(&mut self, request: Request, _response: Response, piece: Vec<u8>, _last: bool) -> BodyVerdict {
        let mut passed = Passed::of(&request.noted());
        if !fits(&mut passed.response, &piece, self.response) || !request.note(&passed.bytes()) {
            return BodyVerdict::Respond(too_long_response());
        }
        BodyVerdict::Next
    }
}

moongate_plugin::plugin!(
    BodyLimit: RequestFilter, ResponseFilter, RequestBodyFilter, ResponseBodyFilter;
    schema = include_str!("../schema.json")
);

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<BodyLimit, String> {
        RequestFilter::configure(Config::new(json))
    }

    #[test]
    fn a_length_that_is_said_decides_at_once() {
        assert_eq!(Expected::of(Some("10"), 10), Expected::Fits);
        assert_eq!(Expected::of(Some("11"), 10), Expected::TooLong);
        assert_eq!(Expected::of(Some("0"), 0), Expected::Fits);
        assert_eq!(Expected::of(None, 10), Expected::Unsaid);
        for odd in ["", "ten", "10, 10", "99999999999999999999"] {
            assert_eq!(Expected::of(Some(odd), 10), Expected::Unsaid, "{odd}");
        }
    }

    #[test]
    fn pieces_are_counted_to_the_last_byte_that_fits() {
        let mut passed = 0;
        assert!(fits(&mut passed, &[0; 6], Some(10)) && fits(&mut passed, &[0; 4], Some(10)));
        assert!(fits(&mut passed, &[], Some(10)), "an empty last piece is nothing more");
        assert!(!fits(&mut passed, &[0], Some(10)));
        assert!(fits(&mut passed, &[0; 100], None));
    }

    #[test]
    fn both_counts_are_noted_apart() {
        let passed = Passed { request: 1, response: u64::MAX };
        assert_eq!(Passed::of(&passed.bytes()), passed);
        assert_eq!(Passed::of(&[]), Passed::default());
    }

    #[test]
    fn the_length_of_no_body_is_not_judged() {
        assert!(bodiless("HEAD", 200) && bodiless("GET", 304) && bodiless("GET", 204));
        assert!(!bodiless("GET", 200));
    }

    #[test]
    fn sizes_are_read_and_mistakes_named() {
        assert_eq!(
            configure(r#"{"request":"1KiB","response":7}"#),
            Ok(BodyLimit { request: Some(1024), response: Some(7) })
        );
        for (json, words) in [
            ("{}", "give `request` or `response`"),
            (r#"{"request":"1 sack"}"#, "expected a number of bytes"),
            (r#"{"requests":1}"#, "unknown field `requests`"),
        ] {
            let error = configure(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}

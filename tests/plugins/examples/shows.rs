//! Looks at the bodies of requests, of responses, or of both, and does one thing to them.

use moongate_plugin::{
    BodyVerdict, Config, Reply, Request, RequestBodyFilter, RequestFilter, Response, ResponseBodyFilter,
    ResponseFilter, Show, Verdict,
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// The request's, the response's, or both.
    request: bool,
    response: bool,
    /// The most bytes; none: piece by piece.
    whole: Option<u32>,
    what: What,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    /// Capitals.
    Upper,
    /// Nothing goes on but the number of bytes, at the end.
    Count,
    /// Answers if there is an `!` in it.
    Answer,
    Trap,
}

impl Fixture {
    fn how(&self) -> Show {
        self.whole.map_or(Show::Pieces, Show::Whole)
    }

    fn look(&self, request: &Request, piece: Vec<u8>, last: bool) -> BodyVerdict {
        match self.what {
            What::Upper if piece.is_empty() => BodyVerdict::Next,
            What::Upper => BodyVerdict::Replace(piece.to_ascii_uppercase()),
            What::Count => {
                let before: u64 = String::from_utf8(request.noted()).unwrap().parse().unwrap_or(0);
                let count = before + piece.len() as u64;
                assert!(request.note(count.to_string().as_bytes()));
                BodyVerdict::Replace(if last { count.to_string().into_bytes() } else { Vec::new() })
            }
            What::Answer if piece.contains(&b'!') => {
                BodyVerdict::Respond(Reply { status: 422, headers: Vec::new(), body: b"do not shout".to_vec() })
            }
            What::Answer => BodyVerdict::Next,
            What::Trap => panic!("as it was told"),
        }
    }
}

impl RequestFilter for Fixture {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        if self.request {
            let shown = request.show_body(self.how());
            request.set("x-shown", if shown { "yes" } else { "no" });
        }
        Verdict::Next
    }
}

impl ResponseFilter for Fixture {
    fn on_response(&mut self, _: Request, response: Response) -> Verdict {
        if self.response {
            let shown = response.show_body(self.how());
            response.set("x-shown", if shown { "yes" } else { "no" });
            response.set("x-from", &response.endpoint());
        }
        Verdict::Next
    }
}

impl RequestBodyFilter for Fixture {
    fn on_request_body(&mut self, request: Request, piece: Vec<u8>, last: bool) -> BodyVerdict {
        // It counts where the head has not been sent.
        request.set("x-length", &piece.len().to_string());
        self.look(&request, piece, last)
    }
}

impl ResponseBodyFilter for Fixture {
    fn on_response_body(&mut self, request: Request, response: Response, piece: Vec<u8>, last: bool) -> BodyVerdict {
        response.set("x-length", &piece.len().to_string());
        self.look(&request, piece, last)
    }
}

moongate_plugin::plugin!(Fixture: RequestFilter, ResponseFilter, RequestBodyFilter, ResponseBodyFilter);

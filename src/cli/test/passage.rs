//! A request's way through one filter and back, as the request path of the gateway goes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, StatusCode};

use crate::cli::rig::{CLIENT, Rig, Stepped};
use crate::message::{RequestHead, ResponseHead};
use crate::plugin::host::{Answered, Exchange, Piece, Show, Step};
use crate::plugin::instance::Verdict;
use crate::plugin::{Binding, Failure};

/// Bytes of a body that are shown at once where it is shown in pieces.
const PIECE: usize = 64 << 10;

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Its head.
    pub(super) head: RequestHead,
    /// Who sends it.
    pub(super) client: IpAddr,
    /// Its body, as it comes; nothing if it has none.
    pub(super) body: Vec<Vec<u8>>,
}

impl Sent {
    /// A request without a body.
    pub(super) fn new(method: Method, path: &str) -> Sent {
        let mut head = RequestHead::new(method, path);
        head.fields.append("host", b"shop.example");
        Sent { head, client: CLIENT, body: Vec::new() }
    }
}

/// What an endpoint answers.
#[derive(Clone, Debug)]
pub(super) struct Came {
    /// Its head.
    pub(super) head: ResponseHead,
    /// Its body, as it comes.
    pub(super) body: Vec<Vec<u8>>,
}

impl Came {
    /// A response without a body.
    pub(super) fn new(status: StatusCode) -> Came {
        Came { head: ResponseHead::new(status), body: Vec::new() }
    }
}

/// How it went.
#[derive(Debug)]
pub(super) struct Passage {
    /// What goes on to the endpoint, head and body; none if the filter answered.
    pub(super) on: Option<(RequestHead, Vec<u8>)>,
    /// What the client gets.
    pub(super) back: Answer,
    /// The filter answered itself, or the gateway because of it.
    pub(super) answered: bool,
    /// How it asked to see the bodies of request and response.
    pub(super) asked: [Option<Show>; 2],
}

/// Head and body.
pub(super) type Answer = (ResponseHead, Vec<u8>);

/// Takes a request through a filter, and the response back.
pub(super) fn pass(rig: &mut Rig, binding: &Arc<Binding>, sent: &Sent, came: &Came) -> Result<Passage, Failure> {
    let kinds = rig.kinds();
    let original = sent.head.target.as_str().to_owned();
    let exchange = Some(Box::new(Exchange::new(sent.head.clone(), original, sent.client, 0)));
    let mut crossing = Crossing { rig, binding, exchange };
    let mut asked = [None; 2];

    if kinds.request_filter {
        let (verdict, how) = crossing.step(Step::Request { body: !sent.body.is_empty() })?;
        asked[0] = how;
        if let Verdict::Respond(head, body) = verdict {
            return Ok(Passage { on: None, back: (head, body), answered: true, asked });
        }
    }
    let request = match crossing.show(&sent.body, asked[0], Whose::Request)? {
        Ok(body) => (crossing.exchange()?.head.clone(), body),
        Err(back) => return Ok(Passage { on: None, back, answered: true, asked }),
    };

    let endpoint = SocketAddr::from(([10, 0, 0, 1], 80));
    crossing.exchange()?.response = Some(Answered { head: came.head.clone(), endpoint });
    let bodiless = sent.head.method == Method::HEAD || [204, 304].contains(&came.head.status.as_u16());
    let pieces = if bodiless { &[][..] } else { &came.body };
    if kinds.response_filter {
        let (verdict, how) = crossing.step(Step::Response { body: !pieces.is_empty() })?;
        asked[1] = how;
        if let Verdict::Respond(head, body) = verdict {
            return Ok(Passage { on: Some(request), back: (head, body), answered: true, asked });
        }
    }
    let (back, answered) = match crossing.show(pieces, asked[1], Whose::Response)? {
        Ok(body) => {
            let head = crossing.exchange()?.response.as_ref().map(|it| it.head.clone());
            ((head.unwrap_or_else(|| came.head.clone()), body), false)
        }
        Err(back) => (back, true),
    };
    Ok(Passage { on: Some(request), back, answered, asked })
}

/// Whose body is shown.
#[derive(Clone, Copy)]
enum Whose {
    Request,
    Response,
}

/// An exchange on its way.
struct Crossing<'a> {
    rig: &'a mut Rig,
    binding: &'a Arc<Binding>,
    exchange: Option<Box<Exchange>>,
}

impl Crossing<'_> {
    /// It is only away while a call runs.
    fn exchange(&mut self) -> Result<&mut Exchange, Failure> {
        self.exchange.as_deref_mut().ok_or(Failure::Missing)
    }

    fn step(&mut self, step: Step<'_>) -> Stepped {
        let exchange = self.exchange.take().ok_or(Failure::Missing)?;
        let (exchange, outcome) = self.rig.step(self.binding, exchange, step);
        self.exchange = Some(exchange);
        outcome
    }

    /// Shows a body as it was asked for; what is left of it, or an answer instead.
    fn show(
        &mut self,
        pieces: &[Vec<u8>],
        how: Option<Show>,
        whose: Whose,
    ) -> Result<Result<Vec<u8>, Answer>, Failure> {
        let all = pieces.concat();
        let whole = match how {
            None => return Ok(Ok(all)),
            Some(Show::Whole(most)) if all.len() > most as usize => {
                let status = match whose {
                    Whose::Request => StatusCode::PAYLOAD_TOO_LARGE,
                    Whose::Response => StatusCode::BAD_GATEWAY,
                };
                return Ok(Err((ResponseHead::new(status), Vec::new())));
            }
            Some(Show::Whole(_)) => true,
            Some(Show::Pieces) => false,
        };
        let cut: Vec<&[u8]> = if whole { vec![&all] } else { pieces.iter().flat_map(|it| it.chunks(PIECE)).collect() };
        // That a body is over is known after its last piece only.
        let end = (!whole).then_some((&[][..], true));
        let mut left = Vec::new();
        for (bytes, last) in cut.into_iter().map(|it| (it, whole)).chain(end) {
            let piece = Piece { bytes, last, whole };
            let step = match whose {
                Whose::Request => Step::RequestBody(piece),
                Whose::Response => Step::ResponseBody(piece),
            };
            match self.step(step)?.0 {
                Verdict::Next => left.extend_from_slice(bytes),
                Verdict::Replace(by) => left.extend(by),
                Verdict::Respond(head, body) => return Ok(Err((head, body))),
            }
        }
        Ok(Ok(left))
    }
}

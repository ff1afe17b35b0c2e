//! What the filters of a route see of one request and of the response to it.

use std::net::{IpAddr, SocketAddr};

use crate::message::{RequestHead, ResponseHead, Target};

/// Bytes that one use of a filter may note of one exchange.
const NOTE: usize = 4 << 10;

/// Bytes that a head may have after a filter has written to it, with 32 for each field (RFC 9113, section 6.5.2): more
/// than endpoints and clients take anyway.
const HEAD: usize = 64 << 10;

/// Bytes of a body that may be shown at once.
const WHOLE: u32 = 16 << 20;

/// A request on its way, with its response as soon as there is one; lent to each filter in turn.
pub struct Exchange {
    /// The request's head as it will be, or was, sent on.
    pub head: RequestHead,
    /// Path and query as the client sent them; none: as the target still tells.
    original: Option<String>,
    /// Who asks.
    pub client: IpAddr,
    /// The response.
    pub response: Option<Answered>,
    /// Drawn once, so that a canary sees all of an exchange or nothing.
    pub lot: u32,
    /// What filters noted, by the generation of their binding.
    notes: Vec<(u64, Box<[u8]>)>,
    turn: Turn,
}

/// A response on its way through the filters.
pub struct Answered {
    /// The head as the client will see it.
    pub head: ResponseHead,
    /// Who has answered.
    pub endpoint: SocketAddr,
}

/// How much of a body a filter wants to see at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// What there is.
    Pieces,
    /// All, and not more than so many bytes.
    Whole(u32),
}

/// Whose turn it is, and what the turn allows.
#[derive(Default)]
struct Turn {
    /// The generation of the binding.
    whose: u64,
    /// The request may be written to.
    request: bool,
    /// The response may be written to.
    response: bool,
    /// There is a body to be asked for.
    body: bool,
    asked: Option<Show>,
}

/// What a filter is called for.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A request, with a body or without.
    Request {
        /// There is a body that may be shown.
        body: bool,
    },
    /// A response.
    Response {
        /// There is a body that may be shown.
        body: bool,
    },
    /// A piece of the request's body.
    RequestBody(Piece<'a>),
    /// A piece of the response's body.
    ResponseBody(Piece<'a>),
}

/// A piece of a body.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Nothing comes after it.
    pub last: bool,
    /// The head has not been sent, and may still be written to.
    pub whole: bool,
}

impl Exchange {
    /// A request before its endpoint is chosen. `original`: path and query as the client sent them, where the head's target
    /// does not tell, see [`Target::whole`].
    pub fn new(head: RequestHead, original: impl Into<Option<String>>, client: IpAddr, lot: u32) -> Exchange {
        let original = original.into();
        Exchange { head, original, client, response: None, lot, notes: Vec::new(), turn: Turn::default() }
    }

    /// Begins the turn of a binding of this generation.
    pub(in crate::plugin) fn enter(&mut self, generation: u64, step: Step<'_>) {
        let none = Turn { whose: generation, ..Turn::default() };
        self.turn = match step {
            Step::Request { body } => Turn { request: true, body, ..none },
            Step::Response { body } => Turn { response: true, body, ..none },
            Step::RequestBody(piece) => Turn { request: piece.whole, ..none },
            Step::ResponseBody(piece) => Turn { response: piece.whole, ..none },
        };
    }

    /// Ends it: how the body is to be shown, if it was asked for.
    pub(in crate::plugin) fn leave(&mut self) -> Option<Show> {
        std::mem::take(&mut self.turn).asked
    }

    /// To be asked by one side: whether there is a body, which is then remembered.
    pub(super) fn show(&mut self, of_response: bool, how: Show) -> bool {
        let turn = &mut self.turn;
        let mine = if of_response { turn.response } else { turn.request };
        let fits = !matches!(how, Show::Whole(most) if most > WHOLE);
        if mine && turn.body && fits {
            turn.asked = Some(how);
        }
        mine && turn.body && fits
    }

    pub(super) fn noted(&self) -> &[u8] {
        let note = self.notes.iter().find(|(whose, _)| *whose == self.turn.whose);
        note.map_or(&[], |(_, bytes)| bytes)
    }

    pub(super) fn note(&mut self, value: &[u8]) -> bool {
        if value.len() > NOTE {
            return false;
        }
        let (whose, value) = (self.turn.whose, Box::from(value));
        match self.notes.iter_mut().find(|(known, _)| *known == whose) {
            Some((_, bytes)) => *bytes = value,
            None => self.notes.push((whose, value)),
        }
        true
    }

    /// The request's head, where it may be written to and has room for so many bytes more.
    pub(super) fn request(&mut self, more: usize) -> Option<&mut RequestHead> {
        let fits = self.turn.request && fits(self.head.fields.size() + self.head.target.as_str().len(), more);
        fits.then_some(&mut self.head)
    }

    /// Path and query as the client sent them.
    pub(super) fn original(&self) -> &str {
        self.original.as_deref().unwrap_or_else(|| self.head.target.whole())
    }

    /// Sends the request to another path.
    pub(super) fn redirect(&mut self, target: Target) {
        let before = std::mem::replace(&mut self.head.target, target);
        self.original.get_or_insert_with(|| before.into_whole());
    }

    /// The response's head, likewise.
    pub(super) fn answer(&mut self, more: usize) -> Option<&mut ResponseHead> {
        let head = self.response.as_mut().map(|it| &mut it.head).filter(|_| self.turn.response)?;
        fits(head.fields.size(), more).then_some(head)
    }
}

/// Whether so many bytes may be added to a head; what adds nothing always may.
fn fits(size: usize, more: usize) -> bool {
    more == 0 || size + more + 32 <= HEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, StatusCode};

    fn exchange() -> Exchange {
        Exchange::new(RequestHead::new(Method::POST, "/a"), "/s/a".to_owned(), [127, 0, 0, 1].into(), 0)
    }

    fn piece(whole: bool) -> Piece<'static> {
        Piece { bytes: b"", last: true, whole }
    }

    #[test]
    fn a_turn_says_what_may_be_written() {
        let mut exchange = exchange();
        let mut may = |step| {
            exchange.enter(1, step);
            (exchange.request(0).is_some(), exchange.answer(0).is_some())
        };
        assert_eq!(may(Step::Request { body: false }), (true, false));
        assert_eq!(may(Step::RequestBody(piece(true))), (true, false));
        assert_eq!(may(Step::RequestBody(piece(false))), (false, false));
        let head = ResponseHead::new(StatusCode::OK);
        exchange.response = Some(Answered { head, endpoint: ([127, 0, 0, 1], 1).into() });
        let mut may = |step| {
            exchange.enter(1, step);
            (exchange.request(0).is_some(), exchange.answer(0).is_some())
        };
        assert_eq!(may(Step::Response { body: false }), (false, true));
        assert_eq!(may(Step::ResponseBody(piece(true))), (false, true));
        assert_eq!(may(Step::ResponseBody(piece(false))), (false, false));
    }

    #[test]
    fn a_head_does_not_grow_without_end() {
        let mut exchange = exchange();
        exchange.enter(1, Step::Request { body: false });
        let value = [b'a'; 1000];
        let mut added = 0;
        while let Some(head) = exchange.request(1000) {
            head.fields.append("x-more", &value);
            added += 1;
            assert!(added < 1000, "it grows without end");
        }
        assert!((50..70).contains(&added), "{added}");
        assert!(exchange.request(0).is_some(), "what adds nothing is still possible");
    }

    #[test]
    fn a_body_is_shown_to_who_asks_in_time() {
        let mut exchange = exchange();
        exchange.enter(1, Step::Request { body: true });
        assert!(!exchange.show(true, Show::Pieces), "there is no response yet");
        assert!(!exchange.show(false, Show::Whole(WHOLE + 1)));
        assert!(exchange.show(false, Show::Whole(WHOLE)));
        assert_eq!(exchange.leave(), Some(Show::Whole(WHOLE)));
        exchange.enter(2, Step::Request { body: false });
        assert!(!exchange.show(false, Show::Pieces));
        exchange.enter(2, Step::RequestBody(piece(true)));
        assert!(!exchange.show(false, Show::Pieces));
        assert_eq!(exchange.leave(), None);
    }

    #[test]
    fn what_the_client_asked_for_is_not_forgotten() {
        let mut head = RequestHead::new(Method::GET, "/s/a?b");
        assert_eq!(head.target.cut(2), None);
        let mut exchange = Exchange::new(head, None, [127, 0, 0, 1].into(), 0);
        assert_eq!((exchange.head.target.as_str(), exchange.original()), ("/a?b", "/s/a?b"));
        for path in ["/c", "/d"] {
            exchange.redirect(Target::new(path.to_owned()));
            assert_eq!((exchange.head.target.as_str(), exchange.original()), (path, "/s/a?b"));
        }
    }

    #[test]
    fn each_use_has_its_own_notes() {
        let mut exchange = exchange();
        exchange.enter(1, Step::Request { body: false });
        assert!(exchange.note(b"one") && exchange.note(b"two"));
        assert!(!exchange.note(&[0; NOTE + 1]));
        exchange.enter(2, Step::Request { body: false });
        assert_eq!(exchange.noted(), b"");
        exchange.enter(1, Step::Response { body: false });
        assert_eq!(exchange.noted(), b"two");
    }
}

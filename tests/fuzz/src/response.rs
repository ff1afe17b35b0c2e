//! Heads of responses: what an endpoint says is what a slow and plain reading of it makes, and what a client gets is
//! understood in the same way.

use http::Method;
use moongate::http1::encode;
use moongate::http1::head::{self, Framing, HeadError, Limits, Response};
use moongate::message::Version;

use super::choice;
use super::http1::{
    Lines, WIDE, arrive, is_one_head, is_text, lines, plain, plain_fields, plain_framing, plain_keeps, settings,
};

/// What was asked.
const METHODS: [Method; 4] = [Method::GET, Method::HEAD, Method::CONNECT, Method::POST];

/// What it says.
#[derive(Debug, PartialEq)]
struct Said {
    status: u16,
    old: bool,
    fields: Lines,
    framing: Framing,
    keep_alive: bool,
}

/// One digit for the method of the request, one for the limits and one for the pieces, then what an endpoint sends.
pub fn response(data: &[u8]) {
    let (method, data) = choice(data, METHODS.len());
    let method = &METHODS[method];
    let (limits, piece, text) = settings(data);
    let whole = head::whole_response(text, method, limits).map(|(read, length)| (said(&read), length));
    let Some(head) = arrive(text, piece, limits) else { return assert_eq!(whole, None) };
    let read = head::response(head, method, limits);
    assert_eq!(read.as_ref().ok().map(said), plainly(head, method, limits), "{method} {read:?}");
    assert_eq!(whole, read.as_ref().ok().map(|read| (said(read), head.len())), "in one pass");
    match read {
        Ok(read) => sent_on(&read, method),
        Err(HeadError::Malformed(why)) => assert!(!why.is_empty()),
        Err(HeadError::TooLarge) => assert!(plain(head).matches("\r\n").count() > limits.fields + 2),
        Err(HeadError::Version) => assert!(head.starts_with(b"HTTP/") && head[5] != b'1'),
        Err(HeadError::TargetTooLong) => panic!("a response has no target"),
    }
}

/// What the gateway understands.
fn said(read: &Response) -> Said {
    Said {
        status: read.head.status.as_u16(),
        old: read.head.version == Version::Http10,
        fields: lines(&read.head.fields),
        framing: read.framing,
        keep_alive: read.keep_alive,
    }
}

/// The rules, one after the other. A reason may be missing with the space before it.
fn plainly(head: &[u8], method: &Method, limits: &Limits) -> Option<Said> {
    let text = plain(head);
    let mut rest = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let line = rest.next()?;
    let mut words = line.splitn(3, ' ');
    let minor = words.next()?.strip_prefix("HTTP/1.").filter(|it| it.len() == 1)?.parse::<u8>().ok()?;
    let status = words.next().filter(|it| it.len() == 3 && it.starts_with(['1', '2', '3', '4', '5']))?;
    let status = status.parse::<u16>().ok()?;
    if !is_text(words.next().unwrap_or_default()) {
        return None;
    }
    let fields = plain_fields(rest, limits.fields)?;
    // RFC 9112, section 6.3: the first two of its rules take precedence, but leave no doubt in the fields unpunished.
    let framing = match (method, status, plain_framing(&fields, minor == 0)?) {
        (&Method::HEAD, _, _) | (_, 100..200 | 204 | 304, _) | (&Method::CONNECT, 200..300, _) => Framing::None,
        (_, _, framing) => framing,
    };
    let keep_alive = plain_keeps(&fields, minor == 0) && framing != Framing::UntilClose;
    Some(Said { status, old: minor == 0, fields, framing, keep_alive })
}

/// Written and read again it is the same, and written again it does not change.
fn sent_on(read: &Response, method: &Method) {
    let mut written = Vec::new();
    encode::response(&mut written, &read.head);
    is_one_head(&written, read.head.fields.len());
    let again = head::response(&written, method, &WIDE);
    let again = again.unwrap_or_else(|why| panic!("{why}: {}", written.escape_ascii()));
    let before = said(read);
    let keep_alive = again.keep_alive;
    assert!(keep_alive == before.keep_alive || before.old);
    assert_eq!(said(&again), Said { old: false, keep_alive, ..before });
    let mut twice = Vec::new();
    encode::response(&mut twice, &again.head);
    assert_eq!(twice, written);
}

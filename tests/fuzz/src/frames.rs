//! A client's HTTP/2 connection: it does not matter how what comes is cut, nothing that comes breaks us, and what goes back
//! are frames.

use bytes::{BufMut, BytesMut};
use http::StatusCode;
use moongate::config::Limits;
use moongate::http2::frame::{HEAD, Head};
use moongate::http2::receive::{Event, Fault};
use moongate::http2::session::Session;
use moongate::message::{BodyError, Frame, ResponseHead};

use super::choice;
use super::http1::{Lines, lines};

/// Method, target and fields of a request, or what was wrong with it.
type Request = Result<(String, String, Lines), String>;

/// What came of it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// For each request what was asked, or why that cannot be understood.
    requests: Vec<(u32, Request)>,
    bodies: Vec<(u32, Vec<u8>, String)>,
    fault: Option<Fault>,
    sent: Vec<u8>,
}

/// A digit: how long the pieces are in which it comes. A digit: frames as they are, or as [`written`] has them.
pub fn frames(data: &[u8]) {
    let (piece, data) = choice(data, 64);
    let (raw, data) = choice(data, 2);
    let bytes = if raw == 1 { data.to_vec() } else { written(data) };
    let once = seen(&bytes, bytes.len().max(1));
    assert_eq!(seen(&bytes, piece + 1), once, "in pieces of {}", piece + 1);
    let mut sent = &once.sent[..];
    while !sent.is_empty() {
        let head = Head::read(sent).expect("only whole frames are sent");
        sent = &sent[HEAD + head.length..];
    }
}

/// Frames in short: a byte each for kind, flags, stream and length, and so many bytes, as far as they are there; sixteen times
/// if the first bit of the kind is set. First the SETTINGS that have to be first.
fn written(mut data: &[u8]) -> Vec<u8> {
    let mut bytes = Head { length: 0, kind: 4, flags: 0, stream: 0 }.bytes().to_vec();
    while let Some(([kind, flags, stream, length], rest)) = data.split_first_chunk() {
        let length = usize::from(*length).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        let payload = payload.repeat(if kind & 0x80 != 0 { 16 } else { 1 });
        let head = Head { length: payload.len(), kind: kind & 0x7f, flags: *flags, stream: u32::from(*stream) };
        bytes.put_slice(&head.bytes());
        bytes.put_slice(&payload);
        data = rest;
    }
    bytes
}

fn seen(bytes: &[u8], piece: usize) -> Seen {
    let mut session = Session::new(&Limits::default());
    let mut seen = Seen::default();
    let mut input = BytesMut::new();
    let mut open = Vec::new();
    'all: for part in bytes.chunks(piece) {
        input.extend_from_slice(part);
        while let Some(taken) = session.take(&mut input) {
            match taken {
                Ok(None) => {}
                Ok(Some(Event::Request { slot, head, .. })) => {
                    let id = session.stream(slot);
                    let said = head
                        .as_ref()
                        .as_ref()
                        .map(|head| (head.method.to_string(), head.target.as_str().to_owned(), lines(&head.fields)));
                    seen.requests.push((id, said.map_err(|error| error.to_string())));
                    if head.is_ok() {
                        session
                            .respond(slot, id, &ResponseHead::new(StatusCode::OK), false)
                            .expect("nobody has answered");
                        if let Ok(Some(5..)) = session.room(slot, id) {
                            session.data(slot, id, b"hello"[..].into(), true).expect("nobody has ended it");
                        }
                        open.push((slot, id));
                    } else {
                        session.finish(slot);
                    }
                }
                Ok(Some(Event::Gone { slot })) => {
                    let id = session.stream(slot);
                    open.retain(|it| *it != (slot, id));
                    session.finish(slot);
                }
                Err(fault) => {
                    seen.fault = Some(fault);
                    break 'all;
                }
            }
        }
        session.settle();
    }
    for (slot, id) in open {
        let mut body = Vec::new();
        let end = loop {
            match session.next(slot, id) {
                Some(Ok(Some(Frame::Data(data)))) => body.extend_from_slice(&data),
                Some(Ok(Some(Frame::Trailers(fields)))) => break format!("{:?}", lines(&fields)),
                Some(Ok(None)) => break "over".to_owned(),
                Some(Err(error)) => break BodyError::to_string(&error),
                None => break "open".to_owned(),
            }
        };
        seen.bodies.push((id, body, end));
        session.finish(slot);
    }
    seen.sent = session.sent();
    seen
}

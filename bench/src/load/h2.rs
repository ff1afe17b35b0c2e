//! HTTP/2 with prior knowledge, as a client that knows what the answers must be.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::request::{FIELDS, HOST};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for answers: a client of this kind has nothing to hold back.
const ROOM: u32 = 0x7fff_0000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// A request that is under way.
struct Stream {
    id: u32,
    since: Instant,
    body: u64,
    status: bool,
}

/// One connection's side of the protocol.
pub(super) struct Exchange {
    next: u32,
    streams: VecDeque<Stream>,
    input: Vec<u8>,
    /// The fields after the first request: all in the table that both sides keep.
    path: String,
    known: bool,
    /// Bytes of bodies that the other side has not been given back.
    owed: u32,
}

fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    into.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// A text as HPACK has it, without Huffman's code; below 127 bytes.
fn literal(into: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "one byte tells the length");
    into.push(text.len() as u8);
    into.extend_from_slice(text.as_bytes());
}

impl Exchange {
    pub(super) fn new(path: &str) -> Exchange {
        Exchange { next: 1, streams: VecDeque::new(), input: Vec::new(), path: path.to_owned(), known: false, owed: 0 }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.streams.len()
    }

    /// Appends the next request; before the first, what opens the connection.
    pub(super) fn begin(&mut self, since: Instant, out: &mut Vec<u8>) {
        if self.next == 1 {
            out.extend_from_slice(PREFACE);
            // No pushes, and the room of each stream.
            let settings = [&[0, 2, 0, 0, 0, 0, 0, 4][..], &ROOM.to_be_bytes()].concat();
            frame(out, SETTINGS, 0, 0, &settings);
            frame(out, WINDOW_UPDATE, 0, 0, &(ROOM - 65_535).to_be_bytes());
        }
        frame(out, HEADERS, END_STREAM | END_HEADERS, self.next, &self.fields());
        self.streams.push_back(Stream { id: self.next, since, body: 0, status: false });
        self.next += 2;
    }

    /// `:method: GET`, `:scheme: http`, and six fields: written out and kept the first time, then by their numbers, which
    /// count from 62 for the one that was kept last.
    fn fields(&mut self) -> Vec<u8> {
        let mut block = vec![0x82, 0x86];
        if self.known {
            block.extend((0..FIELDS.len() as u8 + 2).rev().map(|back| 0x80 | (62 + back)));
            return block;
        }
        self.known = true;
        for (name, value) in [(1, HOST), (4, self.path.as_str())] {
            block.push(0x40 | name);
            literal(&mut block, value);
        }
        for (name, value) in FIELDS {
            block.push(0x40);
            literal(&mut block, name);
            literal(&mut block, value);
        }
        block
    }

    /// Takes what was read: calls `done` with each request whose answer is complete, and appends what is to be sent.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        expected: u64,
        out: &mut Vec<u8>,
        mut done: impl FnMut(Instant),
    ) -> Result<()> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some((&[a, b, c, kind, flags, s, t, u, v], after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            rest = after;
            let id = u32::from_be_bytes([s & 0x7f, t, u, v]);
            if let Some(since) = self.frame(kind, flags, id, payload, expected, out)? {
                done(since);
            }
        }
        self.input.extend_from_slice(rest);
        if self.owed > ROOM / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.owed.to_be_bytes());
            self.owed = 0;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        expected: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Instant>> {
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    ensure!(setting[1] != 1 || value >= 4096, "a table for fields below 4096 bytes is not kept here");
                }
                frame(out, SETTINGS, ACK, 0, &[]);
                return Ok(None);
            }
            PING if flags & ACK == 0 => {
                frame(out, PING, ACK, 0, payload);
                return Ok(None);
            }
            SETTINGS | PING | WINDOW_UPDATE | CONTINUATION => return Ok(None),
            HEADERS | DATA => {}
            3 | 7 => bail!("the proxy ended stream {id} or the connection: {payload:?}"),
            _ => return Ok(None),
        }
        let place = self.streams.iter().position(|it| it.id == id);
        let Some(place) = place else { bail!("a frame of stream {id}, which is not open") };
        let stream = &mut self.streams[place];
        let padding = if flags & PADDED != 0 { usize::from(payload.first().copied().unwrap_or(0)) + 1 } else { 0 };
        if kind == HEADERS && !stream.status {
            let skip = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
            let block = payload.get(skip..).unwrap_or_default();
            // Before the fields, the table's size may be set; then 8 is `:status: 200`.
            let first = block.iter().find(|&&it| it & 0xe0 != 0x20);
            ensure!(first == Some(&0x88), "a status other than 200: {block:02x?}");
            stream.status = true;
        } else if kind == DATA {
            stream.body += (payload.len() - padding) as u64;
            self.owed += payload.len() as u32;
        }
        if flags & END_STREAM == 0 {
            return Ok(None);
        }
        ensure!(stream.body == expected, "a body of {} bytes instead of {expected}", stream.body);
        Ok(self.streams.remove(place).map(|it| it.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, kind, flags, 1, payload);
        out
    }

    /// How many answers are complete after these bytes, one at a time.
    fn complete(bytes: &[u8]) -> Result<usize> {
        let (mut exchange, mut out, mut count) = (Exchange::new("/"), Vec::new(), 0);
        exchange.begin(Instant::now(), &mut out);
        for byte in bytes {
            exchange.take(&[*byte], 3, &mut out, |_| count += 1)?;
        }
        Ok(count)
    }

    #[test]
    fn only_the_right_answer_is_complete() {
        let head = answer(HEADERS, END_HEADERS, &[0x20, 0x88, 0x5f]);
        let body = answer(DATA, END_STREAM | PADDED, b"\x02abc\0\0");
        assert_eq!(complete(&[&head[..], &body].concat()).unwrap(), 1);
        assert_eq!(complete(&head).unwrap(), 0);
        assert!(complete(&answer(HEADERS, END_HEADERS | END_STREAM, &[0x88])).is_err());
        assert!(complete(&answer(HEADERS, END_HEADERS, &[0x8d])).is_err());
        assert!(complete(&answer(3, 0, &[0, 0, 0, 7])).is_err());
    }

    #[test]
    fn the_second_request_is_numbers() {
        let (mut exchange, mut out) = (Exchange::new("/"), Vec::new());
        exchange.begin(Instant::now(), &mut out);
        out.clear();
        exchange.begin(Instant::now(), &mut out);
        assert_eq!(out[9..], [0x82, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe]);
    }
}

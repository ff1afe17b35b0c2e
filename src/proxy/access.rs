//! A request's line in the access log: written as the request goes, from what it was to how it ended, so that nothing has to
//! be kept that the line has already. Its keys are the same in both formats; those that have nothing to say are left out.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::access::Journal;
use crate::config::access::Format;
use crate::http1::encode;
use crate::message::forwarded::Peer;
use crate::message::{Known, RequestHead};
use crate::{scan, timer};

/// A key, with what stands before and behind it in either format.
struct Key {
    text: &'static str,
    json: &'static str,
}

macro_rules! key {
    ($name:literal) => {
        Key { text: concat!(" ", $name, "="), json: concat!(",\"", $name, "\":") }
    };
}

/// A line on its way. It is written when this is dropped, which is when the last of the response is with the system, or
/// nobody waits for it any more.
pub struct Note {
    journal: Rc<Journal>,
    format: Format,
    line: Vec<u8>,
    began: Instant,
    status: Option<StatusCode>,
    /// Bytes of the body that were sent.
    sent: u64,
    /// The response was sent to its end.
    whole: bool,
    /// Inside the list of endpoints.
    listing: bool,
    /// It says whose word the first attempt was.
    picked: bool,
}

impl Note {
    /// Of a request that has come.
    pub fn new(journal: &Rc<Journal>, head: &RequestHead, id: &[u8], began: Instant) -> Box<Note> {
        let mut note = Note::empty(journal, began);
        note.plain(key!("method"), head.method.as_str().as_bytes());
        note.text(key!("target"), head.target.as_str().as_bytes());
        note.plain(key!("version"), head.version.name().as_bytes());
        note.field(key!("host"), head, Known::Host);
        note.field(key!("agent"), head, Known::UserAgent);
        note.field(key!("referer"), head, Known::Referer);
        note.text(key!("id"), id);
        note
    }

    /// Of something that could not be read as a request.
    pub fn refused(journal: &Rc<Journal>, client: &Peer, status: StatusCode, error: &'static str) {
        let mut note = Note::empty(journal, timer::now());
        note.plain(key!("client"), client.text().as_bytes());
        note.failed(error);
        note.answered(status);
        note.whole = true;
    }

    fn empty(journal: &Rc<Journal>, began: Instant) -> Box<Note> {
        let (mut line, format) = (journal.buffer(), journal.format());
        line.extend_from_slice(match format {
            Format::Text => b"time=",
            Format::Json => b"{\"time\":\"",
        });
        journal.time(began, &mut line);
        if format == Format::Json {
            line.push(b'"');
        }
        let journal = journal.clone();
        Box::new(Note {
            journal,
            format,
            line,
            began,
            status: None,
            sent: 0,
            whole: false,
            listing: false,
            picked: false,
        })
    }

    /// The trace that it belongs to.
    pub fn traced(&mut self, trace: &[u8]) {
        self.plain(key!("trace"), trace);
    }

    /// Who asks, over a connection of `peer`, and which route takes it to which service.
    pub fn placed(&mut self, client: IpAddr, peer: &Peer, route: &str, service: &str) {
        if client == peer.address() {
            self.plain(key!("client"), peer.text().as_bytes());
        } else {
            self.plain(key!("client"), client.to_string().as_bytes());
        }
        self.text(key!("route"), route.as_bytes());
        self.text(key!("service"), service.as_bytes());
    }

    /// Whose word the first attempt was (a plugin and the beginning of its hash), among how many candidates, after how many
    /// picks: with [`Note::tries`] all that it takes to follow it.
    pub fn picked(&mut self, (balancer, version): (&str, &str), candidates: usize, sequence: u64) {
        // What attempts after the first add to it is in their addresses.
        if std::mem::replace(&mut self.picked, true) {
            return;
        }
        self.key(key!("balancer"));
        let (quote, at): (&[u8], &[u8]) =
            (if self.format == Format::Json { b"\"" } else { b"" }, if version.is_empty() { b"" } else { b"@" });
        for piece in [quote, balancer.as_bytes(), at, version.as_bytes(), quote] {
            self.line.extend_from_slice(piece);
        }
        self.number(key!("candidates"), candidates as u64);
        self.number(key!("sequence"), sequence);
    }

    /// An endpoint that it is sent to; the last one is who answered, if somebody did.
    pub fn tries(&mut self, endpoint: SocketAddr) {
        let before: &[u8] = match (self.format, self.listing) {
            (Format::Json, false) => b",\"endpoints\":[\"",
            (Format::Json, true) => b",\"",
            (Format::Text, false) => b" endpoints=",
            (Format::Text, true) => b",",
        };
        self.line.extend_from_slice(before);
        self.listing = true;
        match endpoint {
            SocketAddr::V4(it) => write_v4(&mut self.line, it),
            // A `Vec` takes everything.
            SocketAddr::V6(it) => drop(write!(self.line, "{it}")),
        }
        if self.format == Format::Json {
            self.line.push(b'"');
        }
    }

    /// What went wrong, as the metrics name it.
    pub fn failed(&mut self, error: &'static str) {
        self.plain(key!("error"), error.as_bytes());
    }

    /// How it was answered.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// So many bytes of the body were sent; `whole`: these were all.
    pub fn sent(&mut self, bytes: u64, whole: bool) {
        (self.sent, self.whole) = (bytes, whole);
    }

    #[inline(always)]
    fn field(&mut self, key: Key, head: &RequestHead, name: Known) {
        if let Some(value) = head.fields.get(name) {
            self.text(key, value);
        }
    }

    /// A key with a text, in quotes where it needs them.
    #[inline(always)]
    fn text(&mut self, key: Key, value: &[u8]) {
        if self.format == Format::Text && scan::is_plain(value) {
            return self.plain(key, value);
        }
        self.key(key);
        self.quoted(value);
    }

    #[inline(never)]
    fn quoted(&mut self, value: &[u8]) {
        self.line.push(b'"');
        escape(&mut self.line, value, self.format);
        self.line.push(b'"');
    }

    /// A key with a text that needs no quotes but those of JSON.
    #[inline(always)]
    fn plain(&mut self, key: Key, value: &[u8]) {
        self.key(key);
        match self.format {
            Format::Text => self.line.extend_from_slice(value),
            Format::Json => [b"\"", value, b"\""].iter().for_each(|piece| self.line.extend_from_slice(piece)),
        }
    }

    // Inlined, a key is a few moves; else each is a call that first has to find out how long it is.
    #[inline(always)]
    fn key(&mut self, key: Key) {
        match self.format {
            Format::Text => self.line.extend_from_slice(key.text.as_bytes()),
            Format::Json => {
                if std::mem::take(&mut self.listing) {
                    self.line.push(b']');
                }
                self.line.extend_from_slice(key.json.as_bytes());
            }
        }
    }

    #[inline(always)]
    fn number(&mut self, key: Key, number: u64) {
        self.key(key);
        self.line.extend_from_slice(encode::itoa(number, &mut [0; 20]));
    }

    fn seconds(&mut self, key: Key, time: Duration) {
        self.number(key, time.as_secs());
        let mut micros = [b'0'; 7];
        micros[0] = b'.';
        let mut rest = time.subsec_micros();
        for digit in micros[1..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.line.extend_from_slice(&micros);
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(status) = self.status {
            self.key(key!("status"));
            // It always has three, and of three the compiler makes a move and no call.
            if let Some(digits) = status.as_str().as_bytes().first_chunk::<3>() {
                self.line.extend_from_slice(digits);
            }
        }
        self.number(key!("bytes"), self.sent);
        self.seconds(key!("seconds"), timer::now().saturating_duration_since(self.began));
        if !self.whole {
            // The client left, or the body broke off.
            self.key(key!("broken"));
            self.line.extend_from_slice(b"true");
        }
        self.line.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
        self.journal.put(std::mem::take(&mut self.line));
    }
}

/// An address. What `write!` needs for it is more than all the rest of the line.
fn write_v4(out: &mut Vec<u8>, address: SocketAddrV4) {
    let (mut text, mut at) = ([b'.'; 21], 0);
    let mut digits = [0; 20];
    for octet in address.ip().octets() {
        let digits = encode::itoa(octet.into(), &mut digits);
        text[at..at + digits.len()].copy_from_slice(digits);
        at += digits.len() + 1;
    }
    text[at - 1] = b':';
    out.extend_from_slice(&text[..at]);
    out.extend_from_slice(encode::itoa(address.port().into(), &mut digits));
}

/// What stands between quotes. Bytes that are no text, and controls, are written as the text `\x` and two digits: a line must
/// not be able to look like two, or like a line of somebody else.
fn escape(out: &mut Vec<u8>, value: &[u8], format: Format) {
    let mut rest = value;
    while !rest.is_empty() {
        let run = scan::quotable_end(rest);
        out.extend_from_slice(&rest[..run]);
        let Some(byte) = rest.get(run) else { return };
        let text = [b'x', b"0123456789abcdef"[usize::from(byte >> 4)], b"0123456789abcdef"[usize::from(byte & 15)]];
        match (byte, format) {
            (b'"' | b'\\', _) => out.extend_from_slice(&[b'\\', *byte]),
            // There the backslash itself has to be escaped.
            (_, Format::Json) => out.extend_from_slice(&[&b"\\\\"[..], &text].concat()),
            (_, Format::Text) => out.extend_from_slice(&[&b"\\"[..], &text].concat()),
        }
        rest = &rest[run + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_break_out_of_its_quotes() {
        let escaped = |text: &[u8], format| {
            let mut out = Vec::new();
            escape(&mut out, text, format);
            String::from_utf8(out).unwrap()
        };
        let odd = b"a\"b\\c\n\xff d";
        assert_eq!(escaped(odd, Format::Text), r#"a\"b\\c\x0a\xff d"#);
        let read: serde_json::Value = serde_json::from_str(&format!("\"{}\"", escaped(odd, Format::Json))).unwrap();
        assert_eq!(read, r#"a"b\c\x0a\xff d"#);
    }
}

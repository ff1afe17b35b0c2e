//! A request's line in the access log: written as the request goes, from what it was to how it ended, so that nothing has to
//! be kept that the line has already. Its keys are the same in both formats; those that have nothing to say are left out.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::access::Journal;
use crate::config::access::Format;
use crate::http1::encode;
use crate::message::{Known, RequestHead};
use crate::timer;

/// A line on its way. It is written when this is dropped, which is when the last of the response is with the system, or
/// nobody waits for it any more.
pub struct Note {
    journal: Rc<Journal>,
    line: Vec<u8>,
    began: Instant,
    status: Option<StatusCode>,
    /// Bytes of the body that were sent.
    sent: u64,
    /// The response was sent to its end.
    whole: bool,
    /// Inside the list of endpoints.
    listing: bool,
}

impl Note {
    /// Of a request that has come.
    pub fn new(journal: &Rc<Journal>, head: &RequestHead, id: &str, began: Instant) -> Box<Note> {
        let mut note = Note::empty(journal, began);
        note.text("method", head.method.as_str().as_bytes());
        note.text("target", head.target.as_str().as_bytes());
        note.text("version", head.version.name().as_bytes());
        for (key, value) in [
            ("host", head.fields.get(Known::Host)),
            ("agent", head.fields.get(Known::UserAgent)),
            ("referer", head.fields.get(Known::Referer)),
        ] {
            value.into_iter().for_each(|value| note.text(key, value));
        }
        note.text("id", id.as_bytes());
        note
    }

    /// Of something that could not be read as a request.
    pub fn refused(journal: &Rc<Journal>, client: IpAddr, status: StatusCode, error: &'static str) {
        let mut note = Note::empty(journal, timer::now());
        note.key("client");
        note.quoted(|line| write_address(line, client));
        note.failed(error);
        note.answered(status);
        note.whole = true;
    }

    fn empty(journal: &Rc<Journal>, began: Instant) -> Box<Note> {
        let mut line = journal.buffer();
        line.extend_from_slice(match journal.format() {
            Format::Text => b"time=",
            Format::Json => b"{\"time\":\"",
        });
        journal.time(began, &mut line);
        if journal.format() == Format::Json {
            line.push(b'"');
        }
        let journal = journal.clone();
        Box::new(Note { journal, line, began, status: None, sent: 0, whole: false, listing: false })
    }

    /// Who asks, and which route takes it to which service.
    pub fn placed(&mut self, client: IpAddr, route: &str, service: &str) {
        self.key("client");
        self.quoted(|line| write_address(line, client));
        self.text("route", route.as_bytes());
        self.text("service", service.as_bytes());
    }

    /// An endpoint that it is sent to; the last one is who answered, if somebody did.
    pub fn tries(&mut self, endpoint: SocketAddr) {
        let json = self.journal.format() == Format::Json;
        let before: &[u8] = match (json, self.listing) {
            (true, false) => b",\"endpoints\":[\"",
            (true, true) => b",\"",
            (false, false) => b" endpoints=",
            (false, true) => b",",
        };
        self.line.extend_from_slice(before);
        self.listing = true;
        match endpoint {
            SocketAddr::V4(it) => {
                write_address(&mut self.line, (*it.ip()).into());
                self.line.push(b':');
                self.line.extend_from_slice(encode::itoa(it.port().into(), &mut [0; 20]));
            }
            // A `Vec` takes everything.
            SocketAddr::V6(it) => drop(write!(self.line, "{it}")),
        }
        if json {
            self.line.push(b'"');
        }
    }

    /// What went wrong, as the metrics name it.
    pub fn failed(&mut self, error: &'static str) {
        self.text("error", error.as_bytes());
    }

    /// How it was answered.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// So many bytes of the body were sent; `whole`: these were all.
    pub fn sent(&mut self, bytes: u64, whole: bool) {
        (self.sent, self.whole) = (bytes, whole);
    }

    /// A key with a text, in quotes where it needs them.
    fn text(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        match self.journal.format() {
            Format::Json => {
                self.line.push(b'"');
                escape(&mut self.line, value, true);
                self.line.push(b'"');
            }
            Format::Text
                if value.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\')) =>
            {
                self.line.extend_from_slice(value);
            }
            Format::Text => {
                self.line.push(b'"');
                escape(&mut self.line, value, false);
                self.line.push(b'"');
            }
        }
    }

    /// A text that needs no quotes but those of JSON.
    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let quote: &[u8] = if self.journal.format() == Format::Json { b"\"" } else { b"" };
        self.line.extend_from_slice(quote);
        write(&mut self.line);
        self.line.extend_from_slice(quote);
    }

    fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        self.line.extend_from_slice(encode::itoa(number, &mut [0; 20]));
    }

    fn key(&mut self, key: &'static str) {
        let json = self.journal.format() == Format::Json;
        if std::mem::take(&mut self.listing) && json {
            self.line.push(b']');
        }
        let (before, behind): (&[u8], &[u8]) = if json { (b",\"", b"\":") } else { (b" ", b"=") };
        [before, key.as_bytes(), behind].iter().for_each(|piece| self.line.extend_from_slice(piece));
    }

    fn seconds(&mut self, key: &'static str, time: Duration) {
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
            self.number("status", status.as_u16().into());
        }
        self.number("bytes", self.sent);
        self.seconds("seconds", timer::now().saturating_duration_since(self.began));
        if !self.whole {
            // The client left, or the body broke off.
            self.key("broken");
            self.line.extend_from_slice(b"true");
        }
        self.line.extend_from_slice(if self.journal.format() == Format::Json { b"}\n" } else { b"\n" });
        self.journal.put(std::mem::take(&mut self.line));
    }
}

/// An address. What `write!` needs for the usual ones is more than all the rest of the line.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // A `Vec` takes everything.
        return drop(write!(out, "{address}"));
    };
    for (at, part) in address.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(encode::itoa(part.into(), &mut [0; 20]));
    }
}

/// What stands between quotes. Bytes that are no text, and controls, are written as the text `\x` and two digits: a line must
/// not be able to look like two, or like a line of somebody else.
fn escape(out: &mut Vec<u8>, value: &[u8], json: bool) {
    let plain = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    let mut rest = value;
    while !rest.is_empty() {
        let run = rest.iter().position(|byte| !plain(*byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..run]);
        let Some(byte) = rest.get(run) else { return };
        let text = [b'x', b"0123456789abcdef"[usize::from(byte >> 4)], b"0123456789abcdef"[usize::from(byte & 15)]];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            // In JSON the backslash itself has to be escaped.
            _ if json => out.extend_from_slice(&[&b"\\\\"[..], &text].concat()),
            _ => out.extend_from_slice(&[&b"\\"[..], &text].concat()),
        }
        rest = &rest[run + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_break_out_of_its_quotes() {
        let escaped = |text: &[u8], json| {
            let mut out = Vec::new();
            escape(&mut out, text, json);
            String::from_utf8(out).unwrap()
        };
        let odd = b"a\"b\\c\n\xff d";
        assert_eq!(escaped(odd, false), r#"a\"b\\c\x0a\xff d"#);
        let read: serde_json::Value = serde_json::from_str(&format!("\"{}\"", escaped(odd, true))).unwrap();
        assert_eq!(read, r#"a"b\c\x0a\xff d"#);
    }
}

//! Bodies in chunks: the content is what a slow and plain reading makes of them, however they are cut; nothing behind
//! their end is touched, and little is held back.

use bytes::{Bytes, BytesMut};
use moongate::http1::chunked::{Decoder, Step};
use moongate::http1::encode;
use moongate::message::Fields;

use super::choice;
use super::http1::{Lines, is_text, is_token, lines, plain, plain_end, plain_fields};

/// How often a part comes that is to come more often: enough for each limit of the decoder.
const TIMES: [usize; 3] = [1, 2, 80];

/// What may be held back until more comes; trailer fields are read as a whole.
const HELD: usize = 8 << 10;

/// How far a body is.
#[derive(Clone, Debug, Default, PartialEq)]
enum End {
    /// More has to come.
    #[default]
    More,
    /// It ends with these trailer fields, if there are any, so many bytes before the end of the input.
    Over(Lines, usize),
    /// It is malformed.
    Wrong,
}

/// Two digits: how long the pieces are in which it comes, in turns. One digit: how often comes what stands between two
/// bytes 254. Then a body and what follows.
pub fn chunked(data: &[u8]) {
    let (odd, data) = choice(data, 64);
    let (even, data) = choice(data, 64);
    let (times, data) = choice(data, TIMES.len());
    let parts = data.split(|byte| *byte == 254).enumerate();
    let text: Vec<u8> = parts.flat_map(|(at, part)| part.repeat(if at % 2 == 1 { TIMES[times] } else { 1 })).collect();

    let mut read = Reading::of(&text, [text.len().max(1); 2]);
    // Byte by byte, unless that takes too long.
    for lengths in [[odd + 1, even + 1], [1 + text.len() / 1024; 2]] {
        let cut = Reading::of(&text, lengths);
        assert_eq!((&cut.content, &cut.end), (&read.content, &read.end), "in pieces of {lengths:?}");
    }
    let (content, end) = plainly(&text);
    assert_eq!(read.content, content);
    match &read.end {
        End::Over(..) => {
            assert_eq!(read.end, end);
            read.written_again();
        }
        End::More => {
            assert_eq!(end, End::More);
            read.goes_on_like_this(*text.last().unwrap_or(&b'0'));
        }
        // What is wrong before a line is complete does not become right.
        End::Wrong => {
            for more in ["\r\n\r\n", "\n\r\n", "a\r\n\r\n", "=a\r\n\r\n", "\"\r\n\r\n", "a\"\r\n\r\n"] {
                assert_eq!(plainly(&[&text, more.as_bytes()].concat()).1, End::Wrong, "with {more:?}");
            }
        }
    }
}

/// A body as the gateway reads it.
#[derive(Default)]
struct Reading {
    decoder: Decoder,
    /// What has come and was not read.
    waiting: BytesMut,
    pieces: Vec<Bytes>,
    content: Vec<u8>,
    trailers: Option<Fields>,
    end: End,
}

impl Reading {
    /// Of all that comes, in pieces of these lengths in turns.
    fn of(text: &[u8], lengths: [usize; 2]) -> Reading {
        let mut read = Reading::default();
        let (mut rest, mut lengths) = (text, lengths.iter().cycle());
        while !rest.is_empty() && read.end == End::More {
            let (piece, behind) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
            rest = behind;
            read.take(piece);
        }
        if let End::Over(_, left) = &mut read.end {
            assert_eq!(read.waiting, text[text.len() - rest.len() - *left..text.len() - rest.len()]);
            *left += rest.len();
        }
        read
    }

    fn take(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
        loop {
            assert!(!self.decoder.is_over());
            match self.decoder.decode(&mut self.waiting) {
                Ok(Step::Data(data)) => {
                    assert!(!data.is_empty());
                    self.content.extend_from_slice(&data);
                    self.pieces.push(data);
                }
                Ok(Step::More) => return assert!(self.waiting.len() < HELD, "{} bytes are held", self.waiting.len()),
                Ok(Step::End(trailers)) => {
                    assert!(self.decoder.is_over());
                    let fields = trailers.as_ref().map(lines).unwrap_or_default();
                    assert_eq!(fields.is_empty(), trailers.is_none());
                    self.end = End::Over(fields, self.waiting.len());
                    self.trailers = trailers;
                    return;
                }
                Err(why) => {
                    assert!(!why.is_empty());
                    self.end = End::Wrong;
                    return;
                }
            }
        }
    }

    /// Nobody can make the gateway hold more and more.
    fn goes_on_like_this(&mut self, byte: u8) {
        for _ in 0..HELD / 512 + 1 {
            if self.end == End::More {
                self.take(&[byte; 512]);
            }
        }
    }

    /// Chunks of the same pieces are read as they were, and are the same again.
    fn written_again(&self) {
        let written = self.written();
        let again = Reading::of(&[&written, &b"GET"[..]].concat(), [written.len() + 3; 2]);
        assert_eq!(again.content, self.content);
        assert_eq!(again.end, End::Over(self.trailers.as_ref().map(lines).unwrap_or_default(), 3));
        assert_eq!(again.written(), written);
    }

    fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            encode::chunk_size(&mut out, piece.len());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        encode::last_chunk(&mut out, self.trailers.as_ref());
        out
    }
}

/// Content and end, by the rules one after the other. What no line end has come for is no mistake yet.
fn plainly(text: &[u8]) -> (Vec<u8>, End) {
    let (mut content, mut rest, mut extra) = (Vec::new(), text, 0);
    loop {
        let Some(at) = rest.windows(2).position(|it| it == b"\r\n") else { return (content, End::More) };
        let line = plain(&rest[..at]);
        rest = &rest[at + 2..];
        // Leading zeros are among the digits, and what is more than the longest number counts as extension.
        extra += at.saturating_sub(16);
        let (digits, extensions) = line.split_at(line.find(';').unwrap_or(line.len()));
        let number = !digits.is_empty() && digits.len() <= 16 && digits.chars().all(|it| it.is_ascii_hexdigit());
        let size = i64::from_str_radix(digits, 16).ok().filter(|_| number).map(|size| size as usize);
        let Some(size) = size.filter(|_| are_extensions(extensions) && extra <= 16 << 10) else {
            return (content, End::Wrong);
        };
        if size == 0 {
            return (content, plain_trailers(rest));
        }
        let (data, behind) = rest.split_at(size.min(rest.len()));
        content.extend_from_slice(data);
        match behind.strip_prefix(b"\r\n") {
            Some(behind) => rest = behind,
            None if b"\r\n".starts_with(behind) => return (content, End::More),
            None => return (content, End::Wrong),
        }
    }
}

/// Whether it is `*( ";" name [ "=" ( token / quoted-string ) ] )`, not longer than 256 bytes.
fn are_extensions(text: &str) -> bool {
    fn token(text: &str) -> Option<&str> {
        let (token, rest) = text.split_at(text.find([';', '=', '"']).unwrap_or(text.len()));
        is_token(token).then_some(rest)
    }
    fn quoted(text: &str) -> Option<&str> {
        let mut all = text.char_indices();
        while let Some((at, it)) = all.next() {
            match it {
                '\\' => drop(all.next()),
                '"' => return is_text(&text[..at]).then(|| &text[at + 1..]),
                _ => {}
            }
        }
        None
    }
    fn one(text: &str) -> Option<&str> {
        let rest = token(text.strip_prefix(';')?)?;
        match rest.strip_prefix('=') {
            Some(value) => value.strip_prefix('"').map_or_else(|| token(value), quoted),
            None => Some(rest),
        }
    }
    let mut rest = text;
    while !rest.is_empty() {
        match one(rest) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    text.chars().count() <= 256
}

/// What stands behind the last chunk.
fn plain_trailers(rest: &[u8]) -> End {
    if let Some(behind) = rest.strip_prefix(b"\r\n") {
        return End::Over(Lines::new(), behind.len());
    }
    match plain_end(rest, HELD) {
        Ok(None) => End::More,
        Ok(Some(end)) => match plain_fields(plain(&rest[..end - 4]).split("\r\n"), 64) {
            Some(fields) => End::Over(fields, rest.len() - end),
            None => End::Wrong,
        },
        Err(_) => End::Wrong,
    }
}

//! The chunked transfer coding (RFC 9112, section 7.1), read strictly.
//!
//! Sizes are hexadecimal digits and nothing else; extensions are read by their grammar and dropped; each line ends with
//! CR LF. Whatever an endpoint could read differently is an error, so nothing that follows can be taken for a request.

use bytes::{Buf, Bytes, BytesMut};

use super::head::{self, Limits};
use crate::message::Fields;
use crate::message::fields::TOKEN;
use crate::scan::is_value_byte;

/// Bytes of one chunk's extensions. Nobody uses them; some signatures of chunks have about a hundred.
const EXTENSION: usize = 256;

/// Bytes of all extensions in one body: they are work without content.
const EXTENSIONS: usize = 16 << 10;

/// Digits of a chunk's size, leading zeros among them.
const DIGITS: usize = 16;

/// Bytes and number of trailer fields.
const TRAILERS: Limits = Limits { head: 8 << 10, fields: 64, target: 0 };

/// Where the reader is in a chunked body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions: usize,
    /// How far the trailer section was looked through.
    seen: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

/// What could be read.
#[derive(Debug)]
pub enum Step {
    /// A piece of the body, not empty.
    Data(Bytes),
    /// The end, with trailer fields, if there were any.
    End(Option<Fields>),
    /// More has to arrive first.
    More,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { state: State::Size, extensions: 0, seen: 0 }
    }
}

impl Decoder {
    /// Takes the next piece out of what has arrived.
    ///
    /// # Errors
    /// The reason why the body is malformed. Nothing after it can be trusted.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Step, &'static str> {
        loop {
            match self.state {
                State::Size => match size(bytes)? {
                    None => return Ok(Step::More),
                    Some((size, line)) => {
                        // The digits of a size and CR LF are no extension.
                        self.extensions += line.saturating_sub(DIGITS + 2);
                        if self.extensions > EXTENSIONS {
                            return Err("the body's chunks have too long extensions");
                        }
                        bytes.advance(line);
                        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    }
                },
                State::Data(_) if bytes.is_empty() => return Ok(Step::More),
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(bytes.split_to(here).freeze()));
                }
                State::DataEnd => match bytes.first_chunk::<2>() {
                    Some(b"\r\n") => {
                        bytes.advance(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err("a chunk does not end where its size says"),
                    None if bytes.first().is_some_and(|byte| *byte != b'\r') => {
                        return Err("a chunk does not end where its size says");
                    }
                    None => return Ok(Step::More),
                },
                State::Trailers => return self.trailers(bytes),
                State::End => return Ok(Step::End(None)),
            }
        }
    }

    fn trailers(&mut self, bytes: &mut BytesMut) -> Result<Step, &'static str> {
        if bytes.starts_with(b"\r\n") {
            bytes.advance(2);
            self.state = State::End;
            return Ok(Step::End(None));
        }
        let malformed = |error| match error {
            head::HeadError::Malformed(why) => why,
            _ => "the trailer fields are too large",
        };
        match head::end(bytes, &mut self.seen, TRAILERS.head).map_err(malformed)? {
            None => Ok(Step::More),
            Some(length) => {
                let fields = head::fields(&bytes[..length], &TRAILERS).map_err(malformed)?;
                bytes.advance(length);
                self.state = State::End;
                Ok(Step::End(Some(fields)))
            }
        }
    }

    /// Whether the body was read to its end.
    pub fn is_over(&self) -> bool {
        self.state == State::End
    }
}

/// The size of a chunk and the length of its line with CR LF, if the line is complete.
fn size(bytes: &[u8]) -> Result<Option<(u64, usize)>, &'static str> {
    const SIZE: &str = "a chunk's size is malformed";
    let mut size = 0u64;
    let mut at = 0;
    while let Some(digit) = bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16)) {
        if at == DIGITS || size > i64::MAX as u64 >> 4 {
            return Err(SIZE);
        }
        size = size << 4 | u64::from(digit);
        at += 1;
    }
    match bytes.get(at..) {
        None | Some([]) => return Ok(None),
        _ if at == 0 => return Err(SIZE),
        Some([b'\r']) => return Ok(None),
        Some([b'\r', b'\n', ..]) => return Ok(Some((size, at + 2))),
        Some([b';', ..]) => {}
        Some(_) => return Err(SIZE),
    }
    match extension(&bytes[at..])? {
        Some(length) => Ok(Some((size, at + length + 2))),
        None => Ok(None),
    }
}

/// The length of `*( ";" name [ "=" value ] )` before CR LF, if that has arrived. The specification lets a recipient
/// take white space for nothing around `;` and `=`; nobody sends it, so it is an error here.
fn extension(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const EXTENSION_ERROR: &str = "a chunk's extension is malformed";
    let mut at = 0;
    let token = |mut at: usize| {
        let start = at;
        while bytes.get(at).is_some_and(|byte| TOKEN[usize::from(*byte)]) {
            at += 1;
        }
        (at, at == start)
    };
    loop {
        if at > EXTENSION {
            return Err("a chunk's extension is too long");
        }
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'\r') => {
                return match bytes.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(at)),
                    Some(_) => Err(EXTENSION_ERROR),
                };
            }
            Some(b';') => {}
            Some(_) => return Err(EXTENSION_ERROR),
        }
        let (end, empty) = token(at + 1);
        if bytes.get(end).is_none() {
            return if bytes.len() > EXTENSION { Err("a chunk's extension is too long") } else { Ok(None) };
        }
        if empty {
            return Err(EXTENSION_ERROR);
        }
        at = end;
        if bytes[at] != b'=' {
            continue;
        }
        at += 1;
        if bytes.get(at) == Some(&b'"') {
            match quoted(&bytes[at + 1..]) {
                Some(Ok(length)) => at += length + 1,
                Some(Err(())) => return Err(EXTENSION_ERROR),
                None if bytes.len() > EXTENSION => return Err("a chunk's extension is too long"),
                None => return Ok(None),
            }
        } else {
            let (end, empty) = token(at);
            if bytes.get(end).is_none() {
                return if bytes.len() > EXTENSION { Err("a chunk's extension is too long") } else { Ok(None) };
            }
            if empty {
                return Err(EXTENSION_ERROR);
            }
            at = end;
        }
    }
}

/// The length of a quoted string behind its first quote, with the last one (RFC 9110, section 5.6.4).
fn quoted(bytes: &[u8]) -> Option<Result<usize, ()>> {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if !is_value_byte(*byte) => return Some(Err(())),
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(Ok(at + 1)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Decoded = (Vec<u8>, Option<Fields>, Vec<u8>);

    /// Everything decoded from bytes that arrive in pieces of this size: content, trailers, and what is left.
    fn decode(text: &[u8], piece: usize) -> Result<Decoded, &'static str> {
        let (mut decoder, mut bytes, mut content) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut pieces = text.chunks(piece);
        loop {
            match decoder.decode(&mut bytes)? {
                Step::Data(data) => content.extend_from_slice(&data),
                Step::End(trailers) => {
                    assert!(decoder.is_over());
                    return Ok((content, trailers, [&bytes[..], &pieces.flatten_all()].concat()));
                }
                Step::More => bytes.extend_from_slice(pieces.next().ok_or("it is incomplete")?),
            }
        }
    }

    trait FlattenAll {
        fn flatten_all(self) -> Vec<u8>;
    }

    impl FlattenAll for std::slice::Chunks<'_, u8> {
        fn flatten_all(self) -> Vec<u8> {
            self.flatten().copied().collect()
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let text = b"5\r\nhello\r\n00006;a=b;c;d=\"x\\\"y\"\r\n world\r\n0\r\nX-Sum: 7\r\n\r\nGET";
        for piece in 1..=text.len() {
            let (content, trailers, left) = decode(text, piece).unwrap();
            assert_eq!((&content[..], &left[..]), (&b"hello world"[..], &b"GET"[..]));
            assert_eq!(trailers.unwrap().get("x-sum"), Some(&b"7"[..]));
        }
        assert!(decode(b"0\r\n\r\n", 1).unwrap().1.is_none());
        assert_eq!(decode(b"A\r\n0123456789\r\n0\r\n\r\n", 3).unwrap().0, b"0123456789");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300));
        let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(250)).repeat(80));
        for text in [
            "",
            "\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5_0\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;a=\"x\ny\"\r\nhello\r\n0\r\n\r\n",
            "5; a\r\nhello\r\n0\r\n\r\n",
            "5;\r\nhello\r\n0\r\n\r\n",
            "5\rX\r\nhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "8000000000000000\r\nhello\r\n0\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\n\r\n",
            "0\r\n\n",
            &long,
            &many,
        ] {
            for piece in [1, 7, 10_000] {
                assert!(decode(text.as_bytes(), piece).is_err(), "{text:?} in pieces of {piece}");
            }
        }
    }
}

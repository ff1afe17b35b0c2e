//! Field blocks of HTTP/2: what we read is what a slow and plain reading makes of them, block after block, and what we write
//! is read again as it was.

use moongate::http2::hpack::{Decoder, Encoder, LENGTHS, STATIC};
use moongate::message::Known;

type Field = (Vec<u8>, Vec<u8>);

/// What the table holds.
const TABLE: usize = 4096;

/// Blocks of one connection, with a byte 254 between them.
pub fn hpack(data: &[u8]) {
    let (mut decoder, mut plain) = (Decoder::default(), Plain { table: Vec::new(), limit: TABLE });
    let (mut encoder, mut reader) = (Encoder::default(), Decoder::default());
    for block in data.split(|byte| *byte == 254) {
        let mut fields = Vec::new();
        let read = decoder.decode(block, |field| {
            assert_eq!(field.known, Known::of(field.name));
            assert_eq!(field.sound, is_sound(field.name, field.value), "{field:?}");
            fields.push((field.name.to_vec(), field.value.to_vec()));
        });
        let expected = plain.read(block);
        assert_eq!(read.ok().map(|()| fields.clone()), expected);
        if expected.is_none() {
            return;
        }
        if let [first, ..] = block {
            encoder.limit(usize::from(*first) * 20);
        }
        fields.retain(|(name, _)| !name.iter().any(u8::is_ascii_uppercase));
        written_again(&fields, &mut encoder, &mut reader);
    }
}

fn written_again(fields: &[Field], encoder: &mut Encoder, reader: &mut Decoder) {
    let mut block = Vec::new();
    encoder.begin(&mut block);
    for (name, value) in fields {
        encoder.field(Known::of(name), name, value, &mut block);
    }
    let mut again = Vec::new();
    let read = reader.decode(&block, |field| again.push((field.name.to_vec(), field.value.to_vec())));
    assert!(read.is_ok() && again == fields, "{fields:?} became {again:?}");
}

fn is_sound(name: &[u8], value: &[u8]) -> bool {
    let name = name.strip_prefix(b":").unwrap_or(name);
    let of_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let of_value = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
    !name.is_empty()
        && name.iter().all(of_name)
        && value.iter().all(of_value)
        && !blank(value.first())
        && !blank(value.last())
}

/// A reader that does one thing after the other.
struct Plain {
    /// The latest first.
    table: Vec<Field>,
    limit: usize,
}

impl Plain {
    fn read(&mut self, mut block: &[u8]) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while let Some(first) = block.first() {
            if first & 0x80 != 0 {
                let index = number(&mut block, 7)?;
                fields.push(self.entry(index)?);
            } else if first & 0xe0 == 0x20 {
                self.limit = number(&mut block, 5).filter(|it| *it <= TABLE && fields.is_empty())?;
                self.evict();
            } else {
                let keep = first & 0x40 != 0;
                let name = match number(&mut block, if keep { 6 } else { 4 })? {
                    0 => text(&mut block)?,
                    index => self.entry(index)?.0,
                };
                let field = (name, text(&mut block)?);
                fields.push(field.clone());
                if keep {
                    self.table.insert(0, field);
                    self.evict();
                }
            }
        }
        Some(fields)
    }

    fn entry(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value, _)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.table.get(index - STATIC.len()).cloned(),
        }
    }

    fn evict(&mut self) {
        let size = |table: &[Field]| table.iter().map(|it| it.0.len() + it.1.len() + 32).sum::<usize>();
        while size(&self.table) > self.limit {
            self.table.pop();
        }
    }
}

/// At most four bytes behind the first one.
fn number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let most = (1usize << bits) - 1;
    let mut number = usize::from(block[0]) & most;
    let mut at = 1;
    if number == most {
        loop {
            let byte = usize::from(*block.get(at).filter(|_| at <= 4)?);
            number += (byte % 128) * 128usize.pow(at as u32 - 1);
            at += 1;
            if byte < 128 {
                break;
            }
        }
    }
    *block = &block[at..];
    Some(number)
}

fn text(block: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = block.first()? & 0x80 != 0;
    let length = number(block, 7)?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    if coded { decoded(text) } else { Some(text.to_vec()) }
}

/// Bit by bit.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut code, mut length) = (0u32, 0u8);
    for bit in text.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if let Some(byte) = symbol(code, length) {
            out.push(u8::try_from(byte).ok()?);
            (code, length) = (0, 0);
        } else if length >= 30 {
            return None;
        }
    }
    (length < 8 && code == (1 << length) - 1).then_some(out)
}

/// Codes are given out in the order of their lengths, and of their bytes.
fn symbol(code: u32, length: u8) -> Option<usize> {
    let mut first = 0u32;
    for shorter in 1..length {
        first = (first + LENGTHS.iter().filter(|it| **it == shorter).count() as u32) << 1;
    }
    LENGTHS.iter().enumerate().filter(|it| *it.1 == length).nth(code.checked_sub(first)? as usize).map(|it| it.0)
}

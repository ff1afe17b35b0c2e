//! Writing field blocks.
//!
//! What is sent again and again becomes one byte; what is sent once is written as it is, and puts nothing out of the table.
//! Huffman's code is not used: of what is left it would save some dozen bytes a response, and cost more than all else here.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::TABLE;
use super::table::{Mark, STATIC, Table, name_index};
use crate::message::Known;

/// How many of the fields that were sent last are remembered, by their hashes.
const RECENT: usize = 32;

/// Whose values are not put into the table: whoever can watch the connection must not learn by its compression what others
/// sent over it (RFC 7541, section 7.1.3).
fn is_secret(known: Known, name: &[u8]) -> bool {
    match known {
        Known::Cookie | Known::ProxyAuthorization => true,
        Known::Other => name == b"set-cookie" || name == b"authorization",
        _ => false,
    }
}

/// Writes the blocks of a connection, one after the other.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    recent: [u32; RECENT],
    /// The smallest size that the reader has asked for since the last block, if it has asked for another.
    resized: Option<usize>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { table: Table::new(TABLE), recent: [0; RECENT], resized: None }
    }
}

impl Encoder {
    /// The reader keeps no larger table than this.
    pub fn limit(&mut self, size: usize) {
        let size = size.min(TABLE);
        if size != self.table.limit() {
            self.table.resize(size);
            self.resized = Some(self.resized.map_or(size, |before| before.min(size)));
        }
    }

    /// Begins a block: with the table's size, if that has changed.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.resized.take() {
            integer(smallest, 5, 0x20, out);
            if smallest != self.table.limit() {
                integer(self.table.limit(), 5, 0x20, out);
            }
        }
    }

    /// Writes `:status`.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digits =
                    [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
                return self.write(8, b":status", &digits, Known::Other, out);
            }
        };
        out.push(0x80 | index);
    }

    /// Writes a field. Its name may be in any case, and `known` is its number.
    pub fn field(&mut self, known: Known, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if known != Known::Other {
            let name = known.name().as_bytes();
            return self.write(name_index(name), name, value, known, out);
        }
        if !name.iter().any(u8::is_ascii_uppercase) {
            return self.write(name_index(name), name, value, known, out);
        }
        let mut lower = [0; 64];
        match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                self.write(name_index(lower), lower, value, known, out);
            }
            None => self.write(0, &name.to_ascii_lowercase(), value, known, out),
        }
    }

    fn write(&mut self, index: u32, name: &[u8], value: &[u8], known: Known, out: &mut Vec<u8>) {
        if is_secret(known, name) {
            return literal(index, 4, 0x10, name, value, out);
        }
        let hash = hash(known, name, value);
        if let Some(at) = self.table.find(hash, name, value) {
            return integer(1 + STATIC.len() + at, 7, 0x80, out);
        }
        let recent = &mut self.recent[hash as usize % RECENT];
        // What takes much of the room would put out what is worth more.
        if *recent == hash && name.len() + value.len() <= self.table.limit() / 8 {
            self.table.insert(name, value, Mark { known, sound: true, hash });
            return literal(index, 6, 0x40, name, value, out);
        }
        *recent = hash;
        literal(index, 4, 0, name, value, out);
    }
}

/// Of a name in lower case and a value. Never zero.
fn hash(known: Known, name: &[u8], value: &[u8]) -> u32 {
    let mut hasher = FxHasher::default();
    match known {
        Known::Other => hasher.write(name),
        known => hasher.write_u8(known as u8),
    }
    hasher.write(value);
    ((hasher.finish() >> 32) as u32).max(1)
}

/// A field as it is; its name by index, if it has one.
fn literal(index: u32, prefix: u32, first: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 12);
    integer(index as usize, prefix, first, out);
    if index == 0 {
        integer(name.len(), 7, 0, out);
        out.extend_from_slice(name);
    }
    integer(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}

/// A number in the last bits of a byte that begins so, and behind it (RFC 7541, section 5.1).
fn integer(mut number: usize, prefix: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1 << prefix) - 1;
    if number < most {
        return out.push(first | number as u8);
    }
    out.push(first | most as u8);
    number -= most;
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;

    fn block(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.field(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes(), &mut out);
        }
        out
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        decoder.decode(block, |field| all.push((text(field.name), text(field.value)))).unwrap();
        all
    }

    #[test]
    fn numbers_of_the_specification() {
        let written = |number, prefix| {
            let mut out = Vec::new();
            integer(number, prefix, 0, &mut out);
            out
        };
        assert_eq!(written(10, 5), [0b01010]);
        assert_eq!(written(1337, 5), [0b11111, 0b10011010, 0b00001010]);
        assert_eq!(written(42, 8), [42]);
        assert_eq!((written(30, 5), written(31, 5), written(127, 7)), (vec![30], vec![31, 0], vec![127, 0]));
    }

    #[test]
    fn what_is_sent_again_is_a_byte() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let fields = [("Server", "x"), ("X-Mine", "1"), ("content-type", "text/plain")];
        let lengths = [0; 4].map(|_| {
            let block = block(&mut encoder, &fields);
            let lower = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
            assert_eq!(read(&mut decoder, &block), lower);
            block.len()
        });
        assert!(lengths[0] > 20 && lengths[1] <= lengths[0] && lengths[2..] == [3, 3], "{lengths:?}");
    }

    #[test]
    fn secrets_are_never_kept() {
        let mut encoder = Encoder::default();
        for _ in 0..3 {
            let block = block(&mut encoder, &[("Set-Cookie", "a=1"), ("authorization", "b")]);
            // Names by index where they have one; both are marked as never to be indexed.
            assert_eq!(block, b"\x1f\x28\x03a=1\x10\x0dauthorization\x01b");
        }
        assert_eq!(encoder.table.len(), 0);
    }

    #[test]
    fn a_reader_with_a_smaller_table() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let fields = [("x-one", "1"), ("x-two", "2")];
        (0..3).for_each(|_| drop(read(&mut decoder, &block(&mut encoder, &fields))));
        encoder.limit(0);
        encoder.limit(100_000);
        let again = block(&mut encoder, &fields);
        assert_eq!(again[..4], [0x20, 0x3f, 0xe1, 0x1f], "empty, and then as large as before");
        assert_eq!(read(&mut decoder, &again).len(), 2);
        encoder.limit(40);
        for _ in 0..3 {
            assert_eq!(read(&mut decoder, &block(&mut encoder, &fields)).len(), 2);
        }
        assert!(encoder.table.len() <= 1);
    }

    #[test]
    fn statuses_have_three_digits() {
        for status in [100, 103, 200, 204, 206, 299, 304, 400, 404, 431, 500, 504, 599] {
            let mut out = Vec::new();
            Encoder::default().status(status, &mut out);
            assert_eq!(read(&mut Decoder::default(), &out), [(":status".to_owned(), status.to_string())]);
        }
    }

    #[test]
    fn whatever_is_written_is_read_again() {
        const SEED: u64 = 0x6870_6163;
        let mut rng = fastrand::Rng::with_seed(SEED);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let names: Vec<String> = (0..60)
            .map(|at| format!("x-{}", "n".repeat(at * 2)))
            .chain(["Date", "etag", "Via", "set-cookie"].map(str::to_owned))
            .collect();
        for round in 0..3000 {
            if rng.u8(..20) == 0 {
                encoder.limit(rng.usize(..5000));
            }
            let fields: Vec<(&str, String)> = (0..rng.usize(..12))
                .map(|_| (&*names[rng.usize(..names.len())], "v".repeat(rng.usize(..4) * rng.usize(..200))))
                .collect();
            let given: Vec<(&str, &str)> = fields.iter().map(|it| (it.0, &*it.1)).collect();
            let block = block(&mut encoder, &given);
            let expected: Vec<_> = fields.iter().map(|it| (it.0.to_lowercase(), it.1.clone())).collect();
            assert_eq!(read(&mut decoder, &block), expected, "round {round}, seed {SEED}");
        }
    }
}

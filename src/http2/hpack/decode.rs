//! Reading field blocks.

use std::cell::RefCell;

use super::TABLE;
use super::huffman;
use super::table::{Mark, STATIC, Table};
use crate::message::Known;
use crate::message::fields::{TOKEN, is_value};

/// A field of a block.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name; that of a pseudo-field begins with a colon.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The name's number.
    pub known: Known,
    /// The name is a token in lower case, behind the colon if there is one, and the value can be one: no control characters,
    /// no white space around it (RFC 9113, section 8.2.1).
    pub sound: bool,
}

/// A block that is none: what follows on the connection cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Reads the blocks of a connection, one after the other and none left out: each may change what the next one means.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

/// Where texts are written that came in Huffman's code; the connections of a thread take turns.
#[derive(Default)]
struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What may stay of it: texts can be as long as a block.
const SCRATCH: usize = 16 << 10;

thread_local! {
    static TEXTS: RefCell<Scratch> = RefCell::default();
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { table: Table::new(TABLE) }
    }
}

impl Decoder {
    /// Reads a block; `each` is given its fields in their order.
    ///
    /// # Errors
    /// If it is none. The fields before that were given.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(Field<'_>)) -> Result<(), Broken> {
        let read = |scratch: &mut Scratch| {
            let outcome = self.read(block, scratch, &mut each);
            if scratch.name.capacity().max(scratch.value.capacity()) > SCRATCH {
                *scratch = Scratch::default();
            }
            outcome
        };
        TEXTS.with_borrow_mut(read)
    }

    fn read(
        &mut self,
        mut block: &[u8],
        scratch: &mut Scratch,
        each: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let mut first = true;
        while let Some(byte) = block.first() {
            match byte {
                0x80.. => self.indexed(&mut block, each)?,
                0x40.. => self.literal(&mut block, 6, true, scratch, each)?,
                0x20.. => {
                    // Only at the beginning of a block (section 4.2).
                    let limit = integer(&mut block, 5)?;
                    if !first || limit > TABLE {
                        return Err(Broken);
                    }
                    self.table.resize(limit);
                    continue;
                }
                _ => self.literal(&mut block, 4, false, scratch, each)?,
            }
            first = false;
        }
        Ok(())
    }

    fn indexed(&mut self, block: &mut &[u8], each: &mut impl FnMut(Field<'_>)) -> Result<(), Broken> {
        let index = integer(block, 7)?.checked_sub(1).ok_or(Broken)?;
        if let Some((name, value, known)) = STATIC.get(index) {
            each(Field { name: name.as_bytes(), value: value.as_bytes(), known: *known, sound: true });
            return Ok(());
        }
        let (name, value, mark) = self.table.get(index - STATIC.len()).ok_or(Broken)?;
        each(Field { name, value, known: mark.known, sound: mark.sound });
        Ok(())
    }

    /// `prefix`: bits of the first byte that are the name's index.
    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        keep: bool,
        scratch: &mut Scratch,
        each: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let index = integer(block, prefix)?;
        let of = |known, name_is_sound, value: &[u8]| Mark { known, sound: name_is_sound && is_value(value), hash: 0 };
        if index == 0 {
            let name = text(block, &mut scratch.name)?;
            let value = text(block, &mut scratch.value)?;
            let mark = of(Known::of(name), is_sound(name), value);
            each(Field { name, value, known: mark.known, sound: mark.sound });
            if keep {
                self.table.insert(name, value, mark);
            }
            return Ok(());
        }
        if let Some((name, _, known)) = STATIC.get(index - 1) {
            let name = name.as_bytes();
            let value = text(block, &mut scratch.value)?;
            let mark = of(*known, true, value);
            each(Field { name, value, known: mark.known, sound: mark.sound });
            if keep {
                self.table.insert(name, value, mark);
            }
            return Ok(());
        }
        let at = index - 1 - STATIC.len();
        let (name, _, named) = self.table.get(at).ok_or(Broken)?;
        let value = text(block, &mut scratch.value)?;
        let mark = of(named.known, is_sound(name), value);
        each(Field { name, value, known: mark.known, sound: mark.sound });
        if keep {
            self.table.insert_named(at, value, mark);
        }
        Ok(())
    }
}

/// Whether this is a name in lower case, or a pseudo-field's.
fn is_sound(name: &[u8]) -> bool {
    let name = name.strip_prefix(b":").unwrap_or(name);
    !name.is_empty() && name.iter().all(|byte| TOKEN[usize::from(*byte)] && !byte.is_ascii_uppercase())
}

/// A number that begins in the last bits of the first byte (section 5.1). No number that means anything here has more than
/// 28 bits.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let (first, mut rest) = block.split_first().ok_or(Broken)?;
    let most = (1 << prefix) - 1;
    let mut number = usize::from(*first) & most;
    if number == most {
        for shift in (0..).step_by(7) {
            let (next, more) = rest.split_first().ok_or(Broken)?;
            rest = more;
            if shift > 21 {
                return Err(Broken);
            }
            number += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(number)
}

/// A text as it is written, or as it is meant if that is in Huffman's code (section 5.2).
fn text<'a: 'c, 'b: 'c, 'c>(block: &mut &'a [u8], scratch: &'b mut Vec<u8>) -> Result<&'c [u8], Broken> {
    let coded = block.first().ok_or(Broken)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !coded {
        return Ok(text);
    }
    scratch.clear();
    huffman::decode(text, scratch).ok_or(Broken)?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 16).unwrap()).collect()
    }

    fn read(decoder: &mut Decoder, block: &str) -> Result<Vec<String>, Broken> {
        let mut all = Vec::new();
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        decoder.decode(&hex(block), |it| all.push(format!("{}: {}", text(it.name), text(it.value)))).map(|()| all)
    }

    fn table(decoder: &Decoder) -> Vec<String> {
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        (0..).map_while(|at| decoder.table.get(at)).map(|it| format!("{}: {}", text(it.0), text(it.1))).collect()
    }

    #[test]
    fn fields_of_the_specification() {
        // RFC 7541, appendix C.2.
        for (block, line, kept) in [
            ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header", true),
            ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", false),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", false),
            ("82", ":method: GET", false),
        ] {
            let mut decoder = Decoder::default();
            assert_eq!(read(&mut decoder, block).unwrap(), [line]);
            assert_eq!(table(&decoder).len(), usize::from(kept));
        }
    }

    #[test]
    fn requests_of_the_specification() {
        let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        let third = [
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ];
        let second = [&first[..], &["cache-control: no-cache"]].concat();
        // RFC 7541, appendix C.3 and C.4.
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            assert_eq!(read(&mut decoder, blocks[0]).unwrap(), first);
            assert_eq!(read(&mut decoder, blocks[1]).unwrap(), second);
            assert_eq!(read(&mut decoder, blocks[2]).unwrap(), third);
            let kept = ["custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"];
            assert_eq!(table(&decoder), kept);
        }
    }

    #[test]
    fn responses_of_the_specification_with_a_table_of_256_bytes() {
        // RFC 7541, appendix C.5 and C.6; the size is said at the beginning (256 is 3fe101).
        for blocks in [
            [
                "3fe1 0148 0333 3032 5807 7072 6976 6174 6561 1d4d 6f6e 2c20 3231 204f 6374 2032 3031 3320 3230 3a31 \
                 333a 3231 2047 4d54 6e17 6874 7470 733a 2f2f 7777 772e 6578 616d 706c 652e 636f 6d",
                "4803 3330 37c1 c0bf",
            ],
            [
                "3fe1 0148 8264 0258 85ae c377 1a4b 6196 d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff 6e91 \
                 9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3",
                "4883 640e ffc1 c0bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            let rest =
                ["cache-control: private", "date: Mon, 21 Oct 2013 20:13:21 GMT", "location: https://www.example.com"];
            assert_eq!(read(&mut decoder, blocks[0]).unwrap(), [&[":status: 302"][..], &rest].concat());
            assert_eq!(read(&mut decoder, blocks[1]).unwrap(), [&[":status: 307"][..], &rest].concat());
            // The first is gone.
            assert_eq!(table(&decoder), [":status: 307", rest[2], rest[1], rest[0]]);
        }
    }

    #[test]
    fn numbers_of_the_specification() {
        // RFC 7541, appendix C.1.
        for (bytes, prefix, number) in
            [(&[0b01010][..], 5, 10), (&[0b11111, 0b10011010, 0b00001010], 5, 1337), (&[42], 8, 42)]
        {
            assert_eq!(integer(&mut &bytes[..], prefix), Ok(number));
        }
        assert_eq!(integer(&mut &[31, 0xff, 0xff, 0xff, 0x7f][..], 5), Ok(31 + (1 << 28) - 1));
        for bytes in [&[31][..], &[31, 0x80], &[31, 0xff, 0xff, 0xff, 0xff, 0], &[31, 0x80, 0x80, 0x80, 0x80, 1], &[]] {
            assert_eq!(integer(&mut &bytes[..], 5), Err(Broken), "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_no_block() {
        for (name, block) in [
            ("index 0", "80"),
            ("an index behind all", "be"),
            ("a name's index behind all", "7f00 0161"),
            ("no value", "04"),
            ("half a value", "0405 6162"),
            ("a value's length without end", "047f 8080 8080 8001"),
            ("a table larger than allowed", "3fe2 1f"),
            ("a size behind a field", "8220"),
            ("no Huffman code", "0481 00"),
        ] {
            assert_eq!(read(&mut Decoder::default(), block), Err(Broken), "{name}");
        }
        assert_eq!(read(&mut Decoder::default(), "20 3fe11f 82").unwrap(), [":method: GET"]);
    }

    #[test]
    fn what_is_sound_is_known_again() {
        for (name, value, sound) in [
            (&b"x"[..], &b"a b"[..], true),
            (b":path", b"", true),
            (b"X", b"a", false),
            (b"x y", b"a", false),
            (b"", b"a", false),
            (b":", b"a", false),
            (b"x:y", b"a", false),
            (b"x", b" a", false),
            (b"x", b"a\n", false),
            (b"x", b"\0", false),
        ] {
            let mut block = vec![0x40, name.len() as u8];
            block.extend_from_slice(name);
            block.push(value.len() as u8);
            block.extend_from_slice(value);
            // Once more by index, and once more its name.
            block.extend([0xbe, 0x0f, 0x2f, 1, b'v']);
            let mut seen = Vec::new();
            Decoder::default().decode(&block, |field| seen.push(field.sound)).unwrap();
            let name_sound = is_sound(name);
            assert_eq!(seen, [sound, sound, name_sound], "{name:?}: {value:?}");
        }
    }
}

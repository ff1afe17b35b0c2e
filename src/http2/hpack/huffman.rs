//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B), which texts may be written in; we only read it.

/// How many bits the code of each byte has; the last is the end of a text. The code is canonical: shorter codes come first,
/// and codes of one length in the order of their bytes. So the lengths say it all.
pub const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// The end of a text, which no text has in it.
const END: u16 = 256;

/// The longest code.
const LONGEST: usize = 30;

/// What eight bits begin with: a byte and the length of its code; no length where the code is longer. Letters, digits and
/// most of what stands between them have at most eight bits.
static SHORT: [(u8, u8); 256] = short();

/// All bytes in the order of their codes.
static ORDER: [u16; 257] = order();

/// For each length: which codes have it, written from the left of 32 bits, and where in [`ORDER`] the first of them is.
static LONG: [Codes; LONGEST + 1] = codes();

#[derive(Clone, Copy)]
struct Codes {
    first: u32,
    /// Behind the last; only the longest codes end where numbers do.
    end: u64,
    place: u16,
}

const fn order() -> [u16; 257] {
    let mut order = [0; 257];
    let (mut place, mut length) = (0, 1);
    while length <= LONGEST {
        let mut byte = 0;
        while byte < 257 {
            if LENGTHS[byte] as usize == length {
                order[place] = byte as u16;
                place += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    order
}

const fn codes() -> [Codes; LONGEST + 1] {
    let mut all = [Codes { first: 0, end: 0, place: 0 }; LONGEST + 1];
    let (mut next, mut place, mut length) = (0u64, 0, 1);
    while length <= LONGEST {
        let step = 1u64 << (32 - length);
        all[length] = Codes { first: next as u32, end: next, place };
        let mut byte = 0;
        while byte < 257 {
            if LENGTHS[byte] as usize == length {
                next += step;
                place += 1;
            }
            byte += 1;
        }
        all[length].end = next;
        length += 1;
    }
    all
}

const fn short() -> [(u8, u8); 256] {
    let mut table = [(0, 0); 256];
    let (all, order) = (codes(), order());
    let mut length = 1;
    while length <= 8 {
        let step = 1u64 << (32 - length);
        let (mut code, mut place) = (all[length].first as u64, all[length].place as usize);
        while code < all[length].end {
            let mut at = (code >> 24) as usize;
            while at < ((code + step) >> 24) as usize {
                table[at] = (order[place] as u8, length as u8);
                at += 1;
            }
            code += step;
            place += 1;
        }
        length += 1;
    }
    table
}

/// Writes what a text means behind `out`. None: it is no such text. That is so if it ends with more than the seven bits that
/// fill the last byte, or with others than ones, or has the code for the end in it.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The shortest code has five bits.
    out.reserve(text.len() * 8 / 5);
    // The bits to look at next are the highest.
    let (mut bits, mut have, mut at) = (0u64, 0u32, 0);
    loop {
        while have <= 56 && at < text.len() {
            bits |= u64::from(text[at]) << (56 - have);
            have += 8;
            at += 1;
        }
        let (byte, length) = SHORT[(bits >> 56) as usize];
        if length != 0 && u32::from(length) <= have {
            out.push(byte);
            bits <<= length;
            have -= u32::from(length);
            continue;
        }
        let top = (bits >> 32) as u32;
        let long = if length == 0 { (9..=LONGEST).find(|length| u64::from(top) < LONG[*length].end) } else { None };
        match long {
            Some(length) if length as u32 <= have => {
                let codes = LONG[length];
                let place = usize::from(codes.place) + ((top - codes.first) >> (32 - length)) as usize;
                match ORDER[place] {
                    END => return None,
                    byte => out.push(byte as u8),
                }
                bits <<= length;
                have -= length as u32;
            }
            // What is left is no code.
            _ => {
                let filled = have < 8 && bits == ((1u64 << have) - 1).checked_shl(64 - have).unwrap_or(0);
                return filled.then_some(());
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A text in this code.
    pub(in super::super) fn encode(text: &[u8]) -> Vec<u8> {
        let (mut bits, mut have, mut out) = (0u64, 0, Vec::new());
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let place = ORDER.iter().position(|it| it == &u16::from(*byte)).unwrap();
            let code = (LONG[length].first >> (32 - length)) as usize + place - usize::from(LONG[length].place);
            bits = bits << length | code as u64;
            have += length;
            while have >= 8 {
                have -= 8;
                out.push((bits >> have) as u8);
            }
        }
        if have > 0 {
            out.push((bits << (8 - have)) as u8 | ((1u16 << (8 - have)) - 1) as u8);
        }
        out
    }

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text, &mut out).map(|()| out)
    }

    #[test]
    fn codes_of_the_specification() {
        // RFC 7541, appendix B: the first and last of some lengths.
        for (byte, code) in [(b'0', 0x0u32), (b't', 0x9), (b' ', 0x14), (b':', 0x5c), (b'&', 0xf8), (b'Z', 0xfd)] {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let place = ORDER.iter().position(|it| *it == u16::from(byte)).unwrap() as u32;
            assert_eq!((LONG[length].first >> (32 - length)) + place - u32::from(LONG[length].place), code);
        }
        assert_eq!((ORDER[256], LONG[30].end), (END, 1 << 32));
    }

    #[test]
    fn examples_of_the_specification() {
        // RFC 7541, appendix C.4 and C.6.
        for (text, code) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            ("https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
        ] {
            let code: Vec<u8> = code
                .as_bytes()
                .chunks(2)
                .map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 16).unwrap())
                .collect();
            assert_eq!(decoded(&code).as_deref(), Some(text.as_bytes()));
            assert_eq!(encode(text.as_bytes()), code);
        }
    }

    #[test]
    fn every_byte_alone_and_beside_every_other() {
        for first in 0..=u8::MAX {
            assert_eq!(decoded(&encode(&[first])).as_deref(), Some(&[first][..]));
            for second in 0..=u8::MAX {
                let text = [first, second, first];
                assert_eq!(decoded(&encode(&text)).as_deref(), Some(&text[..]));
            }
        }
        assert_eq!(decoded(b""), Some(vec![]));
    }

    #[test]
    fn what_is_no_text() {
        // A whole byte of filling, filling with zeros, the code for the end, half of a long code.
        for text in [&[0xff][..], &[0b0000_0000], &[0b0000_0110], &[0xff; 4], &[0xff, 0xff, 0xff, 0xfc], &[0xfe]] {
            assert_eq!(decoded(text), None, "{text:x?}");
        }
        // `0` with three ones.
        assert_eq!(decoded(&[0b0000_0111]).as_deref(), Some(&b"0"[..]));
    }
}

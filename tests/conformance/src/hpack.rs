//! HPACK (RFC 7541): an encoder that only writes literals, so that a case decides every byte, and a whole decoder.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// A field as HTTP/2 carries it.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// RFC 7541, appendix B: how many bits each symbol's code has. The code is canonical, so the lengths say it all; the
/// last is the end of the string.
const LENGTHS: [u8; 257] = [
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

/// RFC 7541, appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// From length and code to symbol.
static CODES: LazyLock<std::collections::HashMap<(u8, u32), u16>> = LazyLock::new(|| {
    let mut order: Vec<u16> = (0..257).collect();
    order.sort_by_key(|symbol| (LENGTHS[usize::from(*symbol)], *symbol));
    let (mut code, mut length) = (0u32, LENGTHS[usize::from(order[0])]);
    let mut codes = std::collections::HashMap::new();
    for (at, symbol) in order.into_iter().enumerate() {
        let this = LENGTHS[usize::from(symbol)];
        code = if at == 0 { 0 } else { (code + 1) << (this - length) };
        length = this;
        codes.insert((this, code), symbol);
    }
    codes
});

fn unhuffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut code, mut length) = (Vec::new(), 0u32, 0u8);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        if length > 30 {
            return None;
        }
        if let Some(symbol) = CODES.get(&(length, code)) {
            text.push(u8::try_from(*symbol).ok()?);
            (code, length) = (0, 0);
        }
    }
    // What is left is padding: fewer than eight ones.
    (length < 8 && code == (1u32 << length) - 1).then_some(text)
}

fn integer(out: &mut Vec<u8>, first: u8, prefix: u8, value: usize) {
    let most = (1usize << prefix) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// Every field as a literal with a new name, not indexed, not compressed.
pub(crate) fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(&mut out, 0, 7, text.len());
            out.extend_from_slice(text);
        }
    }
    out
}

/// One literal that goes into the table, and `times` references to it: what a bomb is made of.
pub(crate) fn bomb(name: &[u8], value: &[u8], times: usize) -> Vec<u8> {
    let mut out = vec![0x40];
    for text in [name, value] {
        integer(&mut out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
    // The newest entry of the dynamic table stands right after the 61 static ones.
    out.extend(std::iter::repeat_n(0x80 | 62u8, times));
    out
}

/// What the other side's encoder has said so far.
#[derive(Default)]
pub(crate) struct Decoder {
    table: VecDeque<Field>,
    size: usize,
    limit: Option<usize>,
}

impl Decoder {
    /// The fields of one block; `None` if it is no valid HPACK.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Option<Vec<Field>> {
        let (mut at, mut fields) = (0, Vec::new());
        while at < block.len() {
            let first = block[at];
            if first & 0x80 != 0 {
                fields.push(self.entry(read_integer(block, &mut at, 7)?)?);
            } else if first & 0xc0 == 0x40 {
                let field = self.literal(block, &mut at, 6)?;
                self.insert(field.clone());
                fields.push(field);
            } else if first & 0xe0 == 0x20 {
                self.limit = Some(read_integer(block, &mut at, 5)?);
                self.evict();
            } else {
                fields.push(self.literal(block, &mut at, 4)?);
            }
        }
        Some(fields)
    }

    fn literal(&self, block: &[u8], at: &mut usize, prefix: u8) -> Option<Field> {
        let name = match read_integer(block, at, prefix)? {
            0 => read_text(block, at)?,
            index => self.entry(index)?.0,
        };
        Some((name, read_text(block, at)?))
    }

    fn entry(&self, index: usize) -> Option<Field> {
        match index.checked_sub(1)? {
            fixed if fixed < STATIC.len() => {
                let (name, value) = STATIC[fixed];
                Some((name.into(), value.into()))
            }
            later => self.table.get(later - STATIC.len()).cloned(),
        }
    }

    fn insert(&mut self, field: Field) {
        self.size += field.0.len() + field.1.len() + 32;
        self.table.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        // 4,096 is what both sides start with; no case announces another size.
        while self.size > self.limit.unwrap_or(4096) {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.size -= name.len() + value.len() + 32;
        }
    }
}

fn read_integer(block: &[u8], at: &mut usize, prefix: u8) -> Option<usize> {
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn read_text(block: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let huffman = *block.get(*at)? & 0x80 != 0;
    let length = read_integer(block, at, 7)?;
    let text = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    if huffman { unhuffman(text) } else { Some(text.to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_examples_of_the_rfc() {
        // RFC 7541, appendix C.4: three requests with Huffman coding and a growing table.
        let mut decoder = Decoder::default();
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let first = decoder.decode(&bytes("828684418cf1e3c2e5f23a6ba0ab90f4ff")).unwrap();
        assert_eq!(first[3], (b":authority".to_vec(), b"www.example.com".to_vec()));
        let second = decoder.decode(&bytes("828684be5886a8eb10649cbf")).unwrap();
        assert_eq!(second[3], (b":authority".to_vec(), b"www.example.com".to_vec()));
        assert_eq!(second[4], (b"cache-control".to_vec(), b"no-cache".to_vec()));
        assert_eq!(decoder.decode(&encode(&[("a", "b")])), Some(vec![(b"a".to_vec(), b"b".to_vec())]));
        assert_eq!(decoder.decode(&[0xff]), None);
    }
}

//! Looking through text, sixteen bytes at a time: what is done here to an array, the compiler does to all its bytes at once.

/// Bytes that are looked at together.
const BLOCK: usize = 16;

/// Where the first byte from `at` on is of which this is so; the end if there is none. It must not branch.
#[inline(always)]
fn first(text: &[u8], mut at: usize, is: impl Fn(u8) -> bool) -> usize {
    let look = |block: &[u8; BLOCK]| {
        let mut found = [0; BLOCK];
        for (found, byte) in found.iter_mut().zip(block) {
            *found = if is(*byte) { u8::MAX } else { 0 };
        }
        u128::from_le_bytes(found)
    };
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = look(block);
        if found as u64 | (found >> 64) as u64 != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += BLOCK;
    }
    let left = text.len() - at;
    let Some(block) = text.last_chunk().filter(|_| left > 0) else {
        return text[at..].iter().position(|byte| is(*byte)).map_or(text.len(), |more| at + more);
    };
    // With some before them, which were looked at already.
    let found = look(block) >> (8 * (BLOCK - left));
    if found == 0 { text.len() } else { at + found.trailing_zeros() as usize / 8 }
}

/// Where the next line feed is.
pub fn line_feed(text: &[u8], at: usize) -> Option<usize> {
    let found = first(text, at, |byte| byte == b'\n');
    (found < text.len()).then_some(found)
}

/// Where the first byte is that is no letter, digit or `-`: the end of nearly every name.
pub fn word_end(text: &[u8], at: usize) -> usize {
    first(text, at, |byte| !(within(byte | 0x20, b'a', b'z') | within(byte, b'0', b'9') | (byte == b'-')))
}

/// Where the first byte is that is no printable ASCII, or is a space.
pub fn graphic_end(text: &[u8], at: usize) -> usize {
    first(text, at, |byte| !within(byte, b'!', b'~'))
}

/// Whether the value of a field may have this byte in it (RFC 9110, section 5.5).
#[inline]
pub fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ') & (byte != 0x7f) | (byte == b'\t')
}

/// Where the first byte is that no field's value may have, see [`is_value_byte`].
pub fn value_end(text: &[u8], at: usize) -> usize {
    first(text, at, |byte| !is_value_byte(byte))
}

/// Where the first byte is that cannot stand between quotes as it is: one that is no printable ASCII, a quote, a backslash.
pub fn quotable_end(text: &[u8]) -> usize {
    first(text, 0, |byte| !within(byte, b' ', b'~') | (byte == b'"') | (byte == b'\\'))
}

/// Whether a text needs no quotes: there is nothing in it that [`quotable_end`] finds, no space and no equals sign.
pub fn is_plain(text: &[u8]) -> bool {
    let odd = |byte| !within(byte, b'!', b'~') | (byte == b'"') | (byte == b'\\') | (byte == b'=');
    first(text, 0, odd) == text.len()
}

#[inline]
fn within(byte: u8, first: u8, last: u8) -> bool {
    byte.wrapping_sub(first) <= last - first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts with each byte at each place, in a block or behind it, between bytes that it could be mistaken for.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        let around = [b'a', b' ', b'\t', b'!', b'-', 0x7e, 0x80, 0xff];
        (0..=255).flat_map(move |byte: u8| {
            around.into_iter().flat_map(move |other| {
                [5, 21].into_iter().flat_map(move |length| {
                    (0..length).map(move |at| {
                        let mut text = vec![other; length];
                        text[at] = byte;
                        text
                    })
                })
            })
        })
    }

    #[test]
    fn blocks_find_what_bytes_find() {
        let quotable = |byte: &u8| (b' '..0x7f).contains(byte) && !b"\"\\".contains(byte);
        let end =
            |text: &[u8], fine: &dyn Fn(&u8) -> bool| text.iter().position(|byte| !fine(byte)).unwrap_or(text.len());
        for text in texts() {
            assert_eq!(line_feed(&text, 0), text.iter().position(|byte| *byte == b'\n'), "{text:?}");
            let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
            assert_eq!(word_end(&text, 2), 2 + end(&text[2..], &word), "{text:?}");
            assert_eq!(graphic_end(&text, 0), end(&text, &|byte| byte.is_ascii_graphic()), "{text:?}");
            let value = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
            assert_eq!(value_end(&text, 4), 4 + end(&text[4..], &value), "{text:?}");
            assert_eq!(quotable_end(&text), end(&text, &quotable), "{text:?}");
            let plain = text.iter().all(|byte| quotable(byte) && !b" =".contains(byte));
            assert_eq!(is_plain(&text), plain, "{text:?}");
        }
    }
}

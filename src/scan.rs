//! Looking through text, sixteen bytes at a time. With vectors that say so: of a loop over an array the compiler makes some when
//! it likes, and else fifty instructions where five do.

use wide::u8x16;

/// Bytes that are looked at together.
const BLOCK: usize = 16;

/// Where the first byte from `at` on is of which this is so; the end if there is none. `is` sets all bits of such bytes, and none
/// of others.
#[inline(always)]
fn first(text: &[u8], mut at: usize, is: impl Fn(u8x16) -> u8x16) -> usize {
    let look = |block: [u8; BLOCK]| is(u8x16::new(block)).to_bitmask();
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = look(*block);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    let Some(left) = text.get(at..).filter(|left| !left.is_empty()) else { return text.len() };
    let found = match text.last_chunk() {
        // With some before them, which were looked at already.
        Some(block) => look(*block) >> (BLOCK - left.len()),
        None => {
            let mut block = [0; BLOCK];
            block[..left.len()].copy_from_slice(left);
            look(block) & ((1 << left.len()) - 1)
        }
    };
    if found == 0 { text.len() } else { at + found.trailing_zeros() as usize }
}

/// Where the next line feed is.
pub fn line_feed(text: &[u8], at: usize) -> Option<usize> {
    let found = first(text, at, |bytes| bytes.simd_eq(b'\n'));
    (found < text.len()).then_some(found)
}

/// Where the first byte is that is no letter, digit or `-`: the end of nearly every name.
pub fn word_end(text: &[u8], at: usize) -> usize {
    let word =
        |bytes: u8x16| within(bytes | u8x16::splat(0x20), b'a', b'z') | within(bytes, b'0', b'9') | bytes.simd_eq(b'-');
    first(text, at, |bytes| !word(bytes))
}

/// Where the first byte is that is no printable ASCII, or is a space.
pub fn graphic_end(text: &[u8], at: usize) -> usize {
    first(text, at, |bytes| !within(bytes, b'!', b'~'))
}

/// Whether the value of a field may have this byte in it (RFC 9110, section 5.5).
#[inline]
pub fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ') & (byte != 0x7f) | (byte == b'\t')
}

/// Where the first byte is that no field's value may have, see [`is_value_byte`].
pub fn value_end(text: &[u8], at: usize) -> usize {
    first(text, at, |bytes| within(bytes, 0, 0x1f) & !bytes.simd_eq(b'\t') | bytes.simd_eq(0x7f))
}

/// What cannot stand between quotes as it is.
#[inline(always)]
fn is_quoted(bytes: u8x16) -> u8x16 {
    !within(bytes, b' ', b'~') | bytes.simd_eq(b'"') | bytes.simd_eq(b'\\')
}

/// Where the first byte is that cannot stand between quotes as it is: one that is no printable ASCII, a quote, a backslash.
pub fn quotable_end(text: &[u8]) -> usize {
    first(text, 0, is_quoted)
}

/// Whether a text needs no quotes: there is nothing in it that [`quotable_end`] finds, no space and no equals sign.
pub fn is_plain(text: &[u8]) -> bool {
    first(text, 0, |bytes| is_quoted(bytes) | bytes.simd_eq(b' ') | bytes.simd_eq(b'=')) == text.len()
}

#[inline(always)]
fn within(bytes: u8x16, first: u8, last: u8) -> u8x16 {
    let from = bytes - u8x16::splat(first);
    // Which is two instructions, and a comparison of unsigned bytes is four.
    from.min(u8x16::splat(last - first)).simd_eq(from)
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

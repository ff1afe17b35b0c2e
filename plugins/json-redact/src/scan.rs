//! The tokens of JSON (RFC 8259), as places in the text. Strict: what another reader might take in another way is no JSON.

use std::borrow::Cow;
use std::ops::Range;

/// The text is no JSON, or nests too deep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NotJson;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    OpenTable,
    CloseTable,
    OpenList,
    CloseList,
    Colon,
    Comma,
    /// With its quotation marks.
    Text,
    /// A number, `true`, `false` or `null`.
    Word,
    End,
}

/// Goes through a text, token by token.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next token, and where it stands; past the end, the end.
    pub(crate) fn token(&mut self) -> Result<(Token, Range<usize>), NotJson> {
        let byte = loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(byte) => break byte,
                None => return Ok((Token::End, self.at..self.at)),
            }
        };
        let start = self.at;
        self.at += 1;
        let token = match byte {
            b'{' => Token::OpenTable,
            b'}' => Token::CloseTable,
            b'[' => Token::OpenList,
            b']' => Token::CloseList,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => {
                self.string()?;
                Token::Text
            }
            b'-' | b'0'..=b'9' => {
                self.number(byte)?;
                Token::Word
            }
            b't' => self.word(b"rue")?,
            b'f' => self.word(b"alse")?,
            b'n' => self.word(b"ull")?,
            _ => return Err(NotJson),
        };
        Ok((token, start..self.at))
    }

    /// The rest of a string, after its first quotation mark.
    fn string(&mut self) -> Result<(), NotJson> {
        loop {
            self.at += plain(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {}
                _ => return Err(NotJson),
            }
            self.at += match self.bytes.get(self.at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                Some(b'u') => {
                    let digits = self.bytes.get(self.at + 2..self.at + 6).ok_or(NotJson)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(NotJson);
                    }
                    6
                }
                _ => return Err(NotJson),
            };
        }
    }

    /// The rest of a word. What follows it is the next token's matter: none can begin with a letter's neighbour.
    fn word(&mut self, rest: &[u8]) -> Result<Token, NotJson> {
        if !self.bytes[self.at..].starts_with(rest) {
            return Err(NotJson);
        }
        self.at += rest.len();
        Ok(Token::Word)
    }

    /// The rest of a number (RFC 8259, section 6) that begins with this byte.
    fn number(&mut self, first: u8) -> Result<(), NotJson> {
        let whole = if first == b'-' { self.next_digit()? } else { first };
        if whole != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.next_digit()?;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.next_digit()?;
            self.digits();
        }
        Ok(())
    }

    fn next_digit(&mut self) -> Result<u8, NotJson> {
        let digit = self.peek().filter(u8::is_ascii_digit).ok_or(NotJson)?;
        self.at += 1;
        Ok(digit)
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

/// How many bytes stand before the first quotation mark, backslash or control character; all, if there is none. Eight at a
/// time, as in "Bit Twiddling Hacks" (S. E. Anderson), "Determine if a word has a byte less than n": the lowest byte that
/// is found is right, and no other is asked for.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()) {
        let word = u64::from_le_bytes(eight);
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    bytes[at..].iter().position(ends).map_or(bytes.len(), |more| at + more)
}

/// What a string means, of its text with quotation marks. Half of a character becomes U+FFFD.
pub(crate) fn meaning(text: &str) -> Cow<'_, str> {
    let inner = text.get(1..text.len() - 1).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut meaning = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, escape)) = rest.split_once('\\') {
        meaning.push_str(before);
        let mut length = 1;
        meaning.push(match escape.as_bytes().first() {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = |at: usize| escape.get(at..at + 4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
                let first = unit(1).unwrap_or_default();
                let second = escape.get(5..7).filter(|it| *it == "\\u").and_then(|_| unit(7));
                let pair = [first, second.unwrap_or_default()];
                length = 5;
                match (char::from_u32(first.into()), char::decode_utf16(pair).next()) {
                    (Some(character), _) => character,
                    (None, Some(Ok(character))) => {
                        length = 11;
                        character
                    }
                    (None, _) => char::REPLACEMENT_CHARACTER,
                }
            }
            // `"`, `\` and `/` are themselves.
            Some(byte) => char::from(*byte),
            None => break,
        });
        rest = &escape[length..];
    }
    meaning.push_str(rest);
    Cow::Owned(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<String>, NotJson> {
        let mut scanner = Scanner::new(text);
        let mut tokens = Vec::new();
        loop {
            match scanner.token()? {
                (Token::End, _) => return Ok(tokens),
                (_, range) => tokens.push(text[range].to_owned()),
            }
        }
    }

    #[test]
    fn tokens_are_found_between_spaces() {
        let expected = ["{", r#""a\"\\""#, ":", "[", "1", ",", "-2.5e+3", "]", ",", "true", "}"];
        assert_eq!(tokens(" {\"a\\\"\\\\\" :\t[1,\r\n-2.5e+3 ],true}\n").unwrap(), expected);
        assert_eq!(tokens(""), Ok(vec![]));
    }

    #[test]
    fn what_is_no_token_is_no_json() {
        for text in [
            "tru",
            "True",
            "nul",
            "NaN",
            "Infinity",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "1.5.2",
            "--1",
            "'a'",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12\"",
            "\"\t\"",
            "\"\n\"",
            "/",
            "#",
            "\u{feff}1",
            "\u{a0}1",
        ] {
            assert_eq!(tokens(text), Err(NotJson), "{text:?}");
        }
        for number in ["0", "-0", "10", "0.0", "1E5", "1e-10", "123456789012345678901234567890"] {
            assert!(tokens(number).is_ok(), "{number}");
        }
    }

    #[test]
    fn the_end_of_a_string_is_found_wherever_it_is() {
        for length in 0..40 {
            for at in 0..length {
                for (ending, other) in
                    [(b'"', b'!'), (b'\\', b'#'), (0, 0x7f), (0x1f, b' '), (b'\n', 0xff), (b'"', b'\'' + 1)]
                {
                    let mut bytes = vec![other; length];
                    assert_eq!(plain(&bytes), length);
                    bytes[at] = ending;
                    assert_eq!(plain(&bytes), at, "{ending} among {length} of {other}");
                    bytes[length - 1] = b'"';
                    assert_eq!(plain(&bytes), at, "the first counts");
                }
            }
        }
    }

    #[test]
    fn a_string_means_what_its_escapes_say() {
        for (text, meant) in [
            (r#""password""#, "password"),
            (r#""p\u0061ssword""#, "password"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u00E4\ud83d\ude00!""#, "ä😀!"),
            (r#""\ud83d!\ude00\ud83d\n""#, "\u{fffd}!\u{fffd}\u{fffd}\n"),
            (r#""""#, ""),
        ] {
            assert_eq!(meaning(text), meant, "{text}");
        }
    }
}

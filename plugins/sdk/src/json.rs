//! Reads JSON into any type that serde knows.
//!
//! Not `serde_json`: its errors can print any float, which alone is more code than a whole plugin, and the gateway
//! compiles a plugin at about a kilobyte a millisecond. The JSON is the gateway's own or another machine's, so this does
//! not say where in it a mistake is; but what is not JSON is still an error, and so is what nests deeper than [`DEPTH`].

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor, value},
    forward_to_deserialize_any,
};
use std::fmt::{self, Display};

/// How deep lists and tables may stand in each other: each level is a frame of a stack, and a client may have written them.
const DEPTH: u32 = 64;

/// Reads JSON (RFC 8259) that came from elsewhere than the configuration, such as a key set or a token; the options are
/// read by [`Config::parse`](crate::Config::parse). Of a name that a `HashMap` gets twice the last one stays, as ever with
/// serde; a struct refuses it.
///
/// # Errors
/// If the text is no JSON, nests deeper than 64 levels, or is not what `T` wants; in words for whoever wrote it.
pub fn read<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, String> {
    from_str(json).map_err(|error| error.0)
}

pub(crate) fn from_str<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, Error> {
    let mut reader = Reader { rest: json, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    if reader.peek().is_some() { Err(reader.broken()) } else { Ok(value) }
}

const NOT_JSON: &str = "not valid JSON";

#[derive(Debug)]
pub(crate) struct Error(pub(crate) String);

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }

    /// The default would print the value, which may be a float.
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "nothing",
        };
        Self(format!("expected {expected}, found {found}"))
    }

    /// As above.
    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}"))
    }
}

struct Reader<'de> {
    rest: &'de str,
    /// How many lists and tables are open.
    depth: u32,
}

/// A value, or the beginning of one.
enum Token<'de> {
    Null,
    Bool(bool),
    Number(&'de str),
    Text(String),
    List,
    Table,
}

impl<'de> Reader<'de> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.bytes().next()
    }

    /// What was skipped; nothing if that would cut a character in two. No slice, whose panic would print it.
    fn skip(&mut self, bytes: usize) -> &'de str {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or_default();
        self.rest = rest;
        skipped
    }

    fn broken(&self) -> Error {
        Error(NOT_JSON.into())
    }

    /// One list or table more is open.
    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH { Err(Error(format!("nested deeper than {DEPTH} levels"))) } else { Ok(()) }
    }

    /// The list or table that was opened last ends here.
    fn leave(&mut self, close: u8) -> Result<(), Error> {
        self.depth -= 1;
        self.expect(close)
    }

    /// Takes this character, if it is the next one.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.skip(1);
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.take(byte) { Ok(()) } else { Err(self.broken()) }
    }

    fn token(&mut self) -> Result<Token<'de>, Error> {
        if self.take(b'{') {
            return Ok(Token::Table);
        }
        if self.take(b'[') {
            return Ok(Token::List);
        }
        if self.take(b'"') {
            return self.text().map(Token::Text);
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let end = self.rest.bytes().position(|byte| !is_word(byte)).unwrap_or(self.rest.len());
        let word = self.skip(end);
        match word {
            "null" => Ok(Token::Null),
            "true" => Ok(Token::Bool(true)),
            "false" => Ok(Token::Bool(false)),
            _ if word.bytes().next().is_some_and(|byte| byte == b'-' || byte.is_ascii_digit()) => {
                Ok(Token::Number(word))
            }
            _ => Err(self.broken()),
        }
    }

    /// The rest of a string, after its first quotation mark.
    fn text(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        loop {
            let end = self.rest.bytes().position(|byte| byte == b'"' || byte == b'\\').ok_or_else(|| self.broken())?;
            text.push_str(self.skip(end));
            let quote = self.rest.starts_with('"');
            self.skip(1);
            if quote {
                return Ok(text);
            }
            let escape = self.rest.bytes().next();
            text.push(match escape {
                Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'u') => {
                    text.push(self.unicode()?);
                    continue;
                }
                _ => return Err(self.broken()),
            });
            self.skip(1);
        }
    }

    /// `uXXXX`, or two of them that make one character.
    fn unicode(&mut self) -> Result<char, Error> {
        let first = self.unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.rest.starts_with("\\u") {
            self.skip(1);
            units.push(self.unit()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(self.broken()),
        }
    }

    fn unit(&mut self) -> Result<u16, Error> {
        let digits = self.rest.get(1..5).ok_or_else(|| self.broken())?;
        let unit = u16::from_str_radix(digits, 16).map_err(|_| self.broken())?;
        self.skip(5);
        Ok(unit)
    }

    /// A value of any kind. Only where `fractions` are asked for is the code for them linked.
    fn value<V: Visitor<'de>>(
        &mut self,
        visitor: V,
        fractions: impl FnOnce(&str, V) -> Result<V::Value, Error>,
    ) -> Result<V::Value, Error> {
        match self.token()? {
            Token::Null => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Text(value) => visitor.visit_string(value),
            Token::Number(word) => {
                if let Ok(value) = word.parse::<u64>() {
                    visitor.visit_u64(value)
                } else if let Ok(value) = word.parse::<i64>() {
                    visitor.visit_i64(value)
                } else {
                    fractions(word, visitor)
                }
            }
            Token::List => {
                self.enter()?;
                let value = visitor.visit_seq(Items { reader: self, first: true })?;
                self.leave(b']').map(|()| value)
            }
            Token::Table => {
                self.enter()?;
                let value = visitor.visit_map(Items { reader: self, first: true })?;
                self.leave(b'}').map(|()| value)
            }
        }
    }
}

macro_rules! no_fractions {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.value(visitor, |_, visitor| visitor.visit_f64(0.0)) // Its error does not print it.
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    no_fractions! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.value(visitor, |word, visitor| match word.parse() {
            Ok(value) => visitor.visit_f64(value),
            Err(_) => Err(Error(NOT_JSON.into())),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() == Some(b'n') {
            self.token()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.token()? {
            Token::Text(variant) => visitor.visit_enum(variant.into_deserializer()),
            Token::Table => {
                self.enter()?;
                let members = Items { reader: self, first: true };
                let value = visitor.visit_enum(value::MapAccessDeserializer::new(members))?;
                self.leave(b'}').map(|()| value)
            }
            _ => Err(Error("expected a string or a table".into())),
        }
    }

    forward_to_deserialize_any! { f32 f64 i128 u128 unit_struct tuple tuple_struct }
}

/// What stands in a list or a table, up to its closing bracket.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
}

impl Items<'_, '_> {
    fn more(&mut self, close: u8) -> Result<bool, Error> {
        if self.reader.peek() == Some(close) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.reader.expect(b',')?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.more(b']')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.more(b'}')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Everything {
        text: String,
        share: f64,
        whole: i32,
        maybe: Option<bool>,
        list: Vec<u8>,
        table: BTreeMap<String, Kind>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        Sized(u32),
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let json = r#" { "text": "a\"\u00e9\ud83d\ude00\n/", "share": 2.5e-1, "whole": -3, "maybe": null,
            "list": [1, 2 ], "table": {"a": "plain", "b": {"sized": 7}, "c": "plain"} } "#;
        let kinds = [("a", Kind::Plain), ("b", Kind::Sized(7)), ("c", Kind::Plain)];
        let expected = Everything {
            text: "a\"é😀\n/".into(),
            share: 0.25,
            whole: -3,
            maybe: None,
            list: vec![1, 2],
            table: kinds.map(|(name, kind)| (name.to_string(), kind)).into(),
        };
        assert_eq!(from_str::<Everything>(json).unwrap(), expected);
        assert_eq!(from_str::<f64>("3").unwrap(), 3.0);
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        for json in ["", "{", "[1", "[1,]", "[1 2]", "\"a", "\"\\x\"", "\"\\ud800\"", "[1]x", "tru"] {
            assert!(from_str::<Vec<u8>>(json).is_err(), "{json}");
            assert!(from_str::<String>(json).is_err(), "{json}");
        }
        assert!(from_str::<BTreeMap<String, u8>>(r#"{"a" 1}"#).is_err());
    }

    #[test]
    fn what_nests_too_deep_is_an_error_and_no_overflow() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read::<serde::de::IgnoredAny>(&nested(64)).is_ok());
        assert_eq!(read::<serde::de::IgnoredAny>(&nested(65)).unwrap_err(), "nested deeper than 64 levels");
        assert!(read::<serde::de::IgnoredAny>(&"[".repeat(1_000_000)).is_err());
        assert!(read::<serde::de::IgnoredAny>(&format!("[{0}]", "[[]],".repeat(100) + "1")).is_ok(), "side by side");
    }

    #[test]
    fn errors_say_what_was_expected() {
        let error = |json| from_str::<BTreeMap<String, u8>>(json).unwrap_err().0;
        assert_eq!(error(r#"{"a": "b"}"#), "expected u8, found a string");
        assert_eq!(error(r#"{"a": 1.5}"#), "expected u8, found a number");
        assert_eq!(error(r#"{"a": 256}"#), "expected u8");
        assert_eq!(error("[]"), "expected a map, found a list");
    }
}

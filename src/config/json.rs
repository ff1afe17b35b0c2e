//! JSON as if it were TOML, with the place of everything: so whatever is read from TOML can be read from JSON, and its
//! mistakes are told in the same way.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::mistakes::{Mistake, Place};

/// Whether a text is JSON. No TOML begins so.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// The object that a text is, or what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Mistake> {
    let mistake = |span: Range<usize>, message: String| Mistake {
        place: Some(Place::of(text, &span)),
        key: String::new(),
        message,
    };
    // The grammar is looked after by those who know it; here only places are noted.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at = (line + error.column().saturating_sub(1)).min(text.len());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        return Err(mistake(at..at + 1, message));
    }
    let mut reader = Reader { text, at: 0 };
    match reader.value() {
        Ok(value) => match (value.span(), value.into_inner()) {
            (span, DeValue::Table(table)) => Ok(Spanned::new(span, table)),
            (span, _) => Err(mistake(span, "expected an object".into())),
        },
        Err((span, message)) => Err(mistake(span, message.into())),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// What JSON can say and a configuration cannot.
type Odd = (Range<usize>, &'static str);

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Spanned<DeValue<'a>>, Odd> {
        self.space();
        let start = self.at;
        let value = match self.rest().as_bytes().first() {
            Some(b'{') => DeValue::Table(self.table()?),
            Some(b'[') => DeValue::Array(self.array()?),
            Some(b'"') => DeValue::String(self.string()?),
            _ => self.word()?,
        };
        Ok(Spanned::new(start..self.at, value))
    }

    fn table(&mut self) -> Result<DeTable<'a>, Odd> {
        let mut table = DeTable::new();
        self.at += 1;
        while !self.ends(b'}') {
            let start = self.at;
            let name = self.string()?;
            let span = start..self.at;
            let key = Spanned::new(span.clone(), name);
            self.space();
            self.at += 1; // the colon
            let value = self.value()?;
            if table.insert(key, value).is_some() {
                return Err((span, "this key is there twice"));
            }
        }
        Ok(table)
    }

    fn array(&mut self) -> Result<DeArray<'a>, Odd> {
        let mut array = DeArray::new();
        self.at += 1;
        while !self.ends(b']') {
            array.push(self.value()?);
        }
        Ok(array)
    }

    /// Whether the next thing, after a comma if there is one, is the end, which is then behind us.
    fn ends(&mut self, end: u8) -> bool {
        self.space();
        let next = self.rest().as_bytes().first();
        if next == Some(&b',') {
            self.at += 1;
            self.space();
        }
        let ends = next == Some(&end) || next.is_none();
        self.at += usize::from(next == Some(&end));
        ends
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Odd> {
        let start = self.at;
        let mut escaped = false;
        let inside = self.rest().bytes().skip(1);
        let length = inside.take_while(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            !ends
        });
        self.at = (start + length.count() + 2).min(self.text.len());
        let written = &self.text[start..self.at];
        match serde_json::from_str::<String>(written) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err((start..self.at, "this is no string")),
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<DeValue<'a>, Odd> {
        let start = self.at;
        let length = self.rest().find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(self.rest().len());
        self.at += length;
        let span = start..self.at;
        match &self.text[span.clone()] {
            "null" => Err((span, "there is no null; leave the key out")),
            word => DeValue::parse(word).map(Spanned::into_inner).map_err(|_| (span, "this is no number")),
        }
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let mistake = parse(text).unwrap_err();
        let place = mistake.place.unwrap();
        format!("{}:{}: {}", place.line, place.column, mistake.message)
    }

    #[test]
    fn every_value_has_its_place() {
        let text = r#" { "a" : [1, -2.5e3, true, {}], "b\"\u00e9": "x\\", "c": {"d": [ ]} } "#;
        let table = parse(text).unwrap();
        assert_eq!(&text[table.span()], text.trim());
        let list = table.get_ref().get("a").unwrap();
        assert_eq!(&text[list.span()], "[1, -2.5e3, true, {}]");
        let list = list.get_ref().as_array().unwrap();
        let written: Vec<&str> = list.iter().map(|it| &text[it.span()]).collect();
        assert_eq!(written, ["1", "-2.5e3", "true", "{}"]);
        assert!(list[0].get_ref().is_integer() && list[1].get_ref().is_float() && list[2].get_ref().is_bool());
        assert_eq!(table.get_ref().get("b\"\u{e9}").unwrap().get_ref().as_str(), Some("x\\"));
        assert!(table.get_ref().get("c").unwrap().get_ref().get("d").unwrap().get_ref().as_array().unwrap().is_empty());
    }

    #[test]
    fn what_is_odd_is_told_with_its_place() {
        assert_eq!(told("{\n  \"a\": nul }"), "2:11: expected ident");
        assert_eq!(told("{\n  \"a\": null }"), "2:8: there is no null; leave the key out");
        assert_eq!(told("{\"a\": 1,\n \"a\": 2}"), "2:2: this key is there twice");
        assert_eq!(told("{\"a\": 1"), "1:7: EOF while parsing an object");
        assert_eq!(told("{\"a\": 1} 2"), "1:10: trailing characters");
    }
}

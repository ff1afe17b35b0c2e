//! Writes a document again without the fields that are meant. Everything else is copied, not printed: numbers, spaces and
//! the order of keys stay as they are.

use crate::fields::{Fields, Place, Walk};
use crate::scan::{NotJson, Scanner, Token, meaning};
use std::ops::Range;

/// How deep tables and lists may stand in each other, as in serde's readers.
const DEPTH: usize = 128;

/// What becomes of a field.
#[derive(Debug)]
pub(crate) enum Edit {
    /// Its value is this, as JSON.
    Replace(String),
    /// It is left out, and so is its comma.
    Remove,
}

impl Edit {
    pub(crate) fn replace(text: &str) -> Self {
        let mut json = String::from('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => json.extend(['\\', character]),
                '\0'..='\u{1f}' => json.push_str(&format!("\\u{:04x}", u32::from(character))),
                _ => json.push(character),
            }
        }
        Self::Replace(json + "\"")
    }
}

/// A table or list that the walk is in.
#[derive(Debug)]
struct Open {
    table: bool,
    /// Members or items so far.
    count: usize,
    /// Those of them that are written.
    kept: usize,
}

/// The document without the fields; none if it has none of them.
///
/// # Errors
/// If the body is no JSON (RFC 8259), or nests deeper than 128 levels.
pub(crate) fn rewrite(body: &[u8], fields: &Fields, edit: &Edit) -> Result<Option<Vec<u8>>, NotJson> {
    let text = std::str::from_utf8(body).map_err(|_| NotJson)?;
    let mut writer = Writer { text, edit, written: String::new(), copied: 0, changed: false };
    let mut scanner = Scanner::new(text);
    let mut walk = Walk::new(fields);
    let mut open: Vec<Open> = Vec::new();

    // One turn for each value: first it, or the beginning of it, then what ends behind it.
    let mut token = scanner.token()?;
    loop {
        let mut place = None;
        let mut meant = false;
        if let Some(within) = open.last_mut() {
            let here = if within.table {
                let (Token::Text, key) = &token else { return Err(NotJson) };
                let key = meaning(&text[key.clone()]);
                let (Token::Colon, _) = scanner.token()? else { return Err(NotJson) };
                token = scanner.token()?;
                Place::Key(key)
            } else {
                Place::Index(within.count)
            };
            meant = walk.means(&here);
            writer.member(within, meant);
            place = Some(here);
        }
        if meant {
            let value = skip(&mut scanner, token, open.len())?;
            writer.redact(value);
        } else if let Some(table) = opens(&token.0) {
            if open.len() == DEPTH {
                return Err(NotJson);
            }
            writer.open(token.1.end);
            token = scanner.token()?;
            if !closes(&token.0, table) {
                // The walk is at the top already.
                place.iter().for_each(|place| walk.down(place));
                open.push(Open { table, count: 0, kept: 0 });
                continue;
            }
        } else if !matches!(token.0, Token::Text | Token::Word) {
            return Err(NotJson);
        }

        // A value has ended; so may what it stands in.
        loop {
            token = scanner.token()?;
            let Some(within) = open.last() else {
                return if token.0 == Token::End { Ok(writer.end()) } else { Err(NotJson) };
            };
            match &token {
                (Token::Comma, at) => {
                    writer.comma(at.clone());
                    token = scanner.token()?;
                    break;
                }
                (closing, _) if closes(closing, within.table) => {
                    open.pop();
                    walk.up();
                }
                _ => return Err(NotJson),
            }
        }
    }
}

/// Whether a token opens a table, or a list; none if neither.
fn opens(token: &Token) -> Option<bool> {
    match token {
        Token::OpenTable => Some(true),
        Token::OpenList => Some(false),
        _ => None,
    }
}

fn closes(token: &Token, table: bool) -> bool {
    *token == if table { Token::CloseTable } else { Token::CloseList }
}

/// Goes past the value that begins with a token, and gives where it stands. What is taken out is checked like all else:
/// else where it ends would be a matter of opinion. `depth`: levels that are open around it.
fn skip(scanner: &mut Scanner<'_>, first: (Token, Range<usize>), depth: usize) -> Result<Range<usize>, NotJson> {
    let (mut token, Range { start, mut end }) = first;
    let mut open: Vec<bool> = Vec::new();
    loop {
        if let Some(table) = opens(&token) {
            if depth + open.len() == DEPTH {
                return Err(NotJson);
            }
            open.push(table);
            let next = scanner.token()?;
            if closes(&next.0, table) {
                open.pop();
                end = next.1.end;
            } else {
                token = if table { value_of(scanner, &next.0)? } else { next.0 };
                continue;
            }
        } else if !matches!(token, Token::Text | Token::Word) {
            return Err(NotJson);
        }
        loop {
            let Some(table) = open.last().copied() else { return Ok(start..end) };
            let next = scanner.token()?;
            if next.0 == Token::Comma {
                let after = scanner.token()?.0;
                token = if table { value_of(scanner, &after)? } else { after };
                break;
            }
            if !closes(&next.0, table) {
                return Err(NotJson);
            }
            open.pop();
            end = next.1.end;
        }
    }
}

/// The token behind a key and its colon.
fn value_of(scanner: &mut Scanner<'_>, key: &Token) -> Result<Token, NotJson> {
    if *key != Token::Text || scanner.token()?.0 != Token::Colon {
        return Err(NotJson);
    }
    Ok(scanner.token()?.0)
}

/// What has been written, and how far the text has been copied.
struct Writer<'a> {
    text: &'a str,
    edit: &'a Edit,
    written: String,
    copied: usize,
    changed: bool,
}

impl Writer<'_> {
    fn copy_to(&mut self, end: usize) {
        if self.written.capacity() == 0 {
            // Room for all of it at once: growing would copy it again and again.
            self.written.reserve(self.text.len() + self.text.len() / 8);
        }
        self.written.push_str(&self.text[self.copied..end]);
        self.copied = end;
    }

    /// A table or list begins: its bracket is written whatever becomes of its first member.
    fn open(&mut self, end: usize) {
        if matches!(self.edit, Edit::Remove) {
            self.copy_to(end);
        }
    }

    /// A comma is written only once it is known that something follows.
    fn comma(&mut self, at: Range<usize>) {
        if matches!(self.edit, Edit::Remove) {
            self.copy_to(at.start);
            self.copied = at.end;
        }
    }

    /// A member or item of what is open begins.
    fn member(&mut self, within: &mut Open, meant: bool) {
        let first = within.kept == 0;
        within.count += 1;
        if matches!(self.edit, Edit::Remove) && !meant {
            within.kept += 1;
            if !first {
                self.written.push(',');
            }
        }
    }

    /// The value that stands there is meant.
    fn redact(&mut self, value: Range<usize>) {
        self.changed = true;
        if let Edit::Replace(json) = self.edit {
            self.copy_to(value.start);
            self.written.push_str(json);
        }
        // Else what lies between the last comma, or the bracket, and the value's end is left out.
        self.copied = value.end;
    }

    fn end(mut self) -> Option<Vec<u8>> {
        if !self.changed {
            return None;
        }
        self.copy_to(self.text.len());
        Some(self.written.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn rewritten(paths: &[&str], edit: &Edit, text: &str) -> Result<Option<String>, NotJson> {
        let fields = Fields::new(&paths.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap();
        rewrite(text.as_bytes(), &fields, edit).map(|body| body.map(|body| String::from_utf8(body).unwrap()))
    }

    #[test]
    fn only_what_is_meant_is_replaced() {
        let replaced = |paths: &[&str], text| rewritten(paths, &Edit::replace("x"), text).unwrap();
        let text =
            r#" { "id" : 1.50e+2, "user":{"name":"a\u00e4\/","password" : "p"},"z":[ {"password":[1,{"a":"}"}]} ] } "#;
        let expected = r#" { "id" : 1.50e+2, "user":{"name":"a\u00e4\/","password" : "x"},"z":[ {"password":"x"} ] } "#;
        assert_eq!(replaced(&["**.password"], text).as_deref(), Some(expected));
        assert_eq!(replaced(&["user.password", "z.0.password"], text).as_deref(), Some(expected));
        assert_eq!(replaced(&["password", "user.z"], text), None);
        assert_eq!(
            replaced(&["a"], r#"{"\u0061":1,"a":{},"a":[]}"#).as_deref(),
            Some(r#"{"\u0061":"x","a":"x","a":"x"}"#)
        );
        assert_eq!(replaced(&["*"], "[1,[2],{}]").as_deref(), Some(r#"["x","x","x"]"#));
        assert_eq!(replaced(&["a.b", "a"], r#"{"a":{"b":1}}"#).as_deref(), Some(r#"{"a":"x"}"#));
        assert_eq!(replaced(&["*"], "7"), None);
    }

    #[test]
    fn what_is_removed_takes_its_comma_along() {
        let removed = |paths: &[&str], text| rewritten(paths, &Edit::Remove, text).unwrap();
        for (text, expected) in [
            (r#"{"a":1}"#, "{}"),
            (r#"{ "a" : 1 }"#, "{ }"),
            (r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{"b":2,"a":1}"#, r#"{"b":2}"#),
            (r#"{ "b":2, "a":[1,2], "c":3 }"#, r#"{ "b":2, "c":3 }"#),
            (r#"{"a":1,"a":2,"b":3,"a":4,"c":5,"a":6}"#, r#"{"b":3,"c":5}"#),
            (r#"[{"a":{"a":1}},{"a":1},[{"a":1}]]"#, "[{},{},[{}]]"),
        ] {
            assert_eq!(removed(&["**.a"], text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(
            removed(&["1", "3"], "[0, 1, 2, 3 ,4]").as_deref(),
            Some("[0, 2 ,4]"),
            "indices are those of before"
        );
        assert_eq!(removed(&["*"], "[ 0, 1 ]").as_deref(), Some("[ ]"));
        assert_eq!(removed(&["x"], r#"{ "a" : [ 1 , 2 ] }"#), None);
    }

    #[test]
    fn a_replacement_is_a_string_whatever_is_in_it() {
        let edit = Edit::replace("\"\\\n\u{1}ä");
        let text = rewritten(&["a"], &edit, r#"{"a":1}"#).unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["a"], "\"\\\n\u{1}ä");
    }

    #[test]
    fn what_is_no_json_is_refused_also_inside_of_what_is_taken_out() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "{}{}",
            "1 2",
            "01",
            "-01",
            "1true",
            "truefalse",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{,}",
            r#"{"b"}"#,
            r#"{"b":}"#,
            r#"{"b":1,}"#,
            r#"{1:2}"#,
            r#"{"b" 1}"#,
            r#"{"b":1 "c":2}"#,
            "]",
            ":",
            r#"{"b"::1}"#,
        ] {
            for edit in [Edit::replace("x"), Edit::Remove] {
                assert_eq!(rewritten(&["a"], &edit, text), Err(NotJson), "{text}");
                assert_eq!(rewritten(&["a"], &edit, &format!(r#"{{"a":{text}"#)), Err(NotJson), "{text}");
                if !text.trim_ascii().is_empty() {
                    assert_eq!(
                        rewritten(&["a"], &edit, &format!(r#"{{"a":[{text}]}}"#)).is_err(),
                        text != "1,",
                        "{text}"
                    );
                }
            }
        }
        let fields = Fields::new(&["a".to_owned()]).unwrap();
        assert_eq!(rewrite(b"\"\xff\"", &fields, &Edit::Remove), Err(NotJson), "no UTF-8");
    }

    #[test]
    fn what_nests_too_deep_is_refused_and_no_overflow() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for path in ["x", "0", "0.0.0"] {
            assert!(rewritten(&[path], &Edit::Remove, &nested(128)).is_ok());
            assert_eq!(rewritten(&[path], &Edit::Remove, &nested(129)), Err(NotJson));
            assert_eq!(rewritten(&[path], &Edit::Remove, &"[".repeat(1_000_000)), Err(NotJson));
        }
    }

    /// Numbers that only look random (xorshift), the same at every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as usize % sides
        }

        fn document(&mut self, depth: usize) -> Value {
            match self.roll(if depth == 0 { 3 } else { 6 }) {
                0 => Value::Null,
                1 => self.roll(1000).into(),
                2 => "a\"}".into(),
                3 => (0..self.roll(4)).map(|_| self.document(depth - 1)).collect(),
                _ => {
                    let keys = ["a", "b", "c", "0", "1"];
                    let members = (0..self.roll(4)).map(|_| (keys[self.roll(5)].to_owned(), self.document(depth - 1)));
                    Value::Object(members.collect())
                }
            }
        }
    }

    /// The same by the book: whether a path, by its places, means these places.
    fn fits(path: &[&str], places: &[String]) -> bool {
        match (path, places) {
            (["**", rest @ ..], _) => {
                fits(rest, places) || places.split_first().is_some_and(|(_, deeper)| fits(path, deeper))
            }
            ([first, rest @ ..], [place, deeper @ ..]) => (*first == "*" || first == place) && fits(rest, deeper),
            (path, places) => path.is_empty() && places.is_empty(),
        }
    }

    fn by_the_book(value: &Value, paths: &[&str], places: &mut Vec<String>, remove: bool) -> Value {
        let mut member = |name: String, inner: &Value| {
            places.push(name.clone());
            let meant = paths.iter().any(|path| fits(&path.split('.').collect::<Vec<_>>(), places));
            let inner = match meant {
                true if remove => None,
                true => Some((name, "x".into())),
                false => Some((name, by_the_book(inner, paths, places, remove))),
            };
            places.pop();
            inner
        };
        match value {
            Value::Array(items) => {
                let items = items.iter().enumerate().filter_map(|(index, item)| member(index.to_string(), item));
                Value::Array(items.map(|(_, item)| item).collect())
            }
            Value::Object(members) => {
                Value::Object(members.iter().filter_map(|(key, inner)| member(key.clone(), inner)).collect())
            }
            other => other.clone(),
        }
    }

    #[test]
    fn thousands_of_documents_are_as_they_should_be() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let all = ["a", "a.b", "*.c", "**.b", "**.a.*", "a.**.c", "0", "*.1", "**.0.**.a"];
        let mut changed = 0;
        for _ in 0..20_000 {
            let document = dice.document(4);
            let paths = [all[dice.roll(all.len())], all[dice.roll(all.len())]];
            let text =
                if dice.roll(2) == 0 { document.to_string() } else { serde_json::to_string_pretty(&document).unwrap() };
            for (edit, remove) in [(Edit::replace("x"), false), (Edit::Remove, true)] {
                let written = rewritten(&paths, &edit, &text).unwrap();
                let expected = by_the_book(&document, &paths, &mut Vec::new(), remove);
                changed += usize::from(written.is_some());
                assert_eq!(written.is_some(), expected != document, "{paths:?} of {text}");
                let written: Value = serde_json::from_str(&written.unwrap_or(text.clone())).expect("it is still JSON");
                assert_eq!(written, expected, "{paths:?} of {text}");
            }
        }
        assert!(changed > 5000, "{changed}");
    }

    #[test]
    fn what_is_json_is_what_another_reader_says() {
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        let alphabet = br#"{}[]:,""aa11 -."#;
        let mut good = 0;
        for _ in 0..300_000 {
            let text: String = (0..=dice.roll(9)).map(|_| char::from(alphabet[dice.roll(alphabet.len())])).collect();
            let json = serde_json::from_str::<Value>(&text).is_ok();
            good += usize::from(json);
            for edit in [Edit::replace("x"), Edit::Remove] {
                assert_eq!(rewritten(&["a", "0", "*.a"], &edit, &text).is_ok(), json, "{text}");
            }
        }
        assert!(good > 3000, "{good}");
    }
}

//! The header fields of a message: one piece of text and a list of where each line lies in it.
//!
//! A map from names to values would have to hash and move every field of every message; a gateway looks at a handful of
//! them, by names it knows, and passes the rest on as it came. So a line's name is compared with those once, when it is
//! added, and after that a search compares numbers. Lines that lie in the text one behind the other, as they are to be
//! written, are written in one piece.

use std::cell::RefCell;
use std::ops::Range;

use super::known::Known;
use crate::scan::value_end;

/// A name to search for or to write: known ones are found by number.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    known: Known,
    text: &'a [u8],
}

impl From<Known> for Name<'static> {
    fn from(known: Known) -> Self {
        Name { known, text: known.name().as_bytes() }
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(text: &'a [u8]) -> Self {
        Name { known: Known::of(text), text }
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        text.as_bytes().into()
    }
}

/// The header fields of a message in their order. Names keep the case they came in.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// A bit for each known name that may be here; a removed one may leave its bit behind.
    seen: u64,
}

#[derive(Clone, Copy)]
struct Line {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    known: Known,
    /// Name and value lie in the text as they are written: a colon and one space between them, and a line's end behind.
    whole: bool,
}

impl Line {
    fn new(known: Known, name: Range<usize>, value: Range<usize>, whole: bool) -> Line {
        Line {
            name: name.start as u32,
            name_end: name.end as u32,
            value: value.start as u32,
            value_end: value.end as u32,
            known,
            whole,
        }
    }
}

/// Between name and value.
const COLON: &[u8] = b": ";

/// Behind the value.
const END: &[u8] = b"\r\n";

/// Buffers of messages that are over, for the next ones of the same thread: a request has two heads, and each would have to
/// be given its memory anew.
struct Spare {
    texts: Vec<Vec<u8>>,
    lines: Vec<Vec<Line>>,
}

/// So many of them are kept, and no longer ones: as much as the requests need that a thread works on at the same time,
/// when most of them wait.
const SPARE: usize = 64;
const SPARE_TEXT: usize = 4 << 10;
const SPARE_LINES: usize = 64;

thread_local! {
    static SPARES: RefCell<Spare> = const { RefCell::new(Spare { texts: Vec::new(), lines: Vec::new() }) };
}

impl Spare {
    fn text() -> Vec<u8> {
        SPARES.try_with(|spare| spare.borrow_mut().texts.pop()).ok().flatten().unwrap_or_default()
    }

    fn lines() -> Vec<Line> {
        SPARES.try_with(|spare| spare.borrow_mut().lines.pop()).ok().flatten().unwrap_or_default()
    }

    fn keep(mut text: Vec<u8>, mut lines: Vec<Line>) {
        // At its end a thread has no place for them any more.
        let _ = SPARES.try_with(|spare| {
            let spare = &mut *spare.borrow_mut();
            if (1..=SPARE_TEXT).contains(&text.capacity()) && spare.texts.len() < SPARE {
                text.clear();
                spare.texts.push(text);
            }
            if (1..=SPARE_LINES).contains(&lines.capacity()) && spare.lines.len() < SPARE {
                lines.clear();
                spare.lines.push(lines);
            }
        });
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        if self.text.capacity() > 0 {
            Spare::keep(std::mem::take(&mut self.text), std::mem::take(&mut self.lines));
        }
    }
}

/// One field.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// Its name if it is one that the gateway knows.
    pub known: Known,
    /// Its name as it came.
    pub name: &'a [u8],
    /// Its value, without white space around it.
    pub value: &'a [u8],
}

impl Fields {
    /// No fields, with space for so many bytes of text.
    pub fn with_capacity(text: usize, lines: usize) -> Fields {
        let mut fields = Fields { text: Spare::text(), lines: Spare::lines(), seen: 0 };
        fields.text.reserve(text);
        fields.lines.reserve(lines);
        fields
    }

    /// No fields, and no text yet: first [`Fields::place`] says where in it they will lie, then comes [`Fields::write_over`].
    pub(crate) fn unwritten() -> Fields {
        let mut lines = Spare::lines();
        lines.reserve(16);
        Fields { text: Spare::text(), lines, seen: 0 }
    }

    /// Takes over the text in which names and values lie.
    pub(crate) fn write_over(&mut self, text: &[u8]) {
        // What the gateway adds to a request needs about this much.
        self.text.reserve(text.len() + 256);
        self.text.extend_from_slice(text);
    }

    /// Says that a field lies at these places of the text. `whole`: there are a colon and one space between them, and behind
    /// the value a line's end.
    pub(crate) fn place(&mut self, known: Known, name: Range<usize>, value: Range<usize>, whole: bool) {
        self.seen |= known.bit();
        self.lines.push(Line::new(known, name, value, whole));
    }

    /// Writes them as lines of HTTP/1.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.text.len());
        let mut run = 0..0;
        for line in &self.lines {
            let (start, end) = (line.name as usize, line.value_end as usize + END.len());
            if line.whole && start == run.end {
                run.end = end;
                continue;
            }
            out.extend_from_slice(&self.text[std::mem::replace(&mut run, start..end)]);
            if !line.whole {
                run = 0..0;
                let field = self.at(line);
                [field.name, COLON, field.value, END].iter().for_each(|piece| out.extend_from_slice(piece));
            }
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// How many there are; a name that is there twice counts twice.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of all names and values, as HTTP/2 counts a header list (RFC 9113, section 6.5.2).
    pub fn size(&self) -> usize {
        self.lines.iter().map(|line| (line.name_end - line.name + line.value_end - line.value) as usize + 32).sum()
    }

    fn at(&self, line: &Line) -> Field<'_> {
        Field {
            known: line.known,
            name: &self.text[line.name as usize..line.name_end as usize],
            value: &self.text[line.value as usize..line.value_end as usize],
        }
    }

    fn is(&self, line: &Line, name: Name<'_>) -> bool {
        line.known == name.known
            && (line.known != Known::Other
                || self.text[line.name as usize..line.name_end as usize].eq_ignore_ascii_case(name.text))
    }

    /// All of them in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| self.at(line))
    }

    /// Whether one of these names is here; cheap where none is.
    pub fn any(&self, names: u64) -> bool {
        self.seen & names != 0
    }

    /// The first value of a name.
    pub fn get<'a>(&self, name: impl Into<Name<'a>>) -> Option<&[u8]> {
        let name = name.into();
        if name.known == Known::Other {
            return self.all(name).next();
        }
        if !self.any(name.known.bit()) {
            return None;
        }
        self.lines.iter().find(|line| line.known == name.known).map(|line| self.at(line).value)
    }

    /// The first value of a name if it is text.
    pub fn text<'a>(&self, name: impl Into<Name<'a>>) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// All values of a name, in their order.
    pub fn all<'a>(&self, name: impl Into<Name<'a>>) -> impl Iterator<Item = &[u8]> {
        let name = name.into();
        let there = name.known == Known::Other || self.any(name.known.bit());
        let lines = if there { &self.lines[..] } else { &[] };
        lines.iter().filter(move |line| self.is(line, name)).map(|line| self.at(line).value)
    }

    /// The members of a field that is a list of tokens (RFC 9110, section 5.6.1), without white space and empty ones.
    pub fn tokens<'a>(&self, name: impl Into<Name<'a>>) -> impl Iterator<Item = &[u8]> {
        let all = self.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        all.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
    }

    /// Whether a name is there.
    pub fn contains<'a>(&self, name: impl Into<Name<'a>>) -> bool {
        self.get(name).is_some()
    }

    /// Adds a field behind the others. Whoever calls it vouches for the characters, see [`is_name`] and [`is_value`].
    pub fn append<'a>(&mut self, name: impl Into<Name<'a>>, value: &[u8]) {
        let name = name.into();
        debug_assert!(is_name(name.text) && is_value(value), "{name:?}: {value:?}");
        let (name_at, value_at) = self.put(name.text, value);
        self.place(name.known, name_at, value_at, true);
    }

    /// As [`Fields::append`], with the number of a name that was looked up before.
    pub(crate) fn append_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        debug_assert!(Known::of(name) == known && is_name(name) && is_value(value), "{name:?}: {value:?}");
        let (name_at, value_at) = self.put(name, value);
        self.place(known, name_at, value_at, true);
    }

    /// Writes a line behind the text; where its name and value are.
    fn put(&mut self, name: &[u8], value: &[u8]) -> (Range<usize>, Range<usize>) {
        let start = self.text.len();
        let (name_end, value_at) = (start + name.len(), start + name.len() + COLON.len());
        self.text.reserve(name.len() + value.len() + COLON.len() + END.len());
        [name, COLON, value, END].iter().for_each(|piece| self.text.extend_from_slice(piece));
        (start..name_end, value_at..value_at + value.len())
    }

    /// Makes this the only value of a name, in the place of the first.
    pub fn set<'a>(&mut self, name: impl Into<Name<'a>>, value: &[u8]) {
        let name = name.into();
        let there = name.known == Known::Other || self.any(name.known.bit());
        let Some(first) = there.then(|| self.lines.iter().position(|line| self.is(line, name))).flatten() else {
            return self.append(name, value);
        };
        debug_assert!(is_value(value), "{name:?}: {value:?}");
        let line = self.lines[first];
        let old = line.value as usize..line.value_end as usize;
        if old.len() == value.len() {
            self.text[old].copy_from_slice(value);
        } else {
            // With the name in the case it came in.
            let known = self.text[line.name as usize..line.name_end as usize].to_vec();
            let (name_at, value_at) = self.put(&known, value);
            self.lines[first] = Line::new(line.known, name_at, value_at, true);
        }
        let mut after = first + 1;
        while after < self.lines.len() {
            if self.is(&self.lines[after], name) {
                self.lines.remove(after);
            } else {
                after += 1;
            }
        }
    }

    /// Makes the value of one name, which is not empty, that of another as well. Says whether there was one.
    pub fn copy(&mut self, from: Known, to: Known) -> bool {
        let Some(line) = self.lines.iter().find(|line| line.known == from && line.value < line.value_end) else {
            return false;
        };
        let (at, length) = (line.value as usize, (line.value_end - line.value) as usize);
        self.remove(to);
        let name = to.name();
        self.text.reserve(name.len() + length + COLON.len() + END.len());
        let start = self.text.len();
        [name.as_bytes(), COLON].iter().for_each(|piece| self.text.extend_from_slice(piece));
        let value = self.text.len();
        self.text.extend_from_within(at..at + length);
        self.text.extend_from_slice(END);
        self.place(to, start..start + name.len(), value..value + length, true);
        true
    }

    /// Takes all fields of a name out. Says whether there was one.
    pub fn remove<'a>(&mut self, name: impl Into<Name<'a>>) -> bool {
        let name = name.into();
        if name.known != Known::Other && !self.any(name.known.bit()) {
            return false;
        }
        let before = self.lines.len();
        let text = &self.text;
        self.lines.retain(|line| {
            line.known != name.known
                || (line.known == Known::Other
                    && !text[line.name as usize..line.name_end as usize].eq_ignore_ascii_case(name.text))
        });
        self.seen &= !name.known.bit() | Known::Other.bit();
        self.lines.len() != before
    }

    /// Keeps the fields that this is true of.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| {
            keep(Field {
                known: line.known,
                name: &text[line.name as usize..line.name_end as usize],
                value: &text[line.value as usize..line.value_end as usize],
            })
        });
    }

    /// Removes all fields whose known names are in this set.
    pub fn remove_known(&mut self, names: u64) {
        if self.any(names) {
            self.lines.retain(|line| line.known.bit() & names == 0);
            self.seen &= !names;
        }
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        out.debug_list().entries(self.iter().map(|field| (text(field.name), text(field.value)))).finish()
    }
}

/// Whether this is a token (RFC 9110, section 5.6.2), as the name of a field or of a method must be. Not empty.
pub fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Whether this can be the value of a field (RFC 9110, section 5.5): no control characters but tab, no white space
/// around it. Bytes above 127 are allowed, as the specification has it, and mean nothing to us.
pub fn is_value(text: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value_end(text, 0) == text.len() && !blank(text.first()) && !blank(text.last())
}

/// The bytes that a token may have.
pub static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let it = byte as u8;
        table[byte] = it.is_ascii_alphanumeric()
            || matches!(
                it,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        lines.iter().for_each(|(name, value)| fields.append(*name, value.as_bytes()));
        fields
    }

    fn listed(fields: &Fields) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn names_are_found_in_any_case_and_keep_their_own() {
        let fields = fields(&[("Host", "a"), ("X-Mine", "1"), ("x-mine", "2"), ("X-Yours", "3")]);
        assert_eq!(fields.get(Known::Host), Some(&b"a"[..]));
        assert_eq!(fields.get("hOST"), Some(&b"a"[..]));
        assert_eq!(fields.all("x-mINE").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(fields.get("x-your"), None);
        assert_eq!(listed(&fields), ["Host: a", "X-Mine: 1", "x-mine: 2", "X-Yours: 3"]);
    }

    #[test]
    fn set_leaves_one_in_the_place_of_the_first() {
        let mut fields = fields(&[("via", "a"), ("x", "1"), ("Via", "b")]);
        fields.set("VIA", b"c");
        fields.set("y", b"2");
        assert_eq!(listed(&fields), ["via: c", "x: 1", "y: 2"]);
        assert!(fields.remove("via") && !fields.remove("via") && fields.remove("x"));
        fields.set(Known::Via, b"d");
        assert_eq!(listed(&fields), ["y: 2", "via: d"]);
    }

    #[test]
    fn sets_of_known_names_go_at_once() {
        let mut fields = fields(&[("te", "trailers"), ("a", "b"), ("Connection", "close"), ("host", "x")]);
        let names = Known::Te.bit() | Known::Connection.bit();
        assert!(fields.any(names));
        fields.remove_known(names);
        assert!(!fields.any(names) && fields.any(Known::Host.bit()));
        assert_eq!(listed(&fields), ["a: b", "host: x"]);
    }

    #[test]
    fn lists_are_split_over_lines() {
        let fields = fields(&[("connection", "close, ,X-A"), ("connection", "\tkeep-alive ".trim())]);
        assert_eq!(fields.tokens(Known::Connection).collect::<Vec<_>>(), [&b"close"[..], b"X-A", b"keep-alive"]);
    }

    #[test]
    fn what_a_name_and_a_value_may_be() {
        assert!(is_name(b"X-a_1!") && !is_name(b"") && !is_name(b"a b") && !is_name(b"a:") && !is_name("ä".as_bytes()));
        for (value, fine) in [
            (&b""[..], true),
            (b"a\tb c", true),
            (b"\xe4", true),
            (b" a", false),
            (b"a\t", false),
            (b"a\rb", false),
            (b"\0", false),
            (b"\x7f", false),
        ] {
            assert_eq!(is_value(value), fine, "{value:?}");
        }
    }
}

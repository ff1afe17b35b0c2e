//! A TOML text that becomes a value, with *every* mistake in it and not only the first.
//!
//! serde stops at the first mistake. So each one is noted, the key or list element that holds it is taken out, and
//! the rest is tried again, until it passes. What a key means is the target type's business.

use std::collections::HashSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::json;
use super::mistakes::{Mistake, Place, nearest};

/// Each mistake costs one more pass over the file, and nobody reads more than this at once.
const MOST_MISTAKES: usize = 100;

/// A step from a table or a list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A parsed text that remembers where everything stands.
pub(crate) struct Document<'a> {
    text: &'a str,
    tree: DeValue<'a>,
    span: Range<usize>,
}

impl<'a> Document<'a> {
    /// A document of TOML, or of JSON where it begins like an object; or what is wrong with its syntax: then nothing else
    /// can be said about it.
    pub(crate) fn parse(text: &'a str) -> Result<Document<'a>, Vec<Mistake>> {
        if json::is_json(text) {
            let tree = json::parse(text).map_err(|mistake| vec![mistake])?;
            return Ok(Document { text, span: tree.span(), tree: DeValue::Table(tree.into_inner()) });
        }
        let (tree, errors) = DeTable::parse_recoverable(text);
        let mut mistakes: Vec<Mistake> = Vec::new();
        for error in errors {
            let place = Place::of(text, &error.span().unwrap_or_default());
            // What follows on the same line is mostly the parser losing its way after the first.
            if mistakes.iter().all(|it| it.place.as_ref().map(|it| it.line) != Some(place.line)) {
                let message = error.message().to_owned();
                mistakes.push(Mistake { place: Some(place), key: String::new(), message });
            }
        }
        if !mistakes.is_empty() {
            return Err(sorted(mistakes));
        }
        Ok(Document { text, span: tree.span(), tree: DeValue::Table(tree.into_inner()) })
    }

    /// The value as far as it is good, and what is not. No value only where the mistakes do not end.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> (Option<T>, Vec<Mistake>) {
        let mut tree = self.tree.clone();
        let mut mistakes = Vec::new();
        // Keys with a mistake, and missing keys that were filled in.
        let (mut wrong, mut filled) = (HashSet::new(), HashSet::new());
        for _ in 0..2 * MOST_MISTAKES {
            let DeValue::Table(table) = tree.clone() else { break };
            let error = match T::deserialize(Deserializer::from(Spanned::new(self.span.clone(), table))) {
                Ok(value) => return (Some(value), sorted(mistakes)),
                Err(error) => error,
            };
            let span = error.span().unwrap_or_default();
            // What is missing from the document itself is missing nowhere within it.
            let whole = span == self.span;
            let mut path = locate(&self.tree, &span).filter(|_| !whole).unwrap_or_default();
            let missing = error.message().strip_prefix("missing field `").and_then(|it| it.strip_suffix('`'));
            let inner = path.clone();
            if let Some(field) = missing {
                path.push(Step::Key(field.to_owned()));
            }
            // A list is empty, or a field missing, because its bad content was taken out before.
            let follows = wrong.iter().any(|it: &Vec<Step>| it == &path || missing.is_none() && it.starts_with(&path));
            if !follows {
                if mistakes.len() == MOST_MISTAKES {
                    break;
                }
                let place = Some(Place::of(self.text, &span)).filter(|_| !inner.is_empty());
                mistakes.push(Mistake { place, key: written(&path), message: plain(error.message()) });
            }
            wrong.insert(path.clone());
            let here = locate(&tree, &span).filter(|_| !whole).unwrap_or_default();
            match missing {
                Some(field) if filled.insert(path) => fill(&mut tree, &here, field, span),
                _ if here.is_empty() => break,
                _ => remove(&mut tree, &here),
            }
        }
        (None, sorted(mistakes))
    }

    /// A mistake that is found in what was read, at a place that was kept.
    pub(crate) fn mistake_at(&self, span: &Range<usize>, message: String) -> Mistake {
        let key = locate(&self.tree, span).map(|it| written(&it)).unwrap_or_default();
        Mistake { place: Some(Place::of(self.text, span)), key, message }
    }

    /// Where all of it is written.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The key, as `routes[1]`, of what stands at a place.
    pub(crate) fn key_at(&self, span: &Range<usize>) -> String {
        locate(&self.tree, span).map(|it| written(&it)).unwrap_or_default()
    }

    /// Where the value of a key is written, in the table that stands at `within`.
    pub(crate) fn value_of(&self, within: &Range<usize>, key: &str) -> Option<Range<usize>> {
        let mut path = locate(&self.tree, within)?;
        path.push(Step::Key(key.to_owned()));
        self.span_of(&path)
    }

    /// Where the value is written to which these keys lead.
    pub(crate) fn find(&self, keys: &[&str]) -> Option<Range<usize>> {
        self.span_of(&keys.iter().map(|it| Step::Key(it.to_string())).collect::<Vec<_>>())
    }

    /// Every value that holds no others by name, with the line where it stands, in the order of the lines.
    pub(crate) fn values(&self) -> Vec<(Vec<Step>, usize)> {
        fn visit(
            value: &DeValue<'_>,
            at: Range<usize>,
            path: &mut Vec<Step>,
            all: &mut Vec<(Vec<Step>, Range<usize>)>,
        ) {
            let mut each = |step, value: &Spanned<DeValue<'_>>| {
                path.push(step);
                visit(value.get_ref(), value.span(), path, all);
                path.pop();
            };
            match value {
                DeValue::Table(table) => {
                    table.iter().for_each(|(key, value)| each(Step::Key(key.get_ref().to_string()), value));
                }
                DeValue::Array(list) if list.iter().any(|it| it.get_ref().is_table()) => {
                    list.iter().enumerate().for_each(|(index, value)| each(Step::Index(index), value));
                }
                _ => all.push((path.clone(), at)),
            }
        }
        let mut all = Vec::new();
        visit(&self.tree, self.span.clone(), &mut Vec::new(), &mut all);
        all.sort_by_key(|(_, at)| at.start);
        all.into_iter().map(|(path, at)| (path, self.line(&at))).collect()
    }

    /// The line of what these steps lead to, or of the value that stands for all that it would hold.
    pub(crate) fn line_of(&self, path: &[Step]) -> Option<usize> {
        let (mut value, mut span) = (&self.tree, self.span.clone());
        for step in path {
            let next = match (value, step) {
                (DeValue::Table(table), Step::Key(key)) => table.get(key.as_str())?,
                (DeValue::Array(list), Step::Index(index)) => list.get(*index)?,
                (DeValue::Table(_) | DeValue::Array(_), _) => return None,
                // `health_check = true` is a table, and a name a whole balancer.
                _ => break,
            };
            (value, span) = (next.get_ref(), next.span());
        }
        Some(self.line(&span))
    }

    fn span_of(&self, path: &[Step]) -> Option<Range<usize>> {
        let (mut value, mut span) = (&self.tree, self.span.clone());
        for step in path {
            let next = match step {
                Step::Key(key) => value.get(key)?,
                Step::Index(index) => value.get(*index)?,
            };
            (value, span) = (next.get_ref(), next.span());
        }
        Some(span)
    }

    /// The line, from 1, on which a place begins.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        Place::of(self.text, span).line
    }
}

fn sorted(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by_key(|it| it.place.as_ref().map(|it| (it.line, it.column)));
    mistakes
}

/// The steps to the innermost key or element that is written where `span` is. A table under a header stands where
/// its header does, not around its keys, so an exact match is looked for before the smallest that contains it.
fn locate(tree: &DeValue<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    struct Best {
        rank: (bool, std::cmp::Reverse<usize>, usize),
        path: Vec<Step>,
    }

    fn visit(value: &DeValue<'_>, span: &Range<usize>, path: &mut Vec<Step>, best: &mut Option<Best>) {
        let mut offer = |at: Range<usize>, path: &[Step]| {
            let rank = (at == *span, std::cmp::Reverse(at.len()), path.len());
            let holds = at.start <= span.start && span.end <= at.end && !at.is_empty();
            if holds && best.as_ref().is_none_or(|it| rank >= it.rank) {
                *best = Some(Best { rank, path: path.to_owned() });
            }
        };
        match value {
            DeValue::Table(table) => {
                for (key, value) in table.iter() {
                    path.push(Step::Key(key.get_ref().to_string()));
                    offer(key.span(), path);
                    offer(value.span(), path);
                    path.pop();
                }
                for (key, value) in table.iter() {
                    path.push(Step::Key(key.get_ref().to_string()));
                    visit(value.get_ref(), span, path, best);
                    path.pop();
                }
            }
            DeValue::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    path.push(Step::Index(index));
                    offer(value.span(), path);
                    path.pop();
                }
                for (index, value) in list.iter().enumerate() {
                    path.push(Step::Index(index));
                    visit(value.get_ref(), span, path, best);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    let mut best = None;
    visit(tree, span, &mut Vec::new(), &mut best);
    best.map(|it| it.path)
}

/// What the path leads to, to be changed.
fn enter<'t, 'a>(mut value: &'t mut DeValue<'a>, path: &[Step]) -> Option<&'t mut DeValue<'a>> {
    for step in path {
        value = match (value, step) {
            (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str())?.get_mut(),
            (DeValue::Array(list), Step::Index(index)) => list.get_mut(*index)?.get_mut(),
            _ => return None,
        };
    }
    Some(value)
}

fn remove(tree: &mut DeValue<'_>, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    match (enter(tree, parents), last) {
        (Some(DeValue::Table(table)), Step::Key(key)) => {
            table.remove(key.as_str());
        }
        (Some(DeValue::Array(list)), Step::Index(index)) => {
            let rest = std::mem::replace(list, DeArray::new()).into_iter().enumerate().filter(|(at, _)| at != index);
            *list = rest.map(|(_, it)| it).collect();
        }
        _ => {}
    }
}

/// Puts something acceptable where a required key is missing, so that the table's other mistakes come to light. Every
/// required key of ours is a string.
fn fill(tree: &mut DeValue<'_>, path: &[Step], field: &str, span: Range<usize>) {
    let value = match field {
        "path_prefix" => "/",
        "address" => "127.0.0.1:1",
        _ => "x",
    };
    if let Some(DeValue::Table(table)) = enter(tree, path) {
        let key = Spanned::new(span.clone(), field.to_owned().into());
        table.insert(key, Spanned::new(span, DeValue::String(value.into())));
    }
}

/// A path as an operator would write it: `routes[1].timeout.connect`.
pub(crate) fn written(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Index(index) => out.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                let bare = !key.is_empty() && key.chars().all(|it| it.is_ascii_alphanumeric() || "-_".contains(it));
                out.push_str(&if bare { key.clone() } else { format!("{key:?}") });
            }
        }
    }
    out
}

/// serde's words in an operator's: no Rust types, and the nearest name for an unknown one.
fn plain(message: &str) -> String {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let unknown = [("unknown field ", "unknown key"), ("unknown variant ", "unknown value")];
    if let Some((rest, what)) = unknown.iter().find_map(|(start, what)| Some((message.strip_prefix(start)?, what))) {
        let (name, known) = rest.rsplit_once(", ").map_or((rest, ""), |_| {
            // The name may contain anything, so what is known begins at the last "`, expected " or "`, there are".
            let at = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are ")).unwrap_or(0);
            (&rest[..at], &rest[at..])
        });
        let name = name.trim_matches('`');
        let known = quoted(known.get(1..).unwrap_or_default());
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("; did you mean {near:?}?"),
            None if known.is_empty() => "; none is expected here".to_owned(),
            None => format!("; expected {}", known.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ")),
        };
        return format!("{what} {name:?}{help}");
    }
    if let Some(field) = message.strip_prefix("missing field `").and_then(|it| it.strip_suffix('`')) {
        return format!("missing key {field:?}");
    }
    let invalid = ["invalid type: ", "invalid value: "].iter().find_map(|it| message.strip_prefix(it));
    if let Some((found, expected)) = invalid.and_then(|it| it.rsplit_once(", expected ")) {
        let expected = match expected {
            "a sequence" => "a list",
            "a map" => "a table",
            "a boolean" => "true or false",
            "path string" => "a path",
            "i64" | "u16" | "u32" | "usize" => "a whole number",
            it if it.starts_with("struct ") => "a table",
            it => it,
        };
        let found = match found {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            it => it.replace('`', ""),
        };
        return format!("expected {expected}, found {found}");
    }
    // The enumerations of ours are all strings.
    message.replace("wanted string or table", "expected a string")
}

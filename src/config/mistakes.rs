//! Mistakes in a file, and how they are told: file, line, column, key, what is wrong, and the line itself.
//!
//! What a mistake *is* stands elsewhere: in [`super::values`], [`super::file`] and [`crate::registry::file`].

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::secret;

/// Everything that is wrong with a file. Printed, it is what the operator reads.
#[derive(Clone, Debug, Default)]
pub struct Mistakes {
    /// The file.
    pub file: PathBuf,
    /// In the order of the file.
    pub all: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where; none if it is about the file as a whole.
    pub place: Option<Place>,
    /// Which key, as `routes[1].timeout.connect`; empty where the text is not TOML.
    pub key: String,
    /// What is wrong, in one line.
    pub message: String,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// How many characters of the line it covers; at least 1.
    pub width: usize,
    /// The whole line, with secrets blotted out.
    pub text: String,
}

impl Mistakes {
    /// The one mistake that a file cannot be read at all.
    pub fn unreadable(file: &Path, why: &std::io::Error) -> Mistakes {
        let message = format!("reading it: {why}");
        Mistakes { file: file.to_owned(), all: vec![Mistake { place: None, key: String::new(), message }] }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.all.iter().enumerate() {
            if number > 0 {
                out.write_str("\n\n")?;
            }
            write!(out, "{}:", self.file.display())?;
            if let Some(place) = &mistake.place {
                write!(out, "{}:{}:", place.line, place.column)?;
            }
            if !mistake.key.is_empty() {
                write!(out, " {}:", mistake.key)?;
            }
            write!(out, " {}", mistake.message)?;
            if let Some(place) = &mistake.place {
                write!(out, "\n{place}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    /// The line, and below it a caret for each character meant.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab stays one, or the carets would not stand below what they mean.
        let before = self.text.chars().chain(std::iter::repeat(' ')).take(self.column - 1);
        let before: String = before.map(|it| if it == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(self.width);
        write!(out, "{margin} |\n{number} | {}\n{margin} | {before}{carets}", self.text.trim_end())
    }
}

impl Place {
    /// Where `span` begins in `text`, and what it covers of that line.
    pub fn of(text: &str, span: &Range<usize>) -> Place {
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |it| it + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let end = text.floor_char_boundary(span.end).min(line_start + line.len()).max(start);
        Place {
            line: 1 + text[..start].matches('\n').count(),
            column: 1 + text[line_start..start].chars().count(),
            width: text[start..end].chars().count().max(1),
            text: blot(line),
        }
    }
}

/// Mistakes are logged, and a log is read by more people than a configuration is: what follows `digest:` is not shown,
/// wherever on the line it stands, and no text behind a name that secrets have.
fn blot(line: &str) -> String {
    let names = line.match_indices('=').filter(|(at, _)| {
        let before = line[..*at].trim_end().trim_end_matches(['"', '\'']);
        let ends = |it: char| !it.is_ascii_alphanumeric() && !matches!(it, '_' | '-');
        let start = before.char_indices().rev().find(|it| ends(it.1)).map_or(0, |(at, it)| at + it.len_utf8());
        let name = &before[start..];
        // A key of TLS is a file. What is misspelt is shown as a mistake, and is a secret all the same.
        name != "key" && (secret::is_secret(name) || ["tok", "secr"].iter().any(|it| name.contains(it)))
    });
    let named = names.map(|(at, _)| at).next().unwrap_or(line.len());
    let mut blotted = String::new();
    // The quote that a text began with, and whether it is one to be blotted out.
    let (mut quote, mut hidden) = (None, false);
    let digest = line.find("digest:").map_or(line.len(), |at| at + "digest:".len());
    for (at, it) in line.char_indices() {
        if matches!(it, '"' | '\'') && quote.is_none_or(|open| open == it) {
            quote = if quote.is_some() { None } else { Some(it) };
            hidden = quote.is_some() && at > named;
            blotted.push(it);
        } else {
            hidden |= at >= digest && (quote.is_some() || !line[..at].contains(['"', '\'']));
            blotted.push(if hidden { '*' } else { it });
        }
    }
    blotted
}

/// What was probably meant instead of `name`, if anything among `known` is near enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro-Winkler favours a common start, as slips of the finger do; below 0.8 the suggestions become silly.
    let scored = known.into_iter().map(|it| (strsim::jaro_winkler(name, it), it)).filter(|(score, _)| *score >= 0.8);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_carets_stay_on_the_line() {
        let text = "a = 1\nnäme = [\n2]\n";
        let start = text.find('[').unwrap();
        let place = Place::of(text, &(start..text.len()));
        assert_eq!((place.line, place.column, place.width), (2, 8, 1));
        let end = Place::of(text, &(text.len()..text.len()));
        assert_eq!((end.line, end.column, end.width), (4, 1, 1));
    }

    #[test]
    fn secrets_are_blotted_out() {
        assert_eq!(blot("auht = \"digest:me:pass\" # x"), "auht = \"digest:*******\" # x");
        assert_eq!(blot("auth = \"digest:me:pass"), "auth = \"digest:*******");
        assert_eq!(blot("admin_tokn = 'abc' # x"), "admin_tokn = '***' # x");
        assert_eq!(
            blot("explain = { header = \"x-a\", secret = \"a=b\" }"),
            "explain = { header = \"x-a\", secret = \"***\" }"
        );
        assert_eq!(blot("service = \"token\""), "service = \"token\"");
        assert_eq!(blot("x = { keys = { shop = 'a\"b' } } # 'c'"), "x = { keys = { shop = '***' } } # '*'");
        assert_eq!(blot("name = \"shop\", password = \"pa=ss"), "name = \"shop\", password = \"*****");
        assert_eq!(blot("key_header = \"x-key\""), "key_header = \"x-key\"");
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(nearest("conect", ["connect", "header", "idle"]), Some("connect"));
        assert_eq!(nearest("colour", ["connect", "header", "idle"]), None);
    }
}

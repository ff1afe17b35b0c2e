//! Which values of a document are meant: paths, and how far a walk through the document has come along each.

use std::borrow::Cow;

/// One place of a path.
#[derive(Debug, PartialEq)]
enum Segment {
    /// A key; the index too, if it is a number.
    Name { key: String, index: Option<usize> },
    /// `*`.
    Any,
    /// `**`.
    Deep,
}

/// The paths of a configuration, one behind the other; each ends with a place of its own.
#[derive(Debug)]
pub(crate) struct Fields {
    /// None: the path before ends here.
    segments: Vec<Option<Segment>>,
    /// Where each path begins.
    starts: Vec<usize>,
}

/// Paths that are followed at once cost time at each key.
const PATHS: usize = 256;

impl Fields {
    pub(crate) fn new(paths: &[String]) -> Result<Self, String> {
        if paths.is_empty() {
            return Err("`fields` is empty: name a path such as `user.password`".into());
        }
        if paths.len() > PATHS {
            return Err(format!("`fields` has {} paths, but may have {PATHS}", paths.len()));
        }
        let mut fields = Self { segments: Vec::new(), starts: Vec::new() };
        for path in paths {
            fields.starts.push(fields.segments.len());
            let segments: Vec<Segment> = split(path).into_iter().map(Segment::new).collect();
            let empty = |segment: &Segment| matches!(segment, Segment::Name { key, .. } if key.is_empty());
            if segments.iter().any(empty) {
                return Err(format!("`fields` has `{path}`, where a key is empty: `a.b` is `b` in `a`"));
            }
            if segments.last() == Some(&Segment::Deep) {
                return Err(format!("`fields` has `{path}`, which ends with `**`: what is meant below? `**.*` is all"));
            }
            fields.segments.extend(segments.into_iter().map(Some));
            fields.segments.push(None);
        }
        Ok(fields)
    }
}

/// The places of a path: at dots, but not at `\.`.
fn split(path: &str) -> Vec<String> {
    let mut places = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'.') => {
                places.last_mut().expect("never empty").extend(characters.next())
            }
            '.' => places.push(String::new()),
            _ => places.last_mut().expect("never empty").push(character),
        }
    }
    places
}

impl Segment {
    fn new(place: String) -> Self {
        match place.as_str() {
            "*" => Self::Any,
            "**" => Self::Deep,
            _ => Self::Name { index: place.parse().ok(), key: place },
        }
    }
}

/// Where in a container a value is.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

/// How far a walk has come along each path, for each container that it is in. Levels lie in one list, so that going
/// down and up again allocates nothing.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    fields: &'a Fields,
    /// Segments that could be next, of all levels.
    next: Vec<usize>,
    /// Where the segments of each level begin in `next`.
    levels: Vec<usize>,
    /// The number of the level that each segment was put into last, so that none is there twice.
    put: Vec<u32>,
    /// The number of the level that the walk came to last.
    level: u32,
}

impl<'a> Walk<'a> {
    /// At the top of a document.
    pub(crate) fn new(fields: &'a Fields) -> Self {
        let mut walk =
            Self { fields, next: Vec::new(), levels: vec![0], put: vec![0; fields.segments.len()], level: 1 };
        fields.starts.iter().for_each(|start| walk.expect(*start));
        walk
    }

    /// This segment could be next at the level that the walk came to last, and what follows it if it can be nothing.
    fn expect(&mut self, mut segment: usize) {
        loop {
            if self.put[segment] != self.level {
                self.put[segment] = self.level;
                self.next.push(segment);
            }
            if self.fields.segments[segment] != Some(Segment::Deep) {
                return;
            }
            segment += 1;
        }
    }

    /// Whether the value at this place is meant: then nothing in it needs to be looked at.
    pub(crate) fn means(&self, place: &Place<'_>) -> bool {
        let here = self.levels.last().map_or(&[][..], |level| &self.next[*level..]);
        here.iter()
            .any(|segment| self.fields.segments[segment + 1..].first() == Some(&None) && self.fits(*segment, place))
    }

    /// Whether a path goes on from a segment at this place.
    fn fits(&self, segment: usize, place: &Place<'_>) -> bool {
        match (&self.fields.segments[segment], place) {
            (Some(Segment::Any), _) => true,
            (Some(Segment::Name { key, .. }), Place::Key(found)) => key == found,
            (Some(Segment::Name { index, .. }), Place::Index(found)) => *index == Some(*found),
            (Some(Segment::Deep) | None, _) => false,
        }
    }

    /// Goes into the value at this place, which is a table or list and not meant itself.
    pub(crate) fn down(&mut self, place: &Place<'_>) {
        let above = self.levels.last().map_or(0, |level| *level)..self.next.len();
        self.levels.push(self.next.len());
        // There are fewer values in a body than numbers.
        self.level += 1;
        for at in above {
            let segment = self.next[at];
            if self.fields.segments[segment] == Some(Segment::Deep) {
                self.expect(segment);
            } else if self.fits(segment, place) {
                self.expect(segment + 1);
            }
        }
    }

    /// Comes out of the value again; out of the document, at its end.
    pub(crate) fn up(&mut self) {
        let level = self.levels.pop().unwrap_or(0);
        self.next.truncate(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a path means what is at the end of these places, and nothing on the way there.
    fn means(path: &str, places: &[&str]) -> bool {
        let fields = Fields::new(&[path.to_owned()]).unwrap();
        let mut walk = Walk::new(&fields);
        let place = |place: &str| match place.strip_prefix('#') {
            Some(index) => Place::Index(index.parse().unwrap()),
            None => Place::Key(place.to_owned().into()),
        };
        let meant = |it: &&str| {
            let meant = walk.means(&place(it));
            walk.down(&place(it));
            meant
        };
        places.iter().position(meant) == Some(places.len() - 1)
    }

    #[test]
    fn a_path_is_from_the_top() {
        assert!(means("a", &["a"]) && means("a.b", &["a", "b"]) && means(r"a\.b.c", &["a.b", "c"]));
        assert!(!means("a", &["b"]) && !means("b", &["a", "b"]) && !means("a.b", &["a"]) && !means("a", &["A"]));
        assert!(means(r"a\b", &[r"a\b"]));
    }

    #[test]
    fn numbers_are_keys_and_indices() {
        assert!(means("a.0", &["a", "#0"]) && means("a.0", &["a", "0"]) && means("12.a", &["#12", "a"]));
        assert!(!means("a.0", &["a", "#1"]) && !means("a.b", &["a", "#0"]) && !means("a.00", &["a", "00x"]));
    }

    #[test]
    fn a_star_is_one_place_of_any_name() {
        assert!(
            means("*.a", &["x", "a"]) && means("*.a", &["#3", "a"]) && means("a.*", &["a", "b"]) && means("*", &["a"])
        );
        assert!(!means("*.a", &["a"]) && !means("*.a", &["x", "y", "a"]));
    }

    #[test]
    fn two_stars_are_any_number_of_places() {
        for places in [&["s"][..], &["a", "s"], &["a", "#0", "b", "s"], &["t", "t", "s"]] {
            assert!(means("**.s", places), "{places:?}");
        }
        assert!(
            means("a.**.s", &["a", "s"]) && means("a.**.s", &["a", "b", "c", "s"]) && !means("a.**.s", &["b", "s"])
        );
        assert!(means("**.a.**.b", &["x", "a", "y", "b"]) && !means("**.a.**.b", &["x", "y", "b"]));
        assert!(means("**.a.b", &["a", "a", "b"]), "the first `a` is not the one");
        assert!(means("**.**.s", &["a", "s"]));
    }

    #[test]
    fn a_walk_comes_back_to_where_it_was() {
        let fields = Fields::new(&["a.b".to_owned(), "c".to_owned()]).unwrap();
        let mut walk = Walk::new(&fields);
        let key = |key: &'static str| Place::Key(key.into());
        walk.down(&key("a"));
        assert!(walk.means(&key("b")) && !walk.means(&key("c")), "`c` is at the top only");
        walk.down(&key("x"));
        assert!(!walk.means(&key("b")));
        walk.up();
        assert!(walk.means(&key("b")));
        walk.up();
        assert!(walk.means(&key("c")) && !walk.means(&key("b")));
        walk.up();
        assert!(!walk.means(&key("c")), "the document has ended");
    }

    #[test]
    fn mistakes_are_named() {
        let error =
            |paths: &[&str]| Fields::new(&paths.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap_err();
        assert!(error(&[]).contains("is empty"));
        for path in ["", ".a", "a.", "a..b"] {
            assert!(error(&["x", path]).contains(&format!("has `{path}`, where a key is empty")), "{path}");
        }
        assert!(error(&["a.**"]).contains("ends with `**`"));
        assert!(error(&["a"; 257]).contains("has 257 paths, but may have 256"));
    }
}

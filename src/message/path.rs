//! The path policy: which paths are taken, and the one form in which they are matched and sent on.
//!
//! A path that two programs read differently gets past whatever guards it in one of them, so what could be read in
//! two ways is either refused or written in the one way left, *before* a route is chosen; what was matched is what
//! an endpoint gets. The rules:
//!
//! | In the path | What happens | Why |
//! |---|---|---|
//! | no `/` at the start | refused | RFC 9112, section 3.2.1; absolute-form and `*` are taken apart before |
//! | a control character, space, DEL, `#`, a byte from 0x80 | refused, also in the query | no URI has them (RFC 3986, section 2); a `#` would hide the rest from a program that knows fragments |
//! | `\` | refused | browsers and Windows take it for `/` (WHATWG URL, path state) |
//! | `%` without two hexadecimal digits | refused | every decoder makes something else of it |
//! | `%00` | refused | ends the name in programs written in C (RFC 3986, section 7.3) |
//! | `%41`, `%7E`, `%2E`: an unreserved character encoded | decoded | means the same (RFC 3986, section 6.2.2.2), and dots must not hide |
//! | `%c3` | `%C3` | means the same (RFC 3986, section 6.2.2.1) |
//! | `//` | by [`DoubleSlashes`] | not the same by the book; the same to most servers |
//! | `%2F`, `%5C` | by [`EncodedSlashes`] | data by the book; a separator to servers that decode first |
//! | a segment `.` or `..`, also before a `;` | refused | a client resolves them before it sends (RFC 3986, section 5.2.4), so what is left is an attempt; Tomcat takes `..;x` for `..` |
//!
//! The query is passed as it is, but for its bytes: what `%`, `\` and `/` mean there is the endpoint's business.
//! Left as they are as well: `%252e`, which is the *text* `%2e` (an endpoint that decodes twice has a hole that no
//! proxy can close), encoded controls but NUL, path parameters (`/a;b` is another segment than `/a`), and characters
//! such as `|` and `"`, which no URI should have but which mean nothing to anybody.

use std::borrow::Cow;

/// What is done where RFC 3986 leaves the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What `//` in a path means.
    pub double_slashes: DoubleSlashes,
    /// What `%2F` and `%5C` in a path mean.
    pub encoded_slashes: EncodedSlashes,
}

/// What `//` in a path means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DoubleSlashes {
    /// One slash: what file systems and most servers make of it, so that a prefix cannot be dodged by a second slash.
    #[default]
    Merge,
    /// An empty segment between them, as RFC 3986, section 3.3, has it.
    Keep,
    /// The request is refused.
    Refuse,
}

/// What `%2F` and `%5C` in a path mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// The request is refused: an endpoint that decodes before it splits sees other segments than the routes did.
    #[default]
    Refuse,
    /// Data: they stay encoded. Dot segments are looked for between them all the same.
    Keep,
}

/// Why a request target is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not start with a slash.
    NoSlash,
    /// It has a byte that no URI has.
    Byte,
    /// It has a fragment.
    Fragment,
    /// The path has a backslash.
    Backslash,
    /// The path has a `%` without two hexadecimal digits.
    Percent,
    /// The path has `%00`.
    Null,
    /// The path has a segment `.` or `..`.
    DotSegment,
    /// The path has `//`, and the policy refuses it.
    DoubleSlash,
    /// The path has `%2F` or `%5C`, and the policy refuses it.
    EncodedSlash,
}

impl Refusal {
    /// One line for the client.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::NoSlash => "the path does not start with a slash",
            Self::Byte => "the request target has a character that no URI has",
            Self::Fragment => "the request target has a fragment",
            Self::Backslash => "the path has a backslash",
            Self::Percent => "the path has a percent sign without two hexadecimal digits",
            Self::Null => "the path has an encoded null character",
            Self::DotSegment => "the path has a segment that is one dot or two",
            Self::DoubleSlash => "the path has two slashes in a row",
            Self::EncodedSlash => "the path has an encoded slash or backslash",
        }
    }
}

/// A path and query that the policy has nothing against, in its one form; all ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    text: Cow<'a, str>,
    /// Where the path ends.
    path: usize,
}

impl<'a> Target<'a> {
    /// The path, which starts with a slash.
    pub fn path(&self) -> &str {
        &self.text[..self.path]
    }

    /// What follows the first `?`; none if there is none.
    pub fn query(&self) -> Option<&str> {
        self.text[self.path..].strip_prefix('?')
    }

    /// Path and query as they are sent on.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same, and borrowed if the target came in this form.
    pub fn into_text(self) -> Cow<'a, str> {
        self.text
    }
}

/// What a byte is to the policy. Zero, for most, so that the loop has one test for a byte.
mod class {
    pub(super) const PLAIN: u8 = 0;
    pub(super) const SLASH: u8 = 1;
    pub(super) const PERCENT: u8 = 2;
    pub(super) const QUESTION: u8 = 3;
    pub(super) const BACKSLASH: u8 = 4;
    /// From here on a byte is refused in a query too.
    pub(super) const FRAGMENT: u8 = 5;
    pub(super) const BAD: u8 = 6;
}

/// The class of each byte.
const CLASS: [u8; 256] = {
    let mut table = [class::BAD; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = class::PLAIN;
        byte += 1;
    }
    table[b'/' as usize] = class::SLASH;
    table[b'%' as usize] = class::PERCENT;
    table[b'?' as usize] = class::QUESTION;
    table[b'\\' as usize] = class::BACKSLASH;
    table[b'#' as usize] = class::FRAGMENT;
    table
};

/// What one look at a target says.
enum Look {
    /// It is in its one form, and its path ends here.
    Done(usize),
    /// It means something that is written in another way.
    Rewrite,
}

impl Policy {
    /// The one form of a request target in origin-form (RFC 9112, section 3.2.1). What is in it already is borrowed
    /// and costs one pass over its bytes, and one more, sixteen at a time, for Rust to know that they are text.
    ///
    /// # Errors
    /// The first thing that the policy refuses. Length is not its business.
    pub fn read<'a>(&self, target: &'a [u8]) -> Result<Target<'a>, Refusal> {
        if let Look::Done(path) = self.look(target)? {
            let text = std::str::from_utf8(target).map_err(|_| Refusal::Byte)?;
            return Ok(Target { text: text.into(), path });
        }
        let rewritten = self.rewrite(target)?;
        match self.look(&rewritten)? {
            Look::Done(path) => {
                let text = String::from_utf8(rewritten).map_err(|_| Refusal::Byte)?;
                Ok(Target { text: text.into(), path })
            }
            // One rewriting is always enough; should that ever not hold, nothing passes.
            Look::Rewrite => Err(Refusal::Percent),
        }
    }

    fn look(&self, target: &[u8]) -> Result<Look, Refusal> {
        if target.first() != Some(&b'/') {
            return Err(Refusal::NoSlash);
        }
        let mut at = 0;
        while let Some(&byte) = target.get(at) {
            match CLASS[usize::from(byte)] {
                class::PLAIN => {}
                class::SLASH => match target.get(at + 1) {
                    Some(b'.') if is_dot_segment(&target[at + 1..]) => return Err(Refusal::DotSegment),
                    Some(b'/') => match self.double_slashes {
                        DoubleSlashes::Merge => return Ok(Look::Rewrite),
                        DoubleSlashes::Keep => {}
                        DoubleSlashes::Refuse => return Err(Refusal::DoubleSlash),
                    },
                    _ => {}
                },
                class::PERCENT => {
                    if !self.stays(&target[at..])? {
                        return Ok(Look::Rewrite);
                    }
                    at += 2;
                }
                class::QUESTION => return look_at_query(&target[at..]).map(|()| Look::Done(at)),
                class::BACKSLASH => return Err(Refusal::Backslash),
                class::FRAGMENT => return Err(Refusal::Fragment),
                _ => return Err(Refusal::Byte),
            }
            at += 1;
        }
        Ok(Look::Done(at))
    }

    /// Whether the percent-encoded byte at the start of `text` stays as it is written.
    fn stays(&self, text: &[u8]) -> Result<bool, Refusal> {
        match encoded(text).ok_or(Refusal::Percent)? {
            0 => return Err(Refusal::Null),
            b'/' | b'\\' if self.encoded_slashes == EncodedSlashes::Refuse => return Err(Refusal::EncodedSlash),
            b'/' | b'\\' if is_dot_segment(&text[3..]) => return Err(Refusal::DotSegment),
            byte if is_unreserved(byte) => return Ok(false),
            _ => {}
        }
        Ok(!text[1..3].iter().any(u8::is_ascii_lowercase))
    }

    /// The path with what means the same written in one way. What is refused may still be in it, but for broken
    /// percent-encoding: decoding its neighbours could mend it.
    fn rewrite(&self, target: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::with_capacity(target.len());
        let mut rest = target;
        while let [byte, after @ ..] = rest {
            rest = after;
            match byte {
                b'?' => {
                    out.push(b'?');
                    out.extend_from_slice(rest);
                    break;
                }
                b'/' if self.double_slashes == DoubleSlashes::Merge && out.last() == Some(&b'/') => {}
                b'%' => {
                    let [high, low, after @ ..] = rest else { return Err(Refusal::Percent) };
                    match encoded(&[b'%', *high, *low]).ok_or(Refusal::Percent)? {
                        byte if is_unreserved(byte) => out.push(byte),
                        _ => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                    }
                    rest = after;
                }
                byte => out.push(*byte),
            }
        }
        Ok(out)
    }
}

fn look_at_query(query: &[u8]) -> Result<(), Refusal> {
    // No way out of the loop: a bad byte is rare, and looking for it after each one costs more than reading on.
    let worst = query.iter().fold(0, |worst, byte| worst.max(CLASS[usize::from(*byte)]));
    match worst {
        class::BAD => Err(Refusal::Byte),
        class::FRAGMENT => Err(Refusal::Fragment),
        _ => Ok(()),
    }
}

/// Whether the segment at the start of `rest` is `.` or `..`, once its parameters are off. Encoded dots and lower-case
/// digits are not looked for: they are rewritten first.
fn is_dot_segment(rest: &[u8]) -> bool {
    let Some(rest) = rest.strip_prefix(b".") else { return false };
    match rest.strip_prefix(b".").unwrap_or(rest) {
        [] | [b'/' | b'?' | b';', ..] => true,
        // The separators again, encoded: `;`, `/` and `\`.
        [b'%', b'3', b'B', ..] | [b'%', b'2', b'F', ..] | [b'%', b'5', b'C', ..] => true,
        _ => false,
    }
}

/// The byte that `%` and two hexadecimal digits stand for; none if these are not there.
fn encoded(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn policy(double_slashes: DoubleSlashes, encoded_slashes: EncodedSlashes) -> Policy {
        Policy { double_slashes, encoded_slashes }
    }

    const USUAL: Policy = policy(DoubleSlashes::Merge, EncodedSlashes::Refuse);
    const LENIENT: Policy = policy(DoubleSlashes::Keep, EncodedSlashes::Keep);
    const ALL: [Policy; 6] = [
        USUAL,
        LENIENT,
        policy(DoubleSlashes::Merge, EncodedSlashes::Keep),
        policy(DoubleSlashes::Keep, EncodedSlashes::Refuse),
        policy(DoubleSlashes::Refuse, EncodedSlashes::Refuse),
        policy(DoubleSlashes::Refuse, EncodedSlashes::Keep),
    ];

    /// Stays as it is, and is borrowed.
    #[track_caller]
    fn untouched(policy: Policy, text: &str) {
        let target = policy.read(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        assert_eq!(target.as_str(), text, "{policy:?}");
        assert!(matches!(target.into_text(), Cow::Borrowed(_)), "{text} was copied");
    }

    #[test]
    fn the_default_is_the_strict_one() {
        assert_eq!(Policy::default(), USUAL);
    }

    #[test]
    fn what_is_in_its_one_form_is_borrowed() {
        for text in [
            "/",
            "/?",
            "/a/b.c/d",
            "/a/",
            "/a?b=1&c=%zz&d=\\&e=//&f=/../g&h=?i",
            "/%20%C3%A9/%E2%82%AC",
            "/%252e%252e/%2500",
            "/...",
            "/.../a",
            "/.a/..b/a./b../.well-known/x",
            "/a;b=1/c;",
            "/;a",
            "/a|b\"c<d>e^f`g{h}i[j]:@!$&'()*+,=~",
            "/%01%7F",
        ] {
            ALL.into_iter().for_each(|policy| untouched(policy, text));
        }
    }

    #[test]
    fn path_and_query_are_told_apart() {
        for (text, path, query) in [
            ("/a?b?c", "/a", Some("b?c")),
            ("/a?", "/a", Some("")),
            ("/a", "/a", None),
            ("/%41//?%41//", "/A/", Some("%41//")),
        ] {
            let target = USUAL.read(text.as_bytes()).unwrap();
            assert_eq!((target.path(), target.query()), (path, query), "{text}");
        }
    }

    #[test]
    fn what_means_the_same_is_written_in_one_way() {
        for (text, expected) in [
            ("/%41%7a%30%2D%5f%7E", "/Az0-_~"),
            ("/a%2Eb/%2e%2E%2e", "/a.b/..."),
            ("/%c3%a9?%c3", "/%C3%A9?%c3"),
            ("/%2541", "/%2541"),
            ("/%25%34%31", "/%2541"),
            ("/%25%32%65", "/%252e"),
        ] {
            for policy in ALL {
                assert_eq!(policy.read(text.as_bytes()).unwrap().as_str(), expected, "{policy:?}");
            }
        }
    }

    #[test]
    fn double_slashes_are_merged_kept_or_refused() {
        for (text, merged) in [
            ("//", "/"),
            ("//a", "/a"),
            ("/a////b//", "/a/b/"),
            ("//?//", "/?//"),
            ("//evil.example/a", "/evil.example/a"),
            ("/a//%41", "/a/A"),
        ] {
            for policy in ALL {
                let kept = text.replace("%41", "A");
                let expected = match policy.double_slashes {
                    DoubleSlashes::Merge => Ok(merged),
                    DoubleSlashes::Keep => Ok(&*kept),
                    DoubleSlashes::Refuse => Err(Refusal::DoubleSlash),
                };
                let target = policy.read(text.as_bytes());
                assert_eq!(target.as_ref().map(Target::as_str).map_err(|it| *it), expected, "{text} {policy:?}");
            }
        }
    }

    #[test]
    fn encoded_slashes_are_refused_or_kept() {
        for (text, kept) in
            [("/a%2Fb", "/a%2Fb"), ("/a%2fb%5c", "/a%2Fb%5C"), ("/%2F%2f", "/%2F%2F"), ("/a%5Cb?%2f", "/a%5Cb?%2f")]
        {
            for policy in ALL {
                let expected = match policy.encoded_slashes {
                    EncodedSlashes::Keep => Ok(kept),
                    EncodedSlashes::Refuse => Err(Refusal::EncodedSlash),
                };
                let target = policy.read(text.as_bytes());
                assert_eq!(target.as_ref().map(Target::as_str).map_err(|it| *it), expected, "{text} {policy:?}");
            }
        }
        untouched(LENIENT, "/a%2Fb%5C..c");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use Refusal::*;
        for (text, why) in [
            (&b""[..], NoSlash),
            (b"*", NoSlash),
            (b"a/b", NoSlash),
            (b"?a", NoSlash),
            (b"\\a", NoSlash),
            (b"http://x/", NoSlash),
            (b"/a b", Byte),
            (b"/a\tb", Byte),
            (b"/a\r\nX: y", Byte),
            (b"/\0", Byte),
            (b"/\x7f", Byte),
            (b"/\x80", Byte),
            ("/é".as_bytes(), Byte),
            (b"/?a b", Byte),
            (b"/?\0", Byte),
            ("/?é".as_bytes(), Byte),
            (b"/%41?\n", Byte),
            (b"/#", Fragment),
            (b"/a?b#c", Fragment),
            (b"/a\\b", Backslash),
            (b"/..\\a", Backslash),
            (b"/%41\\", Backslash),
            (b"/%", Percent),
            (b"/%4", Percent),
            (b"/%4?1", Percent),
            (b"/%4g", Percent),
            (b"/%%34%31", Percent),
            (b"/%%41", Percent),
            (b"/%+1", Percent),
            (b"/%u002e", Percent),
            (b"/%41%", Percent),
            (b"/%00", Null),
            (b"/a.txt%00.png", Null),
            (b"/%41%00", Null),
        ] {
            for policy in ALL {
                let shown = String::from_utf8_lossy(text);
                assert_eq!(policy.read(text).map(|it| it.as_str().to_owned()), Err(why), "{shown} {policy:?}");
            }
        }
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_written() {
        let spellings = [".", "%2e", "%2E", "..", ".%2e", "%2E.", "%2e%2E"];
        let ends = ["", "/", "/a", "?", "?a", ";", ";a=b/c", "%3B", "%3bx"];
        for (spelling, end) in spellings.iter().flat_map(|it| ends.map(|end| (it, end))) {
            for start in ["/", "/a/", "/a/b;c/"] {
                let text = format!("{start}{spelling}{end}");
                for policy in ALL {
                    assert_eq!(policy.read(text.as_bytes()), Err(Refusal::DotSegment), "{text} {policy:?}");
                }
            }
            for (slash, next) in ["%2F", "%2f", "%5C", "%5c"].into_iter().flat_map(|it| [(it, end), (it, it)]) {
                for text in [format!("/a{slash}{spelling}{next}"), format!("/{spelling}{slash}{end}")] {
                    assert_eq!(LENIENT.read(text.as_bytes()), Err(Refusal::DotSegment), "{text}");
                    assert!(USUAL.read(text.as_bytes()).is_err(), "{text}");
                }
            }
        }
    }

    /// Segments as an endpoint might see them that decodes once and then splits at whatever is a separator to it.
    fn segments(path: &str) -> Vec<String> {
        let mut decoded = Vec::new();
        let mut rest = path.as_bytes();
        while let [byte, after @ ..] = rest {
            match encoded(rest) {
                Some(byte) => {
                    decoded.push(byte);
                    rest = &rest[3..];
                }
                None => {
                    decoded.push(*byte);
                    rest = after;
                }
            }
        }
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        decoded.split(['/', '\\']).map(|it| it.split(';').next().unwrap_or_default().to_owned()).collect()
    }

    /// What must hold of anything at all.
    fn holds(policy: Policy, text: &[u8]) {
        let Ok(target) = policy.read(text) else { return };
        let shown = format!("{} became {target:?} {policy:?}", String::from_utf8_lossy(text));
        let all = target.as_str();
        assert!(all.bytes().all(|it| it.is_ascii_graphic() && it != b'#'), "{shown}");
        assert!(target.path().starts_with('/') && !target.path().contains(['?', '\\']), "{shown}");
        assert_eq!(all.len(), target.path().len() + target.query().map_or(0, |it| it.len() + 1), "{shown}");
        let given = text.iter().position(|it| *it == b'?').map(|at| &text[at + 1..]);
        assert_eq!(target.query().map(str::as_bytes), given, "{shown}");
        assert!(!segments(target.path()).iter().any(|it| it == "." || it == ".."), "{shown}");
        let plain = |it: &&[u8]| policy.double_slashes == DoubleSlashes::Keep || *it != b"//";
        assert!(target.path().as_bytes().windows(2).all(|it| plain(&it)), "{shown}");
        let again = policy.read(all.as_bytes()).expect("what was taken once is taken again");
        assert_eq!(again, target, "{shown}");
        assert!(matches!(again.text, Cow::Borrowed(_)), "{shown}");
    }

    #[test]
    fn whatever_comes_in_what_goes_out_is_clean() {
        const SEED: u64 = 0x6d6f_6f6e;
        let pieces: Vec<&[u8]> = "/ // . .. %2e %2E %2f %2F %5c %5C %25 %00 %3b ; ? a B ~ % %4 %41 %c3 # \\ 2e 2f é"
            .split(' ')
            .map(str::as_bytes)
            .chain([&b"\0"[..], b" ", b"\x7f", b"\xff"])
            .collect();
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut taken = 0;
        for _ in 0..100_000 {
            let mut text = b"/".to_vec();
            (0..rng.usize(..8)).for_each(|_| text.extend_from_slice(pieces[rng.usize(..pieces.len())]));
            for policy in ALL {
                taken += usize::from(policy.read(&text).is_ok());
                holds(policy, &text);
            }
        }
        assert!(taken > 10_000, "only {taken} of them were taken; seed {SEED}");
    }

    #[test]
    fn every_byte_has_its_rule() {
        for byte in 0..=u8::MAX {
            for policy in ALL {
                let fine = (0x21..0x7f).contains(&byte) && byte != b'#';
                let in_query = policy.read(&[b'/', b'?', byte]).is_ok();
                assert_eq!(in_query, fine, "{byte:#x} in a query");
                let in_path = policy.read(&[b'/', byte, b'x']).is_ok();
                let double = byte == b'/' && policy.double_slashes == DoubleSlashes::Refuse;
                assert_eq!(in_path, fine && !double && !matches!(byte, b'\\' | b'%'), "{byte:#x} in a path");
            }
        }
    }

    #[test]
    fn every_encoded_byte_has_its_rule() {
        for byte in 0..=u8::MAX {
            let (upper, lower) = (format!("/%{byte:02X}x"), format!("/%{byte:02x}x"));
            for policy in ALL {
                let read = policy.read(lower.as_bytes()).map(|it| it.as_str().to_owned());
                let expected = match byte {
                    0 => Err(Refusal::Null),
                    b'/' | b'\\' if policy.encoded_slashes == EncodedSlashes::Refuse => Err(Refusal::EncodedSlash),
                    byte if is_unreserved(byte) => Ok(format!("/{}x", char::from(byte))),
                    _ => Ok(upper.clone()),
                };
                assert_eq!(read, expected);
                assert_eq!(policy.read(upper.as_bytes()).map(|it| it.as_str().to_owned()), expected);
            }
        }
    }
}

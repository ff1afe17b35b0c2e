//! What the targets of HTTP/1.1 share: a head that arrives in pieces, and a slow and plain reading of lines, fields and
//! lengths to compare the gateway's with. No target itself.

use moongate::http1::head::{self, Framing, HeadError, Limits};
use moongate::message::{Fields, Known};

use super::choice;

/// Names and values, a character for each byte.
pub(super) type Lines = Vec<(String, String)>;

/// Limits that short inputs reach, and limits that they do not.
const LIMITS: [Limits; 2] =
    [Limits { head: 150, fields: 6, target: 40 }, Limits { head: 32 << 10, fields: 100, target: 8 << 10 }];

/// For what the gateway writes.
pub(super) const WIDE: Limits = Limits { head: 1 << 20, fields: 1 << 10, target: 1 << 20 };

/// One digit: how large a head may be. One digit: how long the pieces are in which it comes.
pub(super) fn settings(data: &[u8]) -> (&'static Limits, usize, &[u8]) {
    let (limits, data) = choice(data, LIMITS.len());
    let (piece, text) = choice(data, 64);
    (&LIMITS[limits], piece + 2, text)
}

/// The head at the start of what arrives, if it is there: up to the first empty line, however it is cut.
pub(super) fn arrive<'a>(text: &'a [u8], piece: usize, limits: &Limits) -> Option<&'a [u8]> {
    let at_once = end(text, text.len().max(1), limits);
    for piece in [1, piece] {
        assert_eq!(end(text, piece, limits), at_once, "in pieces of {piece}");
    }
    let kind = |error| match error {
        HeadError::TargetTooLong => HeadError::TooLarge,
        HeadError::Malformed(_) => HeadError::Malformed(""),
        error => error,
    };
    assert_eq!(at_once.map_err(kind), plain_end(text, limits.head));
    if at_once == Err(HeadError::TargetTooLong) {
        let within = plain(&text[..limits.head]);
        assert!(within.split(' ').nth(1).is_some_and(|it| it.len() > limits.target));
    }
    at_once.ok()?.map(|length| &text[..length])
}

/// Where the head ends, as the gateway finds it in pieces.
fn end(text: &[u8], piece: usize, limits: &Limits) -> Result<Option<usize>, HeadError> {
    let (mut arrived, mut seen) = (0, 0);
    while arrived < text.len() {
        arrived = text.len().min(arrived + piece);
        match head::end(&text[..arrived], &mut seen, limits.head) {
            Ok(None) => assert!(arrived < limits.head),
            Err(HeadError::TooLarge) => return Err(head::too_large(&text[..arrived], limits)),
            decided => return decided,
        }
    }
    Ok(None)
}

/// Where it ends: behind the first empty line, within the limit, and with no bare line feed before.
pub(super) fn plain_end(text: &[u8], limit: usize) -> Result<Option<usize>, HeadError> {
    let within = &text[..text.len().min(limit)];
    let end = within.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
    let head = plain(&within[..end.unwrap_or(within.len())]);
    if head.replace("\r\n", "").contains('\n') {
        return Err(HeadError::Malformed(""));
    }
    if end.is_none() && text.len() >= limit { Err(HeadError::TooLarge) } else { Ok(end) }
}

/// A character for each byte.
pub(super) fn plain(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The fields of lines that are what the specification says, not more of them than this.
pub(super) fn plain_fields<'a>(lines: impl Iterator<Item = &'a str>, limit: usize) -> Option<Lines> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']);
        let fine = is_token(name) && is_text(value);
        fine.then(|| (name.to_owned(), value.to_owned()))
    };
    lines.map(field).collect::<Option<Lines>>().filter(|all| all.len() <= limit)
}

pub(super) fn is_token(text: &str) -> bool {
    let one = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(it);
    !text.is_empty() && text.chars().all(one)
}

/// Whether it has no control characters but tabs.
pub(super) fn is_text(text: &str) -> bool {
    text.chars().all(|it| it == '\t' || it >= ' ' && it != '\u{7f}')
}

/// All values of a name.
pub(super) fn values<'a>(lines: &'a Lines, name: &str) -> Vec<&'a str> {
    lines.iter().filter(|line| line.0.eq_ignore_ascii_case(name)).map(|line| &*line.1).collect()
}

/// The members of a list.
pub(super) fn members(lines: &Lines, name: &str) -> Vec<String> {
    let all = values(lines, name).join(",");
    all.split(',').map(|it| it.trim_matches([' ', '\t']).to_owned()).filter(|it| !it.is_empty()).collect()
}

/// How the body of a message that may have one is delimited; none if that could be understood in two ways.
pub(super) fn plain_framing(lines: &Lines, old: bool) -> Option<Framing> {
    match (&values(lines, "content-length")[..], &values(lines, "transfer-encoding")[..]) {
        ([], []) => Some(Framing::UntilClose),
        ([], [coding]) if !old && coding.eq_ignore_ascii_case("chunked") => Some(Framing::Chunked),
        ([length], []) if length.len() <= 19 && length.chars().all(|it| it.is_ascii_digit()) => {
            match length.parse::<i64>().ok()? {
                0 => Some(Framing::None),
                length => Some(Framing::Length(length as u64)),
            }
        }
        _ => None,
    }
}

/// Whether the sender goes on with the connection.
pub(super) fn plain_keeps(lines: &Lines, old: bool) -> bool {
    let options = members(lines, "connection");
    let says = |option: &str| options.iter().any(|it| it.eq_ignore_ascii_case(option));
    !says("close") && (!old || says("keep-alive"))
}

/// The gateway's fields, which it finds by their names as anybody would.
pub(super) fn lines(fields: &Fields) -> Lines {
    let lines: Lines = fields.iter().map(|field| (plain(field.name), plain(field.value))).collect();
    assert_eq!(lines.len(), fields.len());
    for field in fields.iter() {
        assert_eq!(field.known, Known::of(field.name));
        let found: Vec<String> = fields.all(field.name).map(plain).collect();
        assert_eq!(found, values(&lines, &plain(field.name)));
    }
    lines
}

/// A head that the gateway wrote is one head, with a line for each field and nothing in it that could end one early.
pub(super) fn is_one_head(written: &[u8], fields: usize) {
    let text = plain(written);
    assert_eq!(head::end(written, &mut 0, WIDE.head), Ok(Some(written.len())), "{text:?}");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines.len() == fields + 3 && lines.iter().all(|line| is_text(line)), "{text:?}");
}

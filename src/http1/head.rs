//! Heads of requests and responses: where they end, and what they say.

use std::ops::Range;

use http::{Method, StatusCode};

use crate::message::fields::{TOKEN, is_name};
use crate::message::known::{self, Known};
use crate::message::{Fields, RequestHead, ResponseHead, Target, Version};
use crate::scan::{graphic_end, line_feed, value_end, word_end};

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

/// Why a head cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It is not what the specification says, or could be read in two ways.
    Malformed(&'static str),
    /// The request target is longer than the limit.
    TargetTooLong,
    /// The head is longer than the limit, or has more fields.
    TooLarge,
    /// It is in a version of HTTP that this is not.
    Version,
}

use HeadError::{Malformed, TargetTooLong, TooLarge};

impl std::fmt::Display for HeadError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Malformed(why) => why,
            TargetTooLong => "the request target is too long",
            TooLarge => "the header fields are too large",
            HeadError::Version => "this version of HTTP is not spoken here",
        })
    }
}

/// How a body is delimited (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes, more than zero.
    Length(u64),
    /// In chunks.
    Chunked,
    /// All until the connection ends; responses only.
    UntilClose,
}

/// A request's head and what it says of the connection.
#[derive(Debug)]
pub struct Request {
    /// The head; `target` is what the client wrote, but that an authority in it has gone to `host`.
    pub head: RequestHead,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether the client wants to go on using the connection.
    pub keep_alive: bool,
}

/// A response's head and what it says of the connection.
#[derive(Debug)]
pub struct Response {
    /// The head.
    pub head: ResponseHead,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether the sender keeps the connection.
    pub keep_alive: bool,
}

/// Looks for the end of a head, the empty line, in what has arrived. `seen`: how far an earlier look has come.
///
/// # Errors
/// A line that ends with a bare line feed, and a head over the limit.
pub fn end(bytes: &[u8], seen: &mut usize, limit: usize) -> Result<Option<usize>, HeadError> {
    // What lies behind the limit changes nothing, or the answer would depend on how much has arrived by chance.
    let within = &bytes[..bytes.len().min(limit)];
    while let Some(at) = line_feed(within, *seen) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Malformed("a line ends without a carriage return"));
        }
        *seen = at + 1;
        if at >= 3 && bytes[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
    }
    *seen = within.len();
    if bytes.len() < limit { Ok(None) } else { Err(TooLarge) }
}

/// Why a head that has not ended is too large already: its first line or its fields.
pub fn too_large(bytes: &[u8], limits: &Limits) -> HeadError {
    let within = &bytes[..bytes.len().min(limits.head)];
    let mut words = within.splitn(3, |byte| *byte == b' ');
    match words.nth(1) {
        Some(target) if target.len() > limits.target => TargetTooLong,
        _ => TooLarge,
    }
}

/// Reads a request's head, which [`end`] has found to be complete. One empty line before it is passed over: some clients
/// end a body with one line too many (RFC 9112, section 2.2).
///
/// # Errors
/// See [`HeadError`].
pub fn request(head: &[u8], limits: &Limits) -> Result<Request, HeadError> {
    let (request, length) = read_request(head, limits)?;
    if length == head.len() { Ok(request) } else { Err(Malformed("the header fields do not end")) }
}

/// A request whose head has arrived as a whole, as most do, and its length: what [`end`] and [`request`] would say, without
/// looking at everything twice. None: only they can tell.
pub fn whole_request(bytes: &[u8], limits: &Limits) -> Option<(Request, usize)> {
    read_request(bytes, limits).ok().filter(|(_, length)| *length <= limits.head)
}

/// The request that the bytes begin with, and the length of its head.
fn read_request(bytes: &[u8], limits: &Limits) -> Result<(Request, usize), HeadError> {
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let (method, target, version, rest) = request_line(head, limits)?;
    let (mut fields, end) = lines(&head[rest..], limits)?;
    let whole = bytes.len() - head.len() + rest + end;
    let hosts = fields.all(Known::Host).count();
    if hosts > 1 {
        return Err(Malformed("the request has more than one host"));
    }
    if hosts == 0 && version == Version::Http11 {
        return Err(Malformed("the request has no host"));
    }
    let target = if target.starts_with('/') || target == "*" || method == Method::CONNECT {
        target.to_owned()
    } else {
        let (authority, path) = absolute(target).ok_or(Malformed("the request target is neither a path nor a URI"))?;
        // The target names the host, whatever the field says (RFC 9112, section 3.2.2).
        fields.set(Known::Host, authority.as_bytes());
        path
    };
    let framing = match length(&fields, version)? {
        Framing::UntilClose => Framing::None,
        framing => framing,
    };
    let keep_alive = keeps(&fields, version);
    let head = RequestHead { method, target: Target::new(target), version, fields, upgrade: None };
    Ok((Request { head, framing, keep_alive }, whole))
}

/// Reads a response's head, which [`end`] has found to be complete. `method`: that of the request.
///
/// # Errors
/// See [`HeadError`].
pub fn response(head: &[u8], method: &Method, limits: &Limits) -> Result<Response, HeadError> {
    let (response, length) = read_response(head, method, limits)?;
    if length == head.len() { Ok(response) } else { Err(Malformed("the header fields do not end")) }
}

/// As [`whole_request`], of a response.
pub fn whole_response(bytes: &[u8], method: &Method, limits: &Limits) -> Option<(Response, usize)> {
    read_response(bytes, method, limits).ok().filter(|(_, length)| *length <= limits.head)
}

fn read_response(bytes: &[u8], method: &Method, limits: &Limits) -> Result<(Response, usize), HeadError> {
    let (status, version, rest) = status_line(bytes)?;
    let (fields, end) = lines(&bytes[rest..], limits)?;
    // These have no body, whatever their fields say (RFC 9112, section 6.3): a tunnel follows on CONNECT.
    let bodiless = status.is_informational()
        || *method == Method::HEAD
        || *method == Method::CONNECT && status.is_success()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let framing = length(&fields, version)?;
    let framing = if bodiless { Framing::None } else { framing };
    let keep_alive = keeps(&fields, version) && framing != Framing::UntilClose;
    Ok((Response { head: ResponseHead { status, version, fields }, framing, keep_alive }, rest + end))
}

/// Method, target and version of `METHOD SP TARGET SP VERSION CRLF`, and where the next line begins.
fn request_line<'a>(head: &'a [u8], limits: &Limits) -> Result<(Method, &'a str, Version, usize), HeadError> {
    const LINE: HeadError = Malformed("the request line is malformed");
    let method_end = head.iter().position(|byte| !TOKEN[usize::from(*byte)]).ok_or(LINE)?;
    let method = Method::from_bytes(&head[..method_end]).map_err(|_| LINE)?;
    let target = head[method_end..].strip_prefix(b" ").ok_or(LINE)?;
    let target_end = graphic_end(target, 0);
    if target_end == target.len() {
        return Err(LINE);
    }
    let (target, after) = target.split_at(target_end);
    if target.len() > limits.target {
        return Err(TargetTooLong);
    }
    if target.is_empty() || after[0] != b' ' {
        return Err(LINE);
    }
    let target = std::str::from_utf8(target).map_err(|_| LINE)?;
    let version = version(after.get(1..9).ok_or(LINE)?)?.ok_or(LINE)?;
    if after.get(9..11) != Some(b"\r\n") {
        return Err(LINE);
    }
    Ok((method, target, version, method_end + 1 + target_end + 11))
}

/// Status and version of `VERSION SP 3DIGIT [SP reason] CRLF`, and where the next line begins. Real servers leave out the
/// space before a reason that is empty.
fn status_line(head: &[u8]) -> Result<(StatusCode, Version, usize), HeadError> {
    const LINE: HeadError = Malformed("the status line is malformed");
    let version = version(head.get(..8).ok_or(LINE)?)?.ok_or(LINE)?;
    let line_end = memchr::memchr(b'\r', head).ok_or(LINE)?;
    let digits = head.get(9..12).filter(|_| head[8] == b' ').ok_or(LINE)?;
    let status = StatusCode::from_bytes(digits).map_err(|_| LINE)?;
    if status.as_u16() >= 600 || line_end < 12 {
        return Err(LINE);
    }
    let reason = &head[12..line_end];
    if !(reason.is_empty() || reason[0] == b' ') || value_end(reason, 0) < reason.len() {
        return Err(LINE);
    }
    if head.get(line_end + 1) != Some(&b'\n') {
        return Err(LINE);
    }
    Ok((status, version, line_end + 2))
}

/// The version; none if it is no version at all. A later minor version is to be answered as 1.1 (RFC 9110, section 2.5).
fn version(text: &[u8]) -> Result<Option<Version>, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Some(Version::Http11)),
        b"HTTP/1.0" => Ok(Some(Version::Http10)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            if *major == b'1' {
                Ok(Some(Version::Http11))
            } else {
                Err(HeadError::Version)
            }
        }
        _ => Ok(None),
    }
}

/// Authority and path of an `http` or `https` URI.
fn absolute(target: &str) -> Option<(&str, String)> {
    let (scheme, rest) = target.split_once("://")?;
    if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
        return None;
    }
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some((authority, path)).filter(|_| !authority.is_empty())
}

/// The lines up to and with the empty one, which is the last.
///
/// # Errors
/// See [`HeadError`].
pub fn fields(text: &[u8], limits: &Limits) -> Result<Fields, HeadError> {
    let (fields, end) = lines(text, limits)?;
    if end == text.len() { Ok(fields) } else { Err(Malformed("the header fields do not end")) }
}

/// The lines up to the empty one, and where that ends.
fn lines(text: &[u8], limits: &Limits) -> Result<(Fields, usize), HeadError> {
    let mut fields = Fields::unwritten();
    let mut at = 0;
    while !text[at..].starts_with(b"\r\n") {
        if at == text.len() {
            return Err(Malformed("the header fields do not end"));
        }
        if fields.len() == limits.fields {
            return Err(TooLarge);
        }
        let (known, name, value, next) = line(text, at)?;
        let whole = value.start == name.end + 2 && text[name.end + 1] == b' ' && next == value.end + 2;
        fields.place(known, name, value, whole);
        at = next;
    }
    fields.write_over(&text[..at]);
    Ok((fields, at + 2))
}

/// Name and value of the line that begins at `at`, and where the next one begins.
fn line(text: &[u8], at: usize) -> Result<(Known, Range<usize>, Range<usize>, usize), HeadError> {
    let mut end = word_end(text, at);
    if text.get(end) != Some(&b':') {
        // There are other characters that a name may have, and that hardly any has.
        end += text[end..].iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(text.len() - end);
    }
    let name = at..end;
    if name.is_empty() || text.get(end) != Some(&b':') {
        return Err(Malformed(match text.get(at) {
            Some(b' ' | b'\t') => "a header field is folded over lines",
            _ => "a header field's name is malformed",
        }));
    }
    let blank = |at: usize| matches!(text.get(at), Some(b' ' | b'\t'));
    let mut start = name.end + 1;
    while blank(start) {
        start += 1;
    }
    let mut end = value_end(text, start);
    if text.get(end..end + 2) != Some(b"\r\n") {
        return Err(Malformed("a header field's value has a character that is not allowed"));
    }
    let next = end + 2;
    while end > start && blank(end - 1) {
        end -= 1;
    }
    Ok((Known::of(&text[name.clone()]), name, start..end, next))
}

/// How the body is delimited, by fields that leave no doubt.
fn length(fields: &Fields, version: Version) -> Result<Framing, HeadError> {
    if !fields.any(known::set([Known::ContentLength, Known::TransferEncoding])) {
        return Ok(Framing::UntilClose);
    }
    let mut lengths = fields.all(Known::ContentLength);
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Malformed("the message has more than one length"));
    }
    let mut codings = fields.all(Known::TransferEncoding);
    match (codings.next(), length) {
        (Some(_), Some(_)) => Err(Malformed("the message has a length and a transfer coding")),
        (Some(_), None) if version == Version::Http10 => Err(Malformed("HTTP/1.0 has no transfer codings")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() => {
            Ok(Framing::Chunked)
        }
        (Some(_), None) => Err(Malformed("the message has a transfer coding other than chunked")),
        (None, Some(length)) => match number(length) {
            Some(0) => Ok(Framing::None),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Malformed("the message's length is no number")),
        },
        (None, None) => Ok(Framing::UntilClose),
    }
}

/// A length in decimal digits and nothing else, below 2^63.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut number = 0u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(byte - b'0');
    }
    Some(number).filter(|number| *number <= i64::MAX as u64)
}

/// Whether the connection is meant to stay (RFC 9112, section 9.3).
fn keeps(fields: &Fields, version: Version) -> bool {
    if !fields.any(Known::Connection.bit()) {
        return version != Version::Http10;
    }
    let named = |name: &[u8]| fields.tokens(Known::Connection).any(|token| token.eq_ignore_ascii_case(name));
    !named(b"close") && (version != Version::Http10 || named(b"keep-alive"))
}

/// The protocol that a request wants to change to: one, in a request without a body, named by `Connection` as well
/// (RFC 9110, section 7.8). HTTP/2 and TLS are not changed to like this, since what follows would be no tunnel.
pub fn upgrade(head: &RequestHead, framing: Framing) -> Option<Box<str>> {
    if !head.fields.any(Known::Upgrade.bit()) || framing != Framing::None || head.version != Version::Http11 {
        return None;
    }
    let named = head.fields.tokens(Known::Connection).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let mut protocols = head.fields.tokens(Known::Upgrade);
    let (protocol, more) = (protocols.next()?, protocols.next());
    let mut parts = protocol.splitn(2, |byte| *byte == b'/');
    let (name, version) = (parts.next()?, parts.next());
    let ours = [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|it| it.eq_ignore_ascii_case(name));
    let usable = named && more.is_none() && !ours && is_name(name) && version.is_none_or(is_name);
    usable.then(|| String::from_utf8_lossy(protocol).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: 1000, fields: 5, target: 50 };

    fn parse(text: &str) -> Result<Request, HeadError> {
        let length = end(text.as_bytes(), &mut 0, LIMITS.head)?.expect("a head");
        assert_eq!(length, text.len());
        request(text.as_bytes(), &LIMITS)
    }

    fn answer(text: &str) -> Result<Response, HeadError> {
        let length = end(text.as_bytes(), &mut 0, LIMITS.head)?.expect("a head");
        response(&text.as_bytes()[..length], &Method::GET, &LIMITS)
    }

    #[test]
    fn a_request_is_read() {
        let request = parse("POST /a?b HTTP/1.1\r\nHost: x:1\r\nX-Empty:\r\nX-Mine:\t a b \t\r\n\r\n").unwrap();
        assert_eq!((request.head.method.as_str(), request.head.target.as_str()), ("POST", "/a?b"));
        assert_eq!((request.head.target.path(), request.head.target.query()), ("/a", Some("b")));
        assert_eq!(request.head.fields.get("x-mine"), Some(&b"a b"[..]));
        assert_eq!(request.head.fields.get("x-empty"), Some(&b""[..]));
        assert_eq!((request.framing, request.keep_alive), (Framing::None, true));
    }

    #[test]
    fn what_is_there_as_a_whole_is_read_at_once() {
        let whole =
            |text: &str| whole_request(text.as_bytes(), &LIMITS).map(|(request, length)| (request.framing, length));
        let (one, more) = ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", "POST");
        assert_eq!(whole(&format!("{one}{more}")), Some((Framing::Length(2), one.len())));
        for end in 0..one.len() {
            assert_eq!(whole(&one[..end]), None, "{end}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1000));
        assert_eq!((whole(&long), whole("GET / HTTP/1.1\nHost: a\n\n")), (None, None));
    }

    #[test]
    fn one_empty_line_may_come_before_a_request() {
        assert_eq!(parse("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().head.target.as_str(), "/");
        assert!(parse("\r\n\r\n").is_err());
        assert!(answer("\r\nHTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_head_over_the_limit_is_refused_however_much_of_it_has_arrived() {
        let limits = Limits { head: 30, ..LIMITS };
        let fits = b"GET / HTTP/1.1\r\nHost: abc\r\n\r\n";
        assert_eq!(end(&[&fits[..], b"\n"].concat(), &mut 0, fits.len()), Ok(Some(fits.len())));
        assert_eq!(end(fits, &mut 0, fits.len() - 1), Err(TooLarge));
        let long = b"GET / HTTP/1.1\r\nHost: abcdefghij\nx: y\r\n\r\n";
        for arrived in 0..=long.len() {
            let expected = if arrived < limits.head { Ok(None) } else { Err(TooLarge) };
            assert_eq!(end(&long[..arrived], &mut 0, limits.head), expected, "{arrived}");
            assert_eq!(end(&long[..arrived], &mut arrived.min(5), limits.head), expected, "{arrived}");
        }
        let target = "/".repeat(100);
        for arrived in [limits.head, 100] {
            assert_eq!(too_large(&format!("GET {target}").as_bytes()[..arrived], &limits), TooLarge);
            assert_eq!(
                too_large(&format!("GET {target}").as_bytes()[..arrived], &Limits { target: 25, ..limits }),
                TargetTooLong
            );
        }
    }

    #[test]
    fn the_target_names_the_host() {
        for (target, path) in [("http://b/c?d", "/c?d"), ("HTTPS://b", "/"), ("http://b?c", "/?c")] {
            let request = parse(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
            assert_eq!((request.head.authority(), request.head.target.as_str()), (Some("b"), path));
        }
        assert!(parse("GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
        assert!(parse("GET http:///c HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
        assert!(parse("GET http://b/ HTTP/1.1\r\n\r\n").is_err(), "the field must be there all the same");
    }

    #[test]
    fn lines_that_are_refused() {
        for line in [
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1.1x",
            "GET /",
            "GET /\u{7f} HTTP/1.1",
            "GET /ä HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET / HTTP/11",
        ] {
            let outcome = parse(&format!("{line}\r\nHost: a\r\n\r\n"));
            assert!(matches!(outcome, Err(Malformed(_))), "{line}: {outcome:?}");
        }
        assert_eq!(parse("GET / HTTP/2.0\r\nHost: a\r\n\r\n").unwrap_err(), HeadError::Version);
        assert_eq!(parse("GET / HTTP/1.7\r\nHost: a\r\n\r\n").unwrap().head.version, Version::Http11);
        let long = "x".repeat(50);
        assert_eq!(parse(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap_err(), TargetTooLong);
    }

    #[test]
    fn fields_that_are_refused() {
        for field in [
            "a b: c",
            "a : b",
            " a: b",
            "a: b\r\n c",
            ": b",
            "a",
            "a: b\rc",
            "a: b\0c",
            "a: b\u{1}",
            "a: \u{7f}",
            "ä: b",
            "a: b\r\n\t: c",
        ] {
            let outcome = parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
            assert!(matches!(outcome, Err(Malformed(_))), "{field:?}: {outcome:?}");
        }
        for text in
            ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
        {
            let read =
                end(text.as_bytes(), &mut 0, 1000).map(|length| request(&text.as_bytes()[..length.unwrap()], &LIMITS));
            assert!(matches!(read, Err(Malformed(_)) | Ok(Err(Malformed(_)))), "{text:?}");
        }
        assert!(end(b"GET / HTTP/1.1\n", &mut 0, 1000).is_err(), "nobody waits for the rest");
        let many = "a: b\r\n".repeat(5);
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).unwrap_err(), TooLarge);
    }

    #[test]
    fn lengths_leave_no_doubt() {
        let framing = |fields: &str| parse(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).map(|it| it.framing);
        assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 007\r\n"), Ok(Framing::Length(7)));
        assert_eq!(framing("Transfer-Encoding: CHUNKED\r\n"), Ok(Framing::Chunked));
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert!(matches!(framing(fields), Err(Malformed(_))), "{fields:?}");
        }
        assert!(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn connections_stay_as_they_are_meant_to() {
        let keeps = |version: &str, value: &str| {
            parse(&format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {value}\r\n\r\n")).unwrap().keep_alive
        };
        assert!(keeps("1.1", "x") && keeps("1.0", "Keep-Alive"));
        assert!(!keeps("1.1", "x, Close") && !keeps("1.0", "x") && !keeps("1.0", "close, keep-alive"));
    }

    #[test]
    fn a_response_is_read() {
        let outcome = |text: &str| answer(text).map(|it| (it.head.status.as_u16(), it.framing, it.keep_alive));
        assert_eq!(outcome("HTTP/1.1 200 OK\r\n\r\n"), Ok((200, Framing::UntilClose, false)));
        assert_eq!(outcome("HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n"), Ok((200, Framing::Length(3), true)));
        assert_eq!(outcome("HTTP/1.0 200 \r\nContent-Length: 3\r\n\r\n"), Ok((200, Framing::Length(3), false)));
        assert_eq!(outcome("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n"), Ok((204, Framing::None, true)));
        for text in [
            "HTTP/1.1 99 x\r\n\r\n",
            "HTTP/1.1 600 x\r\n\r\n",
            "HTTP/1.1 20 x\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1  200 x\r\n\r\n",
            "HTTP/1.1 200 a\0\r\n\r\n",
            "HTTX/1.1 200 x\r\n\r\n",
            "HTTP/1.1 200 x\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(answer(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for (method, status, framing) in [
            (Method::GET, 200, Framing::Length(3)),
            (Method::HEAD, 200, Framing::None),
            (Method::CONNECT, 200, Framing::None),
            (Method::CONNECT, 407, Framing::Length(3)),
            (Method::GET, 103, Framing::None),
            (Method::GET, 304, Framing::None),
        ] {
            let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 3\r\n\r\n");
            let read = response(text.as_bytes(), &method, &LIMITS).unwrap();
            assert_eq!(read.framing, framing, "{method} {status}");
        }
    }

    #[test]
    fn an_upgrade_is_asked_for_in_full() {
        let upgrade_of = |fields: &str| {
            let request = parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
            upgrade(&request.head, request.framing)
        };
        assert_eq!(upgrade_of("Connection: Upgrade\r\nUpgrade: websocket\r\n").as_deref(), Some("websocket"));
        assert_eq!(upgrade_of("Connection: x, upgrade\r\nUpgrade: foo/2\r\n").as_deref(), Some("foo/2"));
        for fields in [
            "Upgrade: websocket\r\n",
            "Connection: upgrade\r\n",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n",
            "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
            "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
            "Connection: upgrade\r\nUpgrade: foo/\r\n",
            "Connection: upgrade\r\nUpgrade: foo/1 2\r\n",
            "Connection: upgrade\r\nUpgrade: foo/\u{e4}\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n",
        ] {
            assert_eq!(upgrade_of(fields), None, "{fields:?}");
        }
    }
}

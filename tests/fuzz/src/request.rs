//! Heads of requests: what we take is what a slow and plain reading of it makes, and what we send on is understood in the
//! same way.

use moongate::http1::encode;
use moongate::http1::head::{self, Framing, HeadError, Limits, Request};
use moongate::message::{Known, Length, RequestHead, Version};

use super::http1::{
    Lines, WIDE, arrive, is_one_head, is_token, lines, members, plain, plain_fields, plain_framing, plain_keeps,
    settings, values,
};

/// What it says.
#[derive(Debug, PartialEq)]
struct Said {
    method: String,
    target: String,
    old: bool,
    fields: Lines,
    framing: Framing,
    keep_alive: bool,
    upgrade: Option<String>,
}

/// One digit for the limits and one for the pieces, then what a client sends.
pub fn request(data: &[u8]) {
    let (limits, piece, text) = settings(data);
    let whole = head::whole_request(text, limits).map(|(read, length)| (said(&read), length));
    let Some(head) = arrive(text, piece, limits) else { return assert_eq!(whole, None) };
    let read = head::request(head, limits);
    assert_eq!(read.as_ref().ok().map(said), plainly(head, limits), "{read:?}");
    assert_eq!(whole, read.as_ref().ok().map(|read| (said(read), head.len())), "in one pass");
    match read {
        Ok(read) => sent_on(&read),
        Err(error) => deserved(error, head, limits),
    }
}

/// What the gateway understands.
fn said(read: &Request) -> Said {
    Said {
        method: read.head.method.to_string(),
        target: read.head.target.as_str().to_owned(),
        old: read.head.version == Version::Http10,
        fields: lines(&read.head.fields),
        framing: read.framing,
        keep_alive: read.keep_alive,
        upgrade: head::upgrade(&read.head, read.framing).map(|it| it.to_string()),
    }
}

/// The rules, one after the other. One empty line may come before.
fn plainly(head: &[u8], limits: &Limits) -> Option<Said> {
    let text = plain(head);
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    let mut rest = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let [method, target, version] = rest.next()?.split(' ').collect::<Vec<_>>()[..] else { return None };
    let minor = version.strip_prefix("HTTP/1.").filter(|it| it.len() == 1)?.parse::<u8>().ok()?;
    let visible = !target.is_empty() && target.chars().all(|it| it.is_ascii_graphic());
    if !is_token(method) || !visible || target.len() > limits.target {
        return None;
    }
    let mut fields = plain_fields(rest, limits.fields)?;
    let hosts = values(&fields, "host").len();
    if hosts > 1 || hosts == 0 && minor > 0 {
        return None;
    }
    let mut target = target.to_owned();
    if !target.starts_with('/') && target != "*" && method != "CONNECT" {
        let (scheme, rest) = target.split_once("://")?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !["http", "https"].contains(&&*scheme.to_ascii_lowercase()) || host.is_empty() {
            return None;
        }
        match fields.iter_mut().find(|it| it.0.eq_ignore_ascii_case("host")) {
            Some(field) => field.1 = host.to_owned(),
            None => fields.push(("host".to_owned(), host.to_owned())),
        }
        target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    }
    let framing = match plain_framing(&fields, minor == 0)? {
        Framing::UntilClose => Framing::None,
        framing => framing,
    };
    let keep_alive = plain_keeps(&fields, minor == 0);
    let upgrade = plain_upgrade(&fields).filter(|_| framing == Framing::None && minor > 0);
    Some(Said { method: method.to_owned(), target, old: minor == 0, fields, framing, keep_alive, upgrade })
}

/// The one protocol that a request names in both fields, but for those that are no tunnel.
fn plain_upgrade(fields: &Lines) -> Option<String> {
    let [protocol] = &members(fields, "upgrade")[..] else { return None };
    let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
    let tunnel = !["h2", "h2c", "http", "tls"].contains(&&*name.to_ascii_lowercase());
    let named = members(fields, "connection").iter().any(|it| it.eq_ignore_ascii_case("upgrade"));
    (is_token(name) && is_token(version) && tunnel && named).then(|| protocol.clone())
}

/// Written and read again it is the same, written again it does not change, and with another length it has that one.
fn sent_on(read: &Request) {
    let mut head = read.head.clone();
    if !head.fields.contains(Known::Host) {
        // As the gateway does for clients that have never heard of it.
        head.fields.append(Known::Host, b"");
    }
    let before = lines(&head.fields);
    let again = read_again(&head);
    assert_eq!((&again.head.method, again.head.target.as_str()), (&head.method, head.target.as_str()));
    assert_eq!((lines(&again.head.fields), again.framing), (before.clone(), read.framing));
    let once = written(&head);
    assert_eq!(written(&again.head), once);

    let framed = |line: &(String, String)| {
        line.0.eq_ignore_ascii_case("content-length") || line.0.eq_ignore_ascii_case("transfer-encoding")
    };
    let rest = |lines: Lines| lines.into_iter().filter(|line| !framed(line)).collect::<Lines>();
    for (length, framing) in [
        (Length::Unknown, Framing::Chunked),
        (Length::Known(0), Framing::None),
        (Length::Known(i64::MAX as u64), Framing::Length(i64::MAX as u64)),
    ] {
        encode::frame(&mut head.fields, length);
        let again = read_again(&head);
        assert_eq!(again.framing, framing);
        let fields = lines(&again.head.fields);
        assert_eq!(fields.iter().filter(|line| framed(line)).count(), 1);
        assert_eq!(rest(fields), rest(before.clone()));
    }
}

fn written(head: &RequestHead) -> Vec<u8> {
    let mut out = Vec::new();
    encode::request(&mut out, head);
    out
}

fn read_again(head: &RequestHead) -> Request {
    let written = written(head);
    is_one_head(&written, head.fields.len());
    let read = head::request(&written, &WIDE).unwrap_or_else(|why| panic!("{why}: {}", written.escape_ascii()));
    assert_eq!(read.head.version, Version::Http11);
    read
}

/// A client is told the right thing.
fn deserved(error: HeadError, head: &[u8], limits: &Limits) {
    let text = plain(head);
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    let word = |number: usize| text.split(' ').nth(number).unwrap_or_default();
    match error {
        HeadError::Malformed(why) => return assert!(!why.is_empty()),
        HeadError::TargetTooLong => assert!(word(1).len() > limits.target),
        HeadError::TooLarge => assert!(text.matches("\r\n").count() > limits.fields + 2),
        HeadError::Version => assert!(word(2).starts_with("HTTP/") && !word(2).starts_with("HTTP/1")),
    }
    assert!(is_token(word(0)));
}

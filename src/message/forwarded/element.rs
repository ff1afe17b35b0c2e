//! The grammar of what proxies say of those before them: nodes, and the elements of `Forwarded` (RFC 7239).
//!
//! Whom to believe is not decided here.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Proto;
use crate::message::authority::Authority;

/// Longer entries are not read: a parameter for each of the four that there are, and a host of the longest kind.
const LONGEST: usize = 512;

/// Parameters of one element that are read; RFC 7239 has four, and extensions are hardly ever seen.
const PARAMETERS: usize = 8;

/// Whoever an entry is about (RFC 7239, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// An address, IPv4 also where it was written inside IPv6.
    Address(IpAddr),
    /// `unknown`, or a name that means something only to who gave it (`_gazonk`).
    Hidden,
}

impl Node {
    /// A node as `Forwarded` has it: `192.0.2.1`, `[2001:db8::1]`, `unknown` or `_name`, and a port or none.
    pub(super) fn read(text: &str) -> Option<Node> {
        if text.len() > LONGEST {
            return None;
        }
        let (node, rest) = match text.strip_prefix('[') {
            Some(inside) => {
                let (inside, rest) = inside.split_once(']')?;
                (Node::of(inside.parse::<Ipv6Addr>().ok()?), rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (name, rest) = text.split_at(end);
                (Node::named(name)?, rest)
            }
        };
        (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(node)
    }

    /// A node as `X-Forwarded-For` has it: the same, and IPv6 without brackets, which then has no port.
    pub(super) fn read_bare(text: &str) -> Option<Node> {
        Node::read(text).or_else(|| text.parse::<Ipv6Addr>().ok().map(Node::of))
    }

    fn of(address: impl Into<IpAddr>) -> Node {
        Node::Address(address.into().to_canonical())
    }

    fn named(name: &str) -> Option<Node> {
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Node::of(address));
        }
        (name.eq_ignore_ascii_case("unknown") || is_obfuscated(name)).then_some(Node::Hidden)
    }
}

/// `"_" 1*( ALPHA / DIGIT / "." / "_" / "-")` (RFC 7239, section 6.3).
fn is_obfuscated(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() > 1 && name.starts_with('_') && name.bytes().all(allowed)
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len()) && port.bytes().all(|it| it.is_ascii_digit()) || is_obfuscated(port)
}

/// What one proxy says in `Forwarded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// `for`: who sent it the request.
    pub(super) node: Option<Node>,
    /// `proto`: how; none too if it is neither http nor https.
    pub(super) proto: Option<Proto>,
    /// `host`: the `Host` of the request; none too if it cannot be one.
    pub(super) host: Option<&'a str>,
}

impl<'a> Element<'a> {
    /// Reads `[ pair ] *( ";" [ pair ] )` (RFC 7239, section 4). White space around the semicolons is not in the
    /// grammar, but in what proxies send, and means nothing.
    pub(super) fn read(text: &'a str) -> Option<Element<'a>> {
        if text.len() > LONGEST {
            return None;
        }
        let mut element = Element::default();
        let mut names = [""; PARAMETERS];
        let mut count = 0;
        let mut rest = text.trim_start_matches(BLANK);
        loop {
            if !rest.is_empty() && !rest.starts_with(';') {
                let (name, after) = token(rest)?;
                let (value, after) = value(after.strip_prefix('=')?)?;
                // None may be there twice: two readers would take one each.
                if names[..count].iter().any(|it| it.eq_ignore_ascii_case(name)) {
                    return None;
                }
                *names.get_mut(count)? = name;
                count += 1;
                element.take(name, value)?;
                rest = after.trim_start_matches(BLANK);
            }
            rest = match rest.strip_prefix(';') {
                Some(rest) => rest.trim_start_matches(BLANK),
                None if rest.is_empty() => return Some(element),
                None => return None,
            };
        }
    }

    fn take(&mut self, name: &str, value: Cow<'a, str>) -> Option<()> {
        if name.eq_ignore_ascii_case("for") {
            self.node = Some(Node::read(&value)?);
        } else if name.eq_ignore_ascii_case("by") {
            Node::read(&value)?;
        } else if name.eq_ignore_ascii_case("proto") {
            self.proto = Proto::read(&value);
        } else if name.eq_ignore_ascii_case("host") {
            // What needs a backslash is no host.
            let Cow::Borrowed(host) = value else { return Some(()) };
            self.host = Authority::read(host.as_bytes()).is_ok().then_some(host);
        }
        Some(())
    }
}

/// Optional white space (RFC 9110, section 5.6.3).
pub(super) const BLANK: [char; 2] = [' ', '\t'];

/// The token at the start, which is not empty, and what follows (RFC 9110, section 5.6.2).
fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The token or quoted string (RFC 9110, section 5.6.4) at the start, read, and what follows.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(inside) = text.strip_prefix('"') else {
        let (token, rest) = token(text)?;
        return Some((token.into(), rest));
    };
    let mut unescaped: Option<String> = None;
    let mut bytes = inside.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                let value = unescaped.map_or(Cow::Borrowed(&inside[..at]), Cow::Owned);
                return Some((value, &inside[at + 1..]));
            }
            b'\\' => {
                let unescaped = unescaped.get_or_insert_with(|| inside[..at].to_owned());
                unescaped.push(char::from(bytes.next().map(|it| it.1).filter(is_text)?));
            }
            byte if is_text(&byte) => unescaped.iter_mut().for_each(|it| it.push(char::from(byte))),
            _ => return None,
        }
    }
    None
}

/// What may stand in quotes. Bytes from 0x80 are obsolete there, and nothing that is read here has them.
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

/// The elements of one field value, the last first, as they are written.
///
/// From the right, because only there is what trusted proxies wrote: a quotation mark that a stranger left open at
/// the start must not swallow it. Of a value without mistakes it makes the same elements as from the left.
pub(super) struct FromRight<'a>(Option<&'a [u8]>);

impl<'a> FromRight<'a> {
    pub(super) fn new(line: &'a [u8]) -> FromRight<'a> {
        FromRight(Some(line))
    }
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0.take()?;
        let mut quoted = false;
        for (at, byte) in line.iter().enumerate().rev() {
            match byte {
                b'"' if quoted => quoted = is_escaped(&line[..at]),
                b'"' => quoted = true,
                b',' if !quoted => {
                    self.0 = Some(&line[..at]);
                    return Some(&line[at + 1..]);
                }
                _ => {}
            }
        }
        Some(line)
    }
}

/// Whether what follows `before` in a quoted string is escaped: an odd number of backslashes.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<Node> {
        Some(Node::Address(text.parse().unwrap()))
    }

    #[test]
    fn nodes() {
        for (text, node) in [
            ("192.0.2.1", address("192.0.2.1")),
            ("192.0.2.1:80", address("192.0.2.1")),
            ("192.0.2.1:_x", address("192.0.2.1")),
            ("[2001:DB8::1]", address("2001:db8::1")),
            ("[2001:db8::1]:65535", address("2001:db8::1")),
            ("[::ffff:192.0.2.1]", address("192.0.2.1")),
            ("unknown", Some(Node::Hidden)),
            ("UNKNOWN:80", Some(Node::Hidden)),
            ("_gazonk", Some(Node::Hidden)),
            ("_a.b-c_:1", Some(Node::Hidden)),
            ("", None),
            ("_", None),
            ("_a b", None),
            ("gazonk", None),
            ("192.0.2", None),
            ("192.0.2.01", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:123456", None),
            ("192.0.2.1:x", None),
            ("192.0.2.1 ", None),
            ("192.0.2.0/24", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]80", None),
            ("[fe80::1%eth0]", None),
            ("0x7f.1", None),
        ] {
            assert_eq!(Node::read(text), node, "{text}");
            assert_eq!(Node::read_bare(text), node, "{text}");
        }
        for text in ["2001:db8::1", "::1", "::ffff:192.0.2.1"] {
            assert_eq!(Node::read(text), None, "{text}");
            assert!(matches!(Node::read_bare(text), Some(Node::Address(_))), "{text}");
        }
        let long = format!("_{}", "a".repeat(LONGEST));
        assert_eq!((Node::read(&long), Node::read(&long[1..])), (None, None));
        assert_eq!(Node::read(&long[..LONGEST]), Some(Node::Hidden));
    }

    #[test]
    fn elements() {
        let of = |node, proto, host| Some(Element { node, proto, host });
        let v4 = address("192.0.2.60");
        for (text, element) in [
            ("", of(None, None, None)),
            (";;", of(None, None, None)),
            ("for=192.0.2.60", of(v4, None, None)),
            ("FOR=192.0.2.60;Proto=HTTPS", of(v4, Some(Proto::Https), None)),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", of(v4, Some(Proto::Http), None)),
            (" for=192.0.2.60 ; proto=http\t;", of(v4, Some(Proto::Http), None)),
            ("For=\"[2001:db8:cafe::17]:4711\"", of(address("2001:db8:cafe::17"), None, None)),
            ("for=\"_gazonk\"", of(Some(Node::Hidden), None, None)),
            ("for=unknown;secret=\"a,b;c=\\\"d\\\\\"", of(Some(Node::Hidden), None, None)),
            ("for=\"192.0.2.\\60\"", of(v4, None, None)),
            ("host=example.org", of(None, None, Some("example.org"))),
            ("host=\"example.org:80\";for=192.0.2.60", of(v4, None, Some("example.org:80"))),
            ("host=\"a b\"", of(None, None, None)),
            ("host=\"a\\b\"", of(None, None, None)),
            ("proto=gopher", of(None, None, None)),
            ("for", None),
            ("for=", None),
            ("=a", None),
            ("for =192.0.2.60", None),
            ("for= 192.0.2.60", None),
            ("for=192.0.2.60 proto=http", None),
            ("for=192.0.2.60,for=192.0.2.60", None),
            ("for=192.0.2.60:80", None),
            ("for=[::1]", None),
            ("for=\"::1\"", None),
            ("for=\"192.0.2.60", None),
            ("for=\"192.0.2.60\\\"", None),
            ("for=\"192.0.2.60\"x", None),
            ("for=192.0.2.60;for=192.0.2.60", None),
            ("a=1;A=2", None),
            ("by=nobody", None),
            ("for=nobody", None),
            ("x=\"\u{7f}\"", None),
            ("x=\"é\"", None),
            ("a=1;b=1;c=1;d=1;e=1;f=1;g=1;h=1", of(None, None, None)),
            ("a=1;b=1;c=1;d=1;e=1;f=1;g=1;h=1;i=1", None),
        ] {
            assert_eq!(Element::read(text), element, "{text}");
        }
        let long = format!("a={}", "a".repeat(LONGEST));
        assert_eq!(Element::read(&long), None);
    }

    fn split(line: &str) -> Vec<&str> {
        FromRight::new(line.as_bytes()).map(|it| std::str::from_utf8(it).unwrap()).collect()
    }

    #[test]
    fn elements_are_found_from_the_right() {
        for (line, expected) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a, b,c", &["c", " b", "a"]),
            ("a=\"x,y\", b", &[" b", "a=\"x,y\""]),
            ("a=\"x\\\",y\",b=\"\\\\\"", &["b=\"\\\\\"", "a=\"x\\\",y\""]),
            ("for=\"open, for=1", &[" for=1", "for=\"open"]),
            ("for=\"open\\, for=\"[::1]\"", &[" for=\"[::1]\"", "for=\"open\\"]),
        ] {
            assert_eq!(split(line), expected, "{line}");
        }
    }

    #[test]
    fn from_the_right_or_the_left_is_the_same_where_there_is_no_mistake() {
        const SEED: u64 = 0x7239;
        let pieces = ["a", "for", "=", "\"", "\"", "\\", ",", ", ", ";", " ", "x=\"", "_y", "1.2.3.4", "\\\""];
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut good = 0;
        for _ in 0..200_000 {
            let line: String = (0..rng.usize(..10)).map(|_| pieces[rng.usize(..pieces.len())]).collect();
            let from_right = split(&line);
            assert_eq!(from_right.iter().rev().copied().collect::<Vec<_>>().join(","), line);
            // From the left: no comma in a quoted string ends an element.
            let (mut from_left, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
            for (at, byte) in line.bytes().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b',' if !quoted => {
                        from_left.push(&line[start..at]);
                        start = at + 1;
                    }
                    _ => {}
                }
            }
            from_left.push(&line[start..]);
            if from_left.iter().all(|it| Element::read(it.trim_matches(BLANK)).is_some()) {
                good += usize::from(from_left.len() > 1);
                from_left.reverse();
                assert_eq!(from_left, from_right, "{line}");
            }
        }
        assert!(good > 500, "only {good} were without mistakes; seed {SEED}");
    }
}

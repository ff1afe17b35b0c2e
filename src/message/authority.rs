//! Which host a request is for: the one reading of `Host`, `:authority` and the authority of an absolute target.
//!
//! The grammar is `uri-host [ ":" port ]` (RFC 9110, sections 4.2.1 and 7.2; RFC 3986, section 3.2.2), of which the
//! part is taken that names something: host names as DNS has them, IPv4, and IPv6 in brackets. What else the grammar
//! allows is refused, because other programs read it differently: user information (RFC 9110, section 4.2.4),
//! percent-encoding, the sub-delimiters such as `,` (a comma may come of two `Host` fields put together), empty
//! names, `[v1.x]` and IPv6 zones. Nothing is resolved here, so that a name that looks like a number is just a name.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longer hosts are refused: DNS allows 253 characters, and a dot at the end and brackets come to no more than this.
const LONGEST: usize = 255;

/// A host and the port written with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    host: &'a str,
    /// None if there is none or nothing after the colon, which means the same (RFC 3986, section 6.2.3).
    pub port: Option<u16>,
}

/// Why an authority is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no host.
    Empty,
    /// The host is longer than 255 bytes.
    Long,
    /// There is user information.
    User,
    /// The host has a character that no name has, or an empty part between two dots.
    Host,
    /// What stands in brackets is no IPv6 address.
    Address,
    /// The port is no number from 0 to 65535.
    Port,
}

impl Refusal {
    /// One line for the client.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Empty => "the request's host is empty",
            Self::Long => "the request's host is too long",
            Self::User => "the request's host has user information in it",
            Self::Host => "the request's host is not a name or an address",
            Self::Address => "the request's host is not an IPv6 address in brackets",
            Self::Port => "the request's port is not a number from 0 to 65535",
        }
    }
}

/// What a byte is in a host.
mod class {
    pub(super) const NAME: u8 = 0;
    pub(super) const DOT: u8 = 1;
    pub(super) const COLON: u8 = 2;
    pub(super) const BAD: u8 = 3;
}

/// The class of each byte. `_` and `~` are no letters of host names, but of RFC 3986's; containers have the first.
const CLASS: [u8; 256] = {
    let mut table = [class::BAD; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'_' | b'~') {
            table[byte] = class::NAME;
        }
        byte += 1;
    }
    table[b'.' as usize] = class::DOT;
    table[b':' as usize] = class::COLON;
    table
};

impl<'a> Authority<'a> {
    /// Reads the value of `Host` or `:authority`, or what stands between `//` and the path.
    ///
    /// # Errors
    /// What is wrong with it. An empty value is refused too; a target without an authority needs no call.
    pub fn read(text: &'a [u8]) -> Result<Authority<'a>, Refusal> {
        let end = match text.first() {
            None => return Err(Refusal::Empty),
            Some(b'[') => address_end(text)?,
            Some(_) => name_end(text)?,
        };
        if end > LONGEST {
            return Err(Refusal::Long);
        }
        let port = match &text[end..] {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits, text)?),
            _ => return Err(Refusal::Address),
        };
        let host = std::str::from_utf8(&text[..end]).map_err(|_| Refusal::Host)?;
        Ok(Authority { host, port })
    }

    /// The host as it is written; an IPv6 address in brackets.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The host as routes know it: in lower case (RFC 3986, section 6.2.2.1), without the dot that ends a complete
    /// name, and an IPv6 address in the one form of RFC 5952. Borrowed if that is how it is written.
    pub fn name(&self) -> Cow<'a, str> {
        let host = self.host.strip_suffix('.').unwrap_or(self.host);
        if let Some(address) = address(host.as_bytes()) {
            let form = format!("[{address}]");
            return if form == host { host.into() } else { form.into() };
        }
        match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => host.to_ascii_lowercase().into(),
            false => host.into(),
        }
    }

    /// Whether both name the same server, where `default` is the port of the scheme. `Host` beside `:authority` has
    /// to (RFC 9113, section 8.3.1).
    pub fn is_same(&self, other: &Authority<'_>, default: u16) -> bool {
        self.port.unwrap_or(default) == other.port.unwrap_or(default)
            && (self.host == other.host || self.name() == other.name())
    }
}

/// Where the name at the start of `text` ends.
fn name_end(text: &[u8]) -> Result<usize, Refusal> {
    // A name does not start with a dot, as if one had stood before it.
    let mut last = class::DOT;
    for (at, byte) in text.iter().enumerate() {
        match CLASS[usize::from(*byte)] {
            class::NAME => last = class::NAME,
            class::DOT if last == class::NAME => last = class::DOT,
            class::COLON if at == 0 => return Err(Refusal::Empty),
            class::COLON => return Ok(at),
            _ => return Err(wrong(text)),
        }
    }
    Ok(text.len())
}

/// What is wrong with a text that has a character it may not have.
fn wrong(text: &[u8]) -> Refusal {
    if text.contains(&b'@') { Refusal::User } else { Refusal::Host }
}

/// Where the address in brackets at the start of `text` ends.
fn address_end(text: &[u8]) -> Result<usize, Refusal> {
    let close = text.iter().position(|byte| *byte == b']').ok_or(Refusal::Address)?;
    match address(&text[..=close]) {
        Some(_) => Ok(close + 1),
        None if text.contains(&b'@') => Err(Refusal::User),
        None => Err(Refusal::Address),
    }
}

fn address(text: &[u8]) -> Option<Ipv6Addr> {
    let inside = text.strip_prefix(b"[")?.strip_suffix(b"]")?;
    // No more than eight groups of four digits, or six and an IPv4 address, fit in this.
    std::str::from_utf8(inside).ok().filter(|it| it.len() <= 45)?.parse().ok()
}

/// At most five digits: with more, zeros at the start would make two texts of one port without end.
fn port(digits: &[u8], text: &[u8]) -> Result<u16, Refusal> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(if text.contains(&b'@') { Refusal::User } else { Refusal::Port });
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    number.try_into().map_err(|_| Refusal::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_ports() {
        for (text, host, port, name) in [
            ("example.org", "example.org", None, "example.org"),
            ("Example.ORG:8080", "Example.ORG", Some(8080), "example.org"),
            ("example.org.", "example.org.", None, "example.org"),
            ("EXAMPLE.org.:80", "EXAMPLE.org.", Some(80), "example.org"),
            ("example.org:", "example.org", None, "example.org"),
            ("localhost:0", "localhost", Some(0), "localhost"),
            ("a:65535", "a", Some(65535), "a"),
            ("a:00080", "a", Some(80), "a"),
            ("my_service-1~x", "my_service-1~x", None, "my_service-1~x"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None, "xn--bcher-kva.example"),
            ("127.0.0.1:1", "127.0.0.1", Some(1), "127.0.0.1"),
            ("999.1", "999.1", None, "999.1"),
            ("[::1]", "[::1]", None, "[::1]"),
            ("[::1]:", "[::1]", None, "[::1]"),
            ("[2001:DB8:0:0::1]:443", "[2001:DB8:0:0::1]", Some(443), "[2001:db8::1]"),
            ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.1]", Some(1), "[::ffff:192.0.2.1]"),
            ("[::ffff:c000:201]", "[::ffff:c000:201]", None, "[::ffff:192.0.2.1]"),
        ] {
            let read = Authority::read(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why:?}"));
            assert_eq!((read.host(), read.port, &*read.name()), (host, port, name), "{text}");
            let copied = matches!(read.name(), Cow::Owned(_));
            assert_eq!(copied, host.trim_end_matches('.') != name, "{text}");
        }
    }

    #[test]
    fn what_others_could_read_differently_is_refused() {
        use Refusal::*;
        let long = "a".repeat(256);
        for (text, why) in [
            ("", Empty),
            (":80", Empty),
            (":", Empty),
            (".", Host),
            ("..", Host),
            (".a", Host),
            ("a..b", Host),
            ("a..", Host),
            (".:80", Host),
            ("a b", Host),
            (" a", Host),
            ("a ", Host),
            ("a\t", Host),
            ("a/b", Host),
            ("a\\b", Host),
            ("a?b", Host),
            ("a#b", Host),
            ("a%2Eb", Host),
            ("%61", Host),
            ("a,b", Host),
            ("a, a", Host),
            ("a;b", Host),
            ("a'b", Host),
            ("\"a\"", Host),
            ("*", Host),
            ("a=b", Host),
            ("a\0", Host),
            ("a\r\nX: y", Host),
            ("bücher.example", Host),
            ("http://a", Port),
            ("user@a", User),
            ("user:pass@a", User),
            ("@a", User),
            ("@", User),
            ("a:80@b", User),
            ("a:@b", User),
            ("[x@y]", User),
            ("a:b", Port),
            ("a:-1", Port),
            ("a:+1", Port),
            ("a: 80", Port),
            ("a:80 ", Port),
            ("a:80:81", Port),
            ("a::", Port),
            ("::1", Empty),
            ("a:65536", Port),
            ("a:000080", Port),
            ("a:99999999999999999999", Port),
            ("2001:db8::1", Port),
            ("[::1", Address),
            ("[", Address),
            ("[]", Address),
            ("[::1]a", Address),
            ("[::1]]", Address),
            ("[::1].", Address),
            ("[[::1]]", Address),
            ("[::1%25eth0]", Address),
            ("[fe80::1%eth0]", Address),
            ("[v1.x]", Address),
            ("[127.0.0.1]", Address),
            ("[1::2::3]", Address),
            ("[::1]:x", Port),
            ("[::1]:65536", Port),
            ("]", Host),
            ("a]", Host),
            ("a[::1]", Host),
            (&long, Long),
        ] {
            assert_eq!(Authority::read(text.as_bytes()), Err(why), "{text:?}");
        }
        assert!(Authority::read(&long.as_bytes()[1..]).is_ok());
        assert_eq!(Authority::read(b"a\xff"), Err(Host));
        assert_eq!(Authority::read(b"[\xff]"), Err(Address));
    }

    #[test]
    fn the_same_server_in_other_words() {
        for (one, other, default, same) in [
            ("a.b", "A.b.", 80, true),
            ("a", "a:80", 80, true),
            ("a:", "a:443", 443, true),
            ("a", "a:443", 80, false),
            ("a:1", "a:2", 80, false),
            ("a", "b", 80, false),
            ("a.b", "a.b.c", 80, false),
            ("[::1]", "[0:0::0:1]:80", 80, true),
            ("[::1]", "[::2]", 80, false),
        ] {
            let (one, other) = (Authority::read(one.as_bytes()).unwrap(), Authority::read(other.as_bytes()).unwrap());
            assert_eq!(one.is_same(&other, default), same, "{one:?} {other:?}");
            assert_eq!(other.is_same(&one, default), same, "{one:?} {other:?}");
        }
    }

    #[test]
    fn whatever_is_taken_is_clean() {
        const SEED: u64 = 0x686f_7374;
        let pieces: Vec<&str> = "a B example. . .. : : [ ] :: [::1] 1 65535 80 @ % , - _ ~ / é".split(' ').collect();
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut taken = 0;
        for _ in 0..100_000 {
            let text: String = (0..rng.usize(1..7)).map(|_| pieces[rng.usize(..pieces.len())]).collect();
            let Ok(read) = Authority::read(text.as_bytes()) else { continue };
            taken += 1;
            let name = read.name();
            assert!(!name.is_empty() && !name.ends_with('.') && !name.contains(['@', '%', ',', '/']), "{text}");
            assert_eq!(name, name.to_ascii_lowercase(), "{text}");
            // The name is itself a host, of the same name, and the text is host and port and nothing else.
            let again = Authority::read(name.as_bytes()).unwrap();
            assert_eq!((again.name(), again.port), (name.clone(), None), "{text}");
            assert!(again.is_same(&Authority { port: None, ..read }, 80), "{text}");
            let port = text.strip_prefix(read.host()).expect("the host is the start of the text");
            assert_eq!(port.strip_prefix(':').and_then(|it| it.parse().ok()), read.port, "{text}");
        }
        assert!(taken > 2_000, "only {taken} were taken; seed {SEED}");
    }
}

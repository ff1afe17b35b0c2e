//! Who a request is from, and what endpoints are told of it: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`
//! (RFC 7239).
//!
//! A peer that is no trusted proxy is the client, and whatever it says of others is replaced. A trusted proxy is
//! believed and appended to:
//!
//! - The client is the last address, from the right, that is no trusted proxy; what stands left of it is a
//!   stranger's word, passed on but not believed. If all are trusted it is the first of them.
//! - `unknown` and `_names` where the client's address should be: the peer is taken for the client, and the chain is
//!   passed on.
//! - What cannot be read ends the chain: what is left of it is dropped. If no untrusted address was found before,
//!   nothing of the chain is believed or passed on, and the peer is taken for the client. So a stranger gains
//!   nothing by sending nonsense through a trusted proxy: its own address stands to the right of it.
//! - `X-Forwarded-For` decides; `Forwarded` only where there is none. Most proxies know the former alone and pass
//!   a stranger's `Forwarded` on as it is. It is continued if it names the same client, and dropped or made anew if
//!   not. Protocol and host come from the fields of the same family as the client.
//!
//! A proxy that is trusted has to set, append to or drop each of these fields: what it passes on unread is believed.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use super::authority::Authority;

mod element;

use element::{BLANK, Element, FromRight, Node};

/// Entries of a chain that are read and passed on, the last ones. No real chain is near this long, and all of it is
/// copied for each request.
const MOST: usize = 16;

/// How a client sent its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Proto {
    /// As it is written in a field.
    pub fn as_str(self) -> &'static str {
        match self {
            Proto::Http => "http",
            Proto::Https => "https",
        }
    }

    /// Some proxies write the scheme of WebSocket.
    fn read(text: &str) -> Option<Proto> {
        let is = |it: &str| text.eq_ignore_ascii_case(it);
        if is("https") || is("wss") { Some(Proto::Https) } else { (is("http") || is("ws")).then_some(Proto::Http) }
    }
}

/// Whoever is at the other end of a connection; made once for it.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    trusted: bool,
    /// The address as it goes into `X-Forwarded-For`.
    text: Box<str>,
}

impl Peer {
    /// A peer, and whether it is a proxy whose word is taken. An IPv4 address that came inside IPv6, as sockets for
    /// both have it, is made an IPv4 address first, also for `trusted`.
    pub fn new(address: IpAddr, trusted: impl FnOnce(IpAddr) -> bool) -> Peer {
        let address = address.to_canonical();
        Peer { address, trusted: trusted(address), text: written(address) }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its address as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a trusted proxy, and [`Received`] is worth gathering.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }
}

/// An address as text. Of IPv4 without the formatter, which costs a connection as much as reading its request.
fn written(address: IpAddr) -> Box<str> {
    let IpAddr::V4(address) = address else { return address.to_string().into() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        let digit = |unit: u8| char::from(b'0' + octet / unit % 10);
        if octet > 99 {
            text.push(digit(100));
        }
        if octet > 9 {
            text.push(digit(10));
        }
        text.push(digit(1));
    }
    text.into()
}

/// The connection that a request came on, and its host.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// How it came.
    pub proto: Proto,
    /// The host with its port, as [`Authority`] took it; none if the request named none.
    pub host: Option<&'a str>,
}

/// The values of the fields that a request came with, line by line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received<'a> {
    /// `X-Forwarded-For`.
    pub x_forwarded_for: &'a [&'a [u8]],
    /// `X-Forwarded-Proto`.
    pub x_forwarded_proto: &'a [&'a [u8]],
    /// `X-Forwarded-Host`.
    pub x_forwarded_host: &'a [&'a [u8]],
    /// `Forwarded`.
    pub forwarded: &'a [&'a [u8]],
}

/// Who a request is from, and the values that take the place of all that [`Received`] had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding<'a> {
    /// The client, for limits, logs and plugins.
    pub client: IpAddr,
    /// `X-Forwarded-For`.
    pub x_forwarded_for: Cow<'a, str>,
    /// `X-Forwarded-Proto`: how the client sent it, as far as that is known.
    pub proto: Proto,
    /// `X-Forwarded-Host`: the host that the client named; none: the field is not sent.
    pub host: Option<&'a str>,
    /// `Forwarded`; none: the field is not sent.
    pub forwarded: Option<String>,
}

impl<'a> Forwarding<'a> {
    /// Judges what came. `trusted` says of an address whether it is a trusted proxy; `standard` whether `Forwarded`
    /// is sent even where none came that is continued. Nothing of `received` is looked at for a peer that is not
    /// trusted.
    pub fn new(
        peer: &'a Peer,
        own: Own<'a>,
        received: &Received<'a>,
        trusted: impl Fn(IpAddr) -> bool,
        standard: bool,
    ) -> Forwarding<'a> {
        let believed = if peer.trusted { Believed::of(peer, own, received, trusted) } else { None };
        let Some(believed) = believed else {
            return Forwarding {
                client: peer.address,
                x_forwarded_for: Cow::Borrowed(&peer.text),
                proto: own.proto,
                host: own.host,
                forwarded: standard.then(|| and_own(String::new(), peer, own)),
            };
        };
        let forwarded = (standard || believed.forwarded.count > 0).then(|| and_own(believed.forwarded(), peer, own));
        Forwarding {
            client: believed.client,
            x_forwarded_for: believed.x_forwarded_for(&peer.text),
            proto: believed.proto,
            host: believed.host,
            forwarded,
        }
    }
}

/// What a trusted proxy said and is believed.
struct Believed<'a> {
    client: IpAddr,
    proto: Proto,
    host: Option<&'a str>,
    /// `X-Forwarded-For`; none of it if there was none.
    listed: Hops<'a>,
    /// `Forwarded`; none of it if there was none, or one that `listed` contradicts.
    forwarded: Hops<'a>,
}

impl<'a> Believed<'a> {
    /// None if nothing can be.
    fn of(
        peer: &Peer,
        own: Own<'a>,
        received: &Received<'a>,
        trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<Believed<'a>> {
        let listed = Hops::follow(entries(received.x_forwarded_for), peer.address, &trusted)?;
        let forwarded = Hops::follow(elements(received.forwarded), peer.address, &trusted);
        let forwarded = match listed.count {
            0 => forwarded?,
            _ => forwarded.filter(|it| it.client == listed.client).unwrap_or(Hops::none(peer.address)),
        };
        let (client, proto, host);
        if listed.count == 0 && forwarded.count > 0 {
            let element = forwarded.at.and_then(|at| Element::read(forwarded.texts[at])).unwrap_or_default();
            (client, proto, host) = (forwarded.client, element.proto, element.host);
        } else {
            let named = last(received.x_forwarded_host).filter(|host| Authority::read(host.as_bytes()).is_ok());
            (client, proto, host) = (listed.client, last(received.x_forwarded_proto).and_then(Proto::read), named);
        }
        let (proto, host) = (proto.unwrap_or(own.proto), host.or(own.host));
        Some(Believed { client, proto, host, listed, forwarded })
    }

    fn x_forwarded_for(&self, peer: &'a str) -> Cow<'a, str> {
        let mut out = String::new();
        for text in self.listed.in_order() {
            out.push_str(text);
            out.push_str(", ");
        }
        if self.listed.count == 0 {
            for text in self.forwarded.in_order() {
                // An endpoint that knows only this field has to see the same client.
                let _ = match Element::read(text).and_then(|it| it.node) {
                    Some(Node::Address(address)) => write!(out, "{address}, "),
                    _ => write!(out, "unknown, "),
                };
            }
        }
        if out.is_empty() {
            return peer.into();
        }
        out.push_str(peer);
        out.into()
    }

    /// The elements before our own. Where none came they are made of the other field (RFC 7239, section 7.4).
    fn forwarded(&self) -> String {
        let mut out = String::new();
        for text in self.forwarded.in_order() {
            out.push_str(text);
            out.push_str(", ");
        }
        if self.forwarded.count > 0 {
            return out;
        }
        for (at, text) in self.listed.texts[..self.listed.count].iter().enumerate().rev() {
            write_node(&mut out, Node::read_bare(text).unwrap_or(Node::Hidden));
            if self.listed.at == Some(at) {
                write_rest(&mut out, self.proto, self.host);
            }
            out.push_str(", ");
        }
        out
    }
}

/// The entries of a chain that can be read, the last first.
struct Hops<'a> {
    texts: [&'a str; MOST],
    count: usize,
    client: IpAddr,
    /// The place of the client; none if that is the peer because nobody else is there.
    at: Option<usize>,
}

impl<'a> Hops<'a> {
    fn none(peer: IpAddr) -> Hops<'a> {
        Hops { texts: [""; MOST], count: 0, client: peer, at: None }
    }

    /// Goes from the peer, which is trusted, to those before it; an entry is none if it cannot be read. None if the
    /// chain ends so, or is too long, before it is clear who the client is.
    fn follow(
        entries: impl Iterator<Item = Option<(&'a str, Node)>>,
        peer: IpAddr,
        trusted: &impl Fn(IpAddr) -> bool,
    ) -> Option<Hops<'a>> {
        let mut hops = Hops::none(peer);
        let mut found = false;
        for entry in entries {
            let (Some((text, node)), true) = (entry, hops.count < MOST) else { return found.then_some(hops) };
            if !found {
                // An address that is trusted is the client so far.
                (hops.client, found) = match node {
                    Node::Address(address) => (address, !trusted(address)),
                    Node::Hidden => (peer, true),
                };
                hops.at = Some(hops.count);
            }
            hops.texts[hops.count] = text;
            hops.count += 1;
        }
        Some(hops)
    }

    /// The first first, as they are written.
    fn in_order(&self) -> impl Iterator<Item = &'a str> {
        self.texts[..self.count].iter().rev().copied()
    }
}

/// The entries of `X-Forwarded-For`, the last first.
fn entries<'a>(lines: &[&'a [u8]]) -> impl Iterator<Item = Option<(&'a str, Node)>> {
    let pieces = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    some(pieces).map(|piece| piece.and_then(|text| Some((text, Node::read_bare(text)?))))
}

/// The elements of `Forwarded`, the last first. One that does not say whom it is for hides that.
fn elements<'a>(lines: &[&'a [u8]]) -> impl Iterator<Item = Option<(&'a str, Node)>> {
    let pieces = lines.iter().rev().flat_map(|line| FromRight::new(line));
    some(pieces).map(|piece| piece.and_then(|text| Some((text, Element::read(text)?.node.unwrap_or(Node::Hidden)))))
}

/// The last value of a field that should have one: what the nearest proxy said, if others said something before it.
fn last<'a>(lines: &[&'a [u8]]) -> Option<&'a str> {
    some(lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','))).next().flatten()
}

/// Pieces of a list without the space around them; empty ones mean nothing (RFC 9110, section 5.6.1.2). None for one
/// that is no text.
fn some<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Option<&'a str>> {
    let pieces = pieces.map(|piece| std::str::from_utf8(piece).ok().map(|it| it.trim_matches(BLANK)));
    pieces.filter(|piece| piece.is_none_or(|it| !it.is_empty()))
}

/// The elements before, and ours: who the peer is, and how it asked for what.
fn and_own(mut before: String, peer: &Peer, own: Own<'_>) -> String {
    write_node(&mut before, Node::Address(peer.address));
    write_rest(&mut before, own.proto, own.host);
    before
}

/// `for`, where an IPv6 address has to be in brackets and quotes (RFC 7239, section 6).
fn write_node(out: &mut String, node: Node) {
    // A `String` takes everything.
    let _ = match node {
        Node::Address(IpAddr::V4(address)) => write!(out, "for={address}"),
        Node::Address(IpAddr::V6(address)) => write!(out, "for=\"[{address}]\""),
        Node::Hidden => write!(out, "for=unknown"),
    };
}

/// `proto`, and `host`, in quotes where it has a port or brackets. What [`Authority`] takes has nothing to escape.
fn write_rest(out: &mut String, proto: Proto, host: Option<&str>) {
    out.push_str(";proto=");
    out.push_str(proto.as_str());
    let Some(host) = host else { return };
    let quote = if host.contains([':', '[']) { "\"" } else { "" };
    for piece in [";host=", quote, host, quote] {
        out.push_str(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `10.0.0.0/8` and `2001:db8:a::/48` are ours.
    fn trusted(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => it.octets()[0] == 10,
            IpAddr::V6(it) => it.segments()[..3] == [0x2001, 0xdb8, 0xa],
        }
    }

    fn peer(address: &str) -> Peer {
        Peer::new(address.parse().unwrap(), trusted)
    }

    const OWN: Own<'_> = Own { proto: Proto::Http, host: Some("shop.example:8080") };

    fn lines(field: &str) -> Vec<&[u8]> {
        field.split('|').filter(|it| !it.is_empty()).map(str::as_bytes).collect()
    }

    /// The lines of each field with `|` between them: `X-Forwarded-For`, `-Proto`, `-Host`, `Forwarded`.
    fn told(peer: &Peer, fields: [&str; 4], standard: bool) -> Forwarding<'static> {
        let [a, b, c, d] = fields.map(lines);
        let received = Received { x_forwarded_for: &a, x_forwarded_proto: &b, x_forwarded_host: &c, forwarded: &d };
        let told = Forwarding::new(peer, OWN, &received, trusted, standard);
        // Only for the tests to be short: what is borrowed from the arguments is copied.
        Forwarding {
            client: told.client,
            x_forwarded_for: told.x_forwarded_for.into_owned().into(),
            proto: told.proto,
            host: told.host.map(|it| &*it.to_owned().leak()),
            forwarded: told.forwarded,
        }
    }

    /// Client and chain for an `X-Forwarded-For` from this peer.
    fn chain(from: &str, field: &str) -> (String, String) {
        let told = told(&peer(from), [field, "", "", ""], false);
        assert_eq!((told.proto, told.host, told.forwarded), (OWN.proto, OWN.host, None), "{field}");
        (told.client.to_string(), told.x_forwarded_for.into_owned())
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        let octets = (0..=255).flat_map(|octet| [[octet, 0, 9, 10], [1, 99, 100, octet]]);
        for address in octets.map(IpAddr::from).chain(["2001:db8::1".parse().unwrap()]) {
            assert_eq!(*written(address), address.to_string());
        }
    }

    #[test]
    fn what_strangers_say_is_replaced() {
        let all = ["198.51.100.1, 10.0.0.1", "https", "evil.example", "for=198.51.100.1;proto=https;host=evil.example"];
        let told = told(&peer("192.0.2.1"), all, false);
        let expected = Forwarding {
            client: "192.0.2.1".parse().unwrap(),
            x_forwarded_for: "192.0.2.1".into(),
            proto: Proto::Http,
            host: OWN.host,
            forwarded: None,
        };
        assert_eq!(told, expected);
        let told = super::tests::told(&peer("2001:db8::1"), all, true);
        let own = r#"for="[2001:db8::1]";proto=http;host="shop.example:8080""#;
        assert_eq!((&*told.x_forwarded_for, told.forwarded.as_deref()), ("2001:db8::1", Some(own)));
    }

    #[test]
    fn a_peer_inside_ipv6_is_the_ipv4_address_that_it_is() {
        let peer = peer("::ffff:10.0.0.1");
        assert!(peer.is_trusted());
        assert_eq!(peer.address().to_string(), "10.0.0.1");
        assert_eq!(chain("::ffff:10.0.0.1", "::ffff:192.0.2.7").0, "192.0.2.7");
    }

    #[test]
    fn the_client_is_the_last_that_is_not_trusted() {
        let long = "10.0.0.9, ".repeat(20);
        let long = long.trim_end_matches(", ");
        let kept = |last: &str| format!("{}{last}", "10.0.0.9, ".repeat(15));
        for (field, client, sent) in [
            ("", "10.0.0.1", "10.0.0.1"),
            (", ,|,", "10.0.0.1", "10.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
            ("192.0.2.7:4711", "192.0.2.7", "192.0.2.7:4711, 10.0.0.1"),
            ("2001:db8::7", "2001:db8::7", "2001:db8::7, 10.0.0.1"),
            ("[2001:db8::7]:1", "2001:db8::7", "[2001:db8::7]:1, 10.0.0.1"),
            ("192.0.2.7, 10.0.0.2", "192.0.2.7", "192.0.2.7, 10.0.0.2, 10.0.0.1"),
            ("192.0.2.7,10.0.0.2 ,, ", "192.0.2.7", "192.0.2.7, 10.0.0.2, 10.0.0.1"),
            ("192.0.2.7|10.0.0.2|10.0.0.3", "192.0.2.7", "192.0.2.7, 10.0.0.2, 10.0.0.3, 10.0.0.1"),
            ("192.0.2.7, 2001:db8:a::2", "192.0.2.7", "192.0.2.7, 2001:db8:a::2, 10.0.0.1"),
            // What a stranger made up stands before its own address.
            ("198.51.100.9, 192.0.2.7", "192.0.2.7", "198.51.100.9, 192.0.2.7, 10.0.0.1"),
            ("10.0.0.66, 192.0.2.7", "192.0.2.7", "10.0.0.66, 192.0.2.7, 10.0.0.1"),
            ("unknown, 192.0.2.7", "192.0.2.7", "unknown, 192.0.2.7, 10.0.0.1"),
            ("<x>, 192.0.2.7", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
            ("198.51.100.9, nonsense, 192.0.2.7, 10.0.0.2", "192.0.2.7", "192.0.2.7, 10.0.0.2, 10.0.0.1"),
            ("é, 192.0.2.7", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
            // All are ours: the first is where it began.
            ("10.0.0.2", "10.0.0.2", "10.0.0.2, 10.0.0.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
            // Hidden where the client should be.
            ("unknown", "10.0.0.1", "unknown, 10.0.0.1"),
            ("192.0.2.7, _secret, 10.0.0.2", "10.0.0.1", "192.0.2.7, _secret, 10.0.0.2, 10.0.0.1"),
            // Unreadable where the client should be.
            ("nonsense", "10.0.0.1", "10.0.0.1"),
            ("192.0.2.7, nonsense", "10.0.0.1", "10.0.0.1"),
            ("192.0.2.7, example.org, 10.0.0.2", "10.0.0.1", "10.0.0.1"),
            ("192.0.2.7 10.0.0.2", "10.0.0.1", "10.0.0.1"),
            ("\"192.0.2.7\"", "10.0.0.1", "10.0.0.1"),
            // Too long: what is far away is dropped, unless it is what matters.
            (long, "10.0.0.1", "10.0.0.1"),
            (&format!("{long}, 192.0.2.7"), "192.0.2.7", &kept("192.0.2.7, 10.0.0.1")),
        ] {
            assert_eq!(chain("10.0.0.1", field), (client.to_owned(), sent.to_owned()), "{field}");
        }
    }

    #[test]
    fn protocol_and_host_are_the_nearest_proxys() {
        for (proto, host, expected) in [
            ("https", "a.example", (Proto::Https, "a.example")),
            ("HTTPS", "a.example:443", (Proto::Https, "a.example:443")),
            ("wss", "", (Proto::Https, "shop.example:8080")),
            ("ws", "[::1]", (Proto::Http, "[::1]")),
            ("https, http", "evil.example, a.example", (Proto::Http, "a.example")),
            ("http|https", "evil.example|a.example", (Proto::Https, "a.example")),
            ("https,", "a.example, ", (Proto::Https, "a.example")),
            ("gopher", "a b", (Proto::Http, "shop.example:8080")),
            ("https x", "a@b", (Proto::Http, "shop.example:8080")),
            ("", "é", (Proto::Http, "shop.example:8080")),
        ] {
            for field in ["192.0.2.7", ""] {
                let told = told(&peer("10.0.0.1"), [field, proto, host, ""], false);
                assert_eq!((told.proto, told.host.unwrap()), expected, "{proto} {host}");
            }
            // If nothing of the chain can be believed, neither can these.
            let told = told(&peer("10.0.0.1"), ["nonsense", proto, host, ""], false);
            assert_eq!((told.proto, told.host), (OWN.proto, OWN.host), "{proto} {host}");
        }
    }

    #[test]
    fn forwarded_decides_where_it_is_alone() {
        const END: &str = r#"for=10.0.0.1;proto=http;host="shop.example:8080""#;
        for (field, client, proto, host, listed, before) in [
            ("for=192.0.2.7", "192.0.2.7", Proto::Http, "shop.example:8080", "192.0.2.7, ", "for=192.0.2.7, "),
            (
                "for=192.0.2.7;proto=https;host=a.example, for=10.0.0.2;proto=http;host=b.example",
                "192.0.2.7",
                Proto::Https,
                "a.example",
                "192.0.2.7, 10.0.0.2, ",
                "for=192.0.2.7;proto=https;host=a.example, for=10.0.0.2;proto=http;host=b.example, ",
            ),
            (
                "for=\"evil|for=\"[2001:db8::7]:4711\";proto=https,, for=10.0.0.2",
                "2001:db8::7",
                Proto::Https,
                "shop.example:8080",
                "2001:db8::7, 10.0.0.2, ",
                "for=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.2, ",
            ),
            (
                "for=198.51.100.9;proto=https, for=192.0.2.7;x=\"a,b\"",
                "192.0.2.7",
                Proto::Http,
                "shop.example:8080",
                "198.51.100.9, 192.0.2.7, ",
                "for=198.51.100.9;proto=https, for=192.0.2.7;x=\"a,b\", ",
            ),
            (
                "for=_hidden;proto=https, for=10.0.0.2",
                "10.0.0.1",
                Proto::Https,
                "shop.example:8080",
                "unknown, 10.0.0.2, ",
                "for=_hidden;proto=https, for=10.0.0.2, ",
            ),
            ("by=10.0.0.1", "10.0.0.1", Proto::Http, "shop.example:8080", "unknown, ", "by=10.0.0.1, "),
        ] {
            for standard in [false, true] {
                // The other family's protocol and host may be a stranger's.
                let told = told(&peer("10.0.0.1"), ["", "gopher", "evil.example", field], standard);
                assert_eq!(
                    (&*told.client.to_string(), told.proto, told.host.unwrap()),
                    (client, proto, host),
                    "{field}"
                );
                assert_eq!(*told.x_forwarded_for, format!("{listed}10.0.0.1"), "{field}");
                assert_eq!(told.forwarded.unwrap(), format!("{before}{END}"), "{field}");
            }
        }
        for unreadable in ["for=nonsense", "for=192.0.2.7 proto=https", "for=192.0.2.7, for=\"10.0.0.2", "x"] {
            let told = told(&peer("10.0.0.1"), ["", "https", "", unreadable], true);
            assert_eq!((&*told.client.to_string(), &*told.x_forwarded_for), ("10.0.0.1", "10.0.0.1"), "{unreadable}");
            assert_eq!((told.proto, &*told.forwarded.unwrap()), (Proto::Http, END), "{unreadable}");
        }
    }

    #[test]
    fn forwarded_is_continued_only_if_it_agrees() {
        let end = r#"for=10.0.0.1;proto=http;host="shop.example:8080""#;
        let list = "192.0.2.7, 10.0.0.2";
        let made = r#"for=192.0.2.7;proto=https;host="a.example:1", for=10.0.0.2, "#;
        for (forwarded, continued, standard) in [
            ("for=192.0.2.7;proto=http, for=10.0.0.2", Some("for=192.0.2.7;proto=http, for=10.0.0.2, "), Some("")),
            ("for=192.0.2.7", Some("for=192.0.2.7, "), Some("")),
            ("for=198.51.100.9;proto=http;host=evil.example", None, Some(made)),
            ("for=10.0.0.66", None, Some(made)),
            ("for=unknown", None, Some(made)),
            ("nonsense", None, Some(made)),
            ("", None, Some(made)),
        ] {
            let fields = [list, "https", "a.example:1", forwarded];
            let plain = told(&peer("10.0.0.1"), fields, false);
            assert_eq!((&*plain.client.to_string(), plain.proto), ("192.0.2.7", Proto::Https), "{forwarded}");
            assert_eq!((plain.host, &*plain.x_forwarded_for), (Some("a.example:1"), "192.0.2.7, 10.0.0.2, 10.0.0.1"));
            assert_eq!(plain.forwarded, continued.map(|it| format!("{it}{end}")), "{forwarded}");
            let also = told(&peer("10.0.0.1"), fields, true);
            let expected = continued.or(standard).map(|it| format!("{it}{end}"));
            assert_eq!(also.forwarded, expected, "{forwarded}");
        }
        let hidden = told(&peer("10.0.0.1"), ["unknown, 2001:db8:a::1", "", "", ""], true);
        assert_eq!(
            hidden.forwarded.unwrap(),
            format!(r#"for=unknown;proto=http;host="shop.example:8080", for="[2001:db8:a::1]", {end}"#)
        );
    }

    #[test]
    fn whatever_comes_in_two_gateways_in_a_row_agree() {
        const SEED: u64 = 0x666f_7277;
        let pieces = [
            "for=192.0.2.7, ",
            "for=192.0.2.7;proto=https, ",
            "for=10.0.0.2;by=_x;host=a.example, ",
            "192.0.2.7, ",
            "192.0.2.7",
            "10.0.0.2",
            "10.0.0.3",
            "2001:db8::7",
            "\"[2001:db8::7]:1\"",
            "unknown",
            "_x",
            "nonsense",
            ", ",
            ", ",
            ", ",
            ",",
            "|",
            "for=",
            "for=",
            "for=",
            ";",
            "proto=https",
            "host=a.example",
            "host=\"a:1\"",
            "\"",
            "\\",
            " ",
        ];
        let mut rng = fastrand::Rng::with_seed(SEED);
        let (mut believed, mut both) = (0, 0);
        for _ in 0..100_000 {
            let mut fields = [6, 3, 3, 9]
                .map(|most| -> String { (0..rng.usize(..most)).map(|_| pieces[rng.usize(..pieces.len())]).collect() });
            if rng.bool() {
                fields[0].clear();
            }
            let fields = [&*fields[0], &*fields[1], &*fields[2], &*fields[3]];
            let first = peer("10.0.0.1");
            let one = told(&first, fields, false);
            believed += usize::from(one.client != first.address());
            assert!(one.x_forwarded_for.ends_with("10.0.0.1"), "{fields:?}: {one:?}");
            // What goes out can be read: a gateway behind this one comes to the same, unless the client is hidden.
            let next = told(&peer("10.0.0.200"), ["", "", "", one.forwarded.as_deref().unwrap_or_default()], false);
            let sent = [
                &*one.x_forwarded_for,
                one.proto.as_str(),
                one.host.unwrap(),
                one.forwarded.as_deref().unwrap_or_default(),
            ];
            let two = told(&peer("10.0.0.200"), sent, true);
            let is_hidden = one.x_forwarded_for.contains(['_', 'k']);
            if !is_hidden {
                assert_eq!((two.client, two.proto, two.host), (one.client, one.proto, one.host), "{fields:?}: {one:?}");
                assert_eq!(two.x_forwarded_for, format!("{}, 10.0.0.200", one.x_forwarded_for), "{fields:?}");
            }
            if one.forwarded.is_some() && !is_hidden {
                both += 1;
                assert_eq!(next.client, one.client, "{fields:?}: {one:?}");
            }
        }
        assert!(believed > 3_000 && both > 500, "only {believed} and {both}; seed {SEED}");
    }
}

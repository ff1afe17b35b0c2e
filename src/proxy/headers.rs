//! Which headers pass, which end here, and which the gateway adds.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Version, request, response};

use crate::error::RequestError;

/// Names a request in logs, here and at the endpoint.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Bytes of a request id that are accepted from a client: it goes into every log line.
const REQUEST_ID_LENGTH: usize = 128;

/// Fields that are about one connection (RFC 9110, section 7.6.1), whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// Fields that `Connection` cannot have taken away.
const KEPT: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, REQUEST_ID];

/// A client, as endpoints are told of it; made once for a connection.
pub struct Client {
    /// Who it is.
    pub address: IpAddr,
    /// The same, ready for a header.
    text: HeaderValue,
}

impl Client {
    /// Whoever is at the other end of the connection.
    pub fn new(address: IpAddr) -> Client {
        // The text of an address has no character that a header may not.
        let text = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Client { address, text }
    }
}

/// The request's id: the client's own if it can be used, else a new one, which is then in the head as well.
pub fn request_id(head: &mut request::Parts, rng: &mut fastrand::Rng) -> HeaderValue {
    let usable = |id: &&HeaderValue| {
        (1..=REQUEST_ID_LENGTH).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(id) = head.headers.get(REQUEST_ID).filter(usable) {
        return id.clone();
    }
    let mut text = [0; 32];
    let mut number = rng.u128(..);
    for digit in &mut text {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    let id = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"));
    head.headers.insert(REQUEST_ID, id.clone());
    id
}

/// Whether it is clear which host and path the request means.
///
/// # Errors
/// [`RequestError::Malformed`] for what an endpoint might understand in another way than the routes did: no or more
/// than one `Host` (RFC 9112, section 3.2), user information in the host, dot segments in the path.
pub fn check(head: &request::Parts) -> Result<(), RequestError> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(RequestError::Malformed("the request has more than one host"));
    }
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    if host.is_none() && authority.is_none() && head.version == Version::HTTP_11 {
        return Err(RequestError::Malformed("the request has no host"));
    }
    if host.is_some_and(|host| host.as_bytes().contains(&b'@')) || authority.is_some_and(|it| it.contains('@')) {
        return Err(RequestError::Malformed("the request's host has user information in it"));
    }
    if has_dot_segment(head.uri.path()) {
        return Err(RequestError::Malformed(DOT_SEGMENT));
    }
    Ok(())
}

/// What the client is told of a dot segment.
pub const DOT_SEGMENT: &str = "the path has a segment that is one dot or two";

/// Whether a segment of the path is `.` or `..`, written out or encoded (RFC 3986, section 6.2.2).
pub fn has_dot_segment(path: &str) -> bool {
    // Most paths have no dot at all before their last segment.
    path.split('/').any(|segment| {
        segment.len() <= 6 && {
            let mut rest = segment;
            let mut dots = 0;
            while let Some(after) = rest.strip_prefix('.').or(rest.strip_prefix("%2e")).or(rest.strip_prefix("%2E")) {
                dots += 1;
                rest = after;
            }
            rest.is_empty() && (1..=2).contains(&dots)
        }
    })
}

/// Makes a client's head one for an endpoint.
pub fn to_endpoint(head: &mut request::Parts, client: &Client) {
    strip_hop_by_hop(&mut head.headers);
    // The server's side has answered it, or will when the body is asked for.
    head.headers.remove(header::EXPECT);
    // An absolute request target names the host, whatever the header says (RFC 9112, section 3.2.2).
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(header::HOST, host);
    }
    // HTTP/1.0 may leave it out, HTTP/1.1 may leave it empty.
    head.headers.entry(header::HOST).or_insert(HeaderValue::from_static(""));
    if let Some(host) = head.headers.get(header::HOST).filter(|host| !host.is_empty()).cloned() {
        head.headers.insert(FORWARDED_HOST, host);
    }
    head.headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    forwarded_for(&mut head.headers, client);
    head.version = Version::HTTP_11;
}

/// Appends the client to those that the request already came through.
fn forwarded_for(headers: &mut HeaderMap, client: &Client) {
    let mut chain: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    if chain.is_empty() {
        headers.insert(FORWARDED_FOR, client.text.clone());
        return;
    }
    chain.extend_from_slice(client.text.as_bytes());
    // Pieces of valid values make a valid one.
    headers.insert(FORWARDED_FOR, HeaderValue::try_from(chain).unwrap_or_else(|_| client.text.clone()));
}

/// Makes an endpoint's head one for the client.
pub fn to_client(head: &mut response::Parts) {
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
}

/// Takes out what is about one connection, and what `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One look at the names is cheaper than nine searches: most messages have one of these, or none.
    let mut present = 0u16;
    for name in headers.keys() {
        if let Some(at) = hop_by_hop(name.as_str()) {
            present |= 1 << at;
        }
    }
    if present == 0 {
        return;
    }
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let tokens = tokens.filter(|it| !it.eq_ignore_ascii_case(b"keep-alive") && !it.eq_ignore_ascii_case(b"close"));
        // Nobody may have these taken away: they say what the request is, and who answers for it.
        let names = tokens.filter_map(|token| HeaderName::from_bytes(token).ok());
        named.extend(names.filter(|name| !KEPT.contains(name)));
    }
    named.iter().for_each(|name| drop(headers.remove(name)));
    for (at, name) in HOP_BY_HOP.iter().enumerate() {
        if present & (1 << at) != 0 {
            headers.remove(name);
        }
    }
}

/// The place of a name in [`HOP_BY_HOP`]. A match on text compares lengths first, and so hardly ever anything else.
fn hop_by_hop(name: &str) -> Option<u8> {
    match name {
        "connection" => Some(0),
        "transfer-encoding" => Some(1),
        "upgrade" => Some(2),
        "te" => Some(3),
        "trailer" => Some(4),
        "proxy-authenticate" => Some(5),
        "proxy-authorization" => Some(6),
        "keep-alive" => Some(7),
        "proxy-connection" => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn text(head: &request::Parts) -> Vec<String> {
        let mut all: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_about_one_connection_ends_here() {
        let mut request = head(&[
            ("host", "example.org"),
            ("connection", "close, X-Mine , host"),
            ("connection", "content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("content-length", "0"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        to_endpoint(&mut request, &Client::new("192.0.2.7".parse().unwrap()));
        assert_eq!(
            text(&request),
            [
                "accept: */*",
                "content-length: 0",
                "host: example.org",
                "x-forwarded-for: 10.0.0.1, 192.0.2.7",
                "x-forwarded-host: example.org",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn what_can_be_misunderstood_is_refused() {
        let with = |headers: &[(&str, &str)], uri: &str| {
            let mut head = head(headers);
            head.uri = uri.parse().unwrap();
            check(&head).is_ok()
        };
        let host = [("host", "x")];
        for (headers, uri, fine) in [
            (&host[..], "/a/b.c/..d/...", true),
            (&[], "/", false),
            (&[], "http://x/", true),
            (&[("host", "x"), ("host", "x")], "/", false),
            (&[("host", "a@x")], "/", false),
            (&host, "http://a@x/", false),
            (&host, "/a/../b", false),
            (&host, "/a/%2e%2E/b", false),
            (&host, "/a/.%2e", false),
            (&host, "/./a", false),
            (&host, "/a?b=/../c", true),
        ] {
            assert_eq!(with(headers, uri), fine, "{headers:?} {uri}");
        }
    }

    #[test]
    fn places_are_those_of_the_list() {
        for (at, name) in HOP_BY_HOP.iter().enumerate() {
            assert_eq!(hop_by_hop(name.as_str()), Some(at as u8), "{name}");
        }
    }

    #[test]
    fn a_request_keeps_its_id_if_it_has_a_usable_one() {
        let mut rng = fastrand::Rng::with_seed(7);
        for (given, kept) in [("abc-1", true), ("", false), ("a b", false), (&*"x".repeat(129), false)] {
            let mut request = head(&[("x-request-id", given)]);
            let id = request_id(&mut request, &mut rng);
            assert_eq!(id == given, kept, "{given:?} became {id:?}");
            assert_eq!(request.headers.get(REQUEST_ID), Some(&id));
        }
    }
}

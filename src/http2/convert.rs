//! The messages of `h2` as ours, and ours as those of `h2`. What HTTP/2 leaves to whoever reads a message is checked here.

use bytes::BytesMut;
use http::uri::{Authority as UriAuthority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header, request};

use crate::http1::head::{HeadError, Limits, number};
use crate::message::authority::Authority;
use crate::message::fields::is_value;
use crate::message::known::{self, Known};
use crate::message::{Fields, RequestHead, ResponseHead, Target, Version};

use HeadError::{Malformed, TargetTooLong, TooLarge};

/// Fields that are about one HTTP/1 connection and make a message malformed here (RFC 9113, section 8.2.2).
const CONNECTION: u64 = known::set([
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// A request as it came from a client. An extended CONNECT (RFC 8441) becomes the GET with `upgrade` that it is in HTTP/1, so
/// that routes and filters see one kind of WebSocket.
///
/// # Errors
/// [`HeadError::Malformed`] for what RFC 9113, section 8.1.1 calls so, as far as `h2` has not refused it yet: no authority, or
/// one that differs from `host`; a path that is neither one nor `*`; fields of HTTP/1 connections; characters that no value
/// has. [`HeadError::TooLarge`] and [`HeadError::TargetTooLong`] over the limits.
pub fn request(request: request::Parts, limits: &Limits) -> Result<RequestHead, HeadError> {
    let request::Parts { mut method, uri, headers, extensions, .. } = request;
    let upgrade: Option<Box<str>> = extensions.get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().into());
    let target = target(&method, &uri, upgrade.is_some(), limits)?;
    if upgrade.is_some() {
        method = Method::GET;
    }
    let mut fields = authority(&uri, &headers)?;
    if headers.len() >= limits.fields + headers.get_all(header::COOKIE).iter().count() {
        return Err(TooLarge);
    }
    append(&mut fields, &headers, Strict::Yes)?;
    length(&fields)?;
    if fields.size() > limits.head {
        return Err(TooLarge);
    }
    Ok(RequestHead { method, target, version: Version::Http2, fields, upgrade })
}

fn target(method: &Method, uri: &Uri, extended: bool, limits: &Limits) -> Result<Target, HeadError> {
    if method == Method::CONNECT && !extended {
        // It has an authority and nothing else (RFC 9113, section 8.5); the request path refuses it.
        let authority = uri.authority().ok_or(Malformed("the request has no authority"))?;
        return Ok(Target::new(authority.as_str().to_owned()));
    }
    let text = uri.path_and_query().map(PathAndQuery::as_str).ok_or(Malformed("the request has no path"))?;
    if text.len() > limits.target {
        return Err(TargetTooLong);
    }
    if text == "*" && method == Method::OPTIONS {
        return Ok(Target::new(text.to_owned()));
    }
    Target::sendable(text.to_owned()).ok_or(Malformed("the request target is no path"))
}

/// The fields, of which `host` is the first, whether the client wrote it there or in `:authority`.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Fields, HeadError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Malformed("the request has more than one host"));
    }
    let authority = uri.authority().map(UriAuthority::as_str);
    let text = match (authority, host) {
        (None, None) => return Err(Malformed("the request has no authority")),
        (Some(authority), None) => authority.as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (Some(authority), Some(host)) => {
            let port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
            let same = match (Authority::read(authority.as_bytes()), Authority::read(host.as_bytes())) {
                (Ok(one), Ok(other)) => one.is_same(&other, port),
                _ => authority.as_bytes() == host.as_bytes(),
            };
            if !same {
                return Err(Malformed("the request's host is not its authority"));
            }
            authority.as_bytes()
        }
    };
    if !is_value(text) {
        return Err(Malformed("the request's host has a character that is not allowed"));
    }
    // With what the gateway adds to a request.
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let mut fields = Fields::with_capacity(size + text.len() + 256, headers.len() + 8);
    fields.append(Known::Host, text);
    Ok(fields)
}

/// Whether white space around a value is refused (RFC 9113, section 8.2.1), or taken off as in HTTP/1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strict {
    Yes,
    No,
}

/// Takes over all fields but `host`. The crumbs of `cookie` become one field (RFC 9113, section 8.2.3).
fn append(fields: &mut Fields, headers: &HeaderMap, strict: Strict) -> Result<(), HeadError> {
    let mut cookies = false;
    for (name, value) in headers {
        if name == header::HOST || (name == header::COOKIE && cookies) {
            continue;
        }
        if name == header::COOKIE {
            cookies = true;
            let crumbs = headers.get_all(header::COOKIE).iter().map(|value| checked(value, strict));
            let crumbs: Vec<&[u8]> = crumbs.collect::<Result<_, _>>()?;
            fields.append(Known::Cookie, &crumbs.join(&b"; "[..]));
            continue;
        }
        fields.append(name.as_str(), checked(value, strict)?);
    }
    let te = fields.all(Known::Te).all(|value| value.eq_ignore_ascii_case(b"trailers"));
    if fields.any(CONNECTION) || !te {
        return Err(Malformed("the message has a field of an HTTP/1 connection"));
    }
    Ok(())
}

fn checked(value: &HeaderValue, strict: Strict) -> Result<&[u8], HeadError> {
    let text = if strict == Strict::No { value.as_bytes().trim_ascii() } else { value.as_bytes() };
    match is_value(text) {
        true => Ok(text),
        false => Err(Malformed("a header field's value has a character that is not allowed")),
    }
}

/// One length, in digits. `h2` compares it with what comes; here it must be what other readers take it for as well.
fn length(fields: &Fields) -> Result<(), HeadError> {
    let mut lengths = fields.all(Known::ContentLength).map(number);
    let Some(first) = lengths.next() else { return Ok(()) };
    if lengths.next().is_some() {
        return Err(Malformed("the message has more than one length"));
    }
    first.map(drop).ok_or(Malformed("the message's length is no number"))
}

/// The length that a message announces; none if it does not.
pub fn announced(fields: &Fields) -> Option<u64> {
    number(fields.get(Known::ContentLength)?)
}

/// A response as it came from an endpoint.
///
/// # Errors
/// As for requests, and 101, which HTTP/2 does not have (RFC 9113, section 8.6).
pub fn response(response: Response<()>) -> Result<ResponseHead, HeadError> {
    let (head, ()) = response.into_parts();
    if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed("HTTP/2 has no 101"));
    }
    let size = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let mut fields = Fields::with_capacity(size + 128, head.headers.len() + 4);
    append(&mut fields, &head.headers, Strict::No)?;
    length(&fields)?;
    Ok(ResponseHead { status: head.status, version: Version::Http2, fields })
}

/// What stands behind a body.
///
/// # Errors
/// As for requests.
pub fn trailers(map: &HeaderMap) -> Result<Fields, HeadError> {
    let mut fields = Fields::default();
    append(&mut fields, map, Strict::No)?;
    Ok(fields)
}

/// A request for an endpoint. `secure`: whether the connection is encrypted.
///
/// # Errors
/// Where HTTP/2 has no way to say what the head says: a character in the path or the authority.
pub fn to_request(head: &RequestHead, secure: bool) -> Result<Request<()>, HeadError> {
    let mut request = Request::new(());
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    let authority = head.authority().filter(|it| !it.is_empty()).ok_or(Malformed("the request has no authority"))?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    let wrong = |_| Malformed("the request's host has a character that is not allowed");
    parts.authority = Some(UriAuthority::try_from(authority).map_err(wrong)?);
    let wrong = |_| Malformed("the request target has a character that HTTP/2 does not allow");
    parts.path_and_query = Some(PathAndQuery::try_from(head.target.as_str()).map_err(wrong)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed("the request has no URI"))?;
    if let Some(protocol) = &head.upgrade {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(h2::ext::Protocol::from(&**protocol));
    }
    // A WebSocket has no key here (RFC 8441, section 5).
    let key = if head.upgrade.is_some() { Known::WebSocketKey.bit() } else { 0 };
    *request.headers_mut() = to_map(&head.fields, Known::Host.bit() | key);
    Ok(request)
}

/// A response for a client.
pub fn to_response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.version_mut() = http::Version::HTTP_2;
    *response.status_mut() = head.status;
    *response.headers_mut() = to_map(&head.fields, Known::Te.bit());
    response
}

/// What stands behind a body, to be sent.
pub fn to_trailers(fields: &Fields) -> HeaderMap {
    to_map(fields, Known::Te.bit() | Known::Host.bit())
}

/// All fields but these and those of connections, with their names in lower case.
fn to_map(fields: &Fields, without: u64) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    // All values in one piece of memory, which the map's values share.
    let mut text = BytesMut::with_capacity(fields.iter().map(|field| field.value.len()).sum());
    for field in fields.iter() {
        if field.known.bit() & (CONNECTION | without) != 0 && field.known != Known::Other {
            continue;
        }
        text.extend_from_slice(field.value);
        let value = HeaderValue::from_maybe_shared(text.split().freeze());
        // Both were checked when the message was read, and what a plugin writes is checked as well.
        let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(field.name), value) else { continue };
        // Whoever can watch our connection must not learn by its compression what others sent over it (RFC 7541, 7.1.3).
        let secret = [header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE, header::PROXY_AUTHORIZATION];
        value.set_sensitive(secret.contains(&name));
        map.append(name, value);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: 2000, fields: 10, target: 50 };

    fn read(uri: &str, headers: &[(&str, &str)]) -> Result<RequestHead, HeadError> {
        let mut builder = Request::builder().uri(uri).method("GET");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        request(builder.body(()).unwrap().into_parts().0, &LIMITS)
    }

    fn lines(fields: &Fields) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn a_request_is_taken_over() {
        let headers = [("accept", "*/*"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("x-mine", "ä")];
        let head = read("https://x:1/a?b", &headers).unwrap();
        assert_eq!((head.target.as_str(), head.version, head.upgrade), ("/a?b", Version::Http2, None));
        assert_eq!(lines(&head.fields), ["host: x:1", "accept: */*", "cookie: a=1; b=2", "te: trailers", "x-mine: ä"]);
    }

    #[test]
    fn the_host_is_said_once() {
        let host = |uri: &str, hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            read(uri, &hosts).map(|head| head.authority().unwrap().to_owned())
        };
        assert_eq!(host("/", &["b"]).unwrap(), "b");
        assert_eq!(host("http://a/", &["A:80"]).unwrap(), "a");
        assert!(host("/", &[]).is_err());
        assert!(host("http://a/", &["b"]).is_err());
        assert!(host("https://a/", &["a:80"]).is_err());
        assert!(host("http://a/", &["a", "a"]).is_err());
    }

    #[test]
    fn what_is_refused() {
        for header in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("te", "trailers, gzip"),
            ("x-mine", " a"),
            ("x-mine", "a\t"),
            ("content-length", "+1"),
            ("content-length", "1, 1"),
            ("content-length", ""),
        ] {
            let outcome = read("http://a/", &[header]);
            assert!(matches!(outcome, Err(Malformed(_))), "{header:?}: {outcome:?}");
        }
        assert!(read("http://a/", &[("content-length", "1"), ("content-length", "1")]).is_err());
        assert!(read("http://a/*", &[]).is_ok());
        let long = "x".repeat(60);
        assert_eq!(read(&format!("http://a/{long}"), &[]).unwrap_err(), TargetTooLong);
        assert_eq!(read("http://a/", &[("a", "b"); 10]).unwrap_err(), TooLarge);
        assert_eq!(read("http://a/", &[("a", &*long.repeat(40))]).unwrap_err(), TooLarge);
        // Crumbs count as the one field that they are.
        assert!(read("http://a/", &[("cookie", "b"); 20]).is_ok());
    }

    #[test]
    fn targets() {
        let of = |method: &str, uri: Uri| {
            let parts = Request::builder().method(method).uri(uri).header("host", "h").body(()).unwrap().into_parts().0;
            request(parts, &LIMITS).map(|head| head.target.as_str().to_owned())
        };
        assert_eq!(of("OPTIONS", "*".parse().unwrap()).unwrap(), "*");
        assert!(of("GET", "*".parse().unwrap()).is_err());
        assert_eq!(of("CONNECT", "h".parse().unwrap()).unwrap(), "h");
    }

    #[test]
    fn an_extended_connect_asks_for_a_protocol() {
        let mut parts = Request::builder().method("CONNECT").uri("https://a/chat").body(()).unwrap().into_parts().0;
        parts.extensions.insert(h2::ext::Protocol::from_static("websocket"));
        let head = request(parts, &LIMITS).unwrap();
        assert_eq!((head.upgrade.as_deref(), head.target.as_str()), (Some("websocket"), "/chat"));
        assert_eq!(head.method, Method::GET);

        let back = to_request(&head, true).unwrap();
        assert_eq!((back.method(), back.uri().to_string().as_str()), (&Method::CONNECT, "https://a/chat"));
        assert_eq!(back.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    }

    #[test]
    fn what_is_sent_has_nothing_of_a_connection() {
        let mut head = RequestHead::new(Method::GET, "/a?b");
        for (name, value) in [
            ("Host", "x:1"),
            ("Connection", "close"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("X-Mine", "1"),
            ("x-mine", "2"),
            ("Cookie", "a=1"),
        ] {
            head.fields.append(name, value.as_bytes());
        }
        let request = to_request(&head, false).unwrap();
        assert_eq!(request.uri().to_string(), "http://x:1/a?b");
        let listed: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(listed, [("te", "trailers"), ("x-mine", "1"), ("x-mine", "2"), ("cookie", "a=1")]);
        assert!(request.headers()["cookie"].is_sensitive() && !request.headers()["x-mine"].is_sensitive());
        let mut answer = ResponseHead::new(http::StatusCode::OK);
        answer.fields = head.fields;
        assert!(!to_response(&answer).headers().contains_key("te"));
        head = RequestHead::new(Method::GET, "/");
        assert!(to_request(&head, false).is_err(), "without an authority");
        head.fields.append("host", b"a");
        head.target = Target::new("/<".into());
        assert!(to_request(&head, false).is_err());
    }

    #[test]
    fn responses() {
        let with = |status: u16, headers: &[(&str, &str)]| {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            response(builder.body(()).unwrap())
        };
        let head = with(200, &[("content-length", "5"), ("server", "x")]).unwrap();
        assert_eq!((announced(&head.fields), head.version), (Some(5), Version::Http2));
        assert!(with(101, &[]).is_err());
        assert!(with(200, &[("content-length", "x")]).is_err());
        assert_eq!(with(200, &[("a", "b ")]).unwrap().fields.get("a"), Some(&b"b"[..]));
    }
}

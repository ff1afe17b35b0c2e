//! The messages of `h2`, which speaks to endpoints, as ours, and ours as those of `h2`. What HTTP/2 leaves to whoever reads a
//! message is checked here.

use bytes::BytesMut;
use http::uri::{Authority as UriAuthority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};

use super::request::CONNECTION;
use crate::http1::head::{HeadError, number};
use crate::message::fields::is_value;
use crate::message::known::Known;
use crate::message::{Fields, RequestHead, ResponseHead, Version};

use HeadError::Malformed;

/// Takes over all fields. White space around values is taken off, as in HTTP/1.
fn append(fields: &mut Fields, headers: &HeaderMap) -> Result<(), HeadError> {
    for (name, value) in headers {
        let text = value.as_bytes().trim_ascii();
        if !is_value(text) {
            return Err(Malformed("a header field's value has a character that is not allowed"));
        }
        fields.append(name.as_str(), text);
    }
    let te = fields.all(Known::Te).all(|value| value.eq_ignore_ascii_case(b"trailers"));
    if fields.any(CONNECTION) || !te {
        return Err(Malformed("the message has a field of an HTTP/1 connection"));
    }
    Ok(())
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
    append(&mut fields, &head.headers)?;
    length(&fields)?;
    Ok(ResponseHead { status: head.status, version: Version::Http2, fields })
}

/// What stands behind a body.
///
/// # Errors
/// As for requests.
pub fn trailers(map: &HeaderMap) -> Result<Fields, HeadError> {
    let mut fields = Fields::default();
    append(&mut fields, map)?;
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
    use crate::message::Target;

    #[test]
    fn an_extended_connect_asks_for_a_protocol() {
        let mut head = RequestHead::new(Method::GET, "/chat");
        head.fields.append(Known::Host, b"a");
        head.upgrade = Some("websocket".into());
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
        assert!(!to_trailers(&head.fields).contains_key("host"));
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

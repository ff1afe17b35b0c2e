//! The head of a client's request, put together field by field as they are decoded.

use http::Method;

use super::hpack::Field;
use crate::http1::head::{HeadError, Limits, number};
use crate::message::authority::Authority;
use crate::message::known::{self, Known};
use crate::message::{Fields, RequestHead, Target, Version};

use HeadError::{Malformed, TargetTooLong, TooLarge};

/// Fields that are about one HTTP/1 connection and make a message malformed here (RFC 9113, section 8.2.2).
pub const CONNECTION: u64 = known::set([
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// What a field counts beside its texts (RFC 9113, section 6.5.2).
const OVERHEAD: usize = 32;

/// A request on its way. What is wrong is noted, because the rest of the block has to be decoded all the same.
pub struct Draft {
    limits: Limits,
    method: Option<Method>,
    /// Whether it is `https`.
    scheme: Option<bool>,
    path: Option<String>,
    protocol: Option<Box<str>>,
    /// `:authority` was there; it is `host` now, the first of the fields.
    authority: bool,
    host: bool,
    fields: Fields,
    /// The crumbs of `cookie`, which become one field (RFC 9113, section 8.2.3).
    cookie: Option<Vec<u8>>,
    /// Other fields than pseudo-fields have begun.
    regular: bool,
    /// Bytes of all fields, as they are counted.
    size: usize,
    wrong: Option<HeadError>,
}

impl Draft {
    /// Nothing yet.
    pub fn new(limits: &Limits) -> Draft {
        Draft {
            limits: *limits,
            method: None,
            scheme: None,
            path: None,
            protocol: None,
            authority: false,
            host: false,
            // With what the gateway adds to a request.
            fields: Fields::with_capacity(512, 16),
            cookie: None,
            regular: false,
            size: 0,
            wrong: None,
        }
    }

    /// Takes the next field.
    pub fn field(&mut self, field: Field<'_>) {
        self.size += field.name.len() + field.value.len() + OVERHEAD;
        // A path that is too long is what is told of it, if it comes first.
        let long = field.name == b":path" && field.value.len() > self.limits.target;
        if self.wrong.is_some() {
            return;
        }
        if long {
            self.wrong = Some(TargetTooLong);
        } else if self.size > self.limits.head {
            self.wrong = Some(TooLarge);
        } else if let Err(error) = self.take(field) {
            self.wrong = Some(error);
        }
    }

    fn take(&mut self, field: Field<'_>) -> Result<(), HeadError> {
        if !field.sound {
            return Err(Malformed("a header field has a character that is not allowed"));
        }
        if let [b':', name @ ..] = field.name {
            return self.pseudo(name, field.value);
        }
        self.regular = true;
        match field.known {
            Known::Host => return self.host(field.value),
            Known::Cookie => match &mut self.cookie {
                Some(cookie) => {
                    cookie.extend_from_slice(b"; ");
                    cookie.extend_from_slice(field.value);
                }
                None => self.cookie = Some(field.value.to_vec()),
            },
            Known::Te if !field.value.eq_ignore_ascii_case(b"trailers") => {
                return Err(Malformed("the message has a field of an HTTP/1 connection"));
            }
            known => self.fields.append_known(known, field.name, field.value),
        }
        Ok(())
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        const TWICE: HeadError = Malformed("a pseudo-field is there twice");
        if self.regular {
            return Err(Malformed("a pseudo-field comes behind other fields"));
        }
        match name {
            b"method" => {
                let method = Method::from_bytes(value).map_err(|_| Malformed("the method is no token"))?;
                if self.method.replace(method).is_some() {
                    return Err(TWICE);
                }
            }
            b"path" => {
                let path = std::str::from_utf8(value).map_err(|_| Malformed("the request target is no path"))?;
                if self.path.replace(path.to_owned()).is_some() {
                    return Err(TWICE);
                }
            }
            b"scheme" => {
                let other = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
                if value.is_empty() || value.iter().any(other) {
                    return Err(Malformed("the scheme is none"));
                }
                if self.scheme.replace(value.eq_ignore_ascii_case(b"https")).is_some() {
                    return Err(TWICE);
                }
            }
            b"authority" => {
                if std::mem::replace(&mut self.authority, true) {
                    return Err(TWICE);
                }
                self.fields.append(Known::Host, value);
            }
            b"protocol" => {
                let protocol = std::str::from_utf8(value).ok().filter(|it| !it.is_empty() && it.is_ascii());
                let protocol = protocol.ok_or(Malformed("the protocol is none"))?;
                if self.protocol.replace(protocol.into()).is_some() {
                    return Err(TWICE);
                }
            }
            _ => return Err(Malformed("there is no such pseudo-field")),
        }
        Ok(())
    }

    /// `host`, which says once more what `:authority` says, or stands for it (RFC 9113, section 8.3.1).
    fn host(&mut self, host: &[u8]) -> Result<(), HeadError> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Malformed("the request has more than one host"));
        }
        if !self.authority {
            self.fields.append(Known::Host, host);
            return Ok(());
        }
        let authority = self.fields.get(Known::Host).unwrap_or_default();
        let port = if self.scheme == Some(true) { 443 } else { 80 };
        let same = authority == host
            || match (Authority::read(authority), Authority::read(host)) {
                (Ok(one), Ok(other)) => one.is_same(&other, port),
                _ => false,
            };
        if same { Ok(()) } else { Err(Malformed("the request's host is not its authority")) }
    }

    /// The request. An extended CONNECT (RFC 8441) becomes the GET with `upgrade` that it is in HTTP/1, so that routes and
    /// filters see one kind of WebSocket. `over`: there is no body.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] for what RFC 9113, section 8.1.1 calls so. [`HeadError::TooLarge`] and
    /// [`HeadError::TargetTooLong`] over the limits.
    pub fn finish(mut self, over: bool) -> Result<RequestHead, HeadError> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        let mut method = self.method.ok_or(Malformed("the request has no method"))?;
        let target = if method == Method::CONNECT && self.protocol.is_none() {
            // It has an authority and nothing else (RFC 9113, section 8.5); the request path refuses it.
            if !self.authority || self.scheme.is_some() || self.path.is_some() {
                return Err(Malformed("the request to connect is not one for an authority alone"));
            }
            Target::new(self.fields.text(Known::Host).unwrap_or_default().to_owned())
        } else {
            if self.scheme.is_none() {
                return Err(Malformed("the request has no scheme"));
            }
            if self.protocol.is_some() && std::mem::replace(&mut method, Method::GET) != Method::CONNECT {
                return Err(Malformed("the request has a protocol and does not connect"));
            }
            match self.path.ok_or(Malformed("the request has no path"))? {
                path if path == "*" && method == Method::OPTIONS => Target::new(path),
                path => Target::sendable(path).ok_or(Malformed("the request target is no path"))?,
            }
        };
        if !self.authority && !self.host {
            return Err(Malformed("the request has no authority"));
        }
        if let Some(cookie) = self.cookie {
            self.fields.append(Known::Cookie, &cookie);
        }
        if self.fields.any(CONNECTION) {
            return Err(Malformed("the message has a field of an HTTP/1 connection"));
        }
        if length(&self.fields)?.is_some_and(|length| over && length > 0) {
            return Err(Malformed("the message has no body, and a length"));
        }
        if self.fields.len() > self.limits.fields {
            return Err(TooLarge);
        }
        Ok(RequestHead { method, target, version: Version::Http2, fields: self.fields, upgrade: self.protocol })
    }
}

/// One length, in digits: here it must be what other readers take it for as well.
fn length(fields: &Fields) -> Result<Option<u64>, HeadError> {
    let mut lengths = fields.all(Known::ContentLength).map(number);
    let Some(first) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Malformed("the message has more than one length"));
    }
    first.map(Some).ok_or(Malformed("the message's length is no number"))
}

/// The fields behind a request's body, put together in the same way.
pub struct Trailers {
    most: usize,
    size: usize,
    fields: Fields,
    wrong: bool,
}

impl Trailers {
    /// Nothing yet. `most`: bytes of all of them.
    pub fn new(most: usize) -> Trailers {
        Trailers { most, size: 0, fields: Fields::default(), wrong: false }
    }

    /// Takes the next field.
    pub fn field(&mut self, field: Field<'_>) {
        self.size += field.name.len() + field.value.len() + OVERHEAD;
        self.wrong |= !field.sound || field.name.starts_with(b":") || self.size > self.most;
        self.wrong |= field.known == Known::Te || field.known != Known::Other && CONNECTION & field.known.bit() != 0;
        if !self.wrong {
            self.fields.append_known(field.known, field.name, field.value);
        }
    }

    /// All of them; none if they are malformed or too large.
    pub fn finish(self) -> Option<Fields> {
        (!self.wrong).then_some(self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hpack::Decoder;
    use super::*;

    const LIMITS: Limits = Limits { head: 2000, fields: 10, target: 50 };

    const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

    /// Each field in full.
    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in fields {
            out.push(0);
            for text in [name, value] {
                match text.len() {
                    short @ ..127 => out.push(short as u8),
                    long => out.extend([127, (long - 127) as u8 & 0x7f | 0x80, ((long - 127) >> 7) as u8]),
                }
                out.extend_from_slice(text.as_bytes());
            }
        }
        out
    }

    fn read(fields: &[(&str, &str)]) -> Result<RequestHead, HeadError> {
        let mut draft = Draft::new(&LIMITS);
        Decoder::default().decode(&block(fields), |field| draft.field(field)).unwrap();
        draft.finish(false)
    }

    fn with(more: &[(&str, &str)]) -> Result<RequestHead, HeadError> {
        read(&[&GOOD[..], more].concat())
    }

    fn instead(name: &str, value: &str) -> Result<RequestHead, HeadError> {
        read(&GOOD.map(|field| if field.0 == name { (field.0, value) } else { field }))
    }

    fn lines(fields: &Fields) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn a_request_is_put_together() {
        let fields = [
            (":path", "/a?b"),
            (":scheme", "https"),
            (":method", "PUT"),
            (":authority", "x:1"),
            ("accept", "*/*"),
            ("cookie", "a=1"),
            ("te", "trailers"),
            ("cookie", "b=2"),
            ("x-mine", "ä"),
        ];
        let head = read(&fields).unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.version), ("PUT", "/a?b", Version::Http2));
        assert_eq!(lines(&head.fields), ["host: x:1", "accept: */*", "te: trailers", "x-mine: ä", "cookie: a=1; b=2"]);
        assert_eq!(head.upgrade, None);
    }

    #[test]
    fn the_host_is_said_once() {
        let host = |scheme: &'static str, authority: Option<&'static str>, hosts: &[&'static str]| {
            let mut fields = vec![(":method", "GET"), (":scheme", scheme), (":path", "/")];
            fields.extend(authority.map(|it| (":authority", it)));
            fields.extend(hosts.iter().map(|host| ("host", *host)));
            read(&fields).map(|head| lines(&head.fields).join(","))
        };
        assert_eq!(host("http", None, &["b"]).unwrap(), "host: b");
        assert_eq!(host("http", Some("a"), &["A:80"]).unwrap(), "host: a");
        assert!(host("http", None, &[]).is_err());
        assert!(host("http", Some("a"), &["b"]).is_err());
        assert!(host("https", Some("a"), &["a:80"]).is_err());
        assert!(host("http", Some("a"), &["a", "a"]).is_err());
    }

    #[test]
    fn what_is_refused() {
        for field in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("te", "trailers, gzip"),
            ("x-mine", " a"),
            ("x-mine", "a\t"),
            ("X-Mine", "a"),
            ("content-length", "+1"),
            ("content-length", "1, 1"),
            ("content-length", ""),
            (":path", "/"),
            (":status", "200"),
            (":protocol", "websocket"),
        ] {
            let outcome = with(&[field]);
            assert!(matches!(outcome, Err(Malformed(_))), "{field:?}: {outcome:?}");
        }
        assert!(with(&[("content-length", "1"), ("content-length", "1")]).is_err());
        assert!(with(&[("x", "1"), (":authority", "a")]).is_err());
        for (name, value) in
            [(":path", ""), (":path", "x"), (":path", "*"), (":path", "/ "), (":method", "A B"), (":scheme", "")]
        {
            assert!(matches!(instead(name, value), Err(Malformed(_))), "{name} {value}");
        }
        for missing in 0..GOOD.len() {
            let fields: Vec<_> = (0..GOOD.len()).filter(|at| *at != missing).map(|at| GOOD[at]).collect();
            assert!(matches!(read(&fields), Err(Malformed(_))), "{missing}");
        }
        let mut draft = Draft::new(&LIMITS);
        Decoder::default()
            .decode(&block(&[&GOOD[..], &[("content-length", "1")]].concat()), |it| draft.field(it))
            .unwrap();
        assert!(draft.finish(true).is_err());
    }

    #[test]
    fn what_is_too_much() {
        let long = "x".repeat(60);
        assert_eq!(instead(":path", &format!("/{long}")).unwrap_err(), TargetTooLong);
        assert_eq!(with(&[("a", "b"); 10]).unwrap_err(), TooLarge);
        assert!(with(&[("a", "b"); 9]).is_ok());
        assert_eq!(with(&[("a", &*long.repeat(40))]).unwrap_err(), TooLarge);
        // Crumbs count as the one field that they are.
        assert!(with(&[("cookie", "b"); 20]).is_ok());
    }

    #[test]
    fn connecting() {
        let connect = [(":method", "CONNECT"), (":authority", "h:1")];
        assert_eq!(read(&connect).unwrap().target.as_str(), "h:1");
        assert!(read(&[&connect[..], &[(":path", "/")]].concat()).is_err());
        let extended = [(":protocol", "websocket"), (":scheme", "https"), (":path", "/chat")];
        let head = read(&[&connect[..], &extended].concat()).unwrap();
        assert_eq!((head.upgrade.as_deref(), head.target.as_str()), (Some("websocket"), "/chat"));
        assert_eq!((head.method, head.fields.len()), (Method::GET, 1));
        assert!(read(&[&connect[..], &extended[..2]].concat()).is_err(), "without a path");
        let options = [(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a"), (":path", "*")];
        assert_eq!(read(&options).unwrap().target.as_str(), "*");
    }

    #[test]
    fn trailers() {
        let read = |fields: &[(&str, &str)]| {
            let mut trailers = Trailers::new(500);
            Decoder::default().decode(&block(fields), |field| trailers.field(field)).unwrap();
            trailers.finish().map(|fields| lines(&fields))
        };
        assert_eq!(read(&[("x-end", "1"), ("date", "2")]).unwrap(), ["x-end: 1", "date: 2"]);
        for field in
            [(":path", "/"), ("connection", "close"), ("te", "trailers"), ("x", "a\n"), ("x", &"x".repeat(500))]
        {
            assert_eq!(read(&[("a", "b"), field]), None, "{field:?}");
        }
    }
}

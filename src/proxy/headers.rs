//! Which headers pass, which end here, and which the gateway adds.

use std::net::IpAddr;

use http::Method;

use crate::error::RequestError;
use crate::http1::encode;
use crate::message::authority::Authority;
use crate::message::forwarded::{Forwarding, Own, Peer, Proto, Received};
use crate::message::known::{self, Known};
use crate::message::names::{self, Verdict, is_only_from_proxies, stays_whatever_connection_says};
use crate::message::path::Policy;
use crate::message::{Fields, Length, RequestHead, ResponseHead, Target, Version};
use crate::snapshot::Rules;

/// Bytes of a request id that are accepted from a client: it goes into every log line.
const REQUEST_ID_LENGTH: usize = 128;

/// How often a request may have come through a Moongate: more is a loop, in which the gateway is its own endpoint.
const VIA: usize = 10;

/// How the gateway names itself in `Via`.
const PSEUDONYM: &str = "moongate";

/// Fields that are about one connection (RFC 9110, section 7.6.1), whether or not `Connection` names them.
const HOP_BY_HOP: u64 = known::set([
    Known::Connection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Te,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Http2Settings,
]);

/// A client, as endpoints are told of it; made once for a connection.
pub struct Client {
    /// Who it is.
    pub peer: Peer,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

impl Client {
    /// Whoever is at the other end of the connection.
    pub fn new(address: IpAddr, secure: bool, rules: &Rules) -> Client {
        Client { peer: Peer::new(address, |address| rules.trusts(address)), secure }
    }
}

/// A request's id.
pub enum RequestId {
    /// The client's own.
    Given(Box<str>),
    /// A new one.
    New([u8; 32]),
}

impl RequestId {
    /// The request's id: the client's own if it can be used, else a new one, which is then in the head as well.
    pub fn of(head: &mut RequestHead, rng: &mut fastrand::Rng) -> RequestId {
        let usable =
            |id: &&str| (1..=REQUEST_ID_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(id) = head.fields.text(Known::XRequestId).filter(usable) {
            return RequestId::Given(id.into());
        }
        let mut text = [0; 32];
        let bytes = [rng.u64(..).to_le_bytes(), rng.u64(..).to_le_bytes()];
        for (digits, byte) in text.chunks_exact_mut(2).zip(bytes.as_flattened()) {
            digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            digits[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        head.fields.set(Known::XRequestId, &text);
        RequestId::New(text)
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            RequestId::Given(id) => id.as_bytes(),
            RequestId::New(text) => text,
        }
    }
}

/// Makes it clear which host and path the request means, once for routes, filters and endpoints.
///
/// # Errors
/// What an endpoint might understand in another way than the routes do: an odd host (RFC 9112, section 3.2), a path that
/// the policy refuses; and what a gateway does not do: `CONNECT`, `TRACE`.
pub fn settle(head: &mut RequestHead, policy: &Policy) -> Result<(), RequestError> {
    if head.method == Method::TRACE || head.method == Method::CONNECT && head.upgrade.is_none() {
        return Err(RequestError::Method);
    }
    if let Some(host) = head.fields.get(Known::Host) {
        Authority::read(host).map_err(|refusal| RequestError::Malformed(refusal.phrase()))?;
    }
    if head.target.as_str() == "*" {
        let asterisk = RequestError::Malformed("the request target * is for OPTIONS alone");
        return if head.method == Method::OPTIONS { Ok(()) } else { Err(asterisk) };
    }
    if let Some(settled) = settled(policy, head.target.as_str().as_bytes())? {
        head.target = settled;
    }
    let ours = |value: &&[u8]| value.split(|byte| *byte == b' ').any(|word| word == PSEUDONYM.as_bytes());
    if head.fields.tokens(Known::Via).filter(ours).count() > VIA {
        return Err(RequestError::Loop);
    }
    Ok(())
}

/// A target as the policy has it; none if it is so already.
///
/// # Errors
/// If the policy refuses it.
pub fn settled(policy: &Policy, target: &[u8]) -> Result<Option<Target>, RequestError> {
    let read = policy.read(target).map_err(|refusal| RequestError::Malformed(refusal.phrase()))?;
    match read.into_text() {
        std::borrow::Cow::Borrowed(text) if text.len() == target.len() => Ok(None),
        text => Ok(Some(Target::new(text.into_owned()))),
    }
}

/// Takes out what only a trusted proxy may say, and says who asks for what instead. Gives the client's address.
///
/// # Errors
/// If a field's name could be taken for another.
pub fn introduce(head: &mut RequestHead, client: &Client, rules: &Rules) -> Result<IpAddr, RequestError> {
    screen(head, client, rules)?;
    if !client.peer.is_trusted() && !rules.forwarded {
        // What most requests need, without asking what others said.
        let proto = if client.secure { Proto::Https } else { Proto::Http };
        head.fields.set(Known::XForwardedFor, client.peer.text().as_bytes());
        head.fields.set(Known::XForwardedProto, proto.as_str().as_bytes());
        if !head.fields.copy(Known::Host, Known::XForwardedHost) {
            head.fields.remove(Known::XForwardedHost);
        }
        head.fields.remove(Known::Forwarded);
        return Ok(client.peer.address());
    }
    let own = Own { proto: if client.secure { Proto::Https } else { Proto::Http }, host: None };
    let host = head.fields.text(Known::Host).filter(|host| !host.is_empty()).map(str::to_owned);
    let own = Own { host: host.as_deref(), ..own };
    if client.peer.is_trusted() {
        let values = [Known::XForwardedFor, Known::XForwardedProto, Known::XForwardedHost, Known::Forwarded];
        let values = values.map(|name| head.fields.all(name).map(<[u8]>::to_vec).collect::<Vec<_>>());
        let values = values.each_ref().map(|values| values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let [x_forwarded_for, x_forwarded_proto, x_forwarded_host, forwarded] = values.each_ref().map(Vec::as_slice);
        let received = Received { x_forwarded_for, x_forwarded_proto, x_forwarded_host, forwarded };
        return tell(head, client, rules, own, &received);
    }
    tell(head, client, rules, own, &Received::default())
}

/// Takes out what only a trusted proxy may say, but for what the gateway says itself.
fn screen(head: &mut RequestHead, client: &Client, rules: &Rules) -> Result<(), RequestError> {
    let trusted = client.peer.is_trusted();
    let mut refused = false;
    if !head.fields.iter().all(names::is_plain) {
        head.fields.retain(|field| match rules.underscores.judge(field.name) {
            Verdict::Pass => trusted || !is_only_from_proxies(field.name),
            Verdict::Drop => false,
            Verdict::Refuse => {
                refused = true;
                false
            }
        });
    }
    if refused {
        return Err(RequestError::Malformed(names::REFUSED));
    }
    Ok(())
}

/// Says who asks for what.
fn tell(
    head: &mut RequestHead,
    client: &Client,
    rules: &Rules,
    own: Own<'_>,
    received: &Received<'_>,
) -> Result<IpAddr, RequestError> {
    let forwarding = Forwarding::new(&client.peer, own, received, |address| rules.trusts(address), rules.forwarded);
    head.fields.set(Known::XForwardedFor, forwarding.x_forwarded_for.as_bytes());
    head.fields.set(Known::XForwardedProto, forwarding.proto.as_str().as_bytes());
    match forwarding.host {
        Some(host) => head.fields.set(Known::XForwardedHost, host.as_bytes()),
        None => drop(head.fields.remove(Known::XForwardedHost)),
    }
    match forwarding.forwarded {
        Some(value) => head.fields.set(Known::Forwarded, value.as_bytes()),
        None => drop(head.fields.remove(Known::Forwarded)),
    }
    Ok(forwarding.client)
}

/// Whether the client waits to be told that it may send the body (RFC 9110, section 10.1.1).
///
/// # Errors
/// If it expects something else.
pub fn expects(head: &RequestHead) -> Result<bool, RequestError> {
    match head.fields.get(Known::Expect) {
        None => Ok(false),
        Some(_) if head.version == Version::Http10 => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(RequestError::Expectation),
    }
}

/// Makes a client's head one for an endpoint.
pub fn to_endpoint(head: &mut RequestHead, upload: Length, expects: bool) {
    let trailers = head.fields.tokens(Known::Te).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(&mut head.fields);
    if trailers {
        head.fields.append(Known::Te, b"trailers");
        head.fields.append(Known::Connection, b"te");
    }
    if !expects {
        head.fields.remove(Known::Expect);
    }
    if let Some(protocol) = &head.upgrade {
        head.fields.set(Known::Connection, b"upgrade");
        head.fields.set(Known::Upgrade, protocol.as_bytes());
    }
    // HTTP/1.0 may leave it out, HTTP/1.1 may leave it empty.
    if !head.fields.contains(Known::Host) {
        head.fields.append(Known::Host, b"");
    }
    let via = match head.version {
        Version::Http10 => "1.0 moongate",
        Version::Http11 => "1.1 moongate",
        Version::Http2 => "2 moongate",
    };
    head.fields.append(Known::Via, via.as_bytes());
    frame(head, upload);
}

/// Says anew how long the body is, which filters have changed or may change on its way.
pub fn reframe(head: &mut RequestHead, upload: Length) {
    head.fields.remove(Known::TransferEncoding);
    frame(head, upload);
}

/// Says how long the body is, where there is one or might be expected to be one (RFC 9110, section 8.6).
fn frame(head: &mut RequestHead, upload: Length) {
    let body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
    match upload {
        Length::Known(0) if !body && !head.fields.contains(Known::ContentLength) => {}
        Length::Known(length) => head.fields.set(Known::ContentLength, encode::itoa(length, &mut [0; 20])),
        Length::Unknown => {
            head.fields.remove(Known::ContentLength);
            head.fields.append(Known::TransferEncoding, b"chunked");
        }
    }
}

/// Makes an endpoint's head one for the client.
pub fn to_client(head: &mut ResponseHead) {
    let protocol = match head.status {
        http::StatusCode::SWITCHING_PROTOCOLS => head.fields.get(Known::Upgrade).map(<[u8]>::to_vec),
        _ => None,
    };
    strip_hop_by_hop(&mut head.fields);
    if let Some(protocol) = protocol {
        head.fields.set(Known::Connection, b"upgrade");
        head.fields.set(Known::Upgrade, &protocol);
    }
}

/// Makes an endpoint's interim head one for the client: nothing of it frames anything.
pub fn interim_to_client(head: &mut ResponseHead) {
    strip_hop_by_hop(&mut head.fields);
    head.fields.remove(Known::ContentLength);
}

/// Takes out of the fields behind a body what must stand before it (RFC 9110, section 6.5.1).
pub fn trailers(fields: &mut Fields) {
    fields.retain(|field| names::may_be_trailer(field.name));
}

/// Takes out what is about one connection, and what `Connection` names.
fn strip_hop_by_hop(fields: &mut Fields) {
    if !fields.any(HOP_BY_HOP) {
        return;
    }
    // What nearly all that stands there is.
    let says = |token: &[u8]| token.eq_ignore_ascii_case(b"close");
    let closes = fields.tokens(Known::Connection).any(says);
    let named: Vec<Vec<u8>> = fields
        .tokens(Known::Connection)
        .filter(|token| !says(token) && HOP_BY_HOP & Known::of(token).bit() == 0)
        .filter(|token| !stays_whatever_connection_says(token))
        .map(<[u8]>::to_vec)
        .collect();
    if closes {
        fields.remove(&b"close"[..]);
    }
    for name in &named {
        fields.remove(&name[..]);
    }
    fields.remove_known(HOP_BY_HOP);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new(Method::GET, "/");
        fields.iter().for_each(|(name, value)| head.fields.append(*name, value.as_bytes()));
        head
    }

    fn text(fields: &Fields) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut all: Vec<_> =
            fields.iter().map(|field| format!("{}: {}", text(field.name), text(field.value))).collect();
        all.sort();
        all
    }

    fn introduced(fields: &[(&str, &str)], trusted: &[&str]) -> Result<(String, RequestHead), RequestError> {
        let mut head = head(fields);
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let rules = Rules { trusted, ..Rules::default() };
        let client = Client::new("192.0.2.7".parse().unwrap(), false, &rules);
        introduce(&mut head, &client, &rules).map(|address| (address.to_string(), head))
    }

    #[test]
    fn a_strangers_word_on_itself_is_replaced_and_a_proxys_taken() {
        let sent =
            [("host", "a"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https"), ("x-real-ip", "1.1.1.1")];
        let (client, head) = introduced(&sent, &[]).unwrap();
        assert_eq!(client, "192.0.2.7");
        assert_eq!(
            text(&head.fields),
            ["host: a", "x-forwarded-for: 192.0.2.7", "x-forwarded-host: a", "x-forwarded-proto: http"]
        );
        let (client, head) = introduced(&sent, &["192.0.2.0/24"]).unwrap();
        assert_eq!(client, "10.0.0.1");
        assert_eq!(head.fields.text(Known::XForwardedFor), Some("10.0.0.1, 192.0.2.7"));
        assert_eq!(head.fields.text(Known::XForwardedProto), Some("https"));
        assert!(introduced(&[("x_forwarded_for", "10.0.0.1")], &[]).is_err());
    }

    #[test]
    fn what_is_about_one_connection_ends_here() {
        let mut request = head(&[
            ("host", "example.org"),
            ("connection", "close, X-Mine , host"),
            ("connection", "content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("content-length", "0"),
            ("expect", "100-continue"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        to_endpoint(&mut request, Length::Known(0), false);
        assert_eq!(
            text(&request.fields),
            ["accept: */*", "content-length: 0", "host: example.org", "via: 1.1 moongate",]
        );
    }

    #[test]
    fn trailers_and_upgrades_are_asked_for_again() {
        let mut request = head(&[("host", "x"), ("te", "trailers, deflate"), ("connection", "te")]);
        to_endpoint(&mut request, Length::Unknown, true);
        assert_eq!(request.fields.text(Known::Te), Some("trailers"));
        assert_eq!(request.fields.text(Known::Connection), Some("te"));
        assert_eq!(request.fields.text(Known::TransferEncoding), Some("chunked"));

        let mut request = head(&[("host", "x"), ("connection", "x, Upgrade"), ("upgrade", "websocket"), ("x", "y")]);
        request.upgrade = Some("websocket".into());
        to_endpoint(&mut request, Length::Known(0), false);
        assert_eq!(request.fields.text(Known::Connection), Some("upgrade"));
        assert_eq!(request.fields.text(Known::Upgrade), Some("websocket"));
        assert!(!request.fields.contains("x"));
    }

    #[test]
    fn what_can_be_misunderstood_is_refused() {
        let outcome = |fields: &[(&str, &str)], target: &str| {
            let mut head = head(fields);
            head.target = Target::new(target.into());
            settle(&mut head, &Policy::default()).map(|()| head.target.as_str().to_owned()).ok()
        };
        let host = [("host", "x")];
        for (fields, target, settled) in [
            (&host[..], "/a/b.c/..d/...", Some("/a/b.c/..d/...")),
            (&host, "/%61//b?c=/../d", Some("/a/b?c=/../d")),
            (&[("host", "a@x")], "/", None),
            (&[("host", "")], "/", None),
            (&host, "/a/../b", None),
            (&host, "/a/%2e%2E/b", None),
            (&host, "*", None),
        ] {
            assert_eq!(outcome(fields, target).as_deref(), settled, "{fields:?} {target}");
        }
        let mut looping = head(&[("via", &["1.1 moongate"; 11].join(", "))]);
        assert!(matches!(settle(&mut looping, &Policy::default()), Err(RequestError::Loop)));
    }

    #[test]
    fn a_request_keeps_its_id_if_it_has_a_usable_one() {
        let mut rng = fastrand::Rng::with_seed(7);
        for (given, kept) in [("abc-1", true), ("", false), ("a b", false), (&*"x".repeat(129), false)] {
            let mut request = head(&[("x-request-id", given)]);
            let id = RequestId::of(&mut request, &mut rng);
            assert_eq!(id.text() == given, kept, "{given:?} became {}", id.text());
            assert_eq!(request.fields.text(Known::XRequestId), Some(id.text()));
        }
    }
}

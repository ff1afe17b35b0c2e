//! Names of fields that strangers could misuse: look-alikes, fields that must not come late, fields that must not be
//! taken away, and fields that only proxies may set.
//!
//! Which fields are about one connection is not here, nor what becomes of them.

use super::Field;
use super::known::{self, Known};

/// What is done with field names that have a `_`.
///
/// CGI, and with it PHP, WSGI, Rack and others, make `HTTP_X_REQUEST_ID` of `x-request-id` and of `x_request_id` alike
/// (RFC 3875, section 4.1.18); so an endpoint may take the one for the other, which no proxy has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// A name that looks like one of those that the gateway reads or writes is refused, others pass.
    #[default]
    Guard,
    /// All pass.
    Pass,
    /// Fields with such names are left out.
    Drop,
    /// A request with such a name is refused.
    Refuse,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on.
    Pass,
    /// It is left out.
    Drop,
    /// The whole request is refused.
    Refuse,
}

/// What the client is told of a refused name.
pub const REFUSED: &str = "the request has a header name with an underscore that could be taken for another name";

/// The header routes' own names, see [`crate::routes`], which came with an underscore into the world.
const OURS: [&[u8]; 2] = [b"service_name", b"api_name"];

/// Longer names than any that is listed here are none of them.
const LONGEST: usize = 32;

impl Underscores {
    /// What becomes of a field of this name, in any case. Cheap for a name without `_`; those two that choose
    /// service and path in header routes always pass.
    pub fn judge(self, name: &[u8]) -> Verdict {
        if !name.contains(&b'_') || OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            return Verdict::Pass;
        }
        match self {
            Underscores::Guard if folded(name, is_guarded) => Verdict::Refuse,
            Underscores::Guard | Underscores::Pass => Verdict::Pass,
            Underscores::Drop => Verdict::Drop,
            Underscores::Refuse => Verdict::Refuse,
        }
    }
}

/// Whether a field of this name, in any case and with `_` or `-`, may come after a body, where nobody looks at it
/// before the body has been acted on (RFC 9110, section 6.5.1). What is not known may: gRPC's status does.
pub fn may_be_trailer(name: &[u8]) -> bool {
    !folded(name, |name| is_guarded(name) || is_proxys(name) || is_of_the_head(name))
}

/// Whether a field of this name stays although `Connection` names it: by these the gateway frames the message, finds
/// the route and says who the client is. By the book a sender may not name them (RFC 9110, section 7.6.1), and who
/// does wants an endpoint not to know of them. Others go, as the sender wants, also `cookie` and `authorization`.
pub fn stays_whatever_connection_says(name: &[u8]) -> bool {
    folded(name, |name| matches!(name, b"host" | b"content-length" | b"x-request-id") || is_proxys(name))
}

/// Whether only a trusted proxy may send a field of this name, in any case and with `_` or `-`: what others send is
/// dropped before the gateway adds its own.
///
/// Beside what the gateway itself sends, these are names in wide use for the client's address, which endpoints
/// believe; for the path, which would then be another than the one that was matched; and `proxy`, which CGI makes the
/// setting `HTTP_PROXY` of (CVE-2016-5385).
pub fn is_only_from_proxies(name: &[u8]) -> bool {
    folded(name, |name| is_proxys(name) && name != b"via")
}

/// Whether there is surely nothing to say against a field's name, as is so of most: it has no `_`, and is none that only
/// proxies may send.
pub fn is_plain(field: Field<'_>) -> bool {
    const PROXYS: u64 =
        known::set([Known::Forwarded, Known::XForwardedFor, Known::XForwardedHost, Known::XForwardedProto]);
    match (field.known, field.name) {
        (Known::Other, name) if name.contains(&b'_') => false,
        // What these begin with.
        (Known::Other, name @ [b'c' | b'f' | b'p' | b't' | b'x' | b'C' | b'F' | b'P' | b'T' | b'X', ..]) => {
            !is_only_from_proxies(name)
        }
        (Known::Other, _) => true,
        (known, _) => known.bit() & PROXYS == 0,
    }
}

/// Gives `judge` the name in lower case with `-` for each `_`; false if it is too long to be of interest.
fn folded(name: &[u8], judge: impl FnOnce(&[u8]) -> bool) -> bool {
    let mut buffer = [0; LONGEST];
    // A long name may begin with one of the prefixes.
    let length = name.len().min(LONGEST);
    for (to, from) in buffer.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { from.to_ascii_lowercase() };
    }
    judge(&buffer[..length])
}

/// Names that a look-alike could be taken for. Those without a `-` have none and are not listed.
fn is_guarded(name: &[u8]) -> bool {
    is_proxys(name)
        || matches!(
            name,
            // Where a body ends and what it is.
            b"content-length" | b"content-type" | b"content-encoding" | b"transfer-encoding"
            // What is about one connection, and removed under its right name.
            | b"keep-alive" | b"proxy-connection" | b"proxy-authenticate" | b"proxy-authorization" | b"http2-settings"
            // What identifies the request in logs.
            | b"x-request-id"
        )
}

/// Names by which proxies tell endpoints of a request.
fn is_proxys(name: &[u8]) -> bool {
    name.starts_with(b"x-forwarded-")
        || name.starts_with(b"x-original-")
        || matches!(
            name,
            b"forwarded" | b"via" | b"proxy"
            // The client's address, as nginx, Akamai, Cloudflare, Fastly, AWS and Azure call it.
            | b"x-real-ip" | b"x-client-ip" | b"true-client-ip" | b"cf-connecting-ip" | b"fastly-client-ip"
            | b"x-cluster-client-ip" | b"x-azure-clientip" | b"x-azure-socketip" | b"x-remote-ip" | b"x-remote-addr"
            // The path, as IIS and Symfony call it.
            | b"x-rewrite-url"
        )
}

/// Names that say how a message is to be taken, and so have to be there before it.
fn is_of_the_head(name: &[u8]) -> bool {
    name.starts_with(b"if-")
        || name.starts_with(b"content-")
        || name.starts_with(b"sec-websocket-")
        || matches!(
            name,
            // Framing and routing.
            b"host" | b"connection" | b"te" | b"trailer" | b"upgrade" | b"service-name" | b"api-name"
            // Who asks.
            | b"authorization" | b"cookie" | b"set-cookie" | b"set-cookie2" | b"www-authenticate"
            | b"authentication-info" | b"proxy-authentication-info" | b"origin"
            // Request modifiers.
            | b"cache-control" | b"expect" | b"max-forwards" | b"pragma" | b"range" | b"accept-ranges" | b"prefer"
            // What a response is and how long.
            | b"age" | b"date" | b"expires" | b"location" | b"retry-after" | b"vary" | b"warning" | b"refresh"
            | b"clear-site-data" | b"strict-transport-security" | b"alt-svc"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Underscores; 4] = [Underscores::Guard, Underscores::Pass, Underscores::Drop, Underscores::Refuse];

    /// Every way to write `_` for some of the `-`.
    fn look_alikes(name: &str) -> Vec<String> {
        let dashes: Vec<usize> = name.match_indices('-').map(|it| it.0).collect();
        let all = (1..1u32 << dashes.len()).map(|chosen| {
            let mut bytes = name.as_bytes().to_vec();
            let chosen = dashes.iter().enumerate().filter(|it| chosen & (1 << it.0) != 0);
            chosen.for_each(|(_, at)| bytes[*at] = b'_');
            String::from_utf8(bytes).unwrap()
        });
        all.flat_map(|it| [it.to_uppercase(), it]).collect()
    }

    #[test]
    fn look_alikes_of_what_the_gateway_manages_are_refused() {
        for name in [
            "content-length",
            "transfer-encoding",
            "content-type",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "http2-settings",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-anything-at-all",
            "x-forwarded-a-name-that-is-much-longer-than-any-other",
            "x-request-id",
            "x-real-ip",
            "x-original-url",
        ] {
            assert!(!look_alikes(name).is_empty());
            for alike in look_alikes(name) {
                let verdicts = ALL.map(|it| it.judge(alike.as_bytes()));
                assert_eq!(verdicts, [Verdict::Refuse, Verdict::Pass, Verdict::Drop, Verdict::Refuse], "{alike}");
            }
            assert_eq!(ALL.map(|it| it.judge(name.as_bytes())), [Verdict::Pass; 4], "{name}");
        }
    }

    #[test]
    fn other_names_pass_unless_none_may() {
        for name in ["x_mine", "_", "__", "a_b-c", "content_length_", "_content_length", "x_forwarded", "X_REQUEST"] {
            let verdicts = ALL.map(|it| it.judge(name.as_bytes()));
            assert_eq!(verdicts, [Verdict::Pass, Verdict::Pass, Verdict::Drop, Verdict::Refuse], "{name}");
        }
        for name in ["service_name", "API_NAME", "host", "", "x-mine"] {
            assert_eq!(ALL.map(|it| it.judge(name.as_bytes())), [Verdict::Pass; 4], "{name}");
        }
        assert_eq!(Underscores::Drop.judge(b"service-name_"), Verdict::Drop);
    }

    #[test]
    fn nothing_can_be_said_against_plain_names() {
        let mut plain = 0;
        for name in [
            "host",
            "via",
            "Cookie",
            "content-type",
            "accept",
            "user-agent",
            "x-real-ip",
            "X-Forwarded-For",
            "forwarded",
            "x-original-a",
            "Proxy",
            "true-client-ip",
            "CF-Connecting-IP",
            "fastly-client-ip",
            "a_b",
            "_",
            "authorization",
            "x-request-id",
            "content_length",
            "te",
        ] {
            let field = Field { known: Known::of(name.as_bytes()), name: name.as_bytes(), value: b"" };
            if is_plain(field) {
                plain += 1;
                assert_eq!(ALL.map(|it| it.judge(field.name)), [Verdict::Pass; 4], "{name}");
                assert!(!is_only_from_proxies(field.name), "{name}");
            }
        }
        assert_eq!(plain, 9);
    }

    #[test]
    fn some_fields_come_before_a_body_or_not_at_all() {
        for name in
            ["grpc-status", "Grpc-Message", "grpc-status-details-bin", "x-checksum", "etag", "server-timing", "digest"]
        {
            assert!(may_be_trailer(name.as_bytes()), "{name}");
        }
        for name in [
            "Content-Length",
            "transfer-encoding",
            "host",
            "authorization",
            "Set-Cookie",
            "cookie",
            "te",
            "trailer",
            "connection",
            "upgrade",
            "expect",
            "range",
            "cache-control",
            "content-type",
            "content-encoding",
            "content-range",
            "content-anything",
            "if-match",
            "x-forwarded-for",
            "forwarded",
            "via",
            "x-request-id",
            "location",
            "sec-websocket-key",
            "service_name",
            "proxy-authorization",
        ] {
            assert!(!may_be_trailer(name.as_bytes()), "{name}");
            look_alikes(name).iter().for_each(|it| assert!(!may_be_trailer(it.as_bytes()), "{it}"));
        }
    }

    #[test]
    fn what_connection_cannot_take_away() {
        for (name, stays) in [
            ("host", true),
            ("Content-Length", true),
            ("X-Forwarded-For", true),
            ("forwarded", true),
            ("x-request-id", true),
            ("x-real-ip", true),
            ("via", true),
            ("x-mine", false),
            ("cookie", false),
            ("authorization", false),
            ("te", false),
            ("keep-alive", false),
            ("cache-control", false),
        ] {
            assert_eq!(stays_whatever_connection_says(name.as_bytes()), stays, "{name}");
        }
    }

    #[test]
    fn what_only_proxies_say() {
        for (name, only) in [
            ("x-forwarded-for", true),
            ("X-Forwarded-Prefix", true),
            ("x_forwarded_port", true),
            ("forwarded", true),
            ("x-real-ip", true),
            ("x-original-url", true),
            ("x-rewrite-url", true),
            ("Proxy", true),
            ("via", false),
            ("x-forwarded", false),
            ("x-request-id", false),
            ("content-length", false),
            ("proxy-authorization", false),
            ("", false),
        ] {
            assert_eq!(is_only_from_proxies(name.as_bytes()), only, "{name}");
        }
    }

    #[test]
    fn no_listed_name_is_cut() {
        // The longest that is compared as a whole.
        let longest = "proxy-authentication-info";
        assert!(longest.len() < LONGEST && !may_be_trailer(longest.as_bytes()));
        let cut = format!("{longest}{}", "x".repeat(LONGEST));
        assert!(may_be_trailer(cut.as_bytes()));
    }
}

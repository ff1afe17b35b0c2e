//! The names of header fields that the gateway itself reads, writes or takes out.

/// A field name as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// Any name that is not in this list.
    Other,
    /// `host`.
    Host,
    /// `connection`.
    Connection,
    /// `content-length`.
    ContentLength,
    /// `transfer-encoding`.
    TransferEncoding,
    /// `te`.
    Te,
    /// `trailer`.
    Trailer,
    /// `upgrade`.
    Upgrade,
    /// `keep-alive`.
    KeepAlive,
    /// `proxy-connection`.
    ProxyConnection,
    /// `proxy-authenticate`.
    ProxyAuthenticate,
    /// `proxy-authorization`.
    ProxyAuthorization,
    /// `http2-settings`.
    Http2Settings,
    /// `expect`.
    Expect,
    /// `via`.
    Via,
    /// `forwarded`.
    Forwarded,
    /// `x-forwarded-for`.
    XForwardedFor,
    /// `x-forwarded-host`.
    XForwardedHost,
    /// `x-forwarded-proto`.
    XForwardedProto,
    /// `x-request-id`.
    XRequestId,
    /// `accept`.
    Accept,
    /// `content-type`.
    ContentType,
    /// `cookie`.
    Cookie,
    /// `date`.
    Date,
    /// `server`.
    Server,
    /// `retry-after`.
    RetryAfter,
    /// `allow`.
    Allow,
    /// `sec-websocket-key`.
    WebSocketKey,
    /// `sec-websocket-accept`.
    WebSocketAccept,
    /// `sec-websocket-version`.
    WebSocketVersion,
}

/// The names in the order of [`Known`].
const NAMES: [(&str, Known); 30] = [
    ("", Known::Other),
    ("host", Known::Host),
    ("connection", Known::Connection),
    ("content-length", Known::ContentLength),
    ("transfer-encoding", Known::TransferEncoding),
    ("te", Known::Te),
    ("trailer", Known::Trailer),
    ("upgrade", Known::Upgrade),
    ("keep-alive", Known::KeepAlive),
    ("proxy-connection", Known::ProxyConnection),
    ("proxy-authenticate", Known::ProxyAuthenticate),
    ("proxy-authorization", Known::ProxyAuthorization),
    ("http2-settings", Known::Http2Settings),
    ("expect", Known::Expect),
    ("via", Known::Via),
    ("forwarded", Known::Forwarded),
    ("x-forwarded-for", Known::XForwardedFor),
    ("x-forwarded-host", Known::XForwardedHost),
    ("x-forwarded-proto", Known::XForwardedProto),
    ("x-request-id", Known::XRequestId),
    ("accept", Known::Accept),
    ("content-type", Known::ContentType),
    ("cookie", Known::Cookie),
    ("date", Known::Date),
    ("server", Known::Server),
    ("retry-after", Known::RetryAfter),
    ("allow", Known::Allow),
    ("sec-websocket-key", Known::WebSocketKey),
    ("sec-websocket-accept", Known::WebSocketAccept),
    ("sec-websocket-version", Known::WebSocketVersion),
];

impl Known {
    /// A name's number, whatever its case.
    pub fn of(name: &[u8]) -> Known {
        // By length first: of the names that come with every request, most are known by it or by one comparison.
        let candidates: &[Known] = match name.len() {
            2 => &[Known::Te],
            3 => &[Known::Via],
            4 => &[Known::Host, Known::Date],
            5 => &[Known::Allow],
            6 => &[Known::Accept, Known::Cookie, Known::Server, Known::Expect],
            7 => &[Known::Upgrade, Known::Trailer],
            9 => &[Known::Forwarded],
            10 => &[Known::Connection, Known::KeepAlive],
            11 => &[Known::RetryAfter],
            12 => &[Known::ContentType, Known::XRequestId],
            14 => &[Known::ContentLength, Known::Http2Settings],
            15 => &[Known::XForwardedFor],
            16 => &[Known::ProxyConnection, Known::XForwardedHost],
            17 => &[Known::TransferEncoding, Known::XForwardedProto, Known::WebSocketKey],
            18 => &[Known::ProxyAuthenticate],
            19 => &[Known::ProxyAuthorization],
            20 => &[Known::WebSocketAccept],
            21 => &[Known::WebSocketVersion],
            _ => &[],
        };
        let found = candidates.iter().find(|it| it.name().as_bytes().eq_ignore_ascii_case(name));
        found.copied().unwrap_or(Known::Other)
    }

    /// The name in lower case; empty for [`Known::Other`].
    pub fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// Its bit in a set of names.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// A set of names.
pub const fn set<const N: usize>(names: [Known; N]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < N {
        bits |= names[at].bit();
        at += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_itself_in_any_case() {
        for (at, (name, known)) in NAMES.iter().enumerate() {
            assert_eq!(*known as usize, at, "{name}");
            assert_eq!(Known::of(name.as_bytes()), *known, "{name}");
            assert_eq!(Known::of(name.to_uppercase().as_bytes()), *known, "{name}");
            assert_eq!(Known::of(format!("{name}x").as_bytes()), Known::Other, "{name}");
        }
    }
}

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
    /// `user-agent`.
    UserAgent,
    /// `referer`.
    Referer,
}

/// The names in the order of [`Known`].
const NAMES: [(&str, Known); 32] = [
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
    ("user-agent", Known::UserAgent),
    ("referer", Known::Referer),
];

/// A name in words of eight bytes, the last of which may overlap the one before, for names of at least eight bytes; and in
/// which bits of each the case is.
struct Folded {
    text: &'static str,
    words: [u64; 3],
    cases: [u64; 3],
}

static FOLDED: [Folded; NAMES.len()] = {
    const NONE: Folded = Folded { text: "", words: [0; 3], cases: [0; 3] };
    let mut all = [NONE; NAMES.len()];
    let mut at = 0;
    while at < NAMES.len() {
        all[at] = Folded::new(NAMES[at].0);
        at += 1;
    }
    all
};

impl Folded {
    const fn new(text: &'static str) -> Folded {
        let (mut words, mut cases) = ([0; 3], [0; 3]);
        let bytes = text.as_bytes();
        let mut word = 0;
        while word < 3 && bytes.len() >= 8 {
            let mut at = 0;
            while at < 8 {
                let byte = bytes[Folded::start(bytes.len(), word) + at];
                words[word] |= (byte as u64) << (8 * at);
                if byte.is_ascii_lowercase() {
                    cases[word] |= 0x20 << (8 * at);
                }
                at += 1;
            }
            word += 1;
        }
        Folded { text, words, cases }
    }

    /// Where a word begins.
    const fn start(length: usize, word: usize) -> usize {
        let last = length - 8;
        if word * 8 < last { word * 8 } else { last }
    }

    /// Whether it is this name, in any case.
    fn is(&self, name: &[u8]) -> bool {
        if name.len() < 8 || name.len() > 24 || name.len() != self.text.len() {
            return self.text.as_bytes().eq_ignore_ascii_case(name);
        }
        (0..3).all(|word| {
            let here = name[Folded::start(name.len(), word)..].first_chunk::<8>();
            here.is_some_and(|here| u64::from_le_bytes(*here) | self.cases[word] == self.words[word])
        })
    }
}

impl Known {
    /// A name's number, whatever its case.
    pub fn of(name: &[u8]) -> Known {
        // By length and first letter there is one candidate at most, and for most names that come with every message none.
        let Some(first) = name.first() else { return Known::Other };
        let candidate = match (name.len(), first | 0x20) {
            (2, b't') => Known::Te,
            (3, b'v') => Known::Via,
            (4, b'h') => Known::Host,
            (4, b'd') => Known::Date,
            (5, b'a') => Known::Allow,
            (6, b'a') => Known::Accept,
            (6, b'c') => Known::Cookie,
            (6, b's') => Known::Server,
            (6, b'e') => Known::Expect,
            (7, b'u') => Known::Upgrade,
            (7, b't') => Known::Trailer,
            (7, b'r') => Known::Referer,
            (9, b'f') => Known::Forwarded,
            (10, b'c') => Known::Connection,
            (10, b'k') => Known::KeepAlive,
            (10, b'u') => Known::UserAgent,
            (11, b'r') => Known::RetryAfter,
            (12, b'c') => Known::ContentType,
            (12, b'x') => Known::XRequestId,
            (14, b'c') => Known::ContentLength,
            (14, b'h') => Known::Http2Settings,
            (15, b'x') => Known::XForwardedFor,
            (16, b'p') => Known::ProxyConnection,
            (16, b'x') => Known::XForwardedHost,
            (17, b't') => Known::TransferEncoding,
            (17, b'x') => Known::XForwardedProto,
            (17, b's') => Known::WebSocketKey,
            (18, b'p') => Known::ProxyAuthenticate,
            (19, b'p') => Known::ProxyAuthorization,
            (20, b's') => Known::WebSocketAccept,
            (21, b's') => Known::WebSocketVersion,
            _ => return Known::Other,
        };
        if FOLDED[candidate as usize].is(name) { candidate } else { Known::Other }
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
            for place in 0..name.len() {
                for bit in [0x01, 0x02, 0x04, 0x08, 0x10, 0x40, 0x80] {
                    let mut other = name.as_bytes().to_vec();
                    other[place] ^= bit;
                    assert_ne!(Known::of(&other), *known, "{name} with bit {bit} of {place} changed");
                }
            }
        }
    }
}

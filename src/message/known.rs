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
    /// `traceparent`.
    TraceParent,
    /// `tracestate`.
    TraceState,
}

/// The names in the order of [`Known`].
const NAMES: [(&str, Known); 34] = [
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
    ("traceparent", Known::TraceParent),
    ("tracestate", Known::TraceState),
];

/// A name in words that may overlap, as long as it has room for (see [`Folded::width`]), and in which bits of each the case
/// is.
struct Folded {
    length: usize,
    words: [u64; 3],
    cases: [u64; 3],
}

static FOLDED: [Folded; NAMES.len()] = {
    const NONE: Folded = Folded { length: 0, words: [0; 3], cases: [0; 3] };
    let mut all = [NONE; NAMES.len()];
    let mut at = 0;
    while at < NAMES.len() {
        all[at] = Folded::new(NAMES[at].0.as_bytes());
        at += 1;
    }
    all
};

/// The longest name.
const LONGEST: usize = 24;

/// The only name of a length, whose first letter has these lower five bits, that it may be.
static CANDIDATES: [[Known; 32]; LONGEST + 1] = {
    let mut all = [[Known::Other; 32]; LONGEST + 1];
    let mut at = 1;
    while at < NAMES.len() {
        let (name, known) = (NAMES[at].0.as_bytes(), NAMES[at].1);
        let place = &mut all[name.len()][(name[0] & 31) as usize];
        assert!(matches!(place, Known::Other), "two names of one length begin with one letter");
        *place = known;
        at += 1;
    }
    all
};

impl Folded {
    const fn new(name: &[u8]) -> Folded {
        let (mut words, mut cases) = ([0; 3], [0; 3]);
        let width = Folded::width(name.len());
        let mut word = 0;
        while word < 3 && width > 0 {
            let mut at = 0;
            while at < width {
                let byte = name[Folded::start(name.len(), width, word) + at];
                words[word] |= (byte as u64) << (8 * at);
                if byte.is_ascii_lowercase() {
                    cases[word] |= 0x20 << (8 * at);
                }
                at += 1;
            }
            word += 1;
        }
        Folded { length: name.len(), words, cases }
    }

    /// Bytes of a word of a name that has so many.
    const fn width(length: usize) -> usize {
        match length {
            0 | 1 => 0,
            2 | 3 => 2,
            4..8 => 4,
            _ => 8,
        }
    }

    /// Where a word begins.
    const fn start(length: usize, width: usize, word: usize) -> usize {
        let last = length - width;
        if word * width < last { word * width } else { last }
    }

    /// Whether it is this name, in any case.
    fn is(&self, name: &[u8]) -> bool {
        let length = name.len();
        let last = |width: usize| length.wrapping_sub(width);
        let same = |word: usize, here: Option<u64>| here.is_some_and(|it| it | self.cases[word] == self.words[word]);
        if length != self.length {
            return false;
        }
        match Folded::width(length) {
            8 => {
                let at = |at: usize| name.get(at..)?.first_chunk().map(|it| u64::from_le_bytes(*it));
                same(0, at(0)) && same(1, at(last(8).min(8))) && same(2, at(last(8).min(16)))
            }
            4 => {
                let at = |at: usize| name.get(at..)?.first_chunk().map(|it| u32::from_le_bytes(*it).into());
                same(0, at(0)) && same(1, at(last(4)))
            }
            2 => {
                let at = |at: usize| name.get(at..)?.first_chunk().map(|it| u16::from_le_bytes(*it).into());
                same(0, at(0)) && same(1, at(last(2)))
            }
            _ => false,
        }
    }
}

impl Known {
    /// A name's number, whatever its case.
    pub fn of(name: &[u8]) -> Known {
        let (Some(first), Some(candidates)) = (name.first(), CANDIDATES.get(name.len())) else { return Known::Other };
        // For most names that come with every message there is none.
        let candidate = candidates[usize::from(first & 31)];
        let known = candidate != Known::Other && FOLDED[candidate as usize].is(name);
        if known { candidate } else { Known::Other }
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

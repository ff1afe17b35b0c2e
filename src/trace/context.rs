//! `traceparent`, as the W3C has it: <https://www.w3.org/TR/trace-context/>. `tracestate` belongs to others, and passes as it
//! came.

/// Bytes of the field.
pub const LENGTH: usize = 55;

/// The bit that says that the caller records its spans.
const SAMPLED: u8 = 1;

/// The bit that says that the trace id is random; it stays with the trace id.
const RANDOM: u8 = 2;

/// A trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// A span within a trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// Where in which trace a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    flags: u8,
}

impl TraceId {
    /// A new one.
    pub fn random(rng: &mut fastrand::Rng) -> TraceId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.u64(1..).to_be_bytes());
        bytes[8..].copy_from_slice(&rng.u64(..).to_be_bytes());
        TraceId(bytes)
    }

    /// What the share goes by, below 2^63: the same half of the id as in the SDKs of OpenTelemetry.
    pub fn number(self) -> u64 {
        let (_, half) = self.0.split_last_chunk().unwrap_or((&[], &[0; 8]));
        u64::from_be_bytes(*half) >> 1
    }
}

impl SpanId {
    /// A new one.
    pub fn random(rng: &mut fastrand::Rng) -> SpanId {
        SpanId(rng.u64(1..).to_be_bytes())
    }
}

impl Context {
    /// Of a request that nobody has followed yet, or of one that goes on to somebody else.
    pub fn new(trace: TraceId, span: SpanId, sampled: bool) -> Context {
        Context { trace, span, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// The same trace, from this span on.
    pub fn child(&self, span: SpanId) -> Context {
        Context { span, flags: SAMPLED | self.flags & RANDOM, ..*self }
    }

    /// Whether the caller records its spans.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What a field says; none if it is not what it should be.
    pub fn read(field: &[u8]) -> Option<Context> {
        let (known, more) = field.split_first_chunk::<LENGTH>()?;
        let version = byte(&known[..2])?;
        // A later version may have more, behind another dash.
        let ends = more.is_empty() || version > 0 && more[0] == b'-';
        let dashes = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        if version == 0xff || !ends || !dashes {
            return None;
        }
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        digits(&known[3..35], &mut trace)?;
        digits(&known[36..52], &mut span)?;
        let flags = byte(&known[53..])?;
        let zero = trace == [0; 16] || span == [0; 8];
        (!zero).then_some(Context { trace: TraceId(trace), span: SpanId(span), flags })
    }

    /// As it is written.
    pub fn write(&self) -> [u8; LENGTH] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&self.trace.0, &mut out[3..35]);
        hex(&self.span.0, &mut out[36..52]);
        hex(&[self.flags & (SAMPLED | RANDOM)], &mut out[53..]);
        out
    }
}

fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |it: u8| match it {
        b'0'..=b'9' => Some(it - b'0'),
        // Capitals are not allowed.
        b'a'..=b'f' => Some(it - b'a' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

fn digits(text: &[u8], out: &mut [u8]) -> Option<()> {
    for (digits, byte_out) in text.chunks_exact(2).zip(out) {
        *byte_out = byte(digits)?;
    }
    Some(())
}

/// Two digits for each byte.
pub fn hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_field_is_read_and_written_again() {
        let context = Context::read(FIELD.as_bytes()).unwrap();
        assert!(context.sampled());
        assert_eq!(context.write(), FIELD.as_bytes());
        // Flags that are not known are not passed on; that of a random id stays with it.
        let odd = Context::read(FIELD.replace("-01", "-fe").as_bytes()).unwrap();
        assert!(!odd.sampled());
        assert_eq!(odd.child(SpanId([1; 8])).write()[36..], *b"0101010101010101-03");
        let later = Context::read(format!("cc{}-what else", &FIELD[2..]).as_bytes()).unwrap();
        assert_eq!(later, context);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_none() {
        for bad in [
            "",
            "00",
            &FIELD[..54],
            &format!("{FIELD}-"),
            &format!("{FIELD}0"),
            &format!("cc{}0", &FIELD[2..]),
            &FIELD.replace("00-4b", "ff-4b"),
            &FIELD.replace("4bf9", "4BF9"),
            &FIELD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &FIELD.replace("00f067aa0ba902b7", "0000000000000000"),
            &FIELD.replace("-01", "-0g"),
            &FIELD.replace("736-", "736_"),
        ] {
            assert_eq!(Context::read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn new_ones_differ_and_are_good() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut new = || Context::new(TraceId::random(&mut rng), SpanId::random(&mut rng), true);
        let (one, two) = (new(), new());
        assert_ne!(one.trace, two.trace);
        assert_eq!(Context::read(&one.write()), Some(one));
    }
}

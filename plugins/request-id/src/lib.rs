//! Gives each request an id in a header, and its response the same.
//!
//! ```toml
//! filters = [{ plugin = "request-id", config = { header = "x-correlation-id", format = "uuid7", trust = false } }]
//! ```
//!
//! The gateway has an id of its own in `x-request-id`, which its log names. This is for what others agreed on: another
//! header, a UUID, ids that are never a client's. Ids are random, not secret.

use moongate_plugin::http::check_header_name;
use moongate_plugin::{Config, Request, RequestFilter, Response, ResponseFilter, Verdict, random, unix_ms};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    header: Option<String>,
    #[serde(default)]
    format: Format,
    #[serde(default = "yes")]
    trust: bool,
    #[serde(default = "yes")]
    echo: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Uuid,
    Uuid7,
    Hex,
}

#[derive(Debug, PartialEq)]
struct RequestId {
    header: String,
    format: Format,
    trust: bool,
    echo: bool,
}

/// As the gateway has it for its own: an id goes into log lines.
const LONGEST: usize = 128;

fn usable(id: &str) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Format {
    /// An id of 128 random bits, of which a UUID has fewer. `unix_ms`: now.
    fn id(self, random: u128, unix_ms: u64) -> String {
        /// RFC 9562, section 4.2 and 4.1: so many bits from the top are the version and the variant.
        fn uuid(bits: u128, version: u128) -> String {
            let bits = bits & !(0xf << 76) & !(0x3 << 62) | version << 76 | 0b10 << 62;
            let hex = format!("{bits:032x}");
            [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
        }
        match self {
            Self::Uuid => uuid(random, 4),
            // Section 5.7: 48 bits of milliseconds come first.
            Self::Uuid7 => uuid(random >> 48 | u128::from(unix_ms) << 80, 7),
            Self::Hex => format!("{random:032x}"),
        }
    }
}

impl TryFrom<Options> for RequestId {
    type Error = String;

    fn try_from(Options { header, format, trust, echo }: Options) -> Result<Self, String> {
        let header = header.unwrap_or_else(|| "x-correlation-id".into()).to_ascii_lowercase();
        check_header_name("header", &header)?;
        if header == "x-request-id" {
            return Err("`header` is `x-request-id`, which the gateway sets itself: choose another".into());
        }
        Ok(Self { header, format, trust, echo })
    }
}

impl RequestFilter for RequestId {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let given = request.header(&self.header).filter(|id| self.trust && usable(id));
        let id = given.unwrap_or_else(|| {
            let random = u128::from(random()) << 64 | u128::from(random());
            self.format.id(random, unix_ms())
        });
        // Set in any case: a client may have sent several.
        request.set(&self.header, &id);
        if self.echo {
            request.note(id.as_bytes());
        }
        Verdict::Next
    }
}

impl ResponseFilter for RequestId {
    fn on_response(&mut self, request: Request, response: Response) -> Verdict {
        if self.echo
            && let Ok(id) = String::from_utf8(request.noted())
            && !id.is_empty()
        {
            response.set(&self.header, &id);
        }
        Verdict::Next
    }
}

moongate_plugin::plugin!(RequestId: RequestFilter, ResponseFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<RequestId, String> {
        RequestFilter::configure(Config::new(json))
    }

    #[test]
    fn ids_have_the_form_of_their_format() {
        let ones = u128::MAX;
        assert_eq!(Format::Uuid.id(ones, 0), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Format::Uuid.id(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(Format::Hex.id(0xabc, 0), "00000000000000000000000000000abc");
    }

    #[test]
    fn a_uuid_of_version_7_begins_with_the_time() {
        // RFC 9562, appendix A.6: 2022-02-22 14:22:22-05:00, random bits cc3 and 18c4dc0c0c07398f.
        let random = (0x7cc3 << 64 | 0x98c4_dc0c_0c07_398f_u128) << 48;
        assert_eq!(Format::Uuid7.id(random, 1_645_557_742_000), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert!(Format::Uuid7.id(u128::MAX, 1000) < Format::Uuid7.id(0, 1001));
    }

    #[test]
    fn only_ids_that_fit_a_log_line_are_a_client_s() {
        assert!(usable("a") && usable(&"x".repeat(128)));
        for id in ["", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert!(!usable(id), "{id}");
        }
    }

    #[test]
    fn defaults_and_mistakes() {
        let expected = RequestId { header: "x-correlation-id".into(), format: Format::Uuid, trust: true, echo: true };
        assert_eq!(configure("{}"), Ok(expected));
        for (json, words) in [
            (r#"{"header":"X-Request-Id"}"#, "which the gateway sets itself"),
            (r#"{"header":"a b"}"#, "`header` is `a b`"),
            (r#"{"format":"uuid4"}"#, "unknown variant `uuid4`, expected one of `uuid`, `uuid7`, `hex`"),
            (r#"{"trusted":true}"#, "unknown field `trusted`"),
        ] {
            let error = configure(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}

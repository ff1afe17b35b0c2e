//! Takes fields out of JSON bodies, and leaves all else byte for byte.
//!
//! ```toml
//! filters = [{ plugin = "json-redact", config = { fields = ["user.password", "*.token", "**.secret"] } }]
//! ```
//!
//! A path is keys with dots between them, from the top. `*` stands for any key or index, `**` for any number of them, also
//! none; a number is the key or the index of that number; `\.` is a dot in a key. Keys are compared as they are meant, however they
//! are escaped, and a key that is there twice is taken out twice.
//!
//! Bodies of `application/json`, `text/json` and types that end with `+json` are held until they are whole, and rewritten.
//! What cannot be read is refused, because what cannot be read cannot be redacted: compressed bodies (`encoded`), bodies
//! that are no JSON (`invalid`), parts of documents. So that endpoints send neither, `accept-encoding`, `range` and
//! `if-range` of requests are replaced or removed. What says how the body was before (`etag`, digests) goes when it is
//! changed. Bodies of other types pass: whether an endpoint calls its JSON so is its own matter.
//!
//! A MiB of JSON takes some 5 ms of the worker's time, and three times that if it is nothing but short numbers, more with
//! every path. A call that takes longer than plugins may is ended, and the exchange with it: who raises `limit` looks at
//! that as well.

mod fields;
mod rewrite;
mod scan;

use fields::Fields;
use moongate_plugin::{
    BodyVerdict, Config, Reply, Request, RequestBodyFilter, RequestFilter, Response, ResponseBodyFilter,
    ResponseFilter, Show, Size, Verdict,
};
use rewrite::{Edit, rewrite};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    fields: Vec<String>,
    #[serde(default)]
    mode: Mode,
    replacement: Option<String>,
    #[serde(default)]
    on: On,
    limit: Option<Size>,
    #[serde(default)]
    encoded: Doubt,
    #[serde(default)]
    invalid: Doubt,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Replace,
    Remove,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum On {
    #[default]
    Response,
    Request,
    Both,
}

/// What is done with a body that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Doubt {
    #[default]
    Refuse,
    Pass,
}

/// What a call of a plugin has time for with room to spare; and what the gateway shows at most.
const LIMIT: u64 = 1 << 20;
const MOST: u64 = 16 << 20;

struct JsonRedact {
    fields: Fields,
    edit: Edit,
    on: On,
    limit: u32,
    encoded: Doubt,
    invalid: Doubt,
}

impl TryFrom<Options> for JsonRedact {
    type Error = String;

    fn try_from(options: Options) -> Result<Self, String> {
        let Options { fields, mode, replacement, on, limit, encoded, invalid } = options;
        let edit = match (mode, replacement) {
            (Mode::Remove, Some(_)) => return Err("`replacement` does not go with `mode` = `remove`".into()),
            (Mode::Remove, None) => Edit::Remove,
            (Mode::Replace, text) => Edit::replace(text.as_deref().unwrap_or("[redacted]")),
        };
        let limit = limit.map_or(LIMIT, |size| size.0);
        if !(1..=MOST).contains(&limit) {
            return Err(format!("`limit` is {limit} bytes, but must be 1 to {MOST}, which are 16MiB"));
        }
        Ok(Self { fields: Fields::new(&fields)?, edit, on, limit: limit as u32, encoded, invalid })
    }
}

/// Whether a body of this type is JSON (RFC 8259, section 11; RFC 6839, section 3.1).
fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim_ascii();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// Whether a body is as it was written: none of the codings that `content-encoding` can name.
fn is_plain(codings: &[String]) -> bool {
    let mut codings = codings.iter().flat_map(|value| value.split(',')).map(str::trim_ascii);
    codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
}

/// What to do with a body, by the head of its message.
#[derive(Debug, PartialEq)]
enum Plan {
    Pass,
    Read,
    Refuse,
}

/// What says how a body was before (RFC 9110, section 8.8.3; RFC 9530; RFC 3230; RFC 1864), and may be used for parts of it.
const ABOUT_THE_BODY: [&str; 6] = ["etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"];

impl JsonRedact {
    fn plan(&self, content_type: Option<&str>, codings: &[String]) -> Plan {
        if !is_json(content_type) {
            return Plan::Pass;
        }
        match (is_plain(codings), self.encoded) {
            (true, _) => Plan::Read,
            (false, Doubt::Pass) => Plan::Pass,
            (false, Doubt::Refuse) => Plan::Refuse,
        }
    }

    /// The body to send instead; none if it stays.
    ///
    /// # Errors
    /// If it is no JSON, and such are refused.
    fn redacted(&self, body: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        // A message without a body has no field to hide.
        if body.is_empty() {
            return Ok(None);
        }
        match (rewrite(body, &self.fields, &self.edit), self.invalid) {
            (Ok(rewritten), _) => Ok(rewritten),
            (Err(_), Doubt::Pass) => Ok(None),
            (Err(_), Doubt::Refuse) => Err(()),
        }
    }
}

impl RequestFilter for JsonRedact {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        if self.on != On::Request {
            // Not removed: then any coding would be welcome (RFC 9110, section 12.5.3).
            request.set("accept-encoding", "identity");
            request.remove("range");
            request.remove("if-range");
        }
        if self.on != On::Response {
            match self.plan(request.header("content-type").as_deref(), &request.values("content-encoding")) {
                Plan::Pass => {}
                Plan::Read => drop(request.show_body(Show::Whole(self.limit))),
                Plan::Refuse => {
                    return Verdict::Respond(Reply::text(415, "send the body without a content-encoding"));
                }
            }
        }
        Verdict::Next
    }
}

impl ResponseFilter for JsonRedact {
    fn on_response(&mut self, _request: Request, response: Response) -> Verdict {
        if self.on == On::Request {
            return Verdict::Next;
        }
        // Parts were not asked for, and one alone can be JSON by chance, or a list of parts of any type.
        if response.status() == 206 {
            return Verdict::Respond(Reply::text(502, "the endpoint sent a part of what was asked for"));
        }
        let codings: Vec<String> =
            response.headers().into_iter().filter(|it| it.0 == "content-encoding").map(|it| it.1).collect();
        match self.plan(response.header("content-type").as_deref(), &codings) {
            Plan::Pass => Verdict::Next,
            Plan::Read => {
                response.show_body(Show::Whole(self.limit));
                Verdict::Next
            }
            Plan::Refuse => Verdict::Respond(Reply::text(502, "the endpoint sent a body that cannot be read here")),
        }
    }
}

impl RequestBodyFilter for JsonRedact {
    fn on_request_body(&mut self, request: Request, piece: Vec<u8>, _last: bool) -> BodyVerdict {
        match self.redacted(&piece) {
            Ok(None) => BodyVerdict::Next,
            Ok(Some(body)) => {
                for name in ABOUT_THE_BODY {
                    request.remove(name);
                }
                BodyVerdict::Replace(body)
            }
            Err(()) => BodyVerdict::Respond(Reply::text(400, "the body is not JSON")),
        }
    }
}

impl ResponseBodyFilter for JsonRedact {
    fn on_response_body(&mut self, _request: Request, response: Response, piece: Vec<u8>, _last: bool) -> BodyVerdict {
        match self.redacted(&piece) {
            Ok(None) => BodyVerdict::Next,
            Ok(Some(body)) => {
                for name in ABOUT_THE_BODY {
                    response.remove(name);
                }
                BodyVerdict::Replace(body)
            }
            Err(()) => BodyVerdict::Respond(Reply::text(502, "the endpoint sent a body that is not JSON")),
        }
    }
}

moongate_plugin::plugin!(
    JsonRedact: RequestFilter, ResponseFilter, RequestBodyFilter, ResponseBodyFilter;
    schema = include_str!("../schema.json")
);

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<JsonRedact, String> {
        RequestFilter::configure(Config::new(json))
    }

    #[test]
    fn json_is_known_by_its_type() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json", "text/json"] {
            assert!(is_json(Some(json)), "{json}");
        }
        for other in ["text/html", "application/jsonp", "application/json-seq", "application/x-ndjson", ""] {
            assert!(!is_json(Some(other)), "{other}");
        }
        assert!(!is_json(None));
    }

    #[test]
    fn what_is_compressed_is_refused_or_passes() {
        let codings = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let refuse = configure(r#"{"fields":["a"]}"#).unwrap();
        let pass = configure(r#"{"fields":["a"],"encoded":"pass"}"#).unwrap();
        let json = Some("application/json");
        for plain in [codings(&[]), codings(&["identity"]), codings(&["", "Identity"])] {
            assert_eq!(refuse.plan(json, &plain), Plan::Read);
        }
        for encoded in [codings(&["gzip"]), codings(&["identity, br"]), codings(&["identity", "gzip"])] {
            assert_eq!(refuse.plan(json, &encoded), Plan::Refuse);
            assert_eq!(pass.plan(json, &encoded), Plan::Pass);
            assert_eq!(refuse.plan(Some("text/html"), &encoded), Plan::Pass);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_or_passes() {
        let refuse = configure(r#"{"fields":["a"]}"#).unwrap();
        let pass = configure(r#"{"fields":["a"],"invalid":"pass"}"#).unwrap();
        assert_eq!(refuse.redacted(br#"{"a":1}"#), Ok(Some(br#"{"a":"[redacted]"}"#.to_vec())));
        assert_eq!(refuse.redacted(br#"{"b":1}"#), Ok(None));
        assert_eq!(refuse.redacted(b""), Ok(None));
        assert_eq!((refuse.redacted(br#"{"a":1"#), pass.redacted(br#"{"a":1"#)), (Err(()), Ok(None)));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "missing field `fields`"),
            (r#"{"fields":[]}"#, "`fields` is empty"),
            (r#"{"fields":["a..b"]}"#, "`fields` has `a..b`"),
            (r#"{"fields":["a"],"mode":"remove","replacement":""}"#, "does not go with"),
            (r#"{"fields":["a"],"mode":"hide"}"#, "unknown variant `hide`"),
            (r#"{"fields":["a"],"limit":0}"#, "`limit` is 0 bytes"),
            (r#"{"fields":["a"],"limit":"17MiB"}"#, "`limit` is 17825792 bytes"),
            (r#"{"field":["a"]}"#, "unknown field `field`"),
        ] {
            let error = configure(json).err().unwrap();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}

//! Says to browsers which other sites may use these responses, and answers their preflights (Fetch standard, sections 3.2
//! and 4.8).
//!
//! ```toml
//! filters = [{ plugin = "cors", config = { origins = ["https://app.example.com", "https://*.example.org"], methods = ["GET", "PUT"], headers = ["content-type"], credentials = true, max_age = 600 } }]
//! ```
//!
//! It comes first among a route's filters: preflights carry no credentials, so a guard before it would refuse them. What
//! the endpoint says of CORS itself is removed. Requests from other origins are passed on, and their responses say
//! nothing: it is the browser that keeps scripts from reading them, and CORS is no access control. Answers that the gateway
//! or another filter makes are not shown to filters, so scripts cannot read why they were refused.

mod origin;

use moongate_plugin::http::check_header_name;
use moongate_plugin::{Config, Reply, Request, RequestFilter, Response, ResponseFilter, Verdict};
use origin::Origins;

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    origins: Vec<String>,
    #[serde(default = "safelisted")]
    methods: Vec<String>,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    expose: Vec<String>,
    #[serde(default)]
    credentials: bool,
    max_age: Option<u32>,
}

/// The methods that need no preflight (Fetch standard, section 2.2.1).
fn safelisted() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(String::from).into()
}

/// The longest that any browser remembers a preflight, which is Firefox's.
const MAX_AGE: u32 = 86_400;

/// What the endpoint may have said, and what is ours to say.
const SAID: [&str; 6] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
];

/// Lists are joined as they are sent; empty: not sent.
#[derive(Debug)]
struct Cors {
    origins: Origins,
    methods: String,
    headers: String,
    expose: String,
    credentials: bool,
    max_age: Option<String>,
}

impl TryFrom<Options> for Cors {
    type Error = String;

    fn try_from(options: Options) -> Result<Self, String> {
        let Options { origins, methods, headers, expose, credentials, max_age } = options;
        for (key, list) in [("origins", &origins), ("methods", &methods), ("headers", &headers), ("expose", &expose)] {
            if credentials && list.iter().any(|item| item == "*") {
                return Err(format!(
                    "`{key}` has `*` in it, which browsers do not take together with `credentials`: list what is meant"
                ));
            }
        }
        for (key, list) in [("methods", &methods), ("headers", &headers), ("expose", &expose)] {
            // The names of methods are tokens as well; any field may be listed.
            let wrong =
                |item: &&String| check_header_name(key, item).is_err_and(|error| !error.ends_with("answers for"));
            if let Some(item) = list.iter().find(wrong) {
                return Err(format!("`{key}` has `{item}` in it, which is no name of that kind"));
            }
        }
        if let Some(age) = max_age.filter(|age| *age > MAX_AGE) {
            return Err(format!("`max_age` is {age}, but no browser remembers a preflight for over {MAX_AGE} seconds"));
        }
        let joined = |list: Vec<String>| list.join(", ");
        Ok(Self {
            origins: Origins::new(&origins)?,
            methods: joined(methods),
            headers: joined(headers),
            expose: joined(expose),
            credentials,
            max_age: max_age.map(|age| age.to_string()),
        })
    }
}

impl Cors {
    /// What is said to an origin, in preflights as in responses; empty if it may not know.
    fn granted(&self, origin: &str) -> Vec<(&'static str, String)> {
        if !self.origins.contain(origin) {
            return Vec::new();
        }
        let origin = if self.origins.are_all() { "*" } else { origin };
        let mut granted = vec![("access-control-allow-origin", origin.to_owned())];
        if self.credentials {
            granted.push(("access-control-allow-credentials", "true".into()));
        }
        granted
    }

    fn preflight(&self, origin: &str) -> Reply {
        let granted = self.granted(origin);
        // A preflight fails by any status but 2xx, and so says to people why as well.
        let reply = match granted.is_empty() {
            true => Reply::text(403, "scripts of your origin may not use this"),
            false => Reply { status: 204, headers: Vec::new(), body: Vec::new() },
        };
        let reply = granted.iter().fold(reply, |reply, (name, value)| reply.with(name, value));
        let told = match reply.status {
            204 => [
                ("access-control-allow-methods", self.methods.as_str()),
                ("access-control-allow-headers", &self.headers),
                ("access-control-max-age", self.max_age.as_deref().unwrap_or_default()),
            ]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .fold(reply, |reply, (name, value)| reply.with(name, value)),
            _ => reply,
        };
        if self.origins.are_all() { told } else { told.with("vary", "origin") }
    }

    /// What a response says, whoever asked: a cache gives it to others. `vary`: what it says of that already.
    fn said(&self, origin: Option<&str>, vary: Option<&str>) -> Vec<(&'static str, String)> {
        // All origins are told the same, so that those without one may be told it as well.
        let origin = origin.or_else(|| self.origins.are_all().then_some("*"));
        let mut said = origin.map(|origin| self.granted(origin)).unwrap_or_default();
        if !said.is_empty() && !self.expose.is_empty() {
            said.push(("access-control-expose-headers", self.expose.clone()));
        }
        let names = || vary.unwrap_or_default().split(',').map(str::trim_ascii);
        if !self.origins.are_all() && !names().any(|name| name == "*" || name.eq_ignore_ascii_case("origin")) {
            said.push(("vary", "origin".into()));
        }
        said
    }
}

impl RequestFilter for Cors {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        if request.method() != "OPTIONS" || request.header("access-control-request-method").is_none() {
            return Verdict::Next;
        }
        match request.header("origin") {
            Some(origin) => Verdict::Respond(self.preflight(&origin)),
            None => Verdict::Next,
        }
    }
}

impl ResponseFilter for Cors {
    fn on_response(&mut self, request: Request, response: Response) -> Verdict {
        for name in SAID {
            response.remove(name);
        }
        let vary = response.header("vary");
        for (name, value) in self.said(request.header("origin").as_deref(), vary.as_deref()) {
            response.append(name, &value);
        }
        Verdict::Next
    }
}

moongate_plugin::plugin!(Cors: RequestFilter, ResponseFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<Cors, String> {
        RequestFilter::configure(Config::new(json))
    }

    /// Lines as `name: value`.
    fn lines<N: AsRef<str>>(headers: &[(N, String)]) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{}: {value}", name.as_ref())).collect()
    }

    const SOME: &str = r#"{"origins":["https://a.example"],"methods":["GET","PUT"],"headers":["x-a"],"expose":["x-b"],
        "credentials":true,"max_age":600}"#;

    #[test]
    fn a_preflight_is_told_all_that_is_allowed() {
        let reply = configure(SOME).unwrap().preflight("https://a.example");
        assert_eq!((reply.status, reply.body.len()), (204, 0));
        assert_eq!(
            lines(&reply.headers),
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: x-a",
                "access-control-max-age: 600",
                "vary: origin",
            ]
        );
    }

    #[test]
    fn a_preflight_from_elsewhere_is_told_nothing() {
        let reply = configure(SOME).unwrap().preflight("https://b.example");
        assert_eq!(reply.status, 403);
        assert_eq!(lines(&reply.headers), ["content-type: text/plain; charset=utf-8", "vary: origin"]);
    }

    #[test]
    fn a_response_names_the_origin_that_asked_and_says_that_it_depends_on_it() {
        let cors = configure(SOME).unwrap();
        assert_eq!(
            lines(&cors.said(Some("https://a.example"), None)),
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-b",
                "vary: origin",
            ]
        );
        assert_eq!(lines(&cors.said(Some("https://b.example"), Some("accept"))), ["vary: origin"]);
        assert_eq!(lines(&cors.said(None, None)), ["vary: origin"]);
        assert!(cors.said(None, Some("accept, Origin")).is_empty(), "it is said already");
        assert!(cors.said(None, Some("*")).is_empty());
    }

    #[test]
    fn all_origins_are_told_the_same() {
        let cors = configure(r#"{"origins":["*"]}"#).unwrap();
        assert_eq!(lines(&cors.said(Some("https://b.example"), None)), ["access-control-allow-origin: *"]);
        assert_eq!(lines(&cors.said(None, None)), ["access-control-allow-origin: *"]);
        let reply = cors.preflight("null");
        assert_eq!(
            lines(&reply.headers),
            ["access-control-allow-origin: *", "access-control-allow-methods: GET, HEAD, POST"]
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "missing field `origins`"),
            (r#"{"origins":[]}"#, "`origins` is empty"),
            (r#"{"origins":["*"],"credentials":true}"#, "`origins` has `*` in it, which browsers do not take"),
            (r#"{"origins":["https://a"],"headers":["*"],"credentials":true}"#, "`headers` has `*`"),
            (r#"{"origins":["https://a"],"methods":["*"],"credentials":true}"#, "`methods` has `*`"),
            (r#"{"origins":["https://a"],"expose":["*"],"credentials":true}"#, "`expose` has `*`"),
            (r#"{"origins":["https://a"],"methods":["G T"]}"#, "`methods` has `G T`"),
            (r#"{"origins":["https://a"],"headers":["a:"]}"#, "`headers` has `a:`"),
            (r#"{"origins":["https://a"],"max_age":86401}"#, "`max_age` is 86401"),
            (r#"{"origins":["a"]}"#, "`origins` has `a`"),
            (r#"{"origin":[]}"#, "unknown field `origin`"),
        ] {
            let error = configure(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        assert!(configure(r#"{"origins":["https://a"],"headers":["content-length"]}"#).is_ok());
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}

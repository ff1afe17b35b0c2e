//! Sends clients to another address.
//!
//! ```toml
//! filters = [{ plugin = "redirect", config = { https = true } }]
//! filters = [{ plugin = "redirect", config = { to = "https://www.example.com{path}{query}", status = 301, when = { host = "example.com" } } }]
//! filters = [{ plugin = "redirect", config = { to = "/docs/", status = 302, when = { path = "/" } } }]
//! ```
//!
//! Paths here are what the client sent: with the route's prefix, before other filters rewrote them. Whether it came with
//! TLS is what `x-forwarded-proto` says, which the gateway sets and takes only from proxies it trusts.

mod template;

use moongate_plugin::http::{check_header_name, split_target};
use moongate_plugin::{Config, Reply, Request, RequestFilter, Verdict};
use std::collections::BTreeMap;
use template::{Client, Template};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    to: Option<String>,
    #[serde(default)]
    https: bool,
    #[serde(default = "permanent")]
    status: u16,
    #[serde(default)]
    when: When,
}

/// 308 and not 301: browsers make a GET of any method at a 301 (RFC 9110, section 15.4.2).
fn permanent() -> u16 {
    308
}

/// All of it must be true.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    path: Option<String>,
    path_prefix: Option<String>,
    host: Option<String>,
    scheme: Option<Scheme>,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

#[derive(Debug)]
struct Redirect {
    to: Template,
    status: u16,
    when: When,
}

impl TryFrom<Options> for Redirect {
    type Error = String;

    fn try_from(Options { to, https, status, mut when }: Options) -> Result<Self, String> {
        if ![301, 302, 303, 307, 308].contains(&status) {
            return Err(format!("`status` is {status}, but must be 301, 302, 303, 307 or 308"));
        }
        for (key, path) in [("path", &when.path), ("path_prefix", &when.path_prefix)] {
            if let Some(path) = path.as_ref().filter(|path| !path.starts_with('/')) {
                return Err(format!("`when.{key}` is `{path}`, but must begin with `/`"));
            }
        }
        if let Some(host) =
            when.host.as_ref().filter(|host| template::hostname(host) != host.as_str() || host.is_empty())
        {
            return Err(format!("`when.host` is `{host}`, but must be a host's name without a port"));
        }
        when.header.keys().try_for_each(|name| check_header_name("when.header", name))?;
        let to = match (to, https) {
            (Some(_), true) => return Err("`to` and `https` do not go together: `https` keeps host and path".into()),
            (Some(to), false) => Template::new(&to)?,
            (None, true) if when.scheme == Some(Scheme::Https) => {
                return Err("`https` is for who came without it, and `when.scheme` says `https`".into());
            }
            (None, true) => {
                when.scheme = Some(Scheme::Http);
                Template::new("https://{hostname}{path}{query}")?
            }
            (None, false) => return Err("`to` is missing: where are clients to go? Or say `https = true`".into()),
        };
        Ok(Self { to, status, when })
    }
}

impl When {
    /// Whether this is a client to send away.
    fn fits(&self, client: &Client<'_>, header: impl Fn(&str) -> Option<String>) -> bool {
        let under = |prefix: &String| {
            let rest = client.path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let scheme = |scheme: Scheme| (scheme == Scheme::Https) == (client.scheme == "https");
        self.path.as_ref().is_none_or(|path| client.path == path)
            && self.path_prefix.as_ref().is_none_or(under)
            && self.host.as_ref().is_none_or(|host| template::hostname(client.host).eq_ignore_ascii_case(host))
            && self.scheme.is_none_or(scheme)
            && self.header.iter().all(|(name, value)| header(name).as_ref() == Some(value))
    }
}

impl Redirect {
    fn verdict(&self, client: &Client<'_>, header: impl Fn(&str) -> Option<String>) -> Verdict {
        if !self.when.fits(client, header) {
            return Verdict::Next;
        }
        Verdict::Respond(match self.to.fill(client) {
            Some(location) => Reply::text(self.status, "see the location field").with("location", &location),
            None => Reply::text(400, "the request names no host to redirect to"),
        })
    }
}

impl RequestFilter for Redirect {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let (target, host) = (request.original_path(), request.authority());
        let secure = request.header("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        let (path, query) = split_target(&target);
        let client = Client { scheme: if secure { "https" } else { "http" }, host: &host, path, query };
        self.verdict(&client, |name| request.header(name))
    }
}

moongate_plugin::plugin!(Redirect: RequestFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<Redirect, String> {
        RequestFilter::configure(Config::new(json))
    }

    /// Status and location, if the client is sent away.
    fn sent(json: &str, client: Client<'_>) -> Option<(u16, String)> {
        let header = |name: &str| (name == "x-old").then(|| "yes".to_owned());
        match configure(json).unwrap().verdict(&client, header) {
            Verdict::Next => None,
            Verdict::Respond(reply) => {
                let location = reply.headers.into_iter().find(|header| header.0 == "location");
                Some((reply.status, location.map(|header| header.1).unwrap_or_default()))
            }
        }
    }

    const CLIENT: Client<'_> = Client { scheme: "http", host: "example.com:8080", path: "/a/b", query: Some("c=d") };

    #[test]
    fn who_came_without_tls_goes_to_https_once() {
        let https = r#"{"https":true}"#;
        assert_eq!(sent(https, CLIENT), Some((308, "https://example.com/a/b?c=d".into())));
        assert_eq!(sent(https, Client { scheme: "https", ..CLIENT }), None);
        assert_eq!(sent(https, Client { host: "", ..CLIENT }), Some((400, String::new())));
    }

    #[test]
    fn all_conditions_must_be_true() {
        let to = |when: &str| sent(&format!(r#"{{"to":"/x","status":302,"when":{when}}}"#), CLIENT).is_some();
        assert!(to("{}"));
        assert!(to(
            r#"{"path":"/a/b","path_prefix":"/a","host":"Example.com","scheme":"http","header":{"x-old":"yes"}}"#
        ));
        for not in [
            r#"{"path":"/a"}"#,
            r#"{"path_prefix":"/a/b/c"}"#,
            r#"{"host":"www.example.com"}"#,
            r#"{"scheme":"https"}"#,
            r#"{"header":{"x-old":"no"}}"#,
            r#"{"header":{"x-new":"yes"}}"#,
            r#"{"path":"/a/b","host":"other"}"#,
        ] {
            assert!(!to(not), "{not}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let under = |prefix: &str, path| {
            let when = When { path_prefix: Some(prefix.into()), ..When::default() };
            when.fits(&Client { path, ..CLIENT }, |_| None)
        };
        assert!(under("/a", "/a") && under("/a", "/a/b") && under("/", "/a") && under("/a/", "/a"));
        assert!(!under("/a", "/ab") && !under("/a", "/"));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "`to` is missing"),
            (r#"{"to":"/a","https":true}"#, "do not go together"),
            (r#"{"to":"/a","status":200}"#, "`status` is 200, but must be 301"),
            (r#"{"to":"/a","when":{"path":"b"}}"#, "`when.path` is `b`"),
            (r#"{"to":"/a","when":{"host":"b:80"}}"#, "without a port"),
            (r#"{"to":"/a","when":{"header":{"a b":"c"}}}"#, "no header's name"),
            (r#"{"https":true,"when":{"scheme":"https"}}"#, "`when.scheme` says `https`"),
            (r#"{"to":"/a","when":{"paht":"/"}}"#, "unknown field `paht`"),
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

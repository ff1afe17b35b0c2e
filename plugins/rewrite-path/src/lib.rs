//! Rewrites the path by a prefix or a regular expression, and the query.
//!
//! ```toml
//! filters = [{ plugin = "rewrite-path", config = { prefix = "/v1", to = "/api" } }]
//! filters = [{ plugin = "rewrite-path", config = { regex = '^/user/(\d+)(.*)$', to = "/u/$1$2" } }]
//! filters = [{ plugin = "rewrite-path", config = { query = { set = { lang = "en" }, remove = ["debug"] } } }]
//! ```
//!
//! The path is the one that is sent on: without the route's prefix, in the gateway's normal form, without the query. One
//! that does not match stays. A result that does not begin with `/`, or that has a segment `.` or `..`, is answered with
//! 400: a pattern that lets clients make such paths is no reason to send them.

mod query;

use moongate_plugin::http::split_target;
use moongate_plugin::{Config, Reply, Request, RequestFilter, Verdict};
use query::Query;
use regex_lite::Regex;

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    prefix: Option<String>,
    regex: Option<String>,
    to: Option<String>,
    #[serde(default)]
    query: Query,
}

/// What becomes of the path.
#[derive(Debug)]
enum Rule {
    Keep,
    /// Both without a slash at the end, so that `/` is empty.
    Prefix {
        from: String,
        to: String,
    },
    Regex {
        regex: Regex,
        to: String,
    },
}

#[derive(Debug)]
struct RewritePath {
    rule: Rule,
    query: Query,
}

impl TryFrom<Options> for RewritePath {
    type Error = String;

    fn try_from(Options { prefix, regex, to, query }: Options) -> Result<Self, String> {
        let rule = match (prefix, regex, to) {
            (Some(_), Some(_), _) => return Err("`prefix` and `regex` do not go together: which is it?".into()),
            (Some(from), None, Some(to)) => {
                for (key, path) in [("prefix", &from), ("to", &to)] {
                    if !path.starts_with('/') {
                        return Err(format!("`{key}` is `{path}`, but must begin with `/`"));
                    }
                    check_path(key, path)?;
                }
                Rule::Prefix { from: from.trim_end_matches('/').into(), to: to.trim_end_matches('/').into() }
            }
            (None, Some(regex), Some(to)) => {
                let regex = Regex::new(&regex).map_err(|error| format!("`regex` is none: {error}"))?;
                check_path("to", &to)?;
                check_groups(&regex, &to)?;
                Rule::Regex { regex, to }
            }
            (None, None, Some(_)) => return Err("`to` is there, but neither `prefix` nor `regex`".into()),
            (_, _, None) if query != Query::Keep => Rule::Keep,
            (None, None, None) => return Err("nothing to rewrite: give `prefix` or `regex`, or `query`".into()),
            (_, _, None) => return Err("`to` is missing: what is the path to be?".into()),
        };
        Ok(Self { rule, query })
    }
}

/// Whether this can stand in a path.
fn check_path(key: &str, path: &str) -> Result<(), String> {
    match path.chars().find(|it| !it.is_ascii_graphic() || matches!(it, '?' | '#' | '\\')) {
        None => Ok(()),
        Some('?') => Err(format!("`{key}` has a `?` in it: what is asked is `query`'s")),
        Some(it) => Err(format!("`{key}` has {it:?} in it, which no path has: encode it as `%XX`")),
    }
}

/// Whether the groups that `to` names are there: the regex crates make nothing of others, without a word. Above all
/// `$1a` is no `$1` before an `a`.
fn check_groups(regex: &Regex, to: &str) -> Result<(), String> {
    let mut rest = to;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(escaped) = rest.strip_prefix('$') {
            rest = escaped;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("`to` has a `${` without its `}`")?,
            None => {
                let in_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                rest.split_at(rest.bytes().position(|byte| !in_name(byte)).unwrap_or(rest.len()))
            }
        };
        if name.is_empty() {
            return Err("`to` has a `$` that names no group: write `$$` for a dollar".into());
        }
        let known = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            let groups = regex.captures_len() - 1;
            return Err(format!(
                "`to` names the group `{name}`, but `regex` has {groups} groups and none of that name; \
                 `${{1}}a` is group 1 before an `a`"
            ));
        }
        rest = after;
    }
    Ok(())
}

impl RewritePath {
    /// The path that becomes of a path; none if nothing does.
    fn path(&self, path: &str) -> Option<String> {
        match &self.rule {
            Rule::Keep => None,
            Rule::Prefix { from, to } => {
                let rest = path.strip_prefix(from.as_str())?;
                if !rest.is_empty() && !rest.starts_with('/') {
                    return None;
                }
                let path = [to, rest].concat();
                Some(if path.is_empty() { "/".into() } else { path })
            }
            Rule::Regex { regex, to } => {
                regex.is_match(path).then(|| regex.replacen(path, 1, to.as_str()).into_owned())
            }
        }
    }

    /// The target to send on; none if it stays.
    ///
    /// # Errors
    /// If what came out is no path.
    fn target(&self, target: &str) -> Result<Option<String>, ()> {
        let (path, query) = split_target(target);
        let (new_path, new_query) = (self.path(path), self.query.rewritten(query));
        if new_path.is_none() && new_query.is_none() {
            return Ok(None);
        }
        let path = new_path.as_deref().unwrap_or(path);
        if !path.starts_with('/') || path.split('/').any(is_dots) {
            return Err(());
        }
        let query = match &new_query {
            Some(query) => query.as_deref(),
            None => query,
        };
        Ok(Some(query.map_or_else(|| path.to_owned(), |query| [path, "?", query].concat())))
    }
}

/// Whether a segment is `.` or `..` for somebody: Tomcat takes `..;x` for `..`.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

impl RequestFilter for RewritePath {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let sent = match self.target(&request.path()) {
            Ok(None) => true,
            Ok(Some(target)) => request.set_path(&target),
            Err(()) => false,
        };
        if sent { Verdict::Next } else { Verdict::Respond(Reply::text(400, "no path is left after it was rewritten")) }
    }
}

moongate_plugin::plugin!(RewritePath: RequestFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<RewritePath, String> {
        RequestFilter::configure(Config::new(json))
    }

    fn rewritten(json: &str, target: &str) -> Option<String> {
        configure(json).unwrap().target(target).unwrap()
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let to_b = |target| rewritten(r#"{"prefix":"/a","to":"/b"}"#, target);
        assert_eq!(to_b("/a").as_deref(), Some("/b"));
        assert_eq!(to_b("/a/").as_deref(), Some("/b/"));
        assert_eq!(to_b("/a/x?y=/a").as_deref(), Some("/b/x?y=/a"));
        assert_eq!(to_b("/ab"), None);
        assert_eq!(to_b("/x/a"), None);
    }

    #[test]
    fn the_root_is_a_prefix_and_an_aim() {
        let of_root = |target| rewritten(r#"{"prefix":"/","to":"/b/"}"#, target);
        assert_eq!(of_root("/").as_deref(), Some("/b/"));
        assert_eq!(of_root("/x").as_deref(), Some("/b/x"));
        let to_root = |target| rewritten(r#"{"prefix":"/a/","to":"/"}"#, target);
        assert_eq!(to_root("/a").as_deref(), Some("/"));
        assert_eq!(to_root("/a?b").as_deref(), Some("/?b"));
        assert_eq!(to_root("/a/x").as_deref(), Some("/x"));
    }

    #[test]
    fn groups_are_put_in_and_the_rest_of_the_path_stays() {
        let user = |target| rewritten(r#"{"regex":"^/user/(\\d+)(.*)$","to":"/u/$1$2"}"#, target);
        assert_eq!(user("/user/12/cart?x=1").as_deref(), Some("/u/12/cart?x=1"));
        assert_eq!(user("/user/me"), None);
        let named = r#"{"regex":"/v(?P<major>\\d)","to":"/${major}.x/$$"}"#;
        assert_eq!(rewritten(named, "/api/v2/v3").as_deref(), Some("/api/2.x/$/v3"));
    }

    #[test]
    fn what_is_no_path_any_more_is_refused() {
        let rewrite = configure(r#"{"regex":"^/x(.*)$","to":"$1"}"#).unwrap();
        assert_eq!(rewrite.target("/x/a"), Ok(Some("/a".into())));
        assert_eq!(rewrite.target("/xa"), Err(()));
        assert_eq!(rewrite.target("/x"), Err(()));
        for climbing in ["/x/a/../b", "/x/..;a", "/x/."] {
            assert_eq!(rewrite.target(climbing), Err(()), "{climbing}");
        }
    }

    #[test]
    fn the_query_is_rewritten_by_itself_or_with_the_path() {
        assert_eq!(rewritten(r#"{"query":"drop"}"#, "/a?b").as_deref(), Some("/a"));
        assert_eq!(rewritten(r#"{"query":"drop"}"#, "/a"), None);
        let both = r#"{"prefix":"/a","to":"/b","query":{"set":{"k":"v"}}}"#;
        assert_eq!(rewritten(both, "/a/x").as_deref(), Some("/b/x?k=v"));
        assert_eq!(rewritten(both, "/c?k=w").as_deref(), Some("/c?k=v"));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "nothing to rewrite"),
            (r#"{"query":"keep"}"#, "nothing to rewrite"),
            (r#"{"prefix":"/a"}"#, "`to` is missing"),
            (r#"{"to":"/a"}"#, "neither `prefix` nor `regex`"),
            (r#"{"prefix":"/a","regex":"b","to":"/c"}"#, "do not go together"),
            (r#"{"prefix":"a","to":"/b"}"#, "`prefix` is `a`, but must begin with `/`"),
            (r#"{"prefix":"/a","to":"b"}"#, "`to` is `b`"),
            (r#"{"prefix":"/a","to":"/b?c=d"}"#, "`query`'s"),
            (r#"{"prefix":"/a","to":"/b c"}"#, "encode it as `%XX`"),
            (r#"{"regex":"(","to":"/"}"#, "`regex` is none"),
            (r#"{"regex":"^/(a)","to":"/$2"}"#, "names the group `2`, but `regex` has 1 groups"),
            (r#"{"regex":"^/(a)","to":"/$1b"}"#, "names the group `1b`"),
            (r#"{"regex":"^/(a)","to":"/${1"}"#, "without its `}`"),
            (r#"{"regex":"^/(a)","to":"/$/"}"#, "write `$$`"),
            (r#"{"rgx":"a"}"#, "unknown field `rgx`"),
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

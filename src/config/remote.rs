//! What is written outside of the configuration file and held to the same rules: a route, or which version of a plugin serves,
//! each a text of its own in TOML or JSON.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::document::Document;
use super::mistakes::{Mistake, Mistakes};
use super::values::read_as_string;
use super::{Config, PathPrefix, PluginName, Route, Source};

/// A configuration of this one route, which was found at `place`. It may not be for what `header_routes` takes.
///
/// # Errors
/// Every mistake in it. It may not name files: whoever can write it there should not be able to read them here.
pub fn route(text: &str, place: &str, header_routes: Option<&PathPrefix>) -> Result<Config, Mistakes> {
    let (route, document) = read::<Route>(text, place)?;
    let span = document.span();
    let mut config = Config { routes: vec![Spanned::new(span, route)], ..Config::default() };
    config.source = Source { path: PathBuf::from(place), text: text.into() };
    let files = config.uses().into_iter().flat_map(|it| &it.used.files).map(|(_, path)| path.span());
    let mut files: Vec<_> = files.collect();
    // A canary may have those of the plugin in whose place it is.
    files.sort_by_key(|span| span.start);
    files.dedup();
    let message = "a route outside of the configuration file cannot give a plugin a file of this machine";
    let mut mistakes: Vec<Mistake> = files.iter().map(|span| document.mistake_at(span, message.into())).collect();
    let taken = header_routes.filter(|taken| {
        let it = config.routes[0].get_ref();
        it.host.is_none() && it.methods.is_empty() && it.headers.is_empty() && it.path_prefix == **taken
    });
    if let Some((taken, at)) = taken.zip(document.find(&["path_prefix"])) {
        mistakes.push(document.mistake_at(&at, format!("{:?} is taken by header_routes", taken.as_str())));
    }
    if mistakes.is_empty() { Ok(config) } else { Err(Mistakes { file: place.into(), all: mistakes }) }
}

/// What is said of a plugin: which version of it should serve, and where that may be had.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// The hash of its file.
    pub sha256: Sha256,
    /// Where to fetch it; none: it comes into the plugin directory in another way.
    pub url: Option<Url>,
}

/// The announcement of the plugin `name`, which was found at `place`.
///
/// # Errors
/// Every mistake in it, and a name that no plugin can have.
pub fn plugin(name: &str, text: &str, place: &str) -> Result<Announced, Mistakes> {
    if let Err(message) = name.parse::<PluginName>() {
        return Err(Mistakes { file: place.into(), all: vec![Mistake { place: None, key: String::new(), message }] });
    }
    read(text, place).map(|(announced, _)| announced)
}

fn read<'a, T: DeserializeOwned>(text: &'a str, place: &str) -> Result<(T, Document<'a>), Mistakes> {
    let mistakes = |all| Mistakes { file: place.into(), all };
    let document = Document::parse(text).map_err(mistakes)?;
    let (value, all) = document.read::<T>();
    match value {
        Some(value) if all.is_empty() => Ok((value, document)),
        _ => Err(mistakes(all)),
    }
}

/// A SHA-256 in 64 hexadecimal digits, here in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256(pub String);

impl std::str::FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(Sha256(text.to_ascii_lowercase())),
            false => Err(format!("{text:?} is not a SHA-256 of 64 hexadecimal digits")),
        }
    }
}

/// An absolute `http` or `https` URL with a host, and without a name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub http::Uri);

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = text.parse::<http::Uri>().ok().filter(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.authority().is_some_and(|it| !it.as_str().contains('@') && !it.host().is_empty())
        });
        url.map(Url).ok_or_else(|| format!("{text:?} is not a URL like \"https://plugins.example.com/mine.wasm\""))
    }
}

read_as_string! {
    Sha256: "a SHA-256 of 64 hexadecimal digits",
    Url: "a URL like \"https://plugins.example.com/mine.wasm\"",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_the_same_in_toml_and_in_json() {
        let toml = "path_prefix = '/a'\nservice = 's'\nretries = 1\nbalancer = { plugin = 'random', config = { a = 1 } }\n\
                    filters = ['x']\n[headers]\nx-a = 'b'\n[timeout]\nheader = '3s'\n";
        let json = r#"{"path_prefix": "/a", "service": "s", "retries": 1,
            "balancer": {"plugin": "random", "config": {"a": 1}}, "filters": ["x"],
            "headers": {"x-a": "b"}, "timeout": {"header": "3s"}}"#;
        let read = |text| {
            let config = route(text, "/r/a", None).unwrap();
            let route = config.routes[0].get_ref().clone();
            let balancer = route.balancer.unwrap().used;
            let filters: Vec<_> = route.filters.unwrap().iter().map(|it| it.used.plugin.clone()).collect();
            let rest = (route.path_prefix, route.service, route.retries, route.headers, route.timeout.header);
            format!("{rest:?} {:?} {:?} {filters:?}", balancer.plugin, balancer.config)
        };
        assert_eq!(read(toml), read(json));
    }

    #[test]
    fn mistakes_have_place_and_key() {
        let told = |text| route(text, "/r/a", None).unwrap_err().to_string().lines().next().unwrap().to_owned();
        assert_eq!(told(""), "/r/a: path_prefix: missing key \"path_prefix\"");
        assert_eq!(
            told("path_prefix = '/a'\nservice = 's'\nbalancr = 'x'"),
            "/r/a:3:1: balancr: unknown key \"balancr\"; did you mean \"balancer\"?"
        );
        assert_eq!(
            told("{\"path_prefix\": \"/a\", \"service\": \"s\",\n  \"timeout\": {\"conect\": \"1s\"}}"),
            "/r/a:2:15: timeout.conect: unknown key \"conect\"; did you mean \"connect\"?"
        );
        assert_eq!(
            told("path_prefix = '/a'\nservice = 's'\nfilters = [{ plugin = 'jwt', files = { key = '/etc/shadow' } }]"),
            "/r/a:3:46: filters[0].files.key: a route outside of the configuration file cannot give a plugin a file of \
             this machine"
        );
    }

    #[test]
    fn announcements_have_a_hash_and_perhaps_a_url() {
        let hash = "AB".repeat(32);
        let read = plugin("x", &format!("sha256 = \"{hash}\"\nurl = \"https://h/x.wasm\""), "/p/x").unwrap();
        assert_eq!((read.sha256.0, read.url.unwrap().0.to_string()), ("ab".repeat(32), "https://h/x.wasm".into()));
        assert_eq!(plugin("x", &format!("{{\"sha256\":\"{hash}\"}}"), "/p/x").unwrap().url, None);
        for url in ["ftp://h/x", "/x", "https:///x", "http://u:p@h/x"] {
            let told = plugin("x", &format!("sha256 = \"{hash}\"\nurl = \"{url}\""), "/p/x").unwrap_err().to_string();
            assert!(told.starts_with("/p/x:2:7: url: "), "{told}");
        }
        assert!(plugin("x", "sha256 = \"12\"", "/p/x").unwrap_err().to_string().starts_with("/p/x:1:10: sha256: "));
    }
}

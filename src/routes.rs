//! From a request to a route: which one wins, and what path it sends on.
//!
//! Precedence is total. 1. A request to exactly the `header_routes` path that carries `service_name`. 2. Explicit
//! routes, by [`Rank`]: exact host, then the longest wildcard host, then any host; in one host the longest path
//! prefix, on whole segments; for one prefix a route with methods before one without, then more headers before
//! fewer, then the earlier in the file. A route that matches by path but not by method or headers lets the next
//! one try. 3. The service's implicit route, where `auto_routes` allows it.
//!
//! The cost of a match grows with the segments of the path, not with the number of routes.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderName, Method};
use rustc_hash::FxHashMap;

use crate::config::{AutoRoutes, BalancerFailure, FilterFailure, PathPrefix, Timeouts};
use crate::message::authority::Authority;
use crate::message::{Known, RequestHead};
use crate::plugin::Binding;
use crate::plugin::canary::{Canary, Shadow};

// By its path, because tests/fuzz/parsers takes this file in by its own.
#[path = "routes/looked.rs"]
mod looked;

pub use looked::Looked;

/// Where a request goes and what happens to it on the way.
#[derive(Debug)]
pub struct Route {
    /// Names the route in logs, metrics and the API.
    pub name: Arc<str>,
    /// What the request must be like.
    pub matcher: Matcher,
    /// Whether the prefix is taken off.
    pub strip_prefix: bool,
    /// The service that takes the request.
    pub service: Arc<str>,
    /// What picks the endpoint; each after the first where the one before has no opinion.
    pub balancers: Box<[Use<BalancerFailure>]>,
    /// What looks at requests in this order, and at responses in reverse.
    pub filters: Box<[Use<FilterFailure>]>,
    /// How long each step may take.
    pub timeout: Timeouts,
    /// How often another endpoint is tried.
    pub retries: u32,
    /// Bytes of a request's body; 0: any number.
    pub max_body: u64,
    /// What its requests are counted under.
    pub series: u32,
}

/// A plugin in use on a route.
#[derive(Debug)]
pub struct Use<F> {
    /// The plugin, its configuration, and the state of this use.
    pub binding: Arc<Binding>,
    /// What a failure means to the request.
    pub on_failure: F,
    /// The keys of the configuration whose values are texts of files.
    pub from_files: Box<[Box<str>]>,
    /// Another version of the plugin, on a share of the calls.
    pub canary: Option<Arc<Canary>>,
    /// A balancer that is only compared.
    pub shadow: Option<Arc<Shadow>>,
}

impl Route {
    /// The canaries of this route, and what they stand in for.
    pub fn canaries(&self) -> impl Iterator<Item = &Arc<Canary>> {
        let balancers = self.balancers.iter().filter_map(|it| it.canary.as_ref());
        balancers.chain(self.filters.iter().filter_map(|it| it.canary.as_ref()))
    }
}

/// What a request must be like.
#[derive(Debug)]
pub struct Matcher {
    /// The host, `*.` and a suffix, or any.
    pub host: Option<Arc<str>>,
    /// The path's first segments.
    pub prefix: PathPrefix,
    /// Any if empty.
    pub methods: Vec<Method>,
    /// Headers and their exact values.
    pub headers: Vec<(HeaderName, String)>,
    /// The place in the file.
    pub order: usize,
}

/// The order among routes of one host and prefix; the smallest is tried first.
type Rank = (Reverse<bool>, Reverse<usize>, usize);

impl Matcher {
    fn rank(&self) -> Rank {
        (Reverse(!self.methods.is_empty()), Reverse(self.headers.len()), self.order)
    }

    fn takes(&self, head: &RequestHead) -> bool {
        (self.methods.is_empty() || self.methods.contains(&head.method))
            && self
                .headers
                .iter()
                .all(|(name, value)| head.fields.all(name.as_str()).any(|given| given == value.as_bytes()))
    }
}

/// All routes that a request may take, but for those that services have by themselves.
#[derive(Debug, Default)]
pub struct Routes {
    list: Vec<Arc<Route>>,
    exact: FxHashMap<Arc<str>, Table>,
    /// By suffix, the longest first.
    wildcard: Vec<(Arc<str>, Table)>,
    any: Table,
    header: Option<PathPrefix>,
    auto: Option<AutoRoutes>,
}

/// The routes of one host, by prefix; each list in the order of [`Rank`].
#[derive(Debug, Default)]
struct Table(FxHashMap<Box<str>, Vec<Arc<Route>>>);

/// What a request asks for.
#[derive(Debug)]
pub enum Found<'r, 'h> {
    /// This route, with the path sent on without so many bytes at its beginning.
    Explicit(&'r Route, usize),
    /// The implicit route of the service of this name, if there is such a service.
    Implicit(Cow<'h, str>, Sent<'h>),
    /// No route.
    Nothing,
    /// A header route whose `service_name` or `api_name` cannot be used; the reason.
    Malformed(&'static str),
}

/// The path that an implicit route sends on.
#[derive(Debug)]
pub enum Sent<'h> {
    /// The request's own without so many bytes at its beginning.
    Rest(usize),
    /// This one, which has seen no path policy yet.
    Other(&'h [u8]),
}

/// Names the service in a header route.
pub const SERVICE_NAME: HeaderName = HeaderName::from_static("service_name");

/// Names the path and query in a header route.
pub const API_NAME: HeaderName = HeaderName::from_static("api_name");

impl Routes {
    /// The table of these routes.
    pub fn new(list: Vec<Arc<Route>>, header: Option<PathPrefix>, auto: Option<AutoRoutes>) -> Routes {
        let mut routes = Routes { header, auto, ..Routes::default() };
        for route in &list {
            let table = match route.matcher.host.as_deref().map(|host| (host, host.strip_prefix("*."))) {
                None => &mut routes.any,
                Some((host, None)) => routes.exact.entry(host.into()).or_default(),
                Some((_, Some(suffix))) => {
                    let at = routes.wildcard.iter().position(|(known, _)| **known == *suffix).unwrap_or_else(|| {
                        routes.wildcard.push((suffix.into(), Table::default()));
                        routes.wildcard.len() - 1
                    });
                    &mut routes.wildcard[at].1
                }
            };
            table.0.entry(route.matcher.prefix.as_str().into()).or_default().push(route.clone());
        }
        routes.wildcard.sort_by_key(|(suffix, _)| Reverse(suffix.len()));
        let tables = routes.exact.values_mut().chain(routes.wildcard.iter_mut().map(|(_, table)| table));
        for table in tables.chain([&mut routes.any]) {
            table.0.values_mut().for_each(|routes| routes.sort_by_key(|route| route.matcher.rank()));
        }
        routes.list = list;
        routes
    }

    /// The explicit routes, in the order of the file.
    pub fn list(&self) -> &[Arc<Route>] {
        &self.list
    }

    /// Whether a service of this name has an implicit route.
    pub fn implies(&self, service: &str) -> bool {
        match &self.auto {
            Some(auto) => {
                let named = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, service));
                named(&auto.allow) && !named(&auto.deny)
            }
            None => self.header.is_some(),
        }
    }

    /// What stands before the service's name in the path of its implicit route; none: headers only.
    pub fn auto_prefix(&self) -> Option<&str> {
        self.auto.as_ref().map(|auto| auto.prefix.as_str())
    }

    /// What the request asks for.
    pub fn find<'r, 'h>(&'r self, head: &'h RequestHead) -> Found<'r, 'h> {
        if let Some(found) = self.by_header(head) {
            return found;
        }
        let path = head.target.path();
        match self.explicit(head, path) {
            Some(route) if route.strip_prefix => Found::Explicit(route, cut(route.matcher.prefix.as_str().len())),
            Some(route) => Found::Explicit(route, 0),
            None => self.implicit(path),
        }
    }

    fn by_header<'r, 'h>(&'r self, head: &'h RequestHead) -> Option<Found<'r, 'h>> {
        let prefix = self.header.as_ref()?;
        if head.target.path() != prefix.as_str() {
            return None;
        }
        let Ok(service) = std::str::from_utf8(head.fields.get(SERVICE_NAME.as_str())?) else {
            return Some(Found::Malformed("the header service_name is not UTF-8"));
        };
        let path = head.fields.get(API_NAME.as_str()).unwrap_or(b"/");
        Some(Found::Implicit(service.into(), Sent::Other(path)))
    }

    fn explicit(&self, head: &RequestHead, path: &str) -> Option<&Route> {
        if !self.exact.is_empty() || !self.wildcard.is_empty() {
            let host = host(head);
            if let Some(route) = self.exact.get(&*host).and_then(|table| table.find(head, path)) {
                return Some(route);
            }
            let wildcards = self.wildcard.iter().filter(|(suffix, _)| {
                // `*.example.org` is not `example.org` itself.
                host.strip_suffix(&**suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            });
            if let Some(route) = wildcards.filter_map(|(_, table)| table.find(head, path)).next() {
                return Some(route);
            }
        }
        self.any.find(head, path)
    }

    fn implicit<'r, 'h>(&'r self, path: &'h str) -> Found<'r, 'h> {
        let Some(auto) = &self.auto else { return Found::Nothing };
        let prefix = auto.prefix.as_str().trim_end_matches('/');
        let Some(named) = path.strip_prefix(prefix).and_then(|path| path.strip_prefix('/')) else {
            return Found::Nothing;
        };
        let name = named.split('/').next().unwrap_or_default();
        if name.is_empty() {
            return Found::Nothing;
        }
        let Some(service) = decode(name) else { return Found::Nothing };
        Found::Implicit(service, Sent::Rest(prefix.len() + 1 + name.len()))
    }
}

impl Table {
    fn find(&self, head: &RequestHead, path: &str) -> Option<&Route> {
        if self.0.is_empty() {
            return None;
        }
        let mut prefix = path;
        loop {
            let routes = self.0.get(prefix).map_or(&[][..], Vec::as_slice);
            if let Some(route) = routes.iter().find(|route| route.matcher.takes(head)) {
                return Some(route);
            }
            prefix = match prefix {
                "/" | "" => return None,
                // The prefix of every path is `/`, which does not end at a slash like the others.
                _ => match prefix.rfind('/') {
                    Some(0) | None => "/",
                    Some(at) => &prefix[..at],
                },
            };
        }
    }
}

/// The bytes that a prefix takes off a path: the prefix `/` is one byte of every path and stays.
fn cut(prefix: usize) -> usize {
    if prefix <= 1 { 0 } else { prefix }
}

/// The host asked for, as routes know it; empty if none was, or none that names anything.
fn host(head: &RequestHead) -> Cow<'_, str> {
    let authority = head.fields.get(Known::Host).and_then(|value| Authority::read(value).ok());
    authority.map(|authority| authority.name()).unwrap_or_default()
}

/// Undoes percent-encoding (RFC 3986, section 2.1); none if it is broken or no UTF-8 comes of it.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::from)
}

/// Whether the whole of `text` fits `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return text.is_empty() };
    for piece in pieces {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Kind, Numbers};

    pub(super) fn route(
        order: usize,
        host: Option<&str>,
        prefix: &str,
        methods: &[Method],
        headers: &[(&str, &str)],
    ) -> Arc<Route> {
        let binding = Binding::new(0, "p".into(), Kind::Balancer, "{}".into(), Numbers::default().take());
        Arc::new(Route {
            name: format!("{order}").into(),
            matcher: Matcher {
                host: host.map(Into::into),
                prefix: prefix.parse().unwrap(),
                methods: methods.to_vec(),
                headers: headers.iter().map(|(name, value)| (name.parse().unwrap(), (*value).into())).collect(),
                order,
            },
            strip_prefix: true,
            service: "s".into(),
            balancers: [Use {
                binding: Arc::new(binding),
                on_failure: BalancerFailure::Fallback,
                from_files: Box::default(),
                canary: None,
                shadow: None,
            }]
            .into(),
            filters: Box::default(),
            timeout: Timeouts::default(),
            retries: 0,
            max_body: 0,
            series: 0,
        })
    }

    pub(super) fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new(method.parse().unwrap(), target);
        headers.iter().for_each(|(name, value)| head.fields.append(*name, value.as_bytes()));
        head
    }

    /// The name of the route and the path sent on; a service's name in angle brackets.
    fn found(routes: &Routes, head: RequestHead) -> String {
        let rest = |cut| {
            let mut target = head.target.clone();
            target.cut(cut);
            target.as_str().to_owned()
        };
        match routes.find(&head) {
            Found::Explicit(route, cut) => format!("{} {}", route.name, rest(cut)),
            Found::Implicit(service, Sent::Rest(cut)) => format!("<{service}> {}", rest(cut)),
            Found::Implicit(service, Sent::Other(path)) => format!("<{service}> {}", String::from_utf8_lossy(path)),
            Found::Nothing => "nothing".into(),
            Found::Malformed(why) => why.into(),
        }
    }

    #[test]
    fn the_longest_prefix_wins_on_whole_segments() {
        let routes = [(0, "/"), (1, "/shop"), (2, "/shop/cart"), (3, "/shopping/x")];
        let list = routes.map(|(order, prefix)| route(order, None, prefix, &[], &[])).to_vec();
        let routes = Routes::new(list, None, None);
        for (uri, expected) in [
            ("/shop", "1 /"),
            ("/shop?a=1", "1 /?a=1"),
            ("/shop/", "1 /"),
            ("/shop/user?id=1", "1 /user?id=1"),
            ("/shop/cart/2", "2 /2"),
            ("/shop/carts", "1 /carts"),
            ("/shopping", "0 /shopping"),
            ("/shopping/x//y", "3 //y"),
            ("/", "0 /"),
        ] {
            assert_eq!(found(&routes, head("GET", uri, &[])), expected, "{uri}");
        }
    }

    #[test]
    fn precedence_is_total() {
        let get = [Method::GET];
        let list = vec![
            route(0, None, "/a", &[], &[]),
            route(1, None, "/a", &get, &[]),
            route(2, None, "/a", &get, &[("x-canary", "1")]),
            route(3, Some("*.example.org"), "/", &[], &[]),
            route(4, Some("*.eu.example.org"), "/", &[], &[]),
            route(5, Some("www.example.org"), "/", &[], &[]),
        ];
        let routes = Routes::new(list, None, None);
        for (method, uri, headers, expected) in [
            ("GET", "/a/b", &[][..], "1 /b"),
            ("POST", "/a/b", &[], "0 /b"),
            ("GET", "/a/b", &[("x-canary", "1")], "2 /b"),
            ("GET", "/a/b", &[("x-canary", "2")], "1 /b"),
            ("GET", "/a", &[("host", "WWW.example.org:80")], "5 /a"),
            ("GET", "/a", &[("host", "x.eu.example.org")], "4 /a"),
            ("GET", "/a", &[("host", "x.example.org")], "3 /a"),
            ("GET", "/a", &[("host", "example.org")], "1 /"),
            ("GET", "/b", &[("host", "[::1]:80")], "nothing"),
        ] {
            assert_eq!(found(&routes, head(method, uri, headers)), expected, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn services_have_routes_by_path_and_by_header() {
        let header = Some("/services".parse().unwrap());
        let routes = Routes::new(vec![route(0, None, "/shop", &[], &[])], header, Some(AutoRoutes::default()));
        for (uri, headers, expected) in [
            ("/service_1/user?id=1", &[][..], "<service_1> /user?id=1"),
            ("/service_1", &[], "<service_1> /"),
            ("/service_1?x", &[], "<service_1> /?x"),
            ("/a%20b%2Fc/d", &[], "<a b/c> /d"),
            ("/%zz/d", &[], "nothing"),
            ("/", &[], "nothing"),
            ("//x", &[], "nothing"),
            ("/shop/x", &[], "0 /x"),
            ("/services", &[], "<services> /"),
            ("/services", &[("service_name", "s 1"), ("api_name", "/user?id=1")], "<s 1> /user?id=1"),
            ("/services", &[("service_name", "s1")], "<s1> /"),
            ("/services", &[("service_name", "s1"), ("api_name", "user")], "<s1> user"),
            ("/services/x", &[("service_name", "s1")], "<services> /x"),
        ] {
            assert_eq!(found(&routes, head("GET", uri, headers)), expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn deny_beats_allow() {
        let auto =
            AutoRoutes { allow: vec!["a*".into(), "*-x-*y".into()], deny: vec!["ab".into()], ..AutoRoutes::default() };
        let routes = Routes::new(Vec::new(), None, Some(auto));
        let names = ["a", "ab", "abc", "b", "q-x-1y", "q-x-1yz", "-x-y"];
        assert_eq!(names.map(|name| routes.implies(name)), [true, false, true, false, true, false, true]);
    }
}

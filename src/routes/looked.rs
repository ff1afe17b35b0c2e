//! What the search for a route has looked at, for people: the same rules as [`Routes::find`], which does not stop to tell.

use std::sync::Arc;

use super::{API_NAME, Found, Matcher, Route, Routes, SERVICE_NAME, host};
use crate::message::RequestHead;

/// A way that a request might have taken.
#[derive(Debug)]
pub struct Looked {
    /// The route's name, or what kind of route it is.
    pub name: String,
    /// Its service, where there is one.
    pub service: Option<String>,
    /// Whether it takes the request.
    pub chosen: bool,
    /// Why, or why not.
    pub why: String,
}

/// Routes that are told: those nearest to being chosen.
const MOST: usize = 20;

impl Routes {
    /// The routes that might take this request, those that come first in front, and how many others there are. `known`:
    /// whether there is a service of this name with an implicit route.
    pub fn looked(&self, head: &RequestHead, known: &dyn Fn(&str) -> bool) -> (Vec<Looked>, usize) {
        let mut all = Vec::new();
        if let Some(header) = &self.header {
            all.push(self.by_service_name(header.as_str(), head, known));
        }
        let found = self.find(head);
        let by_header = self.by_header(head).is_some();
        let winner = if let Found::Explicit(route, _) = &found { Some(*route) } else { None };
        let mut explicit: Vec<_> = self.list.iter().map(|route| self.judged(route, winner, by_header, head)).collect();
        // Those that fit in most respects first; among those, as they are tried.
        explicit.sort_by_key(|(fits, route, looked)| (!looked.chosen, std::cmp::Reverse(*fits), order(&route.matcher)));
        let rest = explicit.len().saturating_sub(MOST);
        all.extend(explicit.into_iter().take(MOST).map(|(.., looked)| looked));
        if let Some(auto) = &self.auto {
            let (name, service) = match self.implicit(head.target.path()) {
                Found::Implicit(service, _) => (format!("{}{service}", slash(auto.prefix.as_str())), Some(service)),
                _ => (format!("{}<service>", slash(auto.prefix.as_str())), None),
            };
            let chosen = matches!(&found, Found::Implicit(..)) && !by_header && service.as_deref().is_some_and(known);
            let why = match &service {
                _ if chosen => "no explicit route takes it, and the first segment of the path names a service".into(),
                None => "the path names no service".into(),
                Some(service) if !self.implies(service) => format!("auto_routes does not allow {service}"),
                Some(service) if !known(service) => format!("there is no service {service}"),
                Some(_) => "routes that were written come before".into(),
            };
            all.push(Looked { name, service: service.map(|it| it.into_owned()), chosen, why });
        }
        (all, rest)
    }

    fn by_service_name(&self, path: &str, head: &RequestHead, known: &dyn Fn(&str) -> bool) -> Looked {
        let service = head.fields.text(SERVICE_NAME.as_str()).map(str::to_owned);
        let here = head.target.path() == path;
        let chosen = here && service.as_deref().is_some_and(known);
        let why = match &service {
            _ if !here => format!("the path is not {path}"),
            None => format!("there is no header {SERVICE_NAME}"),
            Some(service) if !known(service) => format!("there is no service {service}"),
            Some(_) => format!("the path is {path}, and {SERVICE_NAME} names the service ({API_NAME} the path)"),
        };
        Looked { name: format!("{path} by headers"), service, chosen, why }
    }

    /// In how many respects a route fits, and what is told of it.
    fn judged<'r>(
        &self,
        route: &'r Arc<Route>,
        winner: Option<&Route>,
        by_header: bool,
        head: &RequestHead,
    ) -> (u32, &'r Arc<Route>, Looked) {
        let matcher = &route.matcher;
        let asked = host(head);
        let on_path = covers(matcher.prefix.as_str(), head.target.path());
        let on_host = match matcher.host.as_deref().map(|it| (it, it.strip_prefix("*."))) {
            None => true,
            Some((host, None)) => *host == *asked,
            Some((_, Some(suffix))) => {
                asked.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        };
        let on_method = matcher.methods.is_empty() || matcher.methods.contains(&head.method);
        let wanting = matcher
            .headers
            .iter()
            .find(|(name, value)| !head.fields.all(name.as_str()).any(|given| given == value.as_bytes()));
        let chosen = winner.is_some_and(|winner| std::ptr::eq(winner, &**route));
        let why = match wanting {
            _ if !on_path => format!("the path is not below {}", matcher.prefix.as_str()),
            _ if !on_host => format!("the host is not {}", matcher.host.as_deref().unwrap_or_default()),
            _ if !on_method => {
                let methods: Vec<&str> = matcher.methods.iter().map(http::Method::as_str).collect();
                format!("the method is not {}", methods.join(" or "))
            }
            Some((name, _)) => format!("the header {name} has not the value that it wants"),
            None if chosen => chosen_why(matcher),
            None if by_header => "a header route comes before".into(),
            None => winner.map_or_else(String::new, |winner| {
                format!("{} comes before: {}", winner.name, before(winner, matcher))
            }),
        };
        let fits = [on_path, on_host, on_method, wanting.is_none()].into_iter().filter(|it| *it).count() as u32;
        // Whoever looks for the reason looks at paths first.
        let fits = fits + u32::from(on_path) * 4;
        let (name, service) = (route.name.to_string(), Some(route.service.to_string()));
        (fits, route, Looked { name, service, chosen, why })
    }
}

/// Whether the path is at the prefix or below, on whole segments.
fn covers(prefix: &str, path: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn chosen_why(matcher: &Matcher) -> String {
    let mut why = format!("the path is at or below {}", matcher.prefix.as_str());
    if let Some(host) = &matcher.host {
        why.push_str(&format!(", the host is {host}"));
    }
    if !matcher.methods.is_empty() {
        why.push_str(", the method fits");
    }
    if !matcher.headers.is_empty() {
        why.push_str(", the headers fit");
    }
    why + ", and nothing that fits comes before"
}

/// Why one that fits comes before another.
fn before(winner: &Route, other: &Matcher) -> &'static str {
    let winner = &winner.matcher;
    let class =
        |matcher: &Matcher| matcher.host.as_deref().map_or(0, |host| if host.starts_with("*.") { 1 } else { 2 });
    if class(winner) != class(other) || winner.host != other.host {
        "its host is more exact"
    } else if winner.prefix != other.prefix {
        "its prefix is longer"
    } else if winner.methods.is_empty() != other.methods.is_empty() {
        "it asks for methods"
    } else if winner.headers.len() != other.headers.len() {
        "it asks for more headers"
    } else {
        "it stands earlier in the file"
    }
}

fn order(matcher: &Matcher) -> (std::cmp::Reverse<usize>, usize) {
    (std::cmp::Reverse(matcher.prefix.as_str().len()), matcher.order)
}

/// A prefix with a `/` at its end.
fn slash(prefix: &str) -> String {
    format!("{}/", prefix.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::tests::{head, route};
    use super::*;
    use crate::config::{AutoRoutes, PathPrefix};

    #[test]
    fn what_is_told_is_what_is_found() {
        let list = vec![
            route(0, None, "/", &[], &[]),
            route(1, None, "/shop", &[Method::POST], &[]),
            route(2, None, "/shop", &[], &[("x-a", "1")]),
            route(3, Some("*.example.org"), "/", &[], &[]),
            route(4, Some("a.example.org"), "/shop", &[], &[]),
            route(5, Some("a.example.org"), "/shop/cart", &[Method::GET], &[("x-a", "1")]),
        ];
        let auto = AutoRoutes { prefix: PathPrefix::root(), allow: vec!["s*".into()], deny: vec![] };
        let header: PathPrefix = "/by".parse().unwrap();
        let known = |name: &str| name == "s";
        for routes in [
            Routes::new(list.clone(), Some(header.clone()), Some(auto.clone())),
            Routes::new(list[1..].to_vec(), Some(header), Some(auto)),
            Routes::new(list, None, None),
        ] {
            for path in ["/", "/shop", "/shop/cart/1", "/shopping", "/by", "/s/x", "/t"] {
                for host in ["", "a.example.org", "b.example.org", "example.org"] {
                    for method in ["GET", "POST"] {
                        for more in [&[][..], &[("x-a", "1")], &[("service_name", "s")]] {
                            let asked = head(method, path, &[&[("host", host)], more].concat());
                            let (looked, rest) = routes.looked(&asked, &known);
                            let chosen: Vec<&Looked> = looked.iter().filter(|it| it.chosen).collect();
                            let found = match routes.find(&asked) {
                                Found::Explicit(route, _) => Some(route.name.to_string()),
                                Found::Implicit(service, _) if known(&service) => Some(service.into_owned()),
                                _ => None,
                            };
                            let told = chosen.first().map(|it| match &it.service {
                                Some(service) if service == "s" && it.name.parse::<usize>().is_err() => service.clone(),
                                _ => it.name.clone(),
                            });
                            assert_eq!((told, rest), (found, 0), "{method} {host} {path} {more:?}: {looked:?}");
                            assert!(chosen.len() <= 1 && looked.iter().all(|it| !it.why.is_empty()), "{looked:?}");
                        }
                    }
                }
            }
        }
    }
}

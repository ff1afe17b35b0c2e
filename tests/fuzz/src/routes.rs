//! Route matching: among a few routes the one is found that a look at all of them finds.

use std::cmp::Reverse;
use std::sync::Arc;

use http::Method;
use moongate::config::{AutoRoutes, BalancerFailure, Timeouts};
use moongate::message::RequestHead;
use moongate::message::path::Policy;
use moongate::plugin::{Binding, Kind, Numbers};
use moongate::routes::{Found, Matcher, Route, Routes, Sent, Use};

use super::choice;

const HOSTS: [Option<&str>; 6] =
    [None, Some("a.example"), Some("*.example"), Some("*.a.example"), Some("b.a.example"), Some("[::1]")];
const PREFIXES: [&str; 6] = ["/", "/a", "/a/b", "/ab", "/a/b/c", "/b"];
const ASKED: [&str; 9] =
    ["a.example", "A.Example:80", "b.a.example", "c.b.a.example", "example", "x.example", "[::1]:8080", ".example", ""];

/// One digit: whether services have routes of their own. Two digits for each route, host and prefix (and which method
/// and header it wants, for other bytes), up to a `|`. One digit for the host asked for, one for method and header,
/// then the path.
pub fn routes(data: &[u8]) {
    let (auto, data) = choice(data, 2);
    let (written, asked) = match data.iter().position(|byte| *byte == b'|') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => return,
    };
    let list: Vec<Arc<Route>> = written.chunks_exact(2).take(8).enumerate().map(|(at, it)| route(at, it)).collect();
    let (host, asked) = choice(asked, ASKED.len());
    let (other, path) = choice(asked, 4);
    let Ok(target) = Policy::default().read(path) else { return };
    let mut head = RequestHead::new(if other & 1 == 0 { Method::GET } else { Method::POST }, target.as_str());
    if !ASKED[host].is_empty() {
        head.fields.append("host", ASKED[host].as_bytes());
    }
    if other & 2 != 0 {
        head.fields.append("x-env", b"test");
    }

    let auto = (auto == 1).then(AutoRoutes::default);
    let routes = Routes::new(list.clone(), None, auto.clone());
    let best = list.iter().filter_map(|it| Some((rank(&it.matcher, &head, ASKED[host])?, it))).max_by_key(|it| it.0);
    match (routes.find(&head), best) {
        (Found::Explicit(found, cut), Some((_, expected))) => {
            assert_eq!(found.name, expected.name, "{list:?} {head:?}");
            let prefix = expected.matcher.prefix.as_str();
            assert_eq!(cut, if expected.strip_prefix && prefix != "/" { prefix.len() } else { 0 });
            sent(&head, cut);
        }
        (Found::Implicit(service, Sent::Rest(cut)), None) => {
            assert!(auto.is_some() && !service.is_empty());
            sent(&head, cut);
        }
        (Found::Nothing, None) => {}
        (found, expected) => panic!("{found:?} instead of {expected:?} for {head:?}"),
    }
}

/// What is sent on is a path too, and the policy has nothing against it.
fn sent(head: &RequestHead, cut: usize) {
    let mut target = head.target.clone();
    target.cut(cut);
    assert!(target.as_str().starts_with('/') && target.query() == head.target.query(), "{target:?}");
    let policy = Policy::default();
    assert_eq!(policy.read(target.as_str().as_bytes()).unwrap().as_str(), target.as_str());
}

fn route(order: usize, chosen: &[u8]) -> Arc<Route> {
    let binding = Binding::new(0, "p".into(), Kind::Balancer, "{}".into(), Numbers::default().take());
    let (host, prefix) = (choice(&chosen[..1], HOSTS.len()).0, choice(&chosen[1..], PREFIXES.len()).0);
    // Digits have these bits too, so that a corpus of digits has them all.
    let (methods, headers) = (chosen[0] & 4 != 0, chosen[1] & 4 != 0);
    let matcher = Matcher {
        host: HOSTS[host].map(Into::into),
        prefix: PREFIXES[prefix].parse().unwrap(),
        methods: if methods { vec![Method::POST] } else { Vec::new() },
        headers: if headers { vec![("x-env".parse().unwrap(), "test".into())] } else { Vec::new() },
        order,
    };
    Arc::new(Route {
        name: order.to_string().into(),
        matcher,
        strip_prefix: chosen[0] & 2 == 0,
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

/// How well a route fits; none if it does not. The greatest wins.
type Rank = (bool, usize, usize, bool, usize, Reverse<usize>);

fn rank(matcher: &Matcher, head: &RequestHead, host: &str) -> Option<Rank> {
    let host = host.to_lowercase();
    let host = host.strip_suffix(":80").or(host.strip_suffix(":8080")).unwrap_or(&host);
    let (exact, wildcard) = match matcher.host.as_deref() {
        None => (false, 0),
        Some(wanted) => match wanted.strip_prefix('*') {
            Some(end) if host.ends_with(end) && host.len() > end.len() => (false, end.len()),
            None if wanted == host => (true, 0),
            _ => return None,
        },
    };
    let (prefix, path) = (matcher.prefix.as_str(), head.target.path());
    let fits = prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
    let method = matcher.methods.is_empty() || matcher.methods.contains(&head.method);
    let header = matcher.headers.is_empty() || head.fields.contains("x-env");
    let order = Reverse(matcher.order);
    let rank = (exact, wildcard, prefix.len(), !matcher.methods.is_empty(), matcher.headers.len(), order);
    (fits && method && header).then_some(rank)
}

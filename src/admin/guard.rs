//! Who may ask the admin API: whoever has the token where there is one, and no web page of somebody else.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap};
use http::{Method, Request, StatusCode};

use crate::config::Secret;
use crate::config::admin::is_local;

/// What is served to everybody, because it tells nothing of this gateway: whether it lives, and the dashboard before it has
/// asked for anything.
pub(super) const OPEN: [&str; 6] = ["/", "/healthz", "/readyz", "/dashboard.css", "/dashboard.js", "/mark.svg"];

/// Why a request is not answered; none if it is.
pub(super) fn refusal<B>(
    request: &Request<B>,
    bound: SocketAddr,
    token: Option<&Secret>,
) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    // A page of somebody else can have its own name resolve to this machine, and then it is of the same origin as we are.
    // It cannot have the browser say another name than its own.
    if is_local(&bound) {
        let hosts = headers.get_all(header::HOST).iter().map(|it| it.to_str().unwrap_or_default());
        let named = request.uri().authority().map(http::uri::Authority::as_str);
        if !hosts.chain(named).all(|host| is_ours(host, bound.ip())) {
            return Some((StatusCode::FORBIDDEN, "this is served as localhost, 127.0.0.1 or [::1] only\n"));
        }
    }
    if is_foreign(request.method(), headers) {
        return Some((StatusCode::FORBIDDEN, "pages of other sites may not ask this\n"));
    }
    let token = token.filter(|_| !OPEN.contains(&request.uri().path()))?;
    let given = headers.get(header::AUTHORIZATION).map(|it| it.as_bytes());
    let given = given.and_then(|it| it.split_first_chunk::<7>()).filter(|it| it.0.eq_ignore_ascii_case(b"bearer "));
    if given.is_some_and(|(_, given)| token.is(given.trim_ascii())) {
        return None;
    }
    Some((StatusCode::UNAUTHORIZED, "this needs the token: Authorization: Bearer TOKEN\n"))
}

/// Whether this names our own machine.
fn is_ours(host: &str, bound: IpAddr) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address: Option<IpAddr> = name.parse().ok();
    name.trim_end_matches('.').eq_ignore_ascii_case("localhost")
        || address.is_some_and(|it| {
            it == bound || it == IpAddr::from([127, 0, 0, 1]) || it == IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])
        })
}

/// Whether a browser says that another site has made it ask. Looking at a link to here is allowed; nothing that changes
/// anything is, and neither is to use this as part of another page.
fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    let safe = [Method::GET, Method::HEAD].contains(method);
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or("?"));
    let visited = safe && text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
    if text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site)) && !visited {
        return true;
    }
    // Browsers say this with all that might change something, and have since before they said the other.
    let host = text("host").unwrap_or_default();
    text("origin").is_some_and(|origin| origin.split_once("://").map(|it| it.1) != Some(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn asks(method: Method, path: &str, bound: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let token = Secret(TOKEN.into());
        let token = Some(&token).filter(|_| bound.ends_with('1'));
        refusal(&request.body(()).unwrap(), bound.parse().unwrap(), token).map(|it| it.0.as_u16())
    }

    #[test]
    fn on_loopback_only_our_own_names_count() {
        for host in ["localhost", "LOCALHOST:9900", "localhost.:1", "127.0.0.1:9900", "[::1]:9900", "[::1]"] {
            assert_eq!(asks(Method::GET, "/metrics", "127.0.0.1:9900", &[("host", host)]), None, "{host}");
        }
        for host in ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test:9900", "", "192.168.0.1", "[::2]"] {
            assert_eq!(asks(Method::GET, "/healthz", "127.0.0.1:9900", &[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(asks(Method::GET, "http://evil.test/", "127.0.0.1:9900", &[("host", "localhost")]), Some(403));
        assert_eq!(asks(Method::GET, "/metrics", "10.0.0.1:9900", &[("host", "gateway.example")]), None);
    }

    #[test]
    fn with_a_token_nothing_is_told_without_it() {
        let bearer = |token: &str| format!("Bearer {token}");
        let asks = |path, token: &str| asks(Method::GET, path, "10.0.0.1:1", &[("authorization", token)]);
        assert_eq!(asks("/api/v1/services", &bearer(TOKEN)), None);
        assert_eq!(asks("/metrics", &format!("bearer  {TOKEN}")), None);
        for wrong in
            [String::new(), bearer(""), bearer("0123456789abcdeF"), bearer(&TOKEN[1..]), format!("Basic {TOKEN}")]
        {
            assert_eq!(asks("/api/v1/services", &wrong), Some(401), "{wrong:?}");
            assert_eq!(asks("/anything", &wrong), Some(401), "{wrong:?}");
        }
        for open in OPEN {
            assert_eq!(asks(open, ""), None);
        }
    }

    #[test]
    fn pages_of_others_get_nothing() {
        let asks = |method, headers: &[_]| {
            let headers = [&[("host", "localhost:9900")], headers].concat();
            self::asks(method, "/api/v1/services", "127.0.0.1:9900", &headers)
        };
        assert_eq!(asks(Method::GET, &[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(asks(Method::GET, &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]), None);
        let visit = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!(asks(Method::GET, &visit), None);
        assert_eq!(asks(Method::POST, &visit), Some(403));
        assert_eq!(asks(Method::GET, &[visit[0], visit[1], ("sec-fetch-dest", "iframe")]), Some(403));
        assert_eq!(asks(Method::GET, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")]), Some(403));
        assert_eq!(asks(Method::GET, &[("sec-fetch-site", "same-site")]), Some(403));
        assert_eq!(asks(Method::POST, &[("origin", "http://evil.test")]), Some(403));
        assert_eq!(asks(Method::POST, &[("origin", "null")]), Some(403));
        assert_eq!(asks(Method::POST, &[("origin", "http://localhost:9900")]), None);
    }
}

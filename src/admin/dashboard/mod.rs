//! The dashboard: one page, its style and its program, as they are in this folder. Nothing is built and nothing is fetched
//! from elsewhere.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

/// What a browser may do with these: run and show what comes from here, and nothing else. So a name out of a registry that
/// were taken for markup by mistake could do no harm.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the dashboard: its type and text.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/" => ("text/html; charset=utf-8", include_str!("index.html")),
        "/dashboard.css" => ("text/css; charset=utf-8", include_str!("dashboard.css")),
        "/dashboard.js" => ("text/javascript; charset=utf-8", include_str!("dashboard.js")),
        "/mark.svg" => ("image/svg+xml", include_str!("mark.svg")),
        _ => return None,
    })
}

/// Says what a browser may do with it.
pub(super) fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("same-origin"));
    }
}

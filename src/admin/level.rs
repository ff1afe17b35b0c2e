//! `/api/v1/log-level`: how much is logged, and from now on. The one thing that the admin API changes. Pages of other sites are
//! refused by [`super::guard`], and could not send this type of content without asking first, which is not answered.

use std::pin::Pin;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::{Body, respond};
use crate::config::log::Level;
use crate::logging;

/// Where it is.
pub(super) const PATH: &str = "/api/v1/log-level";

/// The longest body that is read: no level is as long.
const LONGEST: usize = 4 << 10;

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
}

pub(super) async fn answer(request: Request<Incoming>) -> Response<Body> {
    const JSON: &str = "application/json";
    let told = || respond(StatusCode::OK, JSON, json!({ "level": &*logging::level().0 }).to_string());
    let refused = |status, why: &str| respond(status, "text/plain; charset=utf-8", format!("{why}\n"));
    match *request.method() {
        Method::GET | Method::HEAD => return told(),
        Method::PUT => {}
        _ => {
            let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and PUT are served here");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, PUT"));
            return response;
        }
    }
    if !is_json(request.headers()) {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json, such as {\"level\": \"debug\"}");
    }
    let Some(body) = read(request.into_body()).await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "that is no level");
    };
    let wanted: Result<Wanted, _> = serde_json::from_slice(&body);
    let level = wanted.map_err(|error| error.to_string()).and_then(|it| it.level.parse::<Level>());
    match level {
        Ok(level) => {
            let before = logging::level();
            logging::set_level(&level);
            tracing::warn!(before = &*before.0, now = &*level.0, "the level of the log was changed by the admin API");
            told()
        }
        Err(why) => refused(StatusCode::BAD_REQUEST, &why),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// The body; none if it is too long, or broke off.
async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        all.extend_from_slice(&data);
        if all.len() > LONGEST {
            return None;
        }
    }
    Some(all)
}

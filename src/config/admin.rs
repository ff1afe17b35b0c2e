//! Who may ask the gateway about itself, and how much it tells: the admin API's token, `[explain]` and `[metrics]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::mistakes::Mistake;
use super::{Config, HeaderName, Secret, values};

/// Bytes of a token or secret, at least: what can be guessed guards nothing.
const LENGTH: usize = 16;

/// Bytes of a file with one, at most.
const FILE: u64 = 4 << 10;

/// `[explain]`: requests with a secret in a header are told how they were decided, in the same header of the response.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Explain {
    /// The header, of the request and of the response. It begins with `x-`, and never reaches an endpoint.
    pub header: HeaderName,
    /// What it has to say. At least 16 bytes.
    pub secret: Option<Secret>,
    /// A file that holds it.
    pub secret_file: Option<PathBuf>,
}

impl Default for Explain {
    fn default() -> Self {
        Explain { header: HeaderName("x-moongate-explain".into()), secret: None, secret_file: None }
    }
}

/// `[metrics]`: how many names may become labels. A registry may invent services without end, and a time series each is
/// what brings a monitoring system down.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Explicit routes with series of their own, 0 to 10,000, in the order in which they appear; the rest are `other`. Each
    /// has 24 lines.
    #[serde(deserialize_with = "values::between::<0, 10_000, _>")]
    pub routes: u32,
    /// The same of services.
    #[serde(deserialize_with = "values::between::<0, 10_000, _>")]
    pub services: u32,
    /// Endpoints with series of their own, 0 to 100,000, by service and address; the rest are `other`. Each has 11 lines.
    #[serde(deserialize_with = "values::between::<0, 100_000, _>")]
    pub endpoints: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        // Together about 20,000 lines at the most, 2 MB, which Prometheus reads in a fifth of a second.
        Metrics { routes: 200, services: 200, endpoints: 1_000 }
    }
}

/// Whether nobody but this machine can reach an address.
pub fn is_local(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What is wrong with who may ask, once file, variables and command line are put together.
pub fn mistakes(config: &Config) -> Vec<Mistake> {
    let document = Document::parse(&config.source.text).ok();
    let at = |keys: &[&str], message: String| match document.as_ref().and_then(|it| Some((it, it.find(keys)?))) {
        Some((document, span)) => document.mistake_at(&span, message),
        None => Mistake { place: None, key: keys.join("."), message },
    };
    let mut all = Vec::new();
    if config.admin_token.is_none() && !is_local(&config.admin) {
        let message = format!(
            "{} is no loopback address, so the admin API needs admin_token or admin_token_file (or the variable \
             MOONGATE_ADMIN_TOKEN)",
            config.admin
        );
        all.push(at(&["admin"], message));
    }
    let short = |secret: &Option<Secret>| secret.as_ref().is_some_and(|it| it.0.len() < LENGTH);
    if short(&config.admin_token) {
        let key = if config.admin_token_file.is_some() { "admin_token_file" } else { "admin_token" };
        all.push(at(&[key], format!("a token has at least {LENGTH} bytes")));
    }
    if let Some(explain) = &config.explain {
        if explain.secret.is_none() {
            let message = "it needs secret or secret_file (or the variable MOONGATE_EXPLAIN_SECRET)".into();
            all.push(at(&["explain"], message));
        } else if short(&explain.secret) {
            let key = if explain.secret_file.is_some() { "secret_file" } else { "secret" };
            all.push(at(&["explain", key], format!("a secret has at least {LENGTH} bytes")));
        }
        if !explain.header.0.starts_with("x-") {
            all.push(at(&["explain", "header"], format!("{:?} does not begin with \"x-\"", explain.header.0)));
        }
    }
    all
}

/// Reads the files that hold secrets; what is wrong with them.
pub(super) fn take_secrets(config: &mut Config, document: &Document<'_>, all: &mut Vec<Mistake>) {
    let mut take = |secret: &mut Option<Secret>, file: &Option<PathBuf>, keys: &[&str]| {
        let Some(path) = file else { return };
        let read = match secret {
            Some(_) => Err("the value is there too, and only one of them can be meant".into()),
            None => read(path),
        };
        match read {
            Ok(text) => *secret = Some(Secret(text)),
            Err(why) => all.push(document.mistake_at(&document.find(keys).unwrap_or_default(), why)),
        }
    };
    take(&mut config.admin_token, &config.admin_token_file, &["admin_token_file"]);
    if let Some(explain) = &mut config.explain {
        take(&mut explain.secret, &explain.secret_file, &["explain", "secret_file"]);
    }
}

/// The first line of a file.
fn read(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("reading {}: {error}", path.display());
    if std::fs::metadata(path).map_err(told)?.len() > FILE {
        return Err(format!("{} has more than {FILE} bytes", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(told)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

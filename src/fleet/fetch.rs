//! Fetching a plugin's file over HTTP(S): bounded in size and time, and told nothing of what it fetches. Whether the bytes
//! are the right ones is for whoever asked to find out.
//!
//! By hyper's client connection alone: there is one request for each connection, and so nothing for a pool to keep. The
//! request path's own client belongs to workers and comes later in the order of the modules.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::{Request, Response, StatusCode, Uri, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use toml::Spanned;

use crate::config::Protocol;
use crate::config::tls::EndpointTls;
use crate::stream::Stream;
use crate::tls::Connector;

/// How long a fetch may take, with all redirects.
const LIMIT: Duration = Duration::from_secs(60);

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// The bytes at `url`, at most `size` of them. `ca`: who is believed instead of those that the system trusts.
///
/// # Errors
/// The server cannot be reached, is not who it should be, answers something else, too much or too slowly.
pub(super) async fn fetch(url: &Uri, ca: Option<&Spanned<PathBuf>>, size: u64) -> Result<Vec<u8>> {
    let work = async {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let response = get(&url, ca).await.with_context(|| format!("fetching {url}"))?;
            if response.status() == StatusCode::OK {
                return body(response, size).await.with_context(|| format!("fetching {url}"));
            }
            url = next(&url, &response).with_context(|| format!("fetching {url}"))?;
        }
        bail!("fetching {url}: more than {REDIRECTS} redirects")
    };
    timeout(LIMIT, work).await.unwrap_or_else(|_| bail!("fetching {url}: not done after {LIMIT:?}"))
}

async fn get(url: &Uri, ca: Option<&Spanned<PathBuf>>) -> Result<Response<Incoming>> {
    let host = url.host().context("it has no host")?;
    let secure = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let address =
        lookup_host((name, port)).await.context("looking up the host")?.next().context("the host has no address")?;
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let stream = match secure {
        true => {
            let tls = EndpointTls { ca: ca.cloned(), server_name: name.parse().ok(), ..EndpointTls::default() };
            let (connector, _) = Connector::load("plugins", &tls).map_err(|refused| anyhow::anyhow!("{refused}"))?;
            connector.connect(stream, address.ip(), Protocol::Http1).await.context("the TLS handshake")?
        }
        false => Stream::plain(stream),
    };
    let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(stream)).await?;
    // It ends with its one response.
    tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |it| it.as_str());
    let request = Request::get(path)
        .header(header::HOST, url.authority().map_or(host, |it| it.as_str()))
        .header(header::USER_AGENT, concat!("moongate/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(String::new())?;
    Ok(sender.send_request(request).await?)
}

/// Where a redirect leads.
fn next<B>(url: &Uri, response: &Response<B>) -> Result<Uri> {
    ensure!(response.status().is_redirection(), "it answers {}", response.status().as_u16());
    let location = response.headers().get(header::LOCATION).context("it redirects to nowhere")?;
    let location = location.to_str().context("it redirects to nowhere")?;
    let scheme = url.scheme_str().unwrap_or_default();
    let next = match location.strip_prefix('/') {
        Some(rest) if !rest.starts_with('/') => {
            format!("{scheme}://{}{location}", url.authority().map_or("", |it| it.as_str()))
        }
        _ => location.to_owned(),
    };
    let next: Uri = next.parse().with_context(|| format!("it redirects to {location}"))?;
    let kept = matches!((scheme, next.scheme_str()), (_, Some("https")) | ("http", Some("http")));
    ensure!(kept, "it redirects to {location}");
    Ok(next)
}

async fn body(response: Response<Incoming>, size: u64) -> Result<Vec<u8>> {
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        ensure!(read.len() + data.len() <= size as usize, "it has more than {size} bytes");
        read.extend_from_slice(&data);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_on_but_not_into_the_open() {
        let after = |url: &str, status: u16, location: &str| {
            let response = Response::builder().status(status).header(header::LOCATION, location).body(()).unwrap();
            next(&url.parse().unwrap(), &response).map(|it| it.to_string())
        };
        assert_eq!(after("https://a:1/x?y", 302, "/z?q").unwrap(), "https://a:1/z?q");
        assert_eq!(after("http://a/x", 301, "https://b/").unwrap(), "https://b/");
        assert_eq!(after("http://a/x", 307, "http://b/").unwrap(), "http://b/");
        for (url, status, location) in [
            ("https://a/", 302, "http://a/"),
            ("https://a/", 302, "//b/x"),
            ("https://a/", 302, "z"),
            ("https://a/", 302, "ftp://a/"),
            ("https://a/", 404, "https://b/"),
        ] {
            assert!(after(url, status, location).is_err(), "{url} {status} {location}");
        }
    }
}

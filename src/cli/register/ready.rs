//! Whether a service is there to be found: what `--check` asks, and how often.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::tls::EndpointTls;
use crate::config::upstream::{CheckPath, HealthCheck};
use crate::health;
use crate::registry::Scheme;
use crate::registry::zookeeper::registrar::Wish;
use crate::tls::Connector;

/// From one look to the next until the service was there for the first time: it is starting, and somebody waits for it.
const STARTING: Duration = Duration::from_millis(100);

/// How long an attempt to connect may take where no check says otherwise.
const CONNECT: Duration = Duration::from_secs(1);

/// What is asked: `tcp://host:port`, `http://host:port/path`.
#[derive(Clone, Debug)]
pub(super) struct Check {
    host: String,
    /// What is asked for over HTTP; none: a connection that opens is enough.
    http: Option<(Scheme, CheckPath)>,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Check, String> {
        let wrong =
            || format!("{text:?} is not a check like \"http://127.0.0.1:8080/health\" or \"tcp://127.0.0.1:8080\"");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (http, port) = match scheme {
            "tcp" if path.is_empty() => (None, None),
            "http" => (Some(Scheme::Http), Some(80)),
            "https" => (Some(Scheme::Https), Some(443)),
            _ => return Err(wrong()),
        };
        // An IPv6 address has colons of its own, in brackets.
        let name = host.rfind(']').map_or(0, |at| at + 1);
        let host = match (host[name..].find(':').map(|at| (name + at, host[name + at + 1..].parse::<u16>())), port) {
            (Some((1.., Ok(1..))), _) => host.to_owned(),
            (None, Some(port)) if !host.is_empty() => format!("{host}:{port}"),
            _ => return Err(wrong()),
        };
        let path = if path.is_empty() { "/" } else { path };
        let http = http.map(|scheme| Ok::<_, String>((scheme, path.parse::<CheckPath>()?))).transpose()?;
        Ok(Check { host, http })
    }
}

/// How a check is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Bad ones in a row until the endpoint is withdrawn.
    pub(super) failures: u32,
}

/// Wishes for the endpoint to be announced while the check passes, for ever.
pub(super) async fn follow(check: Check, pace: Pace, wishes: watch::Sender<Wish>) {
    let (mut passed, mut failures) = (false, 0);
    loop {
        match timeout(pace.timeout, ask(&check)).await.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(()) => {
                if Wish::Present.make(&wishes) {
                    tracing::info!(check = check.host, "the check passes");
                }
                (passed, failures) = (true, 0);
            }
            Err(reason) => {
                failures += 1;
                if failures >= pace.failures && Wish::Absent.make(&wishes) {
                    tracing::warn!(check = check.host, reason, failures, "the check fails");
                }
            }
        }
        let interval = if passed { pace.interval } else { pace.interval.min(STARTING) };
        sleep(interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

/// Wishes for the endpoint to be announced as soon as something listens there.
pub(super) async fn wait(address: SocketAddr, wishes: watch::Sender<Wish>) {
    while !matches!(timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(stream)) if !crate::stream::is_own_peer(&stream))
    {
        sleep(STARTING).await;
    }
    Wish::Present.make(&wishes);
    tracing::info!(%address, "the service listens");
    // It stays so as long as its command runs.
    std::future::pending().await
}

async fn ask(check: &Check) -> Result<(), String> {
    // Again each time: a name may come to stand for another address.
    let mut addresses = lookup_host(check.host.as_str()).await.map_err(|error| error.to_string())?;
    let address = addresses.next().ok_or("it has no address")?;
    let Some((scheme, path)) = &check.http else {
        return match TcpStream::connect(address).await {
            Ok(stream) if crate::stream::is_own_peer(&stream) => Err("connection refused".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
    };
    let name = check.host.rsplit_once(':').map(|(name, _)| name).unwrap_or_default();
    // A certificate is for the name that was written, unless that is an address.
    let tls = EndpointTls { server_name: name.parse().ok(), ..EndpointTls::default() };
    let (connector, _) = Connector::load("check", &tls).map_err(|refused| refused.to_string())?;
    let check = HealthCheck { path: Some(path.clone()), ..HealthCheck::default() };
    health::ask(address, *scheme, &connector, &check).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_or_refused() {
        for (text, host, path) in [
            ("tcp://127.0.0.1:80", "127.0.0.1:80", None),
            ("tcp://db:5432", "db:5432", None),
            ("http://127.0.0.1:8080/health?a=1", "127.0.0.1:8080", Some("/health?a=1")),
            ("http://localhost", "localhost:80", Some("/")),
            ("https://[::1]:8443/", "[::1]:8443", Some("/")),
        ] {
            let check: Check = text.parse().unwrap();
            assert_eq!((check.host.as_str(), check.http.as_ref().map(|(_, path)| &*path.0)), (host, path), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:80",
            "udp://a:1",
            "tcp://a",
            "tcp://a:1/x",
            "tcp://:80",
            "http://:80/",
            "http://a:0/",
            "http:///x",
            "http://a/ b",
        ] {
            assert!(text.parse::<Check>().is_err(), "{text}");
        }
    }
}

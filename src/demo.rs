//! The sample services, and the gateway in front of them with nothing else needed.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http::header::HeaderName;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::config::{AutoRoutes, Config, ServicesFile};
use crate::gateway::{self, Addresses};

/// Tells which endpoint answered.
const ENDPOINT: HeaderName = HeaderName::from_static("x-endpoint");

/// The services, with two endpoints each.
const SERVICES: [&str; 2] = ["service_1", "service_2"];

/// Serves a sample service on this listener for ever.
///
/// # Errors
/// If the listener cannot be used.
pub async fn sample(name: &str, listener: std::net::TcpListener) -> Result<()> {
    listener.set_nonblocking(true).context("preparing the listener")?;
    let bound = listener.local_addr().context("reading the bound address")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("registering the listener")?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        // Where the client came to, which is one of many where all addresses are listened on.
        let address = stream.local_addr().unwrap_or(bound);
        let name = name.to_owned();
        let serve = async move {
            let service = service_fn(|request| {
                let (pause, answer) = (pause(&request), answer(&name, address, &request));
                async move {
                    tokio::time::sleep(pause).await;
                    Ok::<_, Infallible>(answer)
                }
            });
            // A client that goes away is its own affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        };
        tokio::spawn(serve);
    }
}

/// As the services of the original demonstration answer.
fn answer<B: Body>(name: &str, address: SocketAddr, request: &Request<B>) -> Response<String> {
    let (status, text) = match (request.uri().path(), parameter(request, "id")) {
        ("/", _) => (StatusCode::OK, format!("This is {}.", title(name))),
        ("/user", Some(id)) => (StatusCode::OK, format!("It's user {id}.")),
        ("/wait", _) => (StatusCode::OK, "That took a while.".to_owned()),
        _ => (StatusCode::NOT_FOUND, "There is nothing here.".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(address) = HeaderValue::try_from(address.to_string()) {
        response.headers_mut().insert(ENDPOINT, address);
    }
    response
}

/// How long the answer is to take: `/wait?seconds=3`, to see what becomes of slow requests. At most a minute.
fn pause<B>(request: &Request<B>) -> Duration {
    let seconds = parameter(request, "seconds").filter(|_| request.uri().path() == "/wait");
    Duration::from_secs(seconds.and_then(|it| it.parse().ok()).unwrap_or(0).min(60))
}

/// The value of a parameter in the query.
fn parameter<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// `service_1` → `Service 1`.
fn title(name: &str) -> String {
    match name.strip_prefix("service_") {
        Some(number) => format!("Service {number}"),
        None => name.to_owned(),
    }
}

/// Runs gateway and sample services until a signal comes. `ready` gets the addresses and the services file.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config, ready: impl FnOnce(&Addresses, &Path)) -> Result<()> {
    let mut text = String::from("# The demo's registry: edit a line and save, and the routes follow.\n");
    for name in SERVICES {
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").context("starting a sample service")?;
            addresses.push(listener.local_addr().context("reading the bound address")?);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("starting a sample service")?;
            let serve = move || runtime.block_on(sample(name, listener));
            thread::Builder::new().name(name.into()).spawn(serve).context("starting a sample service")?;
        }
        text.push_str(&format!("\n[services.{name}]\nendpoints = [\n"));
        for address in addresses {
            text.push_str(&format!("    {{ address = \"{address}\" }},\n"));
        }
        text.push_str("]\n");
    }

    let directory = Directory::new()?;
    let services = directory.0.join("services.toml");
    fs::write(&services, text).with_context(|| format!("writing {}", services.display()))?;
    let mut config = config;
    config.registry.file = Some(ServicesFile { path: services.clone() });
    config.auto_routes = Some(AutoRoutes::default());
    config.header_routes = "/services".parse().ok();
    let again = config.clone();
    let reload = gateway::Reload { file: None, read: Box::new(move || Ok(again.clone())) };
    gateway::run(config, reload, |addresses| ready(addresses, &services)).await
}

/// A directory of this process that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Directory> {
        let path = std::env::temp_dir().join(format!("moongate-demo-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It is in the directory for temporary files: what is left there is no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

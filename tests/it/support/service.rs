//! A gateway in front of the service `s`, what is known of its endpoints, and endpoints that behave badly.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};

use http::Response;
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;
use super::gateway::Gateway;
use super::origin::Origin;

/// A gateway with the service `s`.
pub(crate) fn in_front_of(addresses: &[SocketAddr], config: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("services.toml"), services(addresses)).unwrap();
    Gateway::start_in(dir, &format!("{config}\n[auto_routes]\n"))
}

pub(crate) fn services(addresses: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = addresses.iter().map(|it| format!("{{ address = \"{it}\" }}")).collect();
    format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", "))
}

/// Replaces the services file.
pub(crate) fn register(gateway: &Gateway, addresses: &[SocketAddr]) {
    let new = gateway.path("services.new");
    fs::write(&new, services(addresses)).unwrap();
    fs::rename(new, gateway.path("services.toml")).unwrap();
}

/// Replaces the configuration, of which this is what [`in_front_of`] was given.
pub(crate) fn configure(gateway: &Gateway, config: &str) {
    let addresses = format!("listen = \"{}\"\nadmin = \"{}\"\n", gateway.http, gateway.admin);
    let new = gateway.path("moongate.new");
    fs::write(&new, format!("{addresses}{config}\n[auto_routes]\n")).unwrap();
    fs::rename(new, gateway.path("moongate.toml")).unwrap();
}

/// What the admin API says of the service.
pub(crate) async fn service(gateway: &Gateway) -> Value {
    let all = gateway.api("services").await;
    all["services"].as_array().unwrap().iter().find(|it| it["name"] == "s").unwrap().clone()
}

/// What it says of an endpoint; null if it does not know it.
pub(crate) async fn endpoint(gateway: &Gateway, address: SocketAddr) -> Value {
    let service = service(gateway).await;
    let endpoints = service["endpoints"].as_array().unwrap();
    endpoints.iter().find(|it| it["address"] == address.to_string().as_str()).cloned().unwrap_or_default()
}

pub(crate) async fn becomes(gateway: &Gateway, address: SocketAddr, health: &str) {
    let what = format!("{address} becomes {health}");
    eventually(&what, async || endpoint(gateway, address).await["health"] == health).await;
}

pub(crate) async fn logged(gateway: &Gateway, line: &str) {
    // What the process has written may still be on its way.
    eventually(&format!("{line:?} is logged"), async || gateway.log().contains(line)).await;
}

/// An origin whose answers have the status in the cell.
pub(crate) async fn moody(status: u16) -> (Origin, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(status));
    let answers = mood.clone();
    let origin = Origin::answering(move |_, address| {
        let response = Response::builder().status(answers.load(SeqCst));
        response.body(Full::from(address.to_string())).unwrap()
    })
    .await;
    (origin, mood)
}

/// Nothing listens there. Below the ports that the system hands out, so that nothing will.
pub(crate) fn nobody() -> SocketAddr {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (20_000 + (std::process::id() as u16) % 5_000..32_000).find(free).unwrap();
    ([127, 0, 0, 1], port).into()
}

/// Accepts, and does this with each connection until it is dropped.
pub(crate) struct Rude {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Rude {
    pub(crate) async fn start(mut serve: impl FnMut(TcpStream) + Send + 'static) -> Rude {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, SeqCst);
                serve(stream);
            }
        });
        Rude { address, connections, task }
    }

    pub(crate) async fn resetting() -> Rude {
        Rude::start(|stream| stream.set_zero_linger().unwrap()).await
    }

    pub(crate) async fn hanging() -> Rude {
        let mut held = Vec::new();
        Rude::start(move |stream| held.push(stream)).await
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.task.abort();
    }
}

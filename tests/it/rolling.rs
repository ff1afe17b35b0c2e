//! Endpoints are restarted one after the other under load: politely, rudely, and by killing their processes. No request
//! that may be repeated fails.

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::client::{Client, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;

const ROUNDS: usize = 50;
const ENDPOINTS: usize = 3;
const CLIENTS: usize = 8;

/// A port below those that the system hands out to whoever connects: while an endpoint is down, nobody else must get
/// its port, and a connection to it must not end up connected with itself.
fn port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 8_000) as u16;
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], base + NEXT.fetch_add(1, SeqCst)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn in_front_of(addresses: &[SocketAddr]) -> Gateway {
    let dir = TempDir::new().unwrap();
    let endpoints: Vec<String> = addresses.iter().map(|it| format!("{{ address = \"{it}\" }}")).collect();
    let services = format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", "));
    fs::write(dir.path().join("services.toml"), services).unwrap();
    Gateway::start_in(dir, "workers = 2\n[auto_routes]\n")
}

/// Clients that ask without a pause until they are told to stop.
struct Load {
    clients: JoinSet<Vec<String>>,
    answers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn on(gateway: &Gateway) -> Load {
        let (answers, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (answers, stop, address) = (answers.clone(), stop.clone(), gateway.http);
            clients.spawn(async move {
                let mut client = Client::to(address).await;
                let mut failures = Vec::new();
                while !stop.load(SeqCst) {
                    let mut asked = request("/s/", &[]);
                    // What may be repeated is more than GET.
                    *asked.method_mut() = [Method::GET, Method::DELETE][number % 2].clone();
                    match client.send(asked).await {
                        Ok(reply) if reply.status == StatusCode::OK => {}
                        Ok(reply) => failures.push(reply.text().to_owned()),
                        Err(error) => {
                            failures.push(format!("{error:?}"));
                            client = Client::to(address).await;
                        }
                    }
                    answers.fetch_add(1, SeqCst);
                }
                failures
            });
        }
        Load { clients, answers, stop }
    }

    /// Waits for so many answers more.
    async fn more(&self, count: usize) {
        let until = self.answers.load(SeqCst) + count;
        eventually("requests are answered", async || self.answers.load(SeqCst) >= until).await;
    }

    async fn end(mut self) -> usize {
        self.stop.store(true, SeqCst);
        let mut failures = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            failures.extend(client.unwrap());
        }
        let answers = self.answers.load(SeqCst);
        assert!(failures.is_empty(), "{} of {answers} failed, the first: {}", failures.len(), failures[0]);
        answers
    }
}

/// A process of its own.
struct Process(Child);

impl Process {
    async fn start(address: SocketAddr) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
        command.args(["sample", "--name", "service_1", "--listen", &address.to_string()]);
        let mut process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("an endpoint has started", async || {
            if process.0.try_wait().unwrap().is_some() {
                process.0 = command.spawn().unwrap();
            }
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        process
    }

    fn end(&mut self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_fail_no_request_that_may_be_repeated() {
    let addresses = [(); ENDPOINTS].map(|()| port());
    let mut processes = Vec::new();
    for address in addresses {
        processes.push(Process::start(address).await);
    }
    let gateway = in_front_of(&addresses);
    let load = Load::on(&gateway);
    let began = Instant::now();
    for round in 0..ROUNDS {
        load.more(50).await;
        let at = round % ENDPOINTS;
        processes[at].end(if round % 2 == 0 { "-KILL" } else { "-TERM" });
        load.more(20).await;
        processes[at] = Process::start(addresses[at]).await;
    }
    let answers = load.end().await;
    println!("{ROUNDS} restarts and {answers} answers in {:?}", began.elapsed());
}

/// An endpoint in this process, which can end as politely as a server can.
struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(address: SocketAddr) -> Server {
        let mut listener = None;
        eventually("the port is free again", async || {
            listener = tokio::net::TcpListener::bind(address).await.ok();
            listener.is_some()
        })
        .await;
        let listener = listener.unwrap();
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = stopped.changed() => break,
                };
                connections.spawn(serve(accepted.unwrap().0, stopped.clone()));
            }
            // Whoever is in the queue is refused from here on, as when a process ends.
            drop(listener);
            while connections.join_next().await.is_some() {}
        });
        Server { address, stop, task }
    }

    /// Ends what is running and closes what is idle.
    async fn finish(mut self) -> SocketAddr {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap();
        self.address
    }

    /// Drops everything, in the middle of whatever it was.
    async fn abort(mut self) -> SocketAddr {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(async |_| {
        // So that there is always something in the middle.
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("here")))
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polite_and_rude_restarts_fail_no_request_that_may_be_repeated() {
    let addresses = [(); ENDPOINTS].map(|()| port());
    let mut servers = Vec::new();
    for address in addresses {
        servers.push(Some(Server::start(address).await));
    }
    let gateway = in_front_of(&addresses);
    let load = Load::on(&gateway);
    let began = Instant::now();
    for round in 0..ROUNDS {
        load.more(50).await;
        let server = servers[round % ENDPOINTS].take().unwrap();
        let address = if round % 2 == 0 { server.finish().await } else { server.abort().await };
        load.more(20).await;
        servers[round % ENDPOINTS] = Some(Server::start(address).await);
    }
    let answers = load.end().await;
    println!("{ROUNDS} restarts and {answers} answers in {:?}", began.elapsed());
}

//! One gateway takes the place of another, and no client notices.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http_body_util::Full;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::client::{Client, get, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

const HANDOVER: &str = "handover = \"handover.sock\"\ndrain = \"5s\"\n";

/// How often the gateway is replaced in the test under load.
const RESTARTS: usize = 20;

/// Clients that each open a connection for every request, and some that keep theirs as long as they may.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<String>>,
}

impl Load {
    fn on(address: SocketAddr) -> Load {
        let mut load = Load { stop: Arc::default(), answered: Arc::default(), tasks: JoinSet::new() };
        for number in 0..6 {
            let (stop, answered) = (load.stop.clone(), load.answered.clone());
            load.tasks.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(SeqCst) {
                    let done =
                        if number % 3 == 0 { keep(address, &stop, &answered).await } else { once(address).await };
                    match done {
                        Ok(()) => answered.fetch_add(1, SeqCst),
                        Err(failure) => {
                            failures.push(failure);
                            0
                        }
                    };
                }
                failures
            });
        }
        load
    }

    fn answered(&self) -> usize {
        self.answered.load(SeqCst)
    }

    /// What failed, once all have ended.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.tasks.join_all().await.concat()
    }
}

async fn once(address: SocketAddr) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
    let reply = Client::over(stream).await.send(request("/s/", &[("connection", "close")])).await;
    let reply = reply.map_err(|error| format!("on a new connection: {error:?}"))?;
    if reply.status == 200 { Ok(()) } else { Err(format!("{}: {}", reply.status, reply.text())) }
}

/// Requests on one connection until the gateway ends it, which it may between two of them.
async fn keep(address: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
    let mut client = Client::over(stream).await;
    let mut first = true;
    while !stop.load(SeqCst) {
        let request: http::Request<Full<Bytes>> = request("/s/", &[]);
        match client.send(request).await {
            Ok(reply) if reply.status == 200 => answered.fetch_add(1, SeqCst),
            Ok(reply) => return Err(format!("{}: {}", reply.status, reply.text())),
            Err(error) if first => return Err(format!("on a new connection: {error:?}")),
            Err(_) => return Ok(()),
        };
        first = false;
    }
    Ok(())
}

async fn successor(gateway: &Gateway, arguments: &[&str]) -> Gateway {
    // Starting waits for the process, and the load has to go on.
    tokio::task::block_in_place(|| gateway.beside(arguments))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restarts_under_load_refuse_no_connection() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let mut gateway = Gateway::of(&[&a, &b], HANDOVER);
    let (http, admin) = (gateway.http, gateway.admin);
    let load = Load::on(http);
    eventually("the load begins", async || load.answered() > 100).await;
    for restart in 0..RESTARTS {
        // Never the same number of sockets twice in a row.
        let workers = ["3", "1", "2"][restart % 3];
        let next = successor(&gateway, &["--workers", workers]).await;
        assert_eq!((next.http, next.admin), (http, admin), "the same ports, though any would do");
        let status = gateway.ended().await;
        assert!(status.success(), "restart {restart}: {status}");
        let before = load.answered();
        eventually("requests are answered", async || load.answered() > before + 50).await;
        assert_eq!(get(admin, "/readyz").await.status, 200);
        gateway = next;
    }
    let answered = load.answered();
    let failures = load.end().await;
    assert!(failures.is_empty(), "{} of {answered}: {failures:#?}", failures.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_does_not_get_ready_changes_nothing() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::of(&[&origin], HANDOVER);
    let load = Load::on(gateway.http);
    // It waits for a ZooKeeper that is not there, and has the sockets already, and more workers than sockets.
    let mut dead = Command::new(env!("CARGO_BIN_EXE_moongate"))
        .args(["run", "--config", gateway.path("moongate.toml").to_str().unwrap()])
        .args(["--zookeeper", "127.0.0.1:1", "--workers", "8"])
        .current_dir(gateway.path(""))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = "another gateway starts in place of this one";
    eventually("it asks for the sockets", async || gateway.log().contains(begun)).await;
    let before = load.answered();
    eventually("requests are answered meanwhile", async || load.answered() > before + 200).await;
    dead.kill().unwrap();
    dead.wait().unwrap();
    eventually("its end is noticed", async || gateway.log().contains("a hand-over came to nothing")).await;
    let before = load.answered();
    eventually("and changes nothing", async || load.answered() > before + 200).await;
    assert!(gateway.running());

    let next = successor(&gateway, &[]).await;
    assert!(gateway.ended().await.success());
    assert_eq!(get(next.http, "/s/").await.status, 200);
    let failures = load.end().await;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_may_change_with_the_gateway() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::of(&[&origin], &format!("{HANDOVER}[[listeners]]\naddress = \"127.0.0.1:0\"\n"));
    let (kept, given_up) = (gateway.listeners[0], gateway.listeners[1]);
    let text = fs::read_to_string(gateway.path("moongate.toml")).unwrap();
    let text = text.replace("address = \"127.0.0.1:0\"", "address = \"127.0.0.2:0\"");
    fs::write(gateway.path("moongate.toml"), text).unwrap();
    let next = successor(&gateway, &[]).await;
    assert!(gateway.ended().await.success());
    assert_eq!(next.listeners[0], kept);
    for address in &next.listeners {
        assert_eq!(get(*address, "/s/").await.status, 200);
    }
    assert!(tokio::net::TcpStream::connect(given_up).await.is_err(), "nobody listens there any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_ours_alone_and_what_is_left_of_it_does_no_harm() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::of(&[&origin], HANDOVER);
    let socket = gateway.path("handover.sock");
    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);

    gateway.signal("-KILL");
    gateway.ended().await;
    assert!(socket.exists(), "nobody could take it away");
    let mut gateway = successor(&gateway, &[]).await;
    assert_eq!(get(gateway.http, "/s/").await.status, 200);

    gateway.signal("-TERM");
    assert!(gateway.ended().await.success());
    assert!(!socket.exists(), "who ends in peace leaves nothing behind");
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("handover.sock");
    fs::write(&path, "precious").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_moongate"))
        .args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--handover", path.to_str().unwrap()])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("handover.sock for its sockets: there is something that is not a socket"), "{told}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

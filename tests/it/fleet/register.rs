//! `moongate register` on a real ZooKeeper, seen through a real gateway.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use zookeeper_client::{Acls, CreateMode, Stat};

use super::{exists, unique};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::service::moody;
use crate::support::zookeeper::{Server, connect};

/// A running `moongate register`; it is killed when this is dropped.
struct Registering {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Registering {
    fn start(servers: &str, root: &str, origin: &Origin, more: &[&str]) -> Registering {
        let address = origin.address.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
        command.args(["register", "--service", "s", "--zookeeper", servers, "--root", root, "--address", &address]);
        command.args(more).env("MOONGATE_ZOOKEEPER_AUTH", "").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, written) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *written.lock().unwrap() += &(line + "\n"))
        });
        Registering { child, log }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    async fn says(&self, line: &str) {
        eventually(&format!("it says {line:?}"), async || self.log.lock().unwrap().contains(line)).await;
    }
}

impl Drop for Registering {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("what it said:\n{}", self.log.lock().unwrap());
        }
    }
}

fn gateway(server: &Server, root: &str) -> Gateway {
    let servers = server.connect_string();
    Gateway::start(&format!("[auto_routes]\n[registry.zookeeper]\nservers = \"{servers}\"\nroot = \"{root}\"\n"))
}

async fn answers(gateway: &Gateway, status: StatusCode) {
    eventually(&format!("the service answers {status}"), async || get(gateway.http, "/s/").await.status == status)
        .await;
}

#[tokio::test]
async fn it_is_found_while_its_command_runs_and_forgotten_before_that_is_told() {
    let (server, root, origin) = (Server::shared(), unique("register"), Origin::start().await);
    let (client, gateway) = (connect(server).await, gateway(server, &root));
    let dir = tempfile::tempdir().unwrap();
    let [told, child] = ["told", "child"].map(|name| dir.path().join(name).display().to_string());
    let script = format!("sleep 1000 & echo $! > {child}; trap 'echo told > {told}; exit 7' TERM; wait; wait");
    let more =
        ["--weight", "3", "--zone", "z", "--tag", "t", "--attr", "k=v", "--linger", "1h", "--", "sh", "-c", &script];
    let mut service = Registering::start(&server.connect_string(), &root, &origin, &more);
    answers(&gateway, StatusCode::OK).await;
    let endpoint = gateway.api("services").await["services"][0]["endpoints"][0].clone();
    assert_eq!((&endpoint["weight"], &endpoint["zone"]), (&3.into(), &"z".into()), "{endpoint}");
    assert_eq!((&endpoint["labels"]["k"], &endpoint["labels"]["tags"]), (&"v".into(), &"t".into()), "{endpoint}");

    service.signal("-TERM");
    answers(&gateway, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(!exists(&client, &format!("{root}/s")).await, "the service's znode goes with its last child");
    assert!(!Path::new(&told).exists(), "its command is not told before it was forgotten");
    assert!(service.child.try_wait().unwrap().is_none());
    // Whoever asks twice does not want to wait an hour.
    service.signal("-TERM");
    assert_eq!(service.ended().await.code(), Some(7));
    assert!(Path::new(&told).exists());
    let child = fs::read_to_string(child).unwrap();
    let status = format!("/proc/{}/status", child.trim());
    let ended = async || fs::read_to_string(&status).map_or(true, |status| status.contains("State:\tZ"));
    eventually("what the command has started is told, too", ended).await;
}

#[tokio::test]
async fn the_end_of_the_command_is_its_end() {
    let (server, root, origin) = (Server::shared(), unique("register"), Origin::start().await);
    let (client, gateway) = (connect(server).await, gateway(server, &root));
    let servers = server.connect_string();
    let mut service =
        Registering::start(&servers, &root, &origin, &["--no-wait", "--", "sh", "-c", "read line; exit 3"]);
    answers(&gateway, StatusCode::OK).await;
    drop(service.child.stdin.take());
    assert_eq!(service.ended().await.code(), Some(3));
    assert!(!exists(&client, &format!("{root}/s")).await);
    answers(&gateway, StatusCode::SERVICE_UNAVAILABLE).await;

    // ZooKeeper is no condition for the command: nobody listens at this port.
    let nowhere = "127.0.0.1:1";
    for (command, code) in [("kill -9 $$", 137), ("exit 0", 0)] {
        let mut service = Registering::start(nowhere, &root, &origin, &["--", "sh", "-c", command]);
        assert_eq!(service.ended().await.code(), Some(code), "{command}");
    }
    let mut service = Registering::start(nowhere, &root, &origin, &["--", "/nonexistent"]);
    assert_eq!(service.ended().await.code(), Some(127));
    service.says("running /nonexistent: ").await;
    let mut service = Registering::start(nowhere, &root, &origin, &["--check-interval", "1s"]);
    assert_eq!(service.ended().await.code(), Some(2), "a check's interval without a check is a mistake in usage");
}

#[tokio::test]
async fn it_is_found_while_its_check_passes() {
    let (server, root, (origin, mood)) = (Server::shared(), unique("register"), moody(503).await);
    let gateway = gateway(server, &root);
    let check = format!("http://{}/health", origin.address);
    let more = ["--check", &check, "--check-interval", "20ms", "--check-failures", "2"];
    let mut service = Registering::start(&server.connect_string(), &root, &origin, &more);
    // Asked several times, and not registered.
    eventually("it is asked", async || origin.hits() > 2).await;
    assert_eq!(gateway.endpoints("s").await, None);
    use std::sync::atomic::Ordering::SeqCst;
    for _ in 0..2 {
        mood.store(200, SeqCst);
        answers(&gateway, StatusCode::OK).await;
        mood.store(500, SeqCst);
        eventually("it is withdrawn", async || gateway.endpoints("s").await == Some(vec![])).await;
    }
    service.says("reason=\"status 500\"").await;
    mood.store(200, SeqCst);
    answers(&gateway, StatusCode::OK).await;
    service.signal("-INT");
    assert_eq!(service.ended().await.code(), Some(0));
    answers(&gateway, StatusCode::SERVICE_UNAVAILABLE).await;
}

#[tokio::test]
async fn a_service_stays_with_the_other_endpoint_and_goes_with_the_last() {
    let (server, root) = (Server::shared(), unique("register"));
    let (client, gateway) = (connect(server).await, gateway(server, &root));
    let origins = [Origin::start().await, Origin::start().await];
    let servers = server.connect_string();
    let mut services = origins.each_ref().map(|origin| Registering::start(&servers, &root, origin, &[]));
    eventually("both are found", async || gateway.endpoints("s").await.is_some_and(|all| all.len() == 2)).await;
    services[0].signal("-TERM");
    assert_eq!(services[0].ended().await.code(), Some(0));
    eventually("one is left", async || gateway.endpoints("s").await == Some(vec![origins[1].name()])).await;
    assert_eq!(client.list_children(&format!("{root}/s")).await.unwrap(), [origins[1].name()]);
    services[1].signal("-TERM");
    assert_eq!(services[1].ended().await.code(), Some(0));
    assert!(!exists(&client, &format!("{root}/s")).await);
    answers(&gateway, StatusCode::SERVICE_UNAVAILABLE).await;
}

#[tokio::test]
async fn a_session_that_is_lost_is_replaced_before_and_after_it_has_expired() {
    let (server, root, origin) = (Server::shared(), unique("register"), Origin::start().await);
    let (client, proxy) = (connect(server).await, Proxy::to(server.address));
    let service = Registering::start(&proxy.address.to_string(), &root, &origin, &["--session-timeout", "4s"]);
    let path = format!("{root}/s/{}", origin.name());
    let stat = async || -> Option<Stat> { client.check_stat(&path).await.unwrap() };
    eventually("it is registered", async || stat().await.is_some()).await;
    let first = stat().await.unwrap().ephemeral_owner;

    // Too short for the session to end, too long for it to be waited for: a new one takes over, in one step.
    proxy.close();
    proxy.cut();
    service.says("ZooKeeper session ended").await;
    proxy.open();
    eventually("a new session owns it", async || stat().await.expect("never missing").ephemeral_owner != first).await;
    let second = stat().await.unwrap().ephemeral_owner;
    let living = async |session: i64| server.four_letter("dump").unwrap().contains(&format!("0x{session:x}"));
    assert!(living(second).await);
    eventually("the old session ends", async || !living(first).await).await;
    assert_eq!(stat().await.expect("it does not go with the old session").ephemeral_owner, second);

    // Long enough for the session to end.
    proxy.close();
    proxy.cut();
    eventually("its session ends", async || stat().await.is_none()).await;
    proxy.open();
    eventually("it is back", async || stat().await.is_some()).await;
}

#[tokio::test]
async fn what_an_earlier_process_left_is_replaced_and_what_is_another_s_is_left_alone() {
    let (server, root, origin) = (Server::shared(), unique("register"), Origin::start().await);
    let client = connect(server).await;
    let (path, other) = (format!("{root}/s/{}", origin.name()), connect(server).await);
    client.mkdir(&format!("{root}/s"), &super::persistent()).await.unwrap();
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    let owner = async || client.check_stat(&path).await.unwrap().map(|stat| stat.ephemeral_owner);

    other.create(&path, br#"{"ContainerID":"other"}"#, &ephemeral).await.unwrap();
    let mine = ["--id", "mine", "--no-wait"];
    let service = Registering::start(&server.connect_string(), &root, &origin, &mine);
    service.says("somebody else's").await;
    assert_eq!(owner().await, Some(other.session_id().0));
    other.delete(&path, None).await.unwrap();
    eventually("it is registered when the other has gone", async || owner().await.is_some()).await;
    let first = owner().await;

    // Killed, it can tell nobody; but the next one knows whose the znode is.
    drop(service);
    let service = Registering::start(&server.connect_string(), &root, &origin, &mine);
    eventually("the next one has it", async || owner().await.expect("never missing") != first.unwrap()).await;
    let second = owner().await;
    // A living one of the same id is not a predecessor; and they do not take it from each other for ever.
    let third = Registering::start(&server.connect_string(), &root, &origin, &mine);
    eventually("the third one has it", async || owner().await != second).await;
    service.says("somebody else's").await;
    drop((service, third));
}

#[tokio::test]
async fn credentials_make_a_znode_that_only_they_can_change() {
    let (server, root, origin) = (Server::shared(), unique("register"), Origin::start().await);
    let client = connect(server).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
    let (servers, address) = (server.connect_string(), origin.name());
    command.args(["register", "--service", "s", "--root", &root, "--address", &address]);
    // The command must not see them.
    command.args(["--", "sh", "-c", "test -z \"$MOONGATE_ZOOKEEPER_AUTH\" && read line"]).stdin(Stdio::piped());
    command.env("MOONGATE_ZOOKEEPER", servers).env("MOONGATE_ZOOKEEPER_AUTH", "digest:user:secret");
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let path = format!("{root}/s/{address}");
    eventually("it is registered", async || exists(&client, &path).await).await;
    let (acls, _) = client.get_acl(&path).await.unwrap();
    let acls: Vec<String> = acls.iter().map(|acl| format!("{} {}", acl.scheme(), acl.permission())).collect();
    assert_eq!(acls, ["digest ALL", "world READ"]);
    client.delete(&path, None).await.unwrap_err();
    drop(child.stdin.take());
    eventually("it is gone", async || !exists(&client, &path).await).await;
    assert!(!child.wait().unwrap().success());
}

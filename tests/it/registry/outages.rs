//! The source while its connection, its session or its server goes: the last good services stay, and what ZooKeeper
//! holds is seen again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moongate::config::{self, Retention, Time};
use moongate::registry::{Services, State, layouts, persist};
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::{Shown, Source, set, settings, shown, unique_root};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::zookeeper::{Registrar, Server, connect};

/// Behind a proxy that the test can cut.
async fn arrange_proxied() -> (Registrar, Source, Proxy) {
    let (server, root) = (Server::shared(), unique_root());
    let registrar = Registrar::start(server, &root).await;
    let proxy = Proxy::to(server.address);
    let source = Source::start(settings(&proxy.address.to_string(), &root));
    (registrar, source, proxy)
}

#[tokio::test]
async fn the_watch_survives_a_cut() {
    let (registrar, mut source, proxy) = arrange_proxied().await;
    source.shows(&[]).await;
    for round in 1..=3 {
        proxy.cut();
        eventually("everything is read again", async || source.count(|stats| &stats.full_reads) > round).await;
        let address = format!("10.0.0.{round}:80");
        registrar.register("a", &address).await;
        source.shows(&[("a", &[&address])]).await;
        registrar.deregister("a", &address).await;
        source.shows(&[]).await;
    }
    assert!(source.count(|stats| &stats.disconnects) >= 3);
}

#[tokio::test]
async fn what_changes_while_the_connection_is_down_is_seen_after() {
    let (registrar, mut source, proxy) = arrange_proxied().await;
    registrar.register("a", "10.0.0.1:80").await;
    registrar.register("b", "10.0.0.1:81").await;
    source.shows(&[("a", &["10.0.0.1:80"]), ("b", &["10.0.0.1:81"])]).await;
    proxy.close();
    registrar.deregister("a", "10.0.0.1:80").await;
    registrar.register("b", "10.0.0.2:81").await;
    let stale = source.is(State::Stale).await;
    assert_eq!(shown(&stale.services).len(), 2, "the last good services stay");
    proxy.open();
    source.shows(&[("b", &["10.0.0.1:81", "10.0.0.2:81"])]).await;
    assert_eq!(source.count(|stats| &stats.sessions), 2, "the old session was given up");
}

#[tokio::test]
async fn an_expired_session_is_replaced() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    let registrar = Registrar::start(&server, "/services").await;
    let timeout = Time(Duration::from_secs(1));
    let mut source = Source::start(config::ZooKeeper {
        session_timeout: timeout,
        ..settings(&proxy.address.to_string(), "/services")
    });
    source.shows(&[]).await;
    proxy.close();
    eventually("the server expires the session", async || {
        // Of the two sessions the registrar's stays.
        let dump = server.four_letter("dump").unwrap_or_default();
        dump.lines().filter(|line| line.trim_start().starts_with("0x")).count() <= 1
    })
    .await;
    registrar.register("a", "10.0.0.1:80").await;
    proxy.open();
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    registrar.register("a", "10.0.0.2:80").await;
    source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
    let watches = server.four_letter("wchs").unwrap();
    assert!(watches.contains("Total watches:1"), "{watches}");
}

#[tokio::test]
async fn a_server_may_be_killed_and_started() {
    let server = Server::start();
    let registrar = Registrar::start(&server, "/services").await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    registrar.client().create("/services/a", b"", &options).await.unwrap();
    registrar.client().create("/services/a/10.0.0.1:80", b"", &options).await.unwrap();
    let mut source = Source::start(settings(&server.connect_string(), "/services"));
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    server.kill();
    assert_eq!(shown(&source.is(State::Stale).await.services), BTreeMap::from([("a".into(), set(&["10.0.0.1:80"]))]));
    server.restart();
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    let registrar = Registrar::start(&server, "/services").await;
    registrar.client().create("/services/a/10.0.0.2:80", b"", &options).await.unwrap();
    source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
}

fn known(name: &str) -> Services {
    let znode = layouts::read(config::Layout::Auto, "10.9.9.9:80", b"").unwrap();
    let service = layouts::service([("10.9.9.9:80", &znode)].into_iter(), |_| None);
    Services::from([(Arc::from(name), Arc::new(service))])
}

fn snapshot(root: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot.json");
    persist::save(&path, root, &known("saved")).unwrap();
    (directory, path)
}

#[tokio::test]
async fn without_zookeeper_the_snapshot_file_is_the_start() {
    let (server, root) = (Server::shared(), unique_root());
    let (_directory, path) = snapshot(&root);
    let proxy = Proxy::to(server.address);
    proxy.close();
    let config = settings(&proxy.address.to_string(), &root);
    let mut source = Source::start(config::ZooKeeper { snapshot: Some(path.clone()), ..config });
    let view = source.is(State::Stale).await;
    assert_eq!(*view.services, known("saved"));
    let registrar = Registrar::start(server, &root).await;
    registrar.register("a", "10.0.0.1:80").await;
    proxy.open();
    // What the file knows may have vanished with the registry's data.
    source.shows(&[("a", &["10.0.0.1:80"]), ("saved", &[])]).await;
    assert_eq!(source.views.borrow().services["saved"].retained.len(), 1);
    eventually("the file follows", async || {
        persist::load(&path, &root).unwrap().is_some_and(|saved| shown(&saved).contains_key("a"))
    })
    .await;
}

#[tokio::test]
async fn the_snapshot_of_another_root_is_ignored() {
    let (server, root) = (Server::shared(), unique_root());
    let (_directory, path) = snapshot("/elsewhere");
    let proxy = Proxy::to(server.address);
    proxy.close();
    let config = settings(&proxy.address.to_string(), &root);
    let mut source = Source::start(config::ZooKeeper { snapshot: Some(path.clone()), ..config });
    // Two, because the file is read before the first.
    eventually("it tries to connect", async || proxy.attempts() >= 2).await;
    let view = source.views.borrow().clone();
    assert_eq!((view.state, view.services.len()), (State::Starting, 0));
    assert_eq!(persist::load(&path, "/elsewhere").unwrap(), Some(known("saved")), "what was never read is not written");
    proxy.open();
    source.shows(&[]).await;
}

/// What ZooKeeper holds, read one by one by another client.
pub(super) async fn truth(client: &Client, root: &str) -> Result<Shown, Error> {
    let mut all = Shown::new();
    for service in client.list_children(root).await? {
        let children = client.list_children(&format!("{root}/{service}")).await?;
        all.insert(service, children.into_iter().collect());
    }
    Ok(all)
}

#[tokio::test]
async fn after_torture_the_view_is_the_truth() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Arc::new(Server::start());
    let proxy = Proxy::to(server.address);
    let registrar = Registrar::start(&server, "/services").await;
    let timeout = Time(Duration::from_secs(2));
    // Nothing is retained, so that the view must be the truth and nothing besides.
    let mut source = Source::start(config::ZooKeeper {
        session_timeout: timeout,
        retain: Retention(Duration::ZERO),
        ..settings(&proxy.address.to_string(), "/services")
    });
    source.is(State::Live).await;

    let started = Instant::now();
    let length = Duration::from_secs(8);
    let mut written = 0;
    let mut choice = random.fork();
    let writer = async {
        while started.elapsed() < length {
            let service = format!("s{}", choice.u8(..8));
            let address = format!("10.0.0.{}:{}", choice.u8(1..5), choice.u16(1..4));
            // The server may be away, which the next turn finds out as well.
            let done = match choice.bool() {
                true => registrar.try_register(&service, &address, "null", "null").await,
                false => registrar.try_deregister(&service, &address).await,
            };
            written += usize::from(done.is_ok());
        }
    };
    let nemesis = {
        let (proxy, server) = (&proxy, server.clone());
        async move {
            let mut restarted = false;
            while started.elapsed() < length {
                match random.u8(..4) {
                    0 | 1 => proxy.cut(),
                    2 => {
                        proxy.close();
                        tokio::time::sleep(Duration::from_millis(random.u64(..2500))).await;
                        proxy.open();
                    }
                    _ if !restarted && started.elapsed() > length / 3 => {
                        restarted = true;
                        let server = server.clone();
                        tokio::task::spawn_blocking(move || server.restart()).await.unwrap();
                    }
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(random.u64(50..500))).await;
            }
        }
    };
    tokio::join!(writer, nemesis);
    // Whoever is still connecting; the writer's own nodes may yet expire with its session.
    drop(registrar);
    let oracle = connect(&server).await;
    let quiet = Registrar::start(&server, "/services").await;
    quiet.register("last", "10.0.0.1:80").await;
    eventually("the view is what ZooKeeper holds", async || {
        let Ok(truth) = truth(&oracle, "/services").await else { return false };
        let view = source.views.borrow().clone();
        view.state == State::Live && shown(&view.services) == truth && truth.contains_key("last")
    })
    .await;
    // And stays it: the watch is armed.
    quiet.register("last", "10.0.0.2:80").await;
    source.until(|view| view.services["last"].endpoints.len() == 2, "the last change").await;
    assert_eq!(shown(&source.views.borrow().services), truth(&oracle, "/services").await.unwrap());
    assert!(written > 100, "only {written} changes");
    assert_eq!(source.count(|stats| &stats.differences), 0);
    println!("{written} changes, {} disconnects", source.count(|stats| &stats.disconnects));
}

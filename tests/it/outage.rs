//! ZooKeeper goes, comes back, or is not there at all: callers never notice.

use std::fs;
use std::time::Duration;

use http::StatusCode;
use tempfile::TempDir;

use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::zookeeper::{Registrar, Server};

fn config(servers: &str, root: &str, more: &str) -> String {
    format!(
        "[auto_routes]\n[registry.zookeeper]\nservers = \"{servers}\"\nroot = \"{root}\"\nsession_timeout = \"2s\"\n{more}"
    )
}

/// Asks without a pause until `until` holds; every answer must be 200.
async fn served_until(gateway: &Gateway, what: &str, mut until: impl AsyncFnMut() -> bool) -> usize {
    let mut client = Client::to(gateway.http).await;
    let mut answers = 0;
    eventually(what, async || {
        for _ in 0..10 {
            let reply = client.get("/service_1/").await;
            assert_eq!((reply.status, reply.text()), (StatusCode::OK, "This is Service 1."));
            answers += 1;
        }
        until().await
    })
    .await;
    answers
}

#[tokio::test]
async fn a_killed_and_restarted_zookeeper_changes_nothing_and_later_changes_are_seen() {
    let server = Server::start();
    let registrar = Registrar::start(&server, "/killed").await;
    let origins = [Origin::of("service_1").await, Origin::of("service_1").await];
    for origin in &origins {
        registrar.register("service_1", &origin.name()).await;
    }
    let gateway = Gateway::start(&config(&server.connect_string(), "/killed", ""));

    server.kill();
    let stale = async || gateway.metric("moongate_registry_up{registry=\"zookeeper\"}").await == 0.0;
    assert!(served_until(&gateway, "the loss is noticed", stale).await > 0);
    assert_eq!(gateway.endpoints("service_1").await.unwrap().len(), 2);
    assert_eq!(get(gateway.admin, "/readyz").await.status, StatusCode::OK, "what was read is good to serve with");

    server.restart();
    let third = Origin::of("service_1").await;
    // The registrar's session has to come back as well.
    eventually("the registrar registers again", async || {
        registrar.try_register("service_1", &third.name(), "[]", "{}").await.is_ok()
    })
    .await;
    let seen = async || gateway.endpoints("service_1").await.unwrap().contains(&third.name());
    served_until(&gateway, "a change after the outage is seen", seen).await;
    for origin in &origins {
        assert!(gateway.endpoints("service_1").await.unwrap().contains(&origin.name()));
    }
}

#[tokio::test]
async fn an_expired_session_changes_nothing_and_changes_made_meanwhile_are_seen() {
    let server = Server::start();
    let registrar = Registrar::start(&server, "/expired").await;
    let (first, second) = (Origin::of("service_1").await, Origin::of("service_1").await);
    registrar.register("service_1", &first.name()).await;
    let link = Proxy::to(server.address);
    let gateway = Gateway::start(&config(&link.address.to_string(), "/expired", ""));
    let sessions = || server.four_letter("cons").map_or(0, |text| text.matches("sid=").count());
    let before = sessions();

    link.close();
    // Gone from the server: the session has expired there, and what was watched is forgotten.
    served_until(&gateway, "the session expires", async || sessions() < before).await;
    registrar.register("service_1", &second.name()).await;
    registrar.deregister("service_1", &first.name()).await;
    served_until(&gateway, "old routes serve", async || true).await;
    link.open();
    let seen = async || gateway.endpoints("service_1").await.unwrap() == [second.name()];
    served_until(&gateway, "what changed meanwhile is seen", seen).await;
    // And watched again.
    registrar.register("service_1", &first.name()).await;
    let seen = async || gateway.endpoints("service_1").await.unwrap().len() == 2;
    served_until(&gateway, "what changes later is seen", seen).await;
}

#[tokio::test]
async fn the_snapshot_file_serves_while_zookeeper_is_down() {
    let server = Server::start();
    let registrar = Registrar::start(&server, "/down").await;
    let origin = Origin::of("service_1").await;
    registrar.register("service_1", &origin.name()).await;
    let dir = TempDir::new().unwrap();
    let snapshot = dir.path().join("routes.json");
    let more = format!("snapshot = \"{}\"\n", snapshot.display());
    let text = config(&server.connect_string(), "/down", &more);
    let gateway = Gateway::start(&text);
    eventually("the snapshot is written", async || {
        fs::read_to_string(&snapshot).is_ok_and(|text| text.contains(&origin.name()))
    })
    .await;
    drop(gateway);
    server.kill();

    let gateway = Gateway::start(&text);
    println!("ready after {:?}", gateway.started_in);
    assert!(gateway.started_in < Duration::from_secs(4), "it waited for ZooKeeper: {:?}", gateway.started_in);
    assert_eq!(get(gateway.http, "/service_1/").await.text(), "This is Service 1.");
    assert_eq!(get(gateway.admin, "/readyz").await.status, StatusCode::OK);

    server.restart();
    let second = Origin::of("service_1").await;
    eventually("the registrar registers again", async || {
        registrar.try_register("service_1", &second.name(), "[]", "{}").await.is_ok()
    })
    .await;
    let seen = async || gateway.endpoints("service_1").await.unwrap().contains(&second.name());
    served_until(&gateway, "it catches up", seen).await;
}

#[tokio::test]
async fn without_zookeeper_and_snapshot_it_starts_says_so_and_recovers() {
    let server = Server::start();
    let registrar = Registrar::start(&server, "/nothing").await;
    let origin = Origin::of("service_1").await;
    registrar.register("service_1", &origin.name()).await;
    let link = Proxy::to(server.address);
    link.close();
    let gateway = Gateway::start(&config(&link.address.to_string(), "/nothing", ""));
    assert_eq!(get(gateway.admin, "/healthz").await.status, StatusCode::OK);
    assert_eq!(get(gateway.admin, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(gateway.http, "/service_1/").await.status, StatusCode::NOT_FOUND);
    link.open();
    eventually("it is found", async || get(gateway.http, "/service_1/").await.status == StatusCode::OK).await;
    assert_eq!(get(gateway.admin, "/readyz").await.status, StatusCode::OK);
}

//! What vanished and may still live, as callers see it.

use http::StatusCode;
use serde_json::Value;

use super::unique_root;
use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::zookeeper::{Registrar, Server};

async fn service(gateway: &Gateway, name: &str) -> Value {
    let all = gateway.api("services").await;
    all["services"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap_or_default()
}

fn gateway(root: &str, more: &str) -> Gateway {
    let servers = Server::shared().connect_string();
    Gateway::start(&format!("[auto_routes]\n[registry.zookeeper]\nservers = \"{servers}\"\nroot = \"{root}\"\n{more}"))
}

#[tokio::test]
async fn what_vanished_serves_until_it_is_found_dead_and_is_then_a_503() {
    let (server, root) = (Server::shared(), unique_root());
    let registrar = Registrar::start(server, &root).await;
    let origins = [Origin::start().await, Origin::start().await];
    for origin in &origins {
        registrar.register("kept", &origin.name()).await;
    }
    registrar.register("not-kept", &origins[0].name()).await;
    let gateway = gateway(&root, "retain_services = { not-kept = \"0s\" }\n");
    let status = async |path: &str| get(gateway.http, path).await.status;
    assert_eq!(status("/kept/").await, StatusCode::OK);

    // Its session ends, and takes everything with it.
    drop(registrar);
    eventually("it lives on its second tier", async || service(&gateway, "kept").await["tier"] == 2).await;
    eventually("what is not retained is gone", async || status("/not-kept/").await == StatusCode::SERVICE_UNAVAILABLE)
        .await;
    for _ in 0..20 {
        assert_eq!(status("/kept/").await, StatusCode::OK);
    }
    eventually("it is judged", async || {
        let retained = service(&gateway, "kept").await["retained"].clone();
        retained.as_array().unwrap().len() == 2
            && retained[0]["reason"] == "vanished with its registrar's session"
            && retained[0]["state"] == "used"
    })
    .await;
    assert_eq!(gateway.metric("moongate_service_on_retained{service=\"kept\"}").await, 1.0);
    assert_eq!(gateway.metric("moongate_service_retained_endpoints{service=\"kept\"}").await, 2.0);
    assert_eq!(gateway.metric("moongate_registry_vanished_endpoints_total{registry=\"zookeeper\"}").await, 2.0);

    // One after the other dies; as long as one lives no request fails.
    let addresses = [origins[0].address, origins[1].address];
    let [first, second] = origins;
    drop(first);
    for _ in 0..20 {
        assert_eq!(status("/kept/").await, StatusCode::OK);
    }
    eventually("it is given up", async || service(&gateway, "kept").await["endpoints"].as_array().unwrap().len() == 1)
        .await;
    drop(second);
    for _ in 0..3 {
        // Not 502, not even once: the registry does not promise it any more.
        assert_eq!(status("/kept/").await, StatusCode::SERVICE_UNAVAILABLE);
    }
    eventually("that is given up, too", async || {
        service(&gateway, "kept").await["endpoints"].as_array().unwrap().is_empty()
    })
    .await;
    let kept = service(&gateway, "kept").await;
    assert_eq!(kept["tier"], 1);
    assert!(kept["retained"].as_array().unwrap().iter().all(|it| it["state"] == "dead"), "{kept}");
    assert_eq!(get(gateway.admin, "/readyz").await.status, StatusCode::OK);

    // Registered again, they are as good as any.
    let registrar = Registrar::start(server, &root).await;
    let again = addresses.map(Origin::again);
    for origin in &again {
        registrar.register("kept", &origin.name()).await;
    }
    eventually("it has both again", async || {
        let kept = service(&gateway, "kept").await;
        kept["endpoints"].as_array().unwrap().len() == 2 && kept["retained"].as_array().unwrap().is_empty()
    })
    .await;
    assert_eq!(status("/kept/").await, StatusCode::OK);
}

#[tokio::test]
async fn what_was_taken_away_is_gone_although_it_lives() {
    let (server, root) = (Server::shared(), unique_root());
    // One session for each, and one for both: neither matters to Registrator's way of taking away the last.
    let registrars = [Registrar::start(server, &root).await, Registrar::start(server, &root).await];
    let origin = Origin::start().await;
    registrars[0].register("alone", &origin.name()).await;
    registrars[1].register("one", &origin.name()).await;
    registrars[1].register("other", &origin.name()).await;
    let gateway = gateway(&root, "");
    for (service, registrar) in [("alone", &registrars[0]), ("one", &registrars[1])] {
        let path = format!("/{service}/");
        assert_eq!(get(gateway.http, &path).await.status, StatusCode::OK);
        registrar.deregister(service, &origin.name()).await;
        eventually("it is gone", async || get(gateway.http, &path).await.status == StatusCode::SERVICE_UNAVAILABLE)
            .await;
        // And stays it.
        for _ in 0..10 {
            assert_eq!(get(gateway.http, &path).await.status, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    assert_eq!(get(gateway.http, "/other/").await.status, StatusCode::OK);
    assert_eq!(gateway.metric("moongate_registry_vanished_endpoints_total{registry=\"zookeeper\"}").await, 0.0);
}

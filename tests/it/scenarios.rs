//! The original demonstration's four scenarios, against a real ZooKeeper and in `moongate demo`.

use std::collections::HashMap;

use http::StatusCode;

use crate::support::client::{Client, Reply, get, get_with, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::zookeeper::{Registrar, Server};

/// Both services with two endpoints each, registered, and a gateway that has seen them.
struct Demo {
    gateway: Gateway,
    registrar: Registrar,
    service_1: Vec<Origin>,
    service_2: Vec<Origin>,
}

impl Demo {
    async fn start(root: &str, workers: usize) -> Demo {
        let registrar = Registrar::start(Server::shared(), root).await;
        let service_1 = vec![Origin::of("service_1").await, Origin::of("service_1").await];
        let service_2 = vec![Origin::of("service_2").await, Origin::of("service_2").await];
        for (name, origins) in [("service_1", &service_1), ("service_2", &service_2)] {
            for origin in origins {
                registrar.register(name, &origin.name()).await;
            }
        }
        let servers = Server::shared().connect_string();
        let gateway = Gateway::start(&format!(
            "workers = {workers}\nheader_routes = \"/services\"\n[auto_routes]\n\
             [registry.zookeeper]\nservers = \"{servers}\"\nroot = \"{}\"\n",
            registrar.root()
        ));
        Demo { gateway, registrar, service_1, service_2 }
    }
}

/// The same request by path prefix and by header.
async fn both_ways(gateway: &Gateway, service: &str, api: &str) -> [Reply; 2] {
    let headers = [("service_name", service), ("api_name", api)];
    [get(gateway.http, &format!("/{service}{api}")).await, get_with(gateway.http, "/services", &headers).await]
}

#[tokio::test]
async fn one_and_two_the_services_answer_as_they_did() {
    let demo = Demo::start("/scenario-1", 2).await;
    for (service, api, expected) in [
        ("service_1", "/", "This is Service 1."),
        ("service_2", "/", "This is Service 2."),
        ("service_1", "/user?id=1", "It's user 1."),
    ] {
        for reply in both_ways(&demo.gateway, service, api).await {
            assert_eq!((reply.status, reply.text()), (StatusCode::OK, expected));
        }
    }
    assert_eq!(get(demo.gateway.http, "/service_1").await.text(), "This is Service 1.");
}

/// That the endpoints of 1,000 answers take turns without a slip.
fn assert_alternating(service: &[Origin], picks: &[String]) {
    assert_eq!(picks.len(), 1000);
    assert!(picks.windows(2).all(|pair| pair[0] != pair[1]), "two in a row went to one endpoint");
    for origin in service {
        assert_eq!(picks.iter().filter(|it| **it == origin.name()).count(), 500);
    }
}

#[tokio::test]
async fn three_endpoints_strictly_alternate_on_separate_connections() {
    let demo = Demo::start("/scenario-3a", 4).await;
    for (name, service) in [("service_1", &demo.service_1), ("service_2", &demo.service_2)] {
        let mut picks = Vec::new();
        for _ in 0..1000 {
            picks.push(get(demo.gateway.http, &format!("/{name}/")).await.header("x-endpoint").to_owned());
        }
        assert_alternating(service, &picks);
    }
}

#[tokio::test]
async fn three_endpoints_strictly_alternate_on_kept_connections_over_workers() {
    let demo = Demo::start("/scenario-3b", 4).await;
    // Enough connections that the kernel has given some to each worker.
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(Client::to(demo.gateway.http).await);
    }
    let mut picks = Vec::new();
    for turn in 0..1000 {
        // Both ways share the service's position.
        let client = &mut clients[turn % 16];
        let reply = match turn % 3 {
            0 => client.send(request("/services", &[("service_name", "service_2"), ("api_name", "/")])).await.unwrap(),
            _ => client.get("/service_2/").await,
        };
        assert_eq!(reply.text(), "This is Service 2.");
        picks.push(reply.header("x-endpoint").to_owned());
    }
    assert_alternating(&demo.service_2, &picks);
    assert!(demo.gateway.plugin("round-robin").await["instances"].as_u64().unwrap() > 1, "only one worker took part");
}

#[tokio::test]
async fn four_the_route_cache_follows_endpoints_that_stop_and_start() {
    let Demo { gateway, registrar, mut service_2, service_1, .. } = Demo::start("/scenario-4", 2).await;
    let seen = async |wanted: Vec<String>| {
        let mut wanted = wanted.clone();
        wanted.sort();
        eventually("the route cache follows", async || {
            let mut endpoints = gateway.endpoints("service_2").await.unwrap_or_default();
            endpoints.sort();
            endpoints == wanted
        })
        .await;
    };

    // One stops, as Registrator sees it: the endpoint is gone, then its node.
    let first = service_2.remove(0);
    let (stopped, left) = (first.name(), service_2[0].name());
    drop(first);
    registrar.deregister("service_2", &stopped).await;
    seen(vec![left.clone()]).await;
    for _ in 0..20 {
        for reply in both_ways(&gateway, "service_2", "/").await {
            assert_eq!((reply.status, reply.header("x-endpoint")), (StatusCode::OK, &*left));
        }
    }

    // The last one stops: its node goes and the service's own with it.
    drop(service_2);
    registrar.deregister("service_2", &left).await;
    seen(vec![]).await;
    for reply in both_ways(&gateway, "service_2", "/").await {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.header("retry-after"), "1");
        assert!(reply.text().contains("the service has no live endpoint"), "{}", reply.text());
        assert!(!reply.text().contains("127.0.0.1"), "{}", reply.text());
    }
    // Nobody else notices.
    assert_eq!(get(gateway.http, "/service_1/").await.text(), "This is Service 1.");
    drop(service_1);

    // And it comes back by itself.
    let back = Origin::of("service_2").await;
    registrar.register("service_2", &back.name()).await;
    seen(vec![back.name()]).await;
    for reply in both_ways(&gateway, "service_2", "/").await {
        assert_eq!(reply.text(), "This is Service 2.");
    }
    assert_eq!(get(gateway.http, "/service_3/").await.status, StatusCode::NOT_FOUND, "a service that never was");
}

#[tokio::test]
async fn the_demo_needs_nothing_and_does_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::spawn(dir, &["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    for (service, api, expected) in [
        ("service_1", "/", "This is Service 1."),
        ("service_2", "/", "This is Service 2."),
        ("service_1", "/user?id=1", "It's user 1."),
    ] {
        for reply in both_ways(&gateway, service, api).await {
            assert_eq!((reply.status, reply.text()), (StatusCode::OK, expected));
        }
    }
    let mut picks: HashMap<String, usize> = HashMap::new();
    let mut last = String::new();
    for _ in 0..1000 {
        let now = get(gateway.http, "/service_2/").await.header("x-endpoint").to_owned();
        assert_ne!(now, last);
        *picks.entry(now.clone()).or_default() += 1;
        last = now;
    }
    assert_eq!(picks.values().collect::<Vec<_>>(), [&500, &500]);
}

#[tokio::test]
async fn the_demos_registry_is_a_file_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("output");
    // Its standard output is what a user sees, so this one is started by hand.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_moongate"))
        .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(dir.path())
        .stdout(std::fs::File::create(&output).unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    eventually("the demo says what to try", async || {
        text = std::fs::read_to_string(&output).unwrap();
        text.contains("where that would go, and why\n")
    })
    .await;
    let word = |after: &str| text.split(after).nth(1).unwrap().split([' ', '\n', ',', ':']).next().unwrap().to_owned();
    let address = text.split("http://").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let services = word("The registry is ");
    assert_eq!(get(address, "/service_1/").await.text(), "This is Service 1.");

    let other = Origin::start().await;
    std::fs::write(&services, format!("[services.mine]\nendpoints = [{{ address = \"{}\" }}]\n", other.address))
        .unwrap();
    eventually("the routes follow", async || get(address, "/mine/").await.text() == other.name()).await;
    assert_eq!(get(address, "/service_1/").await.status, StatusCode::SERVICE_UNAVAILABLE);

    let ended = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(ended.success() && child.wait().unwrap().success());
    assert!(!std::path::Path::new(&services).exists(), "it leaves nothing behind");
}

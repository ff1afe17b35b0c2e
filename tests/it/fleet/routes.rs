//! Routes in ZooKeeper, on a real one.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use zookeeper_client::Client;

use super::{persistent, unique};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::service::logged;
use crate::support::zookeeper::{Server, connect};

/// The znode of routes that a test has for itself, and a client that may write there.
async fn arrange() -> (Client, String) {
    let (client, root) = (connect(Server::shared()).await, unique("routes"));
    client.mkdir(&root, &persistent()).await.unwrap();
    (client, root)
}

fn config(servers: &str, routes: &str) -> String {
    format!(
        "workers = 1\n[registry.zookeeper]\nservers = \"{servers}\"\nroot = \"{routes}-services\"\nroutes = \"{routes}\"\n\
         session_timeout = \"2s\"\nsnapshot = \"snapshot.json\"\n"
    )
}

async fn answers(gateway: &Gateway, path: &str, status: StatusCode) {
    eventually(&format!("{path} answers {status}"), async || get(gateway.http, path).await.status == status).await;
}

/// What the API says of the route with this prefix.
async fn route(gateway: &Gateway, prefix: &str) -> Value {
    let all = gateway.api("routes").await;
    let routes = all["routes"].as_array().unwrap();
    routes.iter().find(|it| it["path_prefix"] == prefix).cloned().unwrap_or_default()
}

async fn refused(gateway: &Gateway) -> Vec<Value> {
    gateway.api("routes").await["refused"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_route_serves_and_the_last_good_one_stays() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    let gateway = Gateway::of(&[&origin], &config(&Server::shared().connect_string(), &root));
    assert_eq!(get(gateway.http, "/a").await.status, StatusCode::NOT_FOUND);
    let znode = format!("{root}/a");
    client.create(&znode, b"path_prefix = '/a'\nservice = 's'\n", &persistent()).await.unwrap();
    answers(&gateway, "/a", StatusCode::OK).await;
    assert_eq!(route(&gateway, "/a").await["znode"], znode);

    // Bad in itself, and then by what it asks of a plugin.
    for (body, why) in [
        ("path_prefix = '/a'\nservice = 's'\nretrys = 1", ":3:1: retrys: unknown key"),
        (
            "{\"path_prefix\": \"/a\", \"service\": \"s\",\n\"balancer\": \"nobody\"}",
            ":2:13: balancer: there is no plugin",
        ),
    ] {
        client.set_data(&znode, body.as_bytes(), None).await.unwrap();
        let why = format!("{znode}{why}");
        let told = async || refused(&gateway).await.iter().any(|it| it["error"].as_str().unwrap().starts_with(&why));
        eventually(&format!("it says {why}"), told).await;
        assert_eq!(refused(&gateway).await[0]["serving"], true);
        assert_eq!(get(gateway.http, "/a").await.status, StatusCode::OK);
        logged(&gateway, &why).await;
    }

    client.set_data(&znode, br#"{"path_prefix": "/b", "service": "s", "balancer": "random"}"#, None).await.unwrap();
    answers(&gateway, "/b", StatusCode::OK).await;
    assert_eq!(
        (route(&gateway, "/b").await["balancer"]["plugin"].as_str(), refused(&gateway).await),
        (Some("random"), vec![])
    );
    assert_eq!(get(gateway.http, "/a").await.status, StatusCode::NOT_FOUND);
    client.delete(&znode, None).await.unwrap();
    answers(&gateway, "/b", StatusCode::NOT_FOUND).await;
    // And the znode of all routes may go and come back.
    client.delete(&root, None).await.unwrap();
    client.mkdir(&root, &persistent()).await.unwrap();
    client.create(&znode, b"path_prefix = '/c'\nservice = 's'\n", &persistent()).await.unwrap();
    answers(&gateway, "/c", StatusCode::OK).await;
    let up = "moongate_registry_up{registry=\"zookeeper-routes\"}";
    assert_eq!(gateway.metric(up).await, 1.0);
}

#[tokio::test]
async fn of_equal_routes_the_file_s_is_the_one() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    client.create(&format!("{root}/a"), b"path_prefix = '/a'\nservice = 'x'\n", &persistent()).await.unwrap();
    client.create(&format!("{root}/b"), b"path_prefix = '/a/b'\nservice = 's'\n", &persistent()).await.unwrap();
    let config = config(&Server::shared().connect_string(), &root);
    let gateway = Gateway::of(&[&origin], &format!("{config}[[routes]]\npath_prefix = \"/a\"\nservice = \"s\"\n"));
    // The other service has no endpoint.
    assert_eq!(get(gateway.http, "/a").await.status, StatusCode::OK);
    assert_eq!(get(gateway.http, "/a/b").await.status, StatusCode::OK);
    let all = gateway.api("routes").await;
    let told: Vec<_> =
        all["routes"].as_array().unwrap().iter().take(3).map(|it| (&it["znode"], &it["hidden_by"])).collect();
    let [a, b] = ["a", "b"].map(|name| Value::from(format!("{root}/{name}")));
    assert_eq!(told, [(&Value::Null, &Value::Null), (&a, &"the configuration file".into()), (&b, &Value::Null)]);
}

#[tokio::test]
async fn routes_are_kept_while_zookeeper_is_away() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    let (znode, proxy) = (format!("{root}/a"), Proxy::to(Server::shared().address));
    client.create(&znode, b"path_prefix = '/a'\nservice = 's'\n", &persistent()).await.unwrap();
    let first = Gateway::of(&[&origin], &config(&proxy.address.to_string(), &root));
    assert_eq!(get(first.http, "/a").await.status, StatusCode::OK, "from the first request on");
    eventually("the route is kept", async || first.path("snapshot.json.routes").exists()).await;
    client.set_data(&znode, b"nonsense", None).await.unwrap();
    eventually("it is refused", async || !refused(&first).await.is_empty()).await;

    proxy.close();
    proxy.cut();
    let second = first.beside(&[]);
    assert_eq!(get(second.http, "/a").await.status, StatusCode::OK, "with ZooKeeper away");
    assert_eq!(second.metric("moongate_registry_up{registry=\"zookeeper-routes\"}").await, 0.0);
    proxy.open();
    eventually("it is refused there as well", async || !refused(&second).await.is_empty()).await;
    assert_eq!(get(second.http, "/a").await.status, StatusCode::OK, "the last good one is that of the process before");
    client.set_data(&znode, b"path_prefix = '/b'\nservice = 's'\n", None).await.unwrap();
    for gateway in [&first, &second] {
        answers(gateway, "/b", StatusCode::OK).await;
    }
}

#[tokio::test]
async fn ten_gateways_follow_one_write() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    let znode = format!("{root}/shop");
    let body = |balancer: &str| format!("path_prefix = '/shop'\nservice = 's'\nbalancer = '{balancer}'\n");
    client.create(&znode, body("round-robin").as_bytes(), &persistent()).await.unwrap();
    let config = config(&Server::shared().connect_string(), &root);
    let gateways: Vec<Gateway> = (0..10).map(|_| Gateway::of(&[&origin], &config)).collect();
    for gateway in &gateways {
        answers(gateway, "/shop", StatusCode::OK).await;
    }
    // The second time, each has compiled the plugin before.
    let mut times = Vec::new();
    for balancer in ["random", "round-robin", "random"] {
        client.set_data(&znode, body(balancer).as_bytes(), None).await.unwrap();
        let written = Instant::now();
        let mut followed = Vec::new();
        eventually("all follow", async || {
            for (index, gateway) in gateways.iter().enumerate() {
                if !followed.contains(&index) && route(gateway, "/shop").await["balancer"]["plugin"] == balancer {
                    followed.push(index);
                }
            }
            followed.len() == gateways.len()
        })
        .await;
        times.push(written.elapsed());
        for gateway in &gateways {
            assert_eq!(get(gateway.http, "/shop").await.status, StatusCode::OK);
        }
    }
    println!("ten gateways have followed one write, asking them in turn, after {times:?}");
    assert!(times.iter().max() < Some(&Duration::from_secs(10)));
}

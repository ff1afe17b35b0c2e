//! How a gateway takes over a configuration, what it says of itself, and how it ends.

use std::fs;

use http::{Request, StatusCode};
use http_body_util::Full;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{Client, get, request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::origin::Origin;
use crate::support::raw::in_front_of;

#[tokio::test]
async fn a_configuration_that_is_gone_changes_nothing() {
    let origin = Origin::start().await;
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("services.toml"), services("s", &[&origin])).unwrap();
    let text = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[registry.file]\npath = \"services.toml\"\n\
                [[routes]]\npath_prefix = \"/shop\"\nservice = \"s\"\n";
    fs::write(dir.path().join("moongate.toml"), text).unwrap();
    // Found because it is there, not because it was named.
    let gateway = Gateway::spawn(dir, &[]);
    fs::remove_file(gateway.path("moongate.toml")).unwrap();
    eventually("it is told", async || gateway.log().contains("moongate.toml")).await;
    assert_eq!(get(gateway.http, "/shop").await.status, StatusCode::OK);
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::NOT_FOUND, "nobody wrote automatic routes");
}

#[tokio::test]
async fn a_drain_ends_what_runs_and_takes_nothing_new() {
    let (release, held) = tokio::sync::watch::channel(false);
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut held, arrived) = (held.clone(), arrived.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                arrived.send(()).unwrap();
                held.wait_for(|it| *it).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap();
            });
        }
    });
    let mut gateway = in_front_of(&[address], "workers = 2\n");
    let http = gateway.http;
    let mut idle = Client::to(http).await;
    assert_eq!(idle.get("/nothing").await.status, StatusCode::NOT_FOUND);
    let running: Vec<_> = (0..4).map(|_| tokio::spawn(async move { get(http, "/s/").await })).collect();
    for _ in 0..4 {
        arrivals.recv().await.unwrap();
    }
    gateway.signal("-TERM");
    eventually("nothing new is taken", async || TcpStream::connect(http).await.is_err()).await;
    eventually("the idle connection is closed", async || idle.send(request("/nothing", &[])).await.is_err()).await;
    assert!(gateway.running(), "it waits for what runs");
    assert_eq!(get(gateway.admin, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    release.send_replace(true);
    for it in running {
        let reply = it.await.unwrap();
        assert_eq!((reply.status, reply.text()), (StatusCode::OK, "done"));
    }
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = in_front_of(&[silent.local_addr().unwrap()], "drain = \"300ms\"\n");
    let http = gateway.http;
    let waiting = tokio::spawn(async move { Client::to(http).await.send(request("/s/", &[])).await });
    let stream = silent.accept().await.unwrap();
    gateway.signal("-TERM");
    assert!(gateway.ended().await.success());
    assert!(waiting.await.unwrap().is_err());
    drop(stream);
}

#[tokio::test]
async fn a_changed_configuration_is_taken_over_and_a_bad_one_is_not() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "");
    let file = gateway.path("moongate.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(get(gateway.http, "/shop").await.status, StatusCode::NOT_FOUND);
    let replace = |text: &str| {
        fs::write(gateway.path("new"), text).unwrap();
        fs::rename(gateway.path("new"), &file).unwrap();
    };
    replace(&format!("{text}[[routes]]\npath_prefix = \"/shop\"\nservice = \"s\"\n"));
    eventually("the route is there", async || get(gateway.http, "/shop").await.status == StatusCode::OK).await;

    for (bad, told) in [
        ("[[routes]]\npath_prefix = \"/other\"\nservice = \"s\"\nblancer = \"random\"\n", "did you mean \"balancer\"?"),
        (
            "[[routes]]\npath_prefix = \"/other\"\nservice = \"s\"\nbalancer = \"nobody\"\n",
            "there is no plugin \"nobody\"",
        ),
    ] {
        replace(&format!("{text}{bad}"));
        eventually("the mistake is told", async || gateway.log().contains(told)).await;
        assert_eq!(get(gateway.http, "/shop").await.status, StatusCode::OK);
        assert_eq!(get(gateway.http, "/other").await.status, StatusCode::NOT_FOUND);
    }
    replace(&text);
    eventually("the route is gone", async || get(gateway.http, "/shop").await.status == StatusCode::NOT_FOUND).await;

    // The services are read again, too, and the last good ones kept.
    let second = Origin::start().await;
    gateway.serve("s", &[&second]);
    eventually("the endpoint changed", async || get(gateway.http, "/s/").await.text() == second.name()).await;
    fs::write(gateway.path("services.toml"), "[services.s]\nendpoints = [{ address = \"here\" }]\n").unwrap();
    eventually("the mistake is told", async || gateway.log().contains("\"here\"")).await;
    assert_eq!(get(gateway.http, "/s/").await.text(), second.name());
    fs::write(gateway.path("services.toml"), services("t", &[&origin])).unwrap();
    eventually("the other service is there", async || get(gateway.http, "/t/").await.text() == origin.name()).await;
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_admin_api_reads_only_and_tells_everything() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "workers = 1");
    for _ in 0..3 {
        get(gateway.http, "/s/").await;
    }
    let services = gateway.api("services").await;
    let endpoint = &services["services"][0]["endpoints"][0];
    assert_eq!(
        (&endpoint["picks"], &endpoint["inflight"], &endpoint["source"]),
        (&3.into(), &0.into(), &"file".into())
    );
    assert!(endpoint["latency_us"].as_u64().unwrap() > 0);
    let routes = gateway.api("routes").await;
    assert_eq!((&routes["routes"][0]["name"], &routes["routes"][0]["kind"]), (&"/s".into(), &"auto".into()));
    let plugin = gateway.plugin("round-robin").await;
    assert_eq!(
        (&plugin["state"], &plugin["kind"], &plugin["picks"]),
        (&"active".into(), &"balancer".into(), &3.into())
    );
    assert_eq!(plugin["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(gateway.metric("moongate_requests_total{code=\"2xx\"}").await, 3.0);
    assert_eq!(gateway.metric("moongate_request_duration_seconds_count").await, 3.0);
    let request = Request::post("/api/v1/services").header("host", "localhost").body(Full::default()).unwrap();
    let reply = Client::to(gateway.admin).await.send(request).await.unwrap();
    assert_eq!((reply.status, reply.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    assert_eq!(get(gateway.admin, "/other").await.status, StatusCode::NOT_FOUND);
}

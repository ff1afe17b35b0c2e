//! Bodies that filters see, and what they make of them.

use std::fs;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tempfile::TempDir;

use crate::support::client::{Client, Reply, get};
use crate::support::gateway::Gateway;
use crate::support::raw::{raw, serving};
use crate::support::wasm::fixture;
use crate::support::{h2, raw};

/// Answers with what came: the method, some header fields, and the body behind an empty line.
async fn mirror() -> SocketAddr {
    serving(|request| async move {
        let (head, body) = request.into_parts();
        let mut text = format!("{}\n", head.method);
        for name in ["content-length", "transfer-encoding", "expect", "x-shown", "x-length"] {
            if let Some(value) = head.headers.get(name) {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
            }
        }
        text.push('\n');
        // A body that does not come to its end is no request to answer.
        let Ok(body) = body.collect().await else { return std::future::pending().await };
        text.push_str(std::str::from_utf8(&body.to_bytes()).unwrap());
        Response::new(Full::from(text).map_err(|never| match never {}).boxed())
    })
    .await
}

/// A gateway whose route to `s` has the fixture `shows` with this configuration.
fn showing(endpoint: SocketAddr, config: &str) -> Gateway {
    showing_with(endpoint, config, "")
}

fn showing_with(endpoint: SocketAddr, config: &str, more: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("services.toml"),
        format!("[services.s]\nendpoints = [{{ address = \"{endpoint}\" }}]\n"),
    )
    .unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::copy(fixture("shows"), dir.path().join("plugins/shows.wasm")).unwrap();
    let filters = format!("filters = [{{ plugin = \"shows\", config = {{ {config} }} }}]");
    let allowed = "[plugins]\ncapabilities = { shows = [\"bodies\"] }";
    Gateway::start_in(dir, &format!("{filters}\n{more}\n{allowed}\n[auto_routes]\n"))
}

async fn post(gateway: &Gateway, body: &str) -> Reply {
    let request = Request::post("/s/").header("host", "gateway.test").body(Full::from(body.to_owned())).unwrap();
    Client::to(gateway.http).await.send(request).await.unwrap()
}

const UPPER: &str = "request = true, response = false, what = \"upper\"";

#[tokio::test]
async fn a_request_is_shown_piece_by_piece_or_as_a_whole() {
    let endpoint = mirror().await;
    let pieces = showing(endpoint, UPPER);
    let reply = post(&pieces, "some words").await;
    assert_eq!(reply.text(), "POST\ntransfer-encoding: chunked\nx-shown: yes\n\nSOME WORDS");
    let whole = showing(endpoint, &format!("{UPPER}, whole = 100"));
    let reply = post(&whole, "some words").await;
    assert_eq!(reply.text(), "POST\ncontent-length: 10\nx-shown: yes\nx-length: 10\n\nSOME WORDS");
    for gateway in [&pieces, &whole] {
        let reply = get(gateway.http, "/s/").await;
        assert_eq!(reply.text(), "GET\nx-shown: no\n\n", "what has no body is not shown");
        let chunked = "POST /s/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                       3\r\nsom\r\n7\r\ne words\r\n0\r\n\r\n";
        let answer = raw(gateway.http, chunked.as_bytes()).await;
        assert!(answer.ends_with("SOME WORDS"), "{answer}");
        let expecting = chunked.replace("connection", "expect: 100-continue\r\nconnection");
        let answer = raw(gateway.http, expecting.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("SOME WORDS"), "{answer}");
        let mut client = h2::Client::to(gateway.http).await;
        let (reply, _) = client.send(h2::request("POST", "/s/", &[]), b"some words").await.unwrap();
        assert!(reply.text().ends_with("SOME WORDS"), "{}", reply.text());
    }
    let reply = post(&whole, &"a".repeat(101)).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post(&whole, &"a".repeat(100)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_response_is_shown_piece_by_piece_or_as_a_whole() {
    const CONFIG: &str = "request = false, response = true, what = \"upper\"";
    let endpoint = mirror().await;
    let pieces = showing(endpoint, CONFIG);
    let whole = showing(endpoint, &format!("{CONFIG}, whole = 100"));
    for (gateway, length, seen) in [(&pieces, "", ""), (&whole, "35", "35")] {
        let reply = post(gateway, "some words").await;
        assert_eq!(reply.text(), "POST\nCONTENT-LENGTH: 10\n\nSOME WORDS");
        assert_eq!((reply.header("content-length"), reply.header("x-length")), (length, seen));
        assert_eq!((reply.header("x-shown"), reply.header("x-from")), ("yes", &*endpoint.to_string()));
        let request = Request::builder().method(Method::HEAD).uri("/s/").header("host", "a");
        let reply = Client::to(gateway.http).await.send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(reply.header("x-shown"), "no");
        let mut client = h2::Client::to(gateway.http).await;
        let (reply, _) = client.send(h2::request("POST", "/s/", &[]), b"some words").await.unwrap();
        assert!(reply.text().ends_with("SOME WORDS"), "{}", reply.text());
        // HTTP/1.0 knows no chunks: what has no length ends with the connection.
        let answer = raw(gateway.http, b"GET /s/ HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains("HTTP/1.1 200") && answer.ends_with("GET\n\n"), "{answer}");
    }
    let reply = post(&whole, &"a".repeat(100)).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
}

/// Eight times what either side may hold of a body, with a filter in between.
#[tokio::test]
async fn long_bodies_flow_through_in_pieces() {
    let gateway = showing(mirror().await, "request = true, response = false, what = \"count\"");
    let length = 8 << 20;
    let reply = post(&gateway, &"a".repeat(length)).await;
    assert!(reply.text().ends_with(&format!("\n\n{length}")), "{}", reply.text());
    let gateway = showing(mirror().await, "request = false, response = true, what = \"count\"");
    let sent = "b".repeat(length);
    let told: usize = post(&gateway, &sent).await.text().parse().unwrap();
    assert!((length..length + 100).contains(&told), "{told}");
}

#[tokio::test]
async fn a_filter_may_answer_in_the_middle_of_a_body() {
    let endpoint = mirror().await;
    for whole in ["", ", whole = 1000"] {
        let gateway = showing(endpoint, &format!("request = true, response = false, what = \"answer\"{whole}"));
        assert!(post(&gateway, "please").await.text().ends_with("please"));
        let reply = post(&gateway, "now!").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (422, "do not shout"));
        let gateway = showing(endpoint, &format!("request = false, response = true, what = \"answer\"{whole}"));
        assert!(post(&gateway, "please").await.text().ends_with("please"));
        let request = Request::post("/s/").header("host", "a").body(Full::from(Bytes::from_static(b"now!"))).unwrap();
        match (whole, Client::to(gateway.http).await.send(request).await) {
            ("", outcome) => assert!(outcome.is_err(), "the head is gone, so it is broken off: {outcome:?}"),
            (_, reply) => assert_eq!(reply.unwrap().text(), "do not shout"),
        }
    }
}

#[tokio::test]
async fn a_filter_that_fails_on_a_body_fails_closed() {
    let endpoint = mirror().await;
    for (whole, side) in
        [("", "request"), (", whole = 1000", "request"), ("", "response"), (", whole = 1000", "response")]
    {
        let other = if side == "request" { "response" } else { "request" };
        let gateway = showing(endpoint, &format!("{side} = true, {other} = false, what = \"trap\"{whole}"));
        let request = Request::post("/s/").header("host", "a").body(Full::from(Bytes::from_static(b"x"))).unwrap();
        let outcome = Client::to(gateway.http).await.send(request).await;
        match (side, whole) {
            ("response", "") => assert!(outcome.is_err(), "{outcome:?}"),
            _ => assert_eq!(outcome.unwrap().status, StatusCode::SERVICE_UNAVAILABLE),
        }
        assert!(gateway.plugin("shows").await["traps"].as_u64().unwrap() > 0);
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_is_not_waited_for_without_end() {
    let more = "[defaults]\ntimeout = { idle = \"200ms\" }";
    let gateway = showing_with(mirror().await, &format!("{UPPER}, whole = 100"), more);
    let request = b"POST /s/ HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nconnection: close\r\n\r\nsome";
    let answer = raw(gateway.http, request).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn what_the_configuration_does_not_allow_is_refused_with_the_line_that_would() {
    let gateway = raw::in_front_of(&[mirror().await], "");
    gateway.plug("shows", fixture("shows"));
    crate::support::eventually("it is refused", async || gateway.plugin("shows").await["state"] == "failed").await;
    let told = gateway.plugin("shows").await["error"].as_str().unwrap().to_owned();
    assert!(told.contains("[plugins] capabilities = { shows = [\"bodies\"] }"), "{told}");
    // The same words make it work.
    let line = told.split("[plugins] ").nth(1).unwrap();
    let gateway = raw::in_front_of(&[mirror().await], &format!("[plugins]\n{line}\n"));
    gateway.plug("shows", fixture("shows"));
    crate::support::eventually("it is taken", async || gateway.plugin("shows").await["state"] == "active").await;
    assert_eq!(gateway.plugin("shows").await["capabilities"][0], "bodies");
}

#[tokio::test]
async fn what_a_use_remembers_is_known_to_all_workers_and_ends_with_its_time() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("services.toml"), "[services.s]\nendpoints = []\n").unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::copy(fixture("counts"), dir.path().join("plugins/counts.wasm")).unwrap();
    let config =
        "workers = 4\nfilters = [\"counts\"]\n[plugins]\ncapabilities = { \"*\" = [\"store\"] }\n[auto_routes]\n";
    let gateway = Gateway::start_in(dir, config);
    for (name, expected) in [("a", 1..=40), ("b", 1..=3)] {
        // Each connection may come to another worker.
        for count in expected {
            assert_eq!(get(gateway.http, &format!("/s/?{name}")).await.text(), count.to_string());
        }
    }
    // A new version of the file goes on counting; another configuration would be another use.
    let mut bytes = fs::read(fixture("counts")).unwrap();
    bytes.extend([0, 2, 1, b'x']);
    let before = gateway.plugin("counts").await["sha256"].clone();
    gateway.plug_bytes("counts", &bytes);
    crate::support::eventually("it is replaced", async || gateway.plugin("counts").await["sha256"] != before).await;
    assert_eq!(get(gateway.http, "/s/?a").await.text(), "41");
    assert_eq!(get(gateway.http, "/s/?short").await.text(), "1");
    crate::support::eventually("it is forgotten", async || {
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        get(gateway.http, "/s/?short").await.text() == "1"
    })
    .await;
}

//! What callers and endpoints see of each other, over real sockets.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;

use crate::support::client::{Client, get, get_with};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::raw::{canned, in_front_of, raw, serving};

#[tokio::test]
async fn heads_are_those_of_a_proxy() {
    let origin = Origin::answering(|request, _| {
        let mut lines: Vec<_> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        let response = Response::builder().header("connection", "x-hop").header("x-hop", "1").header("x-end", "2");
        response.body(Full::from(lines.join("\n"))).unwrap()
    })
    .await;
    let gateway = Gateway::of(&[&origin], "");
    let headers = [
        ("connection", "keep-alive, X-Mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic eDp5"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "mine-1"),
        ("accept", "*/*"),
    ];
    let reply = get_with(gateway.http, "/s/", &headers).await;
    assert_eq!(
        reply.text(),
        "accept: */*\nconnection: te\nhost: gateway.test\nte: trailers\nvia: 1.1 moongate\n\
         x-forwarded-for: 127.0.0.1\nx-forwarded-host: gateway.test\nx-forwarded-proto: http\nx-request-id: mine-1"
    );
    assert_eq!((reply.header("x-hop"), reply.header("x-end")), ("", "2"));

    // One that has no id gets one, another each time.
    let ids: Vec<String> = [get(gateway.http, "/s/").await, get(gateway.http, "/s/").await]
        .iter()
        .map(|it| it.text().lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned())
        .collect();
    assert_eq!(ids[0].len(), 32);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn own_answers_say_what_and_not_where() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = in_front_of(&[nobody], "header_routes = \"/services\"\n");
    let reply = get(gateway.http, "/").await;
    assert_eq!((reply.status, reply.header("server")), (StatusCode::OK, "moongate"));
    assert!(reply.text().contains("Moongate"));

    let malformed = [("service_name", "s"), ("api_name", "no-slash")];
    for (reply, status, phrase) in [
        (get(gateway.http, "/nothing/here").await, 404, "no route matches this request"),
        (get(gateway.http, "/s/").await, 502, "the endpoint cannot be reached"),
        (get_with(gateway.http, "/services", &malformed).await, 400, "api_name"),
    ] {
        assert_eq!((reply.status.as_u16(), reply.header("server")), (status, "moongate"));
        assert!(reply.text().contains(phrase), "{}", reply.text());
        assert!(!reply.text().contains("127.0.0.1"), "{}", reply.text());
        assert!(reply.text().contains(reply.header("x-request-id")) && reply.text().lines().count() == 1);
    }
    let reply = get_with(gateway.http, "/s/", &[("accept", "application/json"), ("x-request-id", "me")]).await;
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&problem["status"], &problem["request_id"]), (&502.into(), &"me".into()));
}

#[tokio::test]
async fn a_refused_connection_is_retried_on_another_endpoint() {
    // It reads what it is sent: one that answers and closes before that may lose its answer on the way.
    let alive = serving(|request| async {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::new(Full::from(format!("{length} bytes")).map_err(|never| match never {}).boxed())
    })
    .await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // Otherwise it would soon be left out.
    let gateway = in_front_of(&[dead, alive], "workers = 1\n[upstream]\noutlier = { consecutive = 0 }\n");
    for _ in 0..20 {
        assert_eq!(get(gateway.http, "/s/").await.text(), "0 bytes");
    }
    // Also with a body, of which nothing is lost: it is sent only where there is a connection.
    for _ in 0..2 {
        let body = Full::from(Bytes::from(vec![b'x'; 300_000]));
        let request = Request::post("/s/").header("host", "x").body(body).unwrap();
        assert_eq!(Client::to(gateway.http).await.send(request).await.unwrap().text(), "300000 bytes");
    }
    assert!(gateway.metric("moongate_retries_total").await >= 10.0);

    let none = in_front_of(&[dead, alive], "[defaults]\nretries = 0\n");
    let mut statuses: Vec<u16> = Vec::new();
    for _ in 0..10 {
        statuses.push(get(none.http, "/s/").await.status.as_u16());
    }
    statuses.sort();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 502, 502, 502, 502, 502]);
}

#[tokio::test]
async fn what_an_endpoint_may_have_acted_on_is_not_sent_again() {
    let (address, hits) = canned(b"").await;
    let (other, others) = canned(b"").await;
    let gateway = in_front_of(&[address, other], "workers = 1\n");
    let request = Request::post("/s/").header("host", "x").body(Full::from("order")).unwrap();
    let reply = Client::to(gateway.http).await.send(request).await.unwrap();
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(hits.load(SeqCst) + others.load(SeqCst), 1);
}

#[tokio::test]
async fn nonsense_and_silence_have_their_own_answers() {
    let (nonsense, _) = canned(b"this is no HTTP\r\n\r\n").await;
    let gateway = in_front_of(&[nonsense], "");
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::BAD_GATEWAY);

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = in_front_of(&[silent.local_addr().unwrap()], "[defaults]\ntimeout = { header = \"200ms\" }\n");
    let reply = get(gateway.http, "/s/").await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(gateway.metric("moongate_request_errors_total{reason=\"header-timeout\"}").await == 1.0);
}

#[tokio::test]
async fn connections_to_endpoints_are_kept() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "workers = 1");
    let mut client = Client::to(gateway.http).await;
    for _ in 0..100 {
        assert_eq!(client.get("/s/").await.status, StatusCode::OK);
    }
    assert_eq!(gateway.metric("moongate_upstream_connects_total").await, 1.0);
}

#[tokio::test]
async fn an_endpoint_that_restarts_fails_no_request() {
    let mut origin = Some(Origin::start().await);
    let address = origin.as_ref().unwrap().address;
    let gateway = Gateway::of(&[origin.as_ref().unwrap()], "workers = 1");
    let mut client = Client::to(gateway.http).await;
    for _ in 0..20 {
        assert_eq!(client.get("/s/").await.status, StatusCode::OK);
        drop(origin.take());
        // It is down for an instant; its connection in the gateway's pool is dead when the next request comes.
        tokio::task::yield_now().await;
        eventually("the port is free", async || {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).is_ok()
        })
        .await;
        origin = Some(Origin::again(address));
    }
    assert_eq!(client.get("/s/").await.text(), address.to_string());
}

#[tokio::test]
async fn methods_and_bodiless_answers_pass() {
    let origin = Origin::answering(|request, _| {
        let response = Response::builder().header("x-method", request.method().as_str());
        match request.uri().path() {
            "/204" => response.status(204).body(Full::default()).unwrap(),
            "/304" => response.status(304).header("etag", "\"1\"").body(Full::default()).unwrap(),
            _ => response.body(Full::from("body")).unwrap(),
        }
    })
    .await;
    let gateway = Gateway::of(&[&origin], "workers = 1");
    let mut client = Client::to(gateway.http).await;
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::PATCH, Method::PUT] {
        for path in ["/s/", "/s/204", "/s/304"] {
            let request =
                Request::builder().method(&method).uri(path).header("host", "x").body(Full::default()).unwrap();
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.header("x-method"), method.as_str(), "{method} {path}");
            let body = if path == "/s/" && method != Method::HEAD { "body" } else { "" };
            assert_eq!(reply.text(), body, "{method} {path}");
            if method == Method::HEAD && path == "/s/" {
                assert_eq!(reply.header("content-length"), "4");
            }
        }
    }
    // What may be repeated shares one connection; each of the three that may not has a new one.
    assert_eq!(gateway.metric("moongate_upstream_connects_total").await, 4.0);
}

#[tokio::test]
async fn what_can_be_misunderstood_is_refused_and_what_is_rare_passes() {
    let whole = serving(|request| async {
        let host = request.headers().get("host").map_or("none", |host| host.to_str().unwrap()).to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let text = format!("host {host:?}, body {}", String::from_utf8_lossy(&body));
        Response::new(Full::from(text).map_err(|never| match never {}).boxed())
    });
    let gateway = in_front_of(&[whole.await], "workers = 1\nheader_routes = \"/services\"\n");
    for (request, expected) in [
        ("GET /s/ HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        ("GET /s/ HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
        ("GET http://a@b/s/ HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
        ("GET /s/../t HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "400"),
        ("GET /s/%2e%2E/t HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "400"),
        (
            "GET /services HTTP/1.1\r\nhost: a\r\nservice_name: s\r\napi_name: /a/../b\r\nconnection: close\r\n\r\n",
            "400",
        ),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "404"),
        ("GET /s/ HTTP/1.0\r\n\r\n", "host \"\", body "),
        ("GET http://b/s/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "host \"b\", body "),
        (
            "GET /s/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nfind\r\n0\r\n\r\n",
            "host \"a\", body find",
        ),
    ] {
        let answer = raw(gateway.http, request.as_bytes()).await;
        let found = match expected.parse::<u16>() {
            Ok(_) => answer.split(' ').nth(1) == Some(expected),
            Err(_) => answer.ends_with(expected),
        };
        assert!(found, "{request} was answered with {answer}");
    }
}

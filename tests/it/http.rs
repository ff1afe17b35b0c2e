//! What callers and endpoints see of each other, over real sockets.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{Client, get, get_with, request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::origin::Origin;

/// Sends bytes and reads until the gateway closes the connection.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An endpoint that reads one request's head and answers with these bytes, then closes; again and again.
async fn canned(answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {
                    counted.fetch_add(1, SeqCst);
                    stream.write_all(answer).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            });
        }
    });
    (address, hits)
}

/// An endpoint that does this with a request.
async fn serving<F: Future<Output = Response<BoxBody<Bytes, hyper::Error>>> + Send + 'static>(
    answer: impl Fn(Request<Incoming>) -> F + Copy + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request).await) });
            tokio::spawn(async move { drop(http1::Builder::new().serve_connection(stream, service).await) });
        }
    });
    address
}

/// A gateway with these addresses as the service `s`.
fn in_front_of(addresses: &[SocketAddr], config: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    let endpoints: Vec<String> = addresses.iter().map(|it| format!("{{ address = \"{it}\" }}")).collect();
    fs::write(dir.path().join("services.toml"), format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", ")))
        .unwrap();
    Gateway::start_in(dir, &format!("{config}\n[auto_routes]\n"))
}

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
        "accept: */*\nhost: gateway.test\nx-forwarded-for: 203.0.113.9, 127.0.0.1\n\
         x-forwarded-host: gateway.test\nx-forwarded-proto: http\nx-request-id: mine-1"
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
async fn a_response_that_breaks_off_breaks_off_for_the_client() {
    let (address, _) = canned(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this").await;
    let gateway = in_front_of(&[address], "");
    let answer = raw(gateway.http, b"GET /s/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.contains("content-length: 1000\r\n") && answer.ends_with("\r\n\r\nonly this"), "{answer}");
    let error = Client::to(gateway.http).await.send(request("/s/", &[])).await.unwrap_err();
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    assert_eq!(cause.map(std::io::Error::kind), Some(std::io::ErrorKind::UnexpectedEof), "{error:?}");
    let (address, _) = canned(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let gateway = in_front_of(&[address], "");
    let answer = raw(gateway.http, b"GET /s/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.contains("hello") && !answer.ends_with("0\r\n\r\n"), "{answer}");
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
async fn bodies_stream_both_ways_whatever_their_size() {
    let address = serving(|request| async { Response::new(request.into_body().boxed()) }).await;
    let mut gateway = in_front_of(&[address], "workers = 1\n");
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 2048;
    stream
        .write_all(b"POST /s/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let (mut reader, mut writer) = stream.into_split();

    // Nobody reads: the endpoint's answer backs up, and so must the upload, long before 128 MiB.
    let mut chunk = format!("{CHUNK:x}\r\n").into_bytes();
    chunk.extend(std::iter::repeat_n(b'x', CHUNK));
    chunk.extend(b"\r\n");
    let progress = Arc::new(AtomicUsize::new(0));
    let written = progress.clone();
    let upload = tokio::spawn(async move {
        for _ in 0..CHUNKS {
            writer.write_all(&chunk).await.unwrap();
            written.fetch_add(1, SeqCst);
        }
        writer.write_all(b"0\r\n\r\n").await.unwrap();
        writer
    });
    let mut before = usize::MAX;
    eventually("the upload stands still", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::mem::replace(&mut before, progress.load(SeqCst)) == before && before > 0
    })
    .await;
    assert!(progress.load(SeqCst) < CHUNKS / 2, "{} chunks went somewhere", progress.load(SeqCst));
    assert!(gateway.running());

    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    let mut tail = Vec::new();
    loop {
        let read = reader.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        total += buffer[..read].iter().filter(|byte| **byte == b'x').count();
        tail = buffer[read.saturating_sub(5)..read].to_vec();
    }
    drop(upload.await.unwrap());
    assert_eq!(total, CHUNK * CHUNKS);
    assert!(tail.ends_with(b"\r\n"), "{tail:?}");
}

/// Sends a request whose body comes in pieces, each after a pause, and reads the answer.
async fn slowly(address: SocketAddr, pieces: usize, pause: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /s/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    for _ in 0..pieces {
        tokio::time::sleep(pause).await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_upload_has_time_as_long_as_it_moves() {
    let whole = serving(|request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::from(body).map_err(|never| match never {}).boxed())
    });
    // The ten pieces take longer than the endpoint has for its answer, which starts when it has them all.
    let patient = in_front_of(&[whole.await], "[defaults]\ntimeout = { header = \"400ms\", idle = \"10s\" }\n");
    let answer = slowly(patient.http, 10, Duration::from_millis(60)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("xxxxxxxxxx"), "{answer}");
}

#[tokio::test]
async fn an_upload_that_stops_is_the_clients_fault() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway =
        in_front_of(&[silent.local_addr().unwrap()], "[defaults]\ntimeout = { header = \"10s\", idle = \"200ms\" }\n");
    let answer = slowly(gateway.http, 3, Duration::from_millis(20)).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let services = gateway.api("services").await;
    assert_eq!(services["services"][0]["endpoints"][0]["failed"], 0);
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
    assert_eq!(gateway.metric("moongate_upstream_connects_total").await, 1.0);
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
    let request = Request::post("/api/v1/services").header("host", "x").body(Full::default()).unwrap();
    let reply = Client::to(gateway.admin).await.send(request).await.unwrap();
    assert_eq!((reply.status, reply.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    assert_eq!(get(gateway.admin, "/other").await.status, StatusCode::NOT_FOUND);
}

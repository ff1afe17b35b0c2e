//! HTTP/2 from clients and to endpoints: what passes, and what does not.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use bytes::Bytes;
use h2::Reason;
use h2::ext::Protocol;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use ring::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::client::{self, get_with};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::h2::{Client, Endpoint, GOAWAY, Raw, SETTINGS, data, in_front_of, mirror, request, send, whole};
use crate::support::raw::{self, canned, serving};

#[tokio::test]
async fn a_client_with_http2_and_an_endpoint_without() {
    let address = serving(|request| async {
        let (head, body) = request.into_parts();
        let mut lines: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        let body = body.collect().await.unwrap().to_bytes();
        let text = format!("{} {}\n{}\n{}", head.method, head.uri, lines.join("\n"), String::from_utf8_lossy(&body));
        let response = Response::builder().header("connection", "x-hop").header("x-hop", "1").header("x-end", "2");
        response.body(Full::from(text).map_err(|error| match error {}).boxed()).unwrap()
    })
    .await;
    let gateway = raw::in_front_of(&[address], "");
    let mut client = Client::to(gateway.http).await;
    let headers = [("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("x-request-id", "1")];
    let (reply, _) = client.send(request("POST", "/s/a?b", &headers), b"hello").await.unwrap();
    assert_eq!(
        reply.text(),
        "POST /a?b\nconnection: te\ncookie: a=1; b=2\nhost: gateway.test\nte: trailers\ntransfer-encoding: chunked\n\
         via: 2 moongate\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: gateway.test\nx-forwarded-proto: http\n\
         x-request-id: 1\nhello"
    );
    assert_eq!((reply.header("x-hop"), reply.header("x-end"), reply.header("connection")), ("", "2", ""));
    assert!(!reply.header("content-length").is_empty() && !reply.header("date").is_empty());

    let head = client.send(request("HEAD", "/s/", &[]), b"").await.unwrap().0;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(client.get("/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.send(request("TRACE", "/s/", &[]), b"").await.unwrap().0.status, StatusCode::METHOD_NOT_ALLOWED);
    let long = format!("/s/{}", "x".repeat(9000));
    assert_eq!(client.get(&long).await.status, StatusCode::URI_TOO_LONG);
    let large = "x".repeat(40_000);
    let reply = client.send(request("GET", "/s/", &[("x-large", &large)]), b"").await.unwrap().0;
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn an_endpoint_with_http2_and_a_client_without() {
    let endpoint = mirror().await;
    let gateway = in_front_of(&[endpoint.address], "workers = 1\n");
    let headers = [("connection", "keep-alive, x-mine"), ("x-mine", "1"), ("te", "gzip"), ("x-request-id", "1")];
    let reply = get_with(gateway.http, "/s/a?b", &headers).await;
    assert_eq!(
        reply.text(),
        format!(
            "GET http://gateway.test/a?b\nx-request-id: 1\nx-forwarded-for: 127.0.0.1\nx-forwarded-proto: http\n\
             x-forwarded-host: gateway.test\nvia: 1.1 moongate\n"
        )
    );
    let mut requests: Vec<_> = Vec::new();
    for _ in 0..50 {
        requests.push(tokio::spawn(client::get(gateway.http, "/s/")));
    }
    for request in requests {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(endpoint.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways_at_the_same_time() {
    let endpoint = Endpoint::serving(|request, mut respond| async move {
        let mut body = request.into_body();
        let mut stream = respond.send_response(Response::new(()), false)?;
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            send(&mut stream, data, false).await?;
        }
        let mut trailers = body.trailers().await?.unwrap_or_default();
        trailers.insert("x-back", "2".parse().unwrap());
        stream.send_trailers(trailers)
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "");
    let mut client = Client::to(gateway.http).await;
    let (response, mut stream) =
        client.sender.send_request(request("POST", "/s/", &[("te", "trailers")]), false).unwrap();
    let mut body = None;
    let mut response = Some(response);
    for round in 0..100 {
        let text = Bytes::from(format!("round {round}"));
        send(&mut stream, text.clone(), false).await.unwrap();
        if let Some(response) = response.take() {
            body = Some(response.await.unwrap().into_body());
        }
        let body = body.as_mut().unwrap();
        let back = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(back.len()).unwrap();
        assert_eq!(back, text);
    }
    let large = Bytes::from(vec![b'x'; 4 << 20]);
    let sending = large.clone();
    let upload = tokio::spawn(async move {
        send(&mut stream, sending, false).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-there", "1".parse().unwrap());
        // Of a connection, not of a message.
        trailers.insert("content-length", "7".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    });
    let mut body = body.unwrap();
    assert_eq!(data(&mut body).await.unwrap(), large);
    upload.await.unwrap();
    let trailers = body.trailers().await.unwrap().unwrap();
    let mut names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["x-back", "x-there"]);
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_the_answer() {
    let endpoint = Endpoint::serving(|request, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false)?;
        let answer = tokio::spawn(async move { send(&mut stream, vec![b'x'; 1 << 20].into(), true).await });
        let read = data(&mut request.into_body()).await?;
        assert_eq!(read.len(), 1 << 20);
        answer.await.unwrap()
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "");
    let mut client = Client::to(gateway.http).await;
    let (response, mut stream) = client.sender.send_request(request("POST", "/s/", &[]), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    // The whole upload, with the answer's window used up.
    send(&mut stream, vec![b'y'; 1 << 20].into(), true).await.unwrap();
    assert_eq!(data(&mut body).await.unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn what_comes_before_the_response_is_passed_on() {
    let endpoint = Endpoint::serving(|request, mut respond| async move {
        let expects = request.headers().contains_key("expect");
        let early = Response::builder().status(103).header("link", "</a.css>; rel=preload").body(()).unwrap();
        respond.send_informational(early)?;
        if expects {
            respond.send_informational(Response::builder().status(100).body(()).unwrap())?;
        }
        let read = data(&mut request.into_body()).await?;
        let mut stream = respond.send_response(Response::new(()), false)?;
        send(&mut stream, read, true).await
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "");
    let mut client = Client::to(gateway.http).await;
    let expecting = request("POST", "/s/", &[("expect", "100-continue")]);
    let (mut response, mut stream) = client.sender.send_request(expecting, false).unwrap();
    let early = poll_fn(|context| response.poll_informational(context)).await.unwrap().unwrap();
    assert_eq!((early.status().as_u16(), early.headers()["link"].to_str().unwrap()), (103, "</a.css>; rel=preload"));
    let leave = poll_fn(|context| response.poll_informational(context)).await.unwrap().unwrap();
    assert_eq!(leave.status().as_u16(), 100);
    send(&mut stream, "hello".into(), true).await.unwrap();
    assert_eq!(whole(response.await.unwrap()).await.unwrap().0.text(), "hello");

    // The same for a client with HTTP/1.1.
    let text = raw::raw(gateway.http, b"GET /s/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{text}"
    );
}

/// What a server makes of a client's key (RFC 6455, section 1.3).
fn accept(key: &str) -> String {
    let hash = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let bits: String = hash.as_ref().iter().map(|byte| format!("{byte:08b}")).collect::<String>() + "00";
    let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let digit = |bits: &[u8]| digits[usize::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap()];
    bits.as_bytes().chunks(6).map(digit).chain(['=']).collect()
}

/// An HTTP/1 endpoint that opens a WebSocket, rightly or not, and sends back what it gets.
async fn websocket(honest: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                assert!(
                    head.starts_with("GET /chat HTTP/1.1\r\n") && head.contains("\r\nupgrade: websocket\r\n"),
                    "{head}"
                );
                let key = head.split("sec-websocket-key: ").nth(1).unwrap().split("\r\n").next().unwrap();
                let accept = accept(if honest { key } else { "another" });
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                     sec-websocket-protocol: chat\r\nsec-websocket-accept: {accept}\r\n\r\nwelcome"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

fn opening() -> http::Request<()> {
    let mut request =
        request("CONNECT", "/s/chat", &[("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")]);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// A client that knows that it may open WebSockets: it has the gateway's settings.
async fn settled(gateway: &Gateway) -> Client {
    let mut client = Client::to(gateway.http).await;
    eventually("the settings come", async || client.sender.is_extended_connect_protocol_enabled()).await;
    client.sender = client.sender.ready().await.unwrap();
    client
}

/// Until so many bytes have come.
async fn bytes(body: &mut h2::RecvStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let data = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all
}

#[tokio::test]
async fn a_websocket_over_a_stream() {
    let gateway = raw::in_front_of(&[websocket(true).await], "");
    let mut client = settled(&gateway).await;
    let (response, mut stream) = client.sender.send_request(opening(), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let names: Vec<&str> = response.headers().keys().map(|name| name.as_str()).collect();
    assert!(names.contains(&"sec-websocket-protocol") && !names.contains(&"sec-websocket-accept"), "{names:?}");
    let mut body = response.into_body();
    assert_eq!(bytes(&mut body, 7).await, b"welcome");
    for round in 0..100 {
        let text = format!("message {round}");
        send(&mut stream, text.clone().into(), false).await.unwrap();
        assert_eq!(bytes(&mut body, text.len()).await, text.as_bytes());
    }
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let sending = large.clone();
    let upload = tokio::spawn(async move { send(&mut stream, sending, true).await });
    assert_eq!(bytes(&mut body, 1 << 20).await, large);
    upload.await.unwrap().unwrap();
    assert!(data(&mut body).await.unwrap().is_empty(), "the end comes back as well");

    // One that answers without having read the key may be no WebSocket server at all.
    let gateway = raw::in_front_of(&[websocket(false).await], "");
    let mut client = settled(&gateway).await;
    let (response, _stream) = client.sender.send_request(opening(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_websocket_to_an_endpoint_with_http2() {
    let endpoint = Endpoint::serving(|request, mut respond| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        assert!(!request.headers().contains_key("sec-websocket-key"));
        let mut stream = respond.send_response(Response::new(()), false)?;
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            send(&mut stream, data, false).await?;
        }
        stream.send_data(Bytes::new(), true)
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "");
    let mut client = settled(&gateway).await;
    let (response, mut stream) = client.sender.send_request(opening(), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    send(&mut stream, "hello".into(), true).await.unwrap();
    assert_eq!(data(&mut body).await.unwrap(), "hello");

    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let head = format!(
        "GET /s/chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(&accept(key)), "{answer}");
    client.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn what_a_client_takes_back_is_taken_back_from_the_endpoint() {
    let (asked, reset) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, noticed) = (asked.clone(), reset.clone());
    let endpoint = Endpoint::serving(move |_request, mut respond| {
        let (counted, noticed) = (counted.clone(), noticed.clone());
        async move {
            counted.fetch_add(1, SeqCst);
            poll_fn(|context| respond.poll_reset(context)).await?;
            noticed.fetch_add(1, SeqCst);
            Ok(())
        }
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "");
    let mut client = Client::to(gateway.http).await;
    let (_response, mut stream) = client.sender.send_request(request("GET", "/s/", &[]), true).unwrap();
    eventually("the endpoint is asked", async || asked.load(SeqCst) == 1).await;
    stream.send_reset(Reason::CANCEL);
    eventually("the endpoint is told", async || reset.load(SeqCst) == 1).await;
    // And if the whole connection goes.
    let (_response, _stream) = client.sender.send_request(request("GET", "/s/", &[]), true).unwrap();
    eventually("the endpoint is asked", async || asked.load(SeqCst) == 2).await;
    client.ended.abort();
    eventually("the endpoint is told", async || reset.load(SeqCst) == 2).await;
    assert_eq!(endpoint.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_no_whole_one() {
    let (address, _) = canned(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let resetting = Endpoint::serving(|_, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false)?;
        send(&mut stream, "hello".into(), false).await?;
        // What was sent is on its way before.
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        Ok(())
    })
    .await;
    for gateway in [raw::in_front_of(&[address], ""), in_front_of(&[resetting.address], "")] {
        let mut client = Client::to(gateway.http).await;
        let outcome = client.send(request("GET", "/s/", &[]), b"").await;
        match outcome {
            Err(error) => assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR)),
            Ok((reply, _)) => assert_eq!(reply.status, StatusCode::BAD_GATEWAY),
        }
    }
}

#[tokio::test]
async fn what_an_endpoint_has_not_acted_on_is_sent_again() {
    // It refuses the first of two, and ends each connection after three.
    let turn = Arc::new(AtomicUsize::new(0));
    let counted = turn.clone();
    let fickle = Endpoint::serving(move |request, mut respond| {
        let turn = counted.fetch_add(1, SeqCst);
        async move {
            if turn.is_multiple_of(2) {
                respond.send_reset(Reason::REFUSED_STREAM);
                return Ok(());
            }
            let read = data(&mut request.into_body()).await?;
            let mut stream = respond.send_response(Response::new(()), false)?;
            send(&mut stream, read, true).await
        }
    })
    .await;
    let gateway = in_front_of(&[fickle.address], "workers = 1\n[defaults]\nretries = 0\n");
    let mut client = Client::to(gateway.http).await;
    for _ in 0..10 {
        let reply = client.send(request("POST", "/s/", &[]), b"").await.unwrap().0;
        assert_eq!(reply.status, StatusCode::OK);
    }
    assert_eq!(turn.load(SeqCst), 20);
}

#[tokio::test]
async fn connections_that_an_endpoint_ends_are_replaced_unseen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            seen.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut count = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(Response::new(()), true).unwrap();
                    count += 1;
                    if count == 5 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    let gateway = in_front_of(&[address], "workers = 1\n[defaults]\nretries = 0\n");
    let mut client = Client::to(gateway.http).await;
    for _ in 0..50 {
        let reply = client.send(request("POST", "/s/", &[]), b"").await.unwrap().0;
        assert_eq!(reply.status, StatusCode::OK);
    }
    assert!(connections.load(SeqCst) >= 5, "{}", connections.load(SeqCst));
}

#[tokio::test]
async fn an_endpoints_limit_on_streams_is_kept() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (now.clone(), most.clone());
    let (open, gate) = watch::channel(true);
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(4);
    let endpoint = Endpoint::with(&settings, move |_, mut respond| {
        let (running, peak, mut gate) = (running.clone(), peak.clone(), gate.clone());
        async move {
            peak.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            gate.wait_for(|open| *open).await.unwrap();
            running.fetch_sub(1, SeqCst);
            respond.send_response(Response::new(()), true).map(drop)
        }
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "workers = 1\n");
    assert_eq!(client::get(gateway.http, "/s/").await.status, StatusCode::OK);
    open.send(false).unwrap();
    let requests: Vec<_> = (0..20).map(|_| tokio::spawn(client::get(gateway.http, "/s/"))).collect();
    eventually("all are at the endpoint", async || now.load(SeqCst) == 20).await;
    assert_eq!(endpoint.connections.load(SeqCst), 5, "with four streams each");
    open.send(true).unwrap();
    for request in requests {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_gateway_that_ends_finishes_its_streams() {
    let (open, gate) = watch::channel(false);
    let endpoint = Endpoint::serving(move |_, mut respond| {
        let mut gate = gate.clone();
        async move {
            let mut stream = respond.send_response(Response::new(()), false)?;
            send(&mut stream, "first ".into(), false).await?;
            gate.wait_for(|open| *open).await.unwrap();
            send(&mut stream, "last".into(), true).await
        }
    })
    .await;
    let mut gateway = in_front_of(&[endpoint.address], "");
    let mut client = Client::to(gateway.http).await;
    let (response, _stream) = client.sender.send_request(request("GET", "/s/", &[]), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(bytes(&mut body, 6).await, b"first ");
    let mut idle = Raw::to(gateway.http).await;
    assert!(idle.until(SETTINGS).await.is_some());
    gateway.signal("-TERM");
    // A warning first, that nobody's request is lost (RFC 9113, section 6.8).
    let goaway = idle.until(GOAWAY).await.unwrap();
    assert_eq!(goaway.payload[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    eventually("the client is told", async || {
        let ready = poll_fn(|context| Poll::Ready(client.sender.poll_ready(context))).await;
        matches!(ready, Poll::Ready(Err(_)))
    })
    .await;
    assert!(gateway.running());
    open.send(true).unwrap();
    assert_eq!(data(&mut body).await.unwrap(), "last");
    client.ended.await.unwrap().unwrap();
    drop(idle);
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn an_upload_that_nobody_takes_waits_with_its_client() {
    let endpoint = Endpoint::serving(|request, mut respond| async move {
        // It holds the body, and takes nothing of it.
        let _body = request.into_body();
        poll_fn(|context| respond.poll_reset(context)).await.map(drop)
    })
    .await;
    let gateway = in_front_of(&[endpoint.address], "workers = 1\n");
    let mut client = Client::to(gateway.http).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    let before = gateway.memory();
    let mut uploads = Vec::new();
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let (response, mut stream) = client.sender.send_request(request("POST", "/s/", &[]), false).unwrap();
        let sent = sent.clone();
        uploads.push(tokio::spawn(async move {
            let _response = response;
            loop {
                send(&mut stream, vec![b'x'; 16 << 10].into(), false).await?;
                sent.fetch_add(16 << 10, SeqCst);
                if sent.load(SeqCst) > 1 << 30 {
                    return Ok::<(), h2::Error>(());
                }
            }
        }));
    }
    let mut last = usize::MAX;
    eventually("the uploads stand still", async || {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        std::mem::replace(&mut last, sent.load(SeqCst)) == last && last > 0
    })
    .await;
    assert!(last < 8 << 20, "{last} bytes went somewhere");
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for 20 uploads");
    uploads.iter().for_each(|upload| upload.abort());
}

//! What strangers may send over HTTP/2: malformed requests, floods, and windows that never open.

use std::time::Instant;

use h2::Reason;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{self};
use crate::support::gateway::Gateway;
use crate::support::h2::{
    CONTINUATION, Client, DATA, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, get,
    in_front_of, mirror, request,
};
use crate::support::origin::Origin;
use crate::support::raw::{self, serving};

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[tokio::test]
async fn what_is_malformed_reaches_no_endpoint() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "");
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/s/")];
    let with = |more: &[(&'static str, &'static str)]| {
        let mut fields = good.to_vec();
        fields.extend_from_slice(more);
        block(&fields)
    };
    let instead = |name: &'static str, value: &'static str| {
        let fields = good.map(|field| if field.0 == name { (name, value) } else { field });
        block(&fields)
    };
    let without = |name: &str| {
        let fields: Vec<_> = good.into_iter().filter(|field| field.0 != name).collect();
        block(&fields)
    };
    for (name, block) in [
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("te", with(&[("te", "gzip")])),
        ("upper case", with(&[("X-Mine", "1")])),
        ("colon in a name", with(&[("x:y", "1")])),
        ("space in a name", with(&[("x y", "1")])),
        ("line feed in a value", with(&[("x", "a\nb: c")])),
        ("carriage return in a value", with(&[("x", "a\r\n\r\nGET /evil HTTP/1.1")])),
        ("null in a value", with(&[("x", "a\0b")])),
        ("space before a value", with(&[("x", " a")])),
        ("space behind a value", with(&[("x", "a ")])),
        ("another host", with(&[("host", "b")])),
        ("two hosts", with(&[("host", "a"), ("host", "a")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
        ("no length", with(&[("content-length", "x")])),
        ("a length without a body", with(&[("content-length", "5")])),
        ("a late pseudo-field", with(&[("x", "1"), (":authority", "a")])),
        ("an unknown pseudo-field", with(&[(":unknown", "1")])),
        ("a response's pseudo-field", with(&[(":status", "200")])),
        ("two methods", with(&[(":method", "POST")])),
        ("a protocol without CONNECT", with(&[(":protocol", "websocket")])),
        ("no authority", without(":authority")),
        ("no path", without(":path")),
        ("no scheme", without(":scheme")),
        ("no method", without(":method")),
        ("an empty path", instead(":path", "")),
        ("a path without a slash", instead(":path", "s/")),
        ("a whole URI", instead(":path", "http://a/s/")),
        ("a space in the path", instead(":path", "/s/ HTTP/1.1")),
        ("a line feed in the path", instead(":path", "/s/\n")),
        ("a line feed in the authority", instead(":authority", "a\r\nx: y")),
        ("a line feed in the method", instead(":method", "GET /\r\n")),
        ("a user in the authority", instead(":authority", "b@a")),
        ("an asterisk", instead(":path", "*")),
        ("dot segments", instead(":path", "/x/../s/")),
    ] {
        let mut client = Raw::to(gateway.http).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        let answer = loop {
            match client.next().await {
                Some(frame) if [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind) => break Some(frame),
                Some(_) => {}
                None => break None,
            }
        };
        // Where it is understood well enough, it is told: `:status: 400` is 0x8c in the static table.
        let refused = answer.as_ref().is_none_or(|it| it.kind != HEADERS || it.payload[0] == 0x8c);
        assert!(refused, "{name}: {answer:?}");
    }
    assert_eq!(origin.hits(), 0);
    let mut client = Raw::to(gateway.http).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&good))).await;
    assert_eq!(client.until(HEADERS).await.unwrap().payload[0], 0x88, "and this one is fine");
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says() {
    let endpoint = mirror().await;
    let gateway = in_front_of(&[endpoint.address], "");
    for (length, body) in [("5", &b"1234"[..]), ("3", b"1234")] {
        let mut client = Client::to(gateway.http).await;
        let outcome = client.send(request("POST", "/s/", &[("content-length", length)]), body).await;
        assert_eq!(outcome.err().and_then(|error| error.reason()), Some(Reason::PROTOCOL_ERROR), "{length}");
    }
    let mut client = Client::to(gateway.http).await;
    let reply = client.send(request("POST", "/s/", &[("content-length", "4")]), b"1234").await.unwrap().0;
    assert!(reply.text().ends_with("1234") && reply.text().contains("content-length: 4\n"), "{}", reply.text());
}

#[tokio::test]
async fn floods_end_their_connection_and_no_other() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "workers = 1\n");
    let mut bystander = Client::to(gateway.http).await;
    assert_eq!(bystander.get("/s/").await.status, StatusCode::OK);
    let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/s/")]);
    let open = frame(HEADERS, END_HEADERS, 1, &post);
    for (name, first, again) in [
        ("ping", vec![], frame(PING, 0, 0, &[0; 8])),
        ("settings", vec![], frame(SETTINGS, 0, 0, b"")),
        ("priority", vec![], frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ("window update", vec![], frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", vec![], frame(0xfa, 0, 0, b"?")),
        ("empty data", open.clone(), frame(DATA, 0, 1, b"")),
        ("padding", open.clone(), frame(DATA, 8, 1, &[3, 0, 0, 0])),
        ("empty continuation", frame(HEADERS, 0, 1, &post), frame(CONTINUATION, 0, 1, b"")),
    ] {
        let mut client = Raw::to(gateway.http).await;
        client.send(&first).await;
        let reason = client.flood(&again, 20_000).await;
        // Some of it `h2` ends by itself, and where much is still unread the end can come before its reason.
        assert!(matches!(reason, Some(0xb) | None), "{name}: {reason:?}");
        let began = Instant::now();
        assert_eq!(bystander.get("/s/").await.status, StatusCode::OK, "{name}");
        assert!(began.elapsed().as_millis() < 500, "{name}: {:?}", began.elapsed());
    }
    assert!(gateway.metric("moongate_connections_abusive_total").await >= 5.0);
}

#[tokio::test]
async fn streams_opened_and_reset_end_their_connection() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "workers = 1\n");
    let mut bystander = Client::to(gateway.http).await;
    assert_eq!(bystander.get("/s/").await.status, StatusCode::OK);
    let before = origin.hits();
    let pair = |stream: u32, second: Vec<u8>| {
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/s/"));
        bytes.extend(second);
        bytes
    };
    // By the client (CVE-2023-44487), and by us, made to (CVE-2025-8671).
    let kinds: [fn(u32) -> Vec<u8>; 2] = [
        |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
        |stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
    ];
    for kind in kinds {
        let mut client = Raw::to(gateway.http).await;
        let mut sent = 0;
        for number in 0..5_000 {
            let stream = 2 * number + 1;
            if client.stream.write_all(&pair(stream, kind(stream))).await.is_err() {
                break;
            }
            sent = number;
        }
        while let Some(frame) = client.next().await {
            if frame.kind == GOAWAY {
                assert_eq!(frame.payload[4..8], [0, 0, 0, 0xb]);
            }
        }
        assert!(sent > 100, "{sent} is less than a person may do");
        let began = Instant::now();
        assert_eq!(bystander.get("/s/").await.status, StatusCode::OK);
        assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
    }
    assert!(origin.hits() - before < 1_000, "{} requests were begun for nothing", origin.hits() - before);
    assert!(gateway.metric("moongate_connections_abusive_total").await >= 2.0);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "[limits]\nheader_timeout = \"500ms\"\nidle_timeout = \"60s\"\n");
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/s/"));
    let open = frame(HEADERS, END_STREAM, 1, &get("/s/"));
    for (name, bytes) in [("half a frame", &whole[..20]), ("no end", &open[..])] {
        let mut client = Raw::to(gateway.http).await;
        client.send(bytes).await;
        let began = Instant::now();
        while client.next().await.is_some() {}
        assert!((400..10_000).contains(&began.elapsed().as_millis()), "{name}: {:?}", began.elapsed());
    }
    // Nor is a client who says nothing at all.
    let mut silent = TcpStream::connect(gateway.http).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn a_client_that_opens_no_window_holds_little() {
    let address =
        serving(|_| async { Response::new(Full::from(vec![b'x'; 4 << 20]).map_err(|error| match error {}).boxed()) })
            .await;
    let gateway = raw::in_front_of(&[address], "workers = 1\n");
    assert_eq!(client::get(gateway.http, "/s/").await.body.len(), 4 << 20);
    let before = gateway.memory();
    let mut client = Raw::to(gateway.http).await;
    // SETTINGS_INITIAL_WINDOW_SIZE
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    for number in 0..100 {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &get("/s/"))).await;
    }
    for _ in 0..100 {
        assert_eq!(client.until(HEADERS).await.unwrap().payload[0], 0x88);
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for 100 streams");
    // And what it gets once it opens one is all of it.
    client.send(&frame(WINDOW_UPDATE, 0, 0, &(8u32 << 20).to_be_bytes())).await;
    client.send(&frame(WINDOW_UPDATE, 0, 1, &(8u32 << 20).to_be_bytes())).await;
    let mut total = 0;
    loop {
        let frame = client.until(DATA).await.unwrap();
        assert_eq!(frame.stream, 1);
        total += frame.payload.len();
        if frame.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(total, 4 << 20);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let address =
        serving(|_| async { Response::new(Full::from(vec![b'x'; 4 << 20]).map_err(|error| match error {}).boxed()) })
            .await;
    let config = "[limits]\nidle_timeout = \"500ms\"\n[defaults]\ntimeout = { idle = \"500ms\" }\n";
    let gateway = raw::in_front_of(&[address], config);
    let mut client = Raw::to(gateway.http).await;
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/s/"))).await;
    let reset = client.until(RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
    assert!(client.until(GOAWAY).await.is_some(), "and without streams the connection is idle");
}

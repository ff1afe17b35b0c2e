//! Bodies, upgrades and event streams on their way through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{Client, request};
use crate::support::eventually;
use crate::support::raw::{canned, in_front_of, raw, serving};

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

#[tokio::test]
async fn connections_that_rest_hold_nothing_of_what_went_over_them() {
    const CLIENTS: usize = 100;
    const BODY: usize = 100 << 10;
    let echo = serving(|request| async { Response::new(request.into_body().boxed()) });
    let gateway = in_front_of(&[echo.await], "workers = 1\n");
    let upload = || {
        let mut request = request("/s/", &[]).map(|_| Full::from(vec![b'x'; BODY]));
        *request.method_mut() = http::Method::POST;
        request
    };
    let mut clients = Vec::new();
    let mut before = 0;
    for nth in 0..CLIENTS {
        let mut client = Client::to(gateway.http).await;
        assert_eq!(client.send(upload()).await.unwrap().body.len(), BODY);
        clients.push(client);
        if nth == 4 {
            before = gateway.memory();
        }
    }
    // As many connections rest on the other side.
    let each = gateway.memory().saturating_sub(before) / CLIENTS as u64;
    assert!(each < 32 << 10, "{each} bytes a connection");
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

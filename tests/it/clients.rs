//! What real clients do that costs a gateway more than a request: large bodies, silent streams, many WebSockets; and
//! curl, which speaks everything.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::origin::Origin;
use crate::support::raw::in_front_of;
use crate::support::tls::Authority;
use crate::tls::ONE;

const MIB: usize = 1 << 20;

/// Reads a head and gives it as text; what came behind it is left in `rest`.
async fn head(stream: &mut TcpStream, rest: &mut Vec<u8>) -> String {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = rest.windows(4).position(|it| it == b"\r\n\r\n") {
            return String::from_utf8(rest.drain(..end + 4).collect()).unwrap();
        }
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the connection ended in a head: {}", String::from_utf8_lossy(rest));
        rest.extend_from_slice(&buffer[..read]);
    }
}

/// An endpoint that handles each connection like this.
async fn endpoint<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            tokio::spawn(handle(listener.accept().await.unwrap().0));
        }
    });
    address
}

/// Sends or takes a body of as many bytes as the path says, and tells how many it took.
async fn bulk(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let head = head(&mut stream, &mut rest).await;
    let bytes: usize = head.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap();
    let mut block = vec![b'x'; MIB];
    if head.starts_with("GET") {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        for _ in 0..bytes / MIB {
            // A client that has had enough closes, and the gateway with it.
            if stream.write_all(&block).await.is_err() {
                return;
            }
        }
    } else {
        let mut taken = rest.len();
        while taken < bytes {
            taken += stream.read(&mut block).await.unwrap();
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{taken}", taken.to_string().len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gibibytes_pass_both_ways_in_flat_memory() {
    const SIZE: usize = 2048 * MIB;
    let gateway = in_front_of(&[endpoint(bulk).await], "workers = 1");
    // What the first large body needs once.
    transfer(&gateway, "GET", 16 * MIB).await;
    let before = gateway.memory();
    assert_eq!(transfer(&gateway, "GET", SIZE).await, SIZE);
    let sent = transfer(&gateway, "PUT", SIZE).await;
    assert_eq!(sent, SIZE);
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 4 * MIB as u64, "the gateway grew by {grown} bytes");
}

/// Sends or receives so many bytes; says how many arrived at the other end.
async fn transfer(gateway: &Gateway, method: &str, bytes: usize) -> usize {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let length = if method == "PUT" { format!("Content-Length: {bytes}\r\n") } else { String::new() };
    let request = format!("{method} /s/{bytes} HTTP/1.1\r\nHost: x\r\n{length}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut block = vec![b'y'; MIB];
    if method == "PUT" {
        for _ in 0..bytes / MIB {
            stream.write_all(&block).await.unwrap();
        }
    }
    let mut rest = Vec::new();
    let answer = head(&mut stream, &mut rest).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let length = answer.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut taken = rest.len();
    while taken < length.unwrap() {
        let read = stream.read(&mut block).await.unwrap();
        assert_ne!(read, 0, "the response broke off after {taken} bytes");
        if method == "PUT" {
            rest.extend_from_slice(&block[..read]);
        }
        taken += read;
    }
    if method == "PUT" { String::from_utf8(rest).unwrap().parse().unwrap() } else { taken }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_little() {
    let gateway = in_front_of(&[endpoint(bulk).await], "workers = 1");
    transfer(&gateway, "GET", 16 * MIB).await;
    let before = gateway.memory();
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let request = format!("GET /s/{} HTTP/1.1\r\nHost: x\r\n\r\n", 400 * MIB);
    stream.write_all(request.as_bytes()).await.unwrap();
    let inflight = "moongate_upstream_connects_total";
    eventually("the response has begun", async || gateway.metric(inflight).await >= 2.0).await;
    let mut one = [0];
    stream.read_exact(&mut one).await.unwrap();
    // Others are served meanwhile, so that there was time to gather what must not be gathered.
    for _ in 0..4 {
        transfer(&gateway, "GET", 64 * MIB).await;
    }
    let grown = gateway.memory().saturating_sub(before);
    // Measured, 0.4 to 1.2 MiB: what one read brought waits (half a MiB), a quarter is code that is mapped in for the first
    // time, the rest is what the others were late to take. The response has 400.
    assert!(grown < 2 * MIB as u64, "the gateway grew by {grown} bytes");
}

#[tokio::test]
async fn an_event_stream_may_be_silent_and_one_left_is_noticed() {
    // Idle for ten seconds where other responses may be for a tenth of one: ten minutes where they may for six seconds.
    let (told, mut left) = tokio::sync::mpsc::unbounded_channel();
    let origin = endpoint(move |mut stream| {
        let told = told.clone();
        async move {
            head(&mut stream, &mut Vec::new()).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            stream.write_all(b"9\r\ndata: 2\n\n\r\n").await.unwrap();
            // Silent from here on, until the gateway closes.
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            told.send(()).unwrap();
        }
    })
    .await;
    let gateway = in_front_of(&[origin], "[defaults]\ntimeout = { idle = \"100ms\" }\n");
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    stream.write_all(b"GET /s/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut events = Vec::new();
    let answer = head(&mut stream, &mut events).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut buffer = [0; 4096];
    while !events.windows(7).any(|it| it == b"data: 2") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the stream was cut: {}", String::from_utf8_lossy(&events));
        events.extend_from_slice(&buffer[..read]);
    }
    drop(stream);
    left.recv().await.unwrap();
}

/// Changes to WebSocket and sends every byte back, until the other side ends. A client's frame comes back masked, which
/// is no matter here.
async fn echo(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let request = head(&mut stream, &mut rest).await;
    assert!(request.to_lowercase().contains("connection: upgrade"), "{request}");
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.write_all(&rest).await.unwrap();
    let (mut from, mut to) = stream.split();
    drop(tokio::io::copy(&mut from, &mut to).await);
}

async fn websocket(gateway: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let request = "GET /s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    // With the first frame right behind the head.
    stream.write_all(&[request.as_bytes(), &frame(b"first")].concat()).await.unwrap();
    let mut rest = Vec::new();
    let answer = head(&mut stream, &mut rest).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut echoed = vec![0; frame(b"first").len() - rest.len()];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!([rest, echoed].concat(), frame(b"first"));
    stream
}

/// A text frame, masked with zeros.
fn frame(text: &[u8]) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat()
}

#[tokio::test]
async fn a_thousand_websockets_talk_and_are_told_goodbye() {
    let mut gateway = in_front_of(&[endpoint(echo).await], "");
    let mut sockets = Vec::new();
    for _ in 0..1000 {
        sockets.push(websocket(gateway.http).await);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let text = format!("hello {number}");
        socket.write_all(&frame(text.as_bytes())).await.unwrap();
        let mut echoed = vec![0; frame(text.as_bytes()).len()];
        socket.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, frame(text.as_bytes()));
    }
    gateway.signal("-TERM");
    for socket in &mut sockets {
        // Close, 1001, and then the end: the echo of our side's goodbye is not passed on.
        let mut goodbye = Vec::new();
        socket.read_to_end(&mut goodbye).await.unwrap();
        assert_eq!(goodbye, [0x88, 2, 3, 0xe9]);
        socket.shutdown().await.unwrap();
    }
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn curl_gets_what_it_asks_for() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let (ca, upload) = (dir.path().join("ca.pem"), dir.path().join("upload"));
    authority.write(&ca);
    authority.issue(&["127.0.0.1"]).write(dir.path(), "a");
    std::fs::write(&upload, vec![b'x'; MIB]).unwrap();
    let (ca, upload) = (ca.to_str().unwrap().to_owned(), format!("@{}", upload.display()));
    let origin = Origin::start().await;
    std::fs::write(dir.path().join("services.toml"), services("s", &[&origin])).unwrap();
    let listener = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{ONE}\n");
    let registry = "[registry.file]\npath = \"services.toml\"\n[auto_routes]\n";
    let gateway = Gateway::start_in(dir, &format!("{listener}{registry}"));
    let plain: &[&[&str]] = &[
        &["--http1.1"][..],
        &["--http1.0"],
        &["--http2"],
        &["--http2-prior-knowledge"],
        &["--http1.1", "--data-binary", &upload],
        &["--http1.1", "--data-binary", &upload, "-H", "Transfer-Encoding: chunked"],
        &["--http1.1", "--data-binary", &upload, "-H", "Expect: 100-continue"],
        &["--http2-prior-knowledge", "--data-binary", &upload],
        &["--http1.1", "--compressed", "-H", "Connection: close"],
    ];
    // curl asks for HTTP/2 by itself where it is encrypted.
    let encrypted: &[&[&str]] = &[
        &["--http1.1"],
        &["--http1.1", "--tlsv1.2", "--tls-max", "1.2"],
        &["--http1.1", "--data-binary", &upload, "-H", "Expect: 100-continue"],
        &["--http2"],
        &["--http2", "--tlsv1.3"],
        &["--http2", "--data-binary", &upload],
    ];
    let plain = plain.iter().map(|it| (it, format!("http://{}/s/", gateway.http)));
    let encrypted = encrypted.iter().map(|it| (it, format!("https://{}/s/", gateway.listeners[1])));
    for (arguments, url) in plain.chain(encrypted) {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", "--cacert", &ca]);
        command.args(*arguments).arg(&url);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let version = match arguments[0] {
            "--http2-prior-knowledge" => "2",
            "--http2" if url.starts_with("https") => "2",
            // The answer to HTTP/1.0 is the gateway's own version, as it must be.
            _ => "1.1",
        };
        let problem = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, format!("{}\n200 {version}", origin.name()), "curl {arguments:?} {url}: {problem}");
    }
}

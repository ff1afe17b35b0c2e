//! Endpoints that do what no server library would, and clients that read every byte.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::gateway::Gateway;

/// Sends bytes and reads until the gateway closes the connection.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An endpoint that reads one request's head and answers with these bytes, then closes; again and again.
pub(crate) async fn canned(answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
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
pub(crate) async fn serving<F: Future<Output = Response<BoxBody<Bytes, hyper::Error>>> + Send + 'static>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            tokio::spawn(async move { drop(http1::Builder::new().serve_connection(stream, service).await) });
        }
    });
    address
}

/// A gateway with these addresses as the service `s`.
pub(crate) fn in_front_of(addresses: &[SocketAddr], config: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    let endpoints: Vec<String> = addresses.iter().map(|it| format!("{{ address = \"{it}\" }}")).collect();
    fs::write(dir.path().join("services.toml"), format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", ")))
        .unwrap();
    Gateway::start_in(dir, &format!("{config}\n[auto_routes]\n"))
}

//! HTTP/2 from both ends: a client and an endpoint over the `h2` crate, and frames written by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::client::Reply;
use super::gateway::Gateway;

/// A client's connection; ended when this is dropped.
pub(crate) struct Client {
    pub(crate) sender: SendRequest<Bytes>,
    /// How the connection ended.
    pub(crate) ended: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn to(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        Client { sender, ended: tokio::spawn(connection) }
    }

    pub(crate) async fn send(&mut self, request: Request<()>, body: &[u8]) -> Result<(Reply, HeaderMap), h2::Error> {
        let (response, mut stream) = self.sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            send(&mut stream, Bytes::copy_from_slice(body), true).await?;
        }
        whole(response.await?).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.send(request("GET", path, &[]), b"").await.unwrap_or_else(|error| panic!("GET {path}: {error:?}")).0
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://gateway.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Sends all of it, as the windows allow.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<(), h2::Error> {
    if data.is_empty() {
        return stream.send_data(data, end);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(room) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        let part = data.split_to(room?.min(data.len()));
        stream.send_data(part, end && data.is_empty())?;
    }
    Ok(())
}

/// All data of a body.
pub(crate) async fn data(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}

/// A response with its body, and the trailers.
pub(crate) async fn whole(response: Response<RecvStream>) -> Result<(Reply, HeaderMap), h2::Error> {
    let (head, mut body) = response.into_parts();
    let bytes = data(&mut body).await?;
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((Reply { status: head.status, headers: head.headers, body: bytes }, trailers))
}

/// An endpoint that speaks HTTP/2 without TLS.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Does this with each request.
    pub(crate) async fn serving<F: Future<Output = Result<(), h2::Error>> + Send + 'static>(
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    ) -> Endpoint {
        Endpoint::with(h2::server::Builder::new().enable_connect_protocol(), answer).await
    }

    pub(crate) async fn with<F: Future<Output = Result<(), h2::Error>> + Send + 'static>(
        settings: &h2::server::Builder,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    ) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, settings) = (connections.clone(), settings.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                seen.fetch_add(1, SeqCst);
                let (answer, settings) = (answer.clone(), settings.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = settings.handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond));
                    }
                });
            }
        });
        Endpoint { address, connections, task }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers with the head that came, line by line, and the body behind it.
pub(crate) async fn mirror() -> Endpoint {
    Endpoint::serving(|request, mut respond| async move {
        let (head, mut body) = request.into_parts();
        let mut text = format!("{} {}\n", head.method, head.uri);
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        text.push_str(std::str::from_utf8(&data(&mut body).await?).unwrap());
        let mut stream = respond.send_response(Response::new(()), false)?;
        send(&mut stream, text.into(), true).await
    })
    .await
}

/// A gateway with these HTTP/2 endpoints as the service `s`.
pub(crate) fn in_front_of(addresses: &[SocketAddr], config: &str) -> Gateway {
    let endpoint = |it: &SocketAddr| format!("{{ address = \"{it}\", scheme = \"h2c\" }}");
    let endpoints: Vec<String> = addresses.iter().map(endpoint).collect();
    let dir = tempfile::TempDir::new().unwrap();
    let services = format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", "));
    std::fs::write(dir.path().join("services.toml"), services).unwrap();
    Gateway::start_in(dir, &format!("{config}\n[registry.file]\npath = \"services.toml\"\n[auto_routes]\n"))
}

/// What a client sends first, with empty settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field block, each field in full and without HPACK's tables.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer texts need another length");
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// The block of a GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)])
}

/// A connection on which anything can be sent.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// With the preface sent.
    pub(crate) async fn to(address: SocketAddr) -> Raw {
        let mut raw = Raw { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() };
        raw.send(PREFACE).await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; none once the connection has ended, one way or another.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.read.len() >= 9 {
                let length = u32::from_be_bytes([0, self.read[0], self.read[1], self.read[2]]) as usize;
                if self.read.len() >= 9 + length {
                    let bytes: Vec<u8> = self.read.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
                    return Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() });
                }
            }
            let mut buffer = vec![0; 16384];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.read.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// The next frame of this kind; none if the connection ends before.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(frame) if frame.kind == kind => return Some(frame),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Sends this until the other side has had enough, at most so often. Gives the reason of its GOAWAY; none if there was
    /// none, only an end.
    pub(crate) async fn flood(&mut self, bytes: &[u8], times: usize) -> Option<u32> {
        for _ in 0..times {
            if self.stream.write_all(bytes).await.is_err() {
                break;
            }
        }
        let frame = self.until(GOAWAY).await?;
        Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
    }
}

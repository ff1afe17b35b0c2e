//! gRPC through the gateway: tonic's client and server, in the open and encrypted.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moongate::config::file;
use moongate::tls::Acceptor;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service;

use crate::support::gateway::Gateway;
use crate::support::service::becomes;
use crate::support::tls::{Authority, Dial};

/// Messages that are text and nothing else.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Text;
    type Decoder = Text;

    fn encoder(&mut self) -> Text {
        Text
    }

    fn decoder(&mut self) -> Text {
        Text
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(String::from_utf8(bytes.to_vec()).unwrap()))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// What is asked of, and known of, the endpoint.
#[derive(Default)]
struct Known {
    calls: AtomicUsize,
    /// Its status, as the health protocol has it.
    health: AtomicU8,
}

/// What the endpoint does with a call, by the name of the method.
#[derive(Clone)]
struct Echo {
    method: String,
    known: Arc<Known>,
    /// Breaks off the connection.
    broken: Arc<Notify>,
}

impl Service<Request<Streaming<String>>> for Echo {
    type Response = Response<Answers>;
    type Error = Status;
    type Future = Answer<Response<Answers>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let Echo { method, known, broken } = self.clone();
        Box::pin(async move {
            let mark = request.metadata().get("x-mark").cloned();
            let mut messages = request.into_inner();
            let (sender, answers) = mpsc::channel(1);
            if method == "Refuse" {
                let mut status = Status::new(Code::FailedPrecondition, "no, not \u{e4}: 100 %");
                status.metadata_mut().insert("x-why", "because".parse().unwrap());
                return Err(status);
            }
            tokio::spawn(async move {
                let mut count = 0;
                while let Some(message) = messages.next().await {
                    let Ok(message) = message else { return };
                    count += 1;
                    let times = if method == "Count" { message.parse().unwrap() } else { 1 };
                    for at in 0..times {
                        match method.as_str() {
                            "Count" => drop(sender.send(Ok(at.to_string())).await),
                            "Echo" | "Fail" => drop(sender.send(Ok(format!("{message}!"))).await),
                            _ => {}
                        }
                    }
                }
                match method.as_str() {
                    "Sum" => drop(sender.send(Ok(count.to_string())).await),
                    "Fail" => drop(sender.send(Err(Status::new(Code::DataLoss, "gone"))).await),
                    "Health/Check" => {
                        let status = char::from(known.health.load(SeqCst));
                        drop(sender.send(Ok(format!("\x08{status}"))).await);
                    }
                    "Never" => sender.closed().await,
                    "Break" => {
                        sender.send(Ok("half".to_owned())).await.unwrap();
                        // With a second message on its way, the first is out.
                        while sender.send(Ok("more".to_owned())).await.is_ok() {
                            broken.notify_one();
                        }
                    }
                    _ => {}
                }
            });
            let answers: Answers = Box::pin(ReceiverStream::new(answers));
            let mut response = Response::new(answers);
            if let Some(mark) = mark {
                response.metadata_mut().insert("x-mark", mark);
            }
            Ok(response)
        })
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, known: Arc<Known>) {
    let broken = Arc::new(Notify::new());
    let told = broken.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        known.calls.fetch_add(1, SeqCst);
        let path = request.uri().path();
        let method = path.strip_prefix("/test.Echo/").or(path.strip_prefix("/grpc.health.v1.")).unwrap().to_owned();
        assert_eq!(request.headers()["te"], "trailers");
        let echo = Echo { method, known: known.clone(), broken: told.clone() };
        async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Text).streaming(echo, request).await) }
    });
    let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Its end is the client's, or the gateway's, affair.
        _ = serving => {}
        () = broken.notified() => {}
    }
}

/// An endpoint; encrypted if there is a certificate for it in `dir`.
async fn endpoint(dir: Option<&Path>) -> (SocketAddr, Arc<Known>) {
    let acceptor = dir.map(|dir| {
        let text = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{}", certificate("endpoint"));
        let config = file::parse(&text, &dir.join("endpoint.toml")).unwrap();
        let listener = config.listeners[0].get_ref();
        Acceptor::load(listener.address, listener.tls.as_ref().unwrap(), &listener.protocols).unwrap().0
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = Arc::new(Known::default());
    let counted = known.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                match acceptor {
                    None => serve(stream, counted).await,
                    Some(acceptor) => serve(acceptor.accept(stream, address).await.unwrap().0, counted).await,
                }
            });
        }
    });
    (address, known)
}

fn certificate(name: &str) -> String {
    format!("tls = {{ certificates = [{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}] }}\n")
}

/// A gateway for this endpoint of the service `s`.
fn gateway(dir: TempDir, address: SocketAddr, scheme: &str, more: &str) -> Gateway {
    let services = format!("[services.s]\nendpoints = [{{ address = \"{address}\", scheme = \"{scheme}\" }}]\n");
    fs::write(dir.path().join("services.toml"), services).unwrap();
    let route = "[[routes]]\npath_prefix = \"/test.Echo\"\nservice = \"s\"\nstrip_prefix = false\n";
    Gateway::start_in(dir, &format!("{more}\n[registry.file]\npath = \"services.toml\"\n{route}"))
}

/// tonic's way to a connection.
struct Channel(SendRequest<tonic::body::Body>);

impl Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

type Client = tonic::client::Grpc<Channel>;

async fn client(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, scheme: &str) -> Client {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    tonic::client::Grpc::with_origin(Channel(sender), format!("{scheme}://a.test").parse().unwrap())
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}

async fn unary(client: &mut Client, method: &str, message: &str) -> Result<Response<String>, Status> {
    client.ready().await.unwrap();
    client.unary(Request::new(message.to_owned()), path(method), Text).await
}

/// All kinds of calls, and both ways to fail.
async fn calls(client: &mut Client) {
    let mut request = Request::new("hello".to_owned());
    request.metadata_mut().insert("x-mark", "7".parse().unwrap());
    client.ready().await.unwrap();
    let response = client.unary(request, path("Echo"), Text).await.unwrap();
    assert_eq!(response.metadata().get("x-mark").unwrap(), "7");
    assert_eq!(response.into_inner(), "hello!");

    let large = "x".repeat(1 << 20);
    assert_eq!(unary(client, "Echo", &large).await.unwrap().into_inner(), large + "!");

    client.ready().await.unwrap();
    let numbers = tokio_stream::iter((0..1000).map(|it| it.to_string()));
    let sum = client.client_streaming(Request::new(numbers), path("Sum"), Text).await.unwrap();
    assert_eq!(sum.into_inner(), "1000");

    client.ready().await.unwrap();
    let counted = client.server_streaming(Request::new("1000".to_owned()), path("Count"), Text).await.unwrap();
    let counted: Vec<String> = counted.into_inner().map(Result::unwrap).collect().await;
    assert_eq!(counted, (0..1000).map(|it| it.to_string()).collect::<Vec<_>>());

    // One by one, each asked only after the answer to the last.
    client.ready().await.unwrap();
    let (sender, messages) = mpsc::channel(1);
    let messages = Request::new(ReceiverStream::new(messages));
    let mut answers = client.streaming(messages, path("Echo"), Text).await.unwrap().into_inner();
    for round in 0..100 {
        sender.send(format!("round {round}")).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), format!("round {round}!"));
    }
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);

    // In the head alone, and behind messages.
    let refused = unary(client, "Refuse", "x").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "no, not \u{e4}: 100 %"));
    assert_eq!(refused.metadata().get("x-why").unwrap(), "because");
    client.ready().await.unwrap();
    let failed = client.server_streaming(Request::new("x".to_owned()), path("Fail"), Text).await.unwrap();
    let mut failed = failed.into_inner();
    assert_eq!(failed.message().await.unwrap().unwrap(), "x!");
    let failed = failed.message().await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::DataLoss, "gone"));
}

#[tokio::test]
async fn calls_of_every_kind() {
    let (address, _) = endpoint(None).await;
    let gateway = gateway(TempDir::new().unwrap(), address, "h2c", "");
    calls(&mut client(TcpStream::connect(gateway.http).await.unwrap(), "http").await).await;
}

#[tokio::test]
async fn calls_of_every_kind_over_tls() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    authority.write(&dir.path().join("ca.pem"));
    authority.issue(&["a.test"]).write(dir.path(), "gateway");
    authority.issue(&["127.0.0.1"]).write(dir.path(), "endpoint");
    let (address, _) = endpoint(Some(dir.path())).await;
    let listener = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{}", certificate("gateway"));
    let gateway = gateway(dir, address, "h2", &format!("{listener}[upstream.tls]\nca = \"ca.pem\"\n"));
    let stream = Dial::new(&["h2"]).to(gateway.listeners[1], "a.test").await.unwrap();
    calls(&mut client(stream, "https").await).await;
}

#[tokio::test]
async fn checks_ask_in_grpcs_own_way() {
    let (address, known) = endpoint(None).await;
    known.health.store(1, SeqCst);
    let check = "[services.s]\nhealth_check = { grpc = true, interval = \"20ms\" }\n";
    let gateway = gateway(TempDir::new().unwrap(), address, "h2c", check);
    crate::support::eventually("it is asked", async || known.calls.load(SeqCst) > 3).await;
    assert_eq!(crate::support::service::endpoint(&gateway, address).await["health"], "healthy");
    known.health.store(2, SeqCst);
    becomes(&gateway, address, "unhealthy").await;
    assert_eq!(crate::support::service::endpoint(&gateway, address).await["reason"], "not serving");
    known.health.store(1, SeqCst);
    becomes(&gateway, address, "healthy").await;
}

#[tokio::test]
async fn what_no_endpoint_answers_is_a_status_of_grpc() {
    let (address, known) = endpoint(None).await;
    let gateway = gateway(TempDir::new().unwrap(), address, "h2c", "");
    let mut client = client(TcpStream::connect(gateway.http).await.unwrap(), "http").await;

    let mut request = Request::new("x".to_owned());
    request.set_timeout(Duration::from_millis(300));
    client.ready().await.unwrap();
    let late = client.unary(request, path("Never"), Text).await.unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "the caller's time is over"));
    assert_eq!(known.calls.load(SeqCst), 1);

    client.ready().await.unwrap();
    let broken = client.server_streaming(Request::new("x".to_owned()), path("Break"), Text).await.unwrap();
    let mut broken = broken.into_inner();
    let told = loop {
        match broken.message().await {
            Ok(message) => assert!(message.is_some(), "a broken answer came to an end"),
            Err(told) => break told,
        }
    };
    assert_eq!((told.code(), told.message()), (Code::Unavailable, "the endpoint's answer broke off"));

    client.ready().await.unwrap();
    let elsewhere = client.unary(Request::new("x".to_owned()), "/test.Other/Echo".parse().unwrap(), Text).await;
    let unknown = elsewhere.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::Unimplemented, "no route matches this request"));

    fs::write(gateway.path("services.toml"), "[services.s]\nendpoints = []\n").unwrap();
    crate::support::eventually("the endpoint is gone", async || {
        let gone = unary(&mut client, "Echo", "x").await;
        gone.is_err_and(|status| status.code() == Code::Unavailable && status.message().contains("no live endpoint"))
    })
    .await;
}

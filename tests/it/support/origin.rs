//! An endpoint that tells who it is and what it was asked, and can be stopped with all its connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

/// It runs until it is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    hits: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Answers everything with its own address.
    pub(crate) async fn start() -> Origin {
        Origin::answering(|_, address| Response::new(Full::from(address.to_string()))).await
    }

    /// One of the original demonstration's services.
    pub(crate) async fn of(service: &'static str) -> Origin {
        let title = service.replace("service_", "Service ");
        Origin::answering(move |request, address| {
            let text = match (request.uri().path(), request.uri().query()) {
                ("/", None) => format!("This is {title}."),
                ("/user", Some("id=1")) => "It's user 1.".to_owned(),
                (path, query) => format!("unexpected: {path} {query:?}"),
            };
            let response = Response::builder().header("x-endpoint", address.to_string());
            response.body(Full::from(text)).unwrap()
        })
        .await
    }

    pub(crate) async fn answering(
        answer: impl Fn(&Request<Incoming>, SocketAddr) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Origin {
        Origin::listening(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    /// The same endpoint again, after it was stopped.
    pub(crate) fn again(address: SocketAddr) -> Origin {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let answer = |_: &Request<Incoming>, address: SocketAddr| Response::new(Full::from(address.to_string()));
        Origin::listening(socket.listen(64).unwrap(), answer)
    }

    fn listening(
        listener: TcpListener,
        answer: impl Fn(&Request<Incoming>, SocketAddr) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Origin {
        let address = listener.local_addr().unwrap();
        let (hits, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let counted = hits.clone();
        let task = tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (hits, answer) = (counted.clone(), answer.clone());
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        hits.fetch_add(1, SeqCst);
                        let answer = answer(&request, address);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Origin { address, hits, task }
    }

    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// Requests that came so far.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! One health check: a connection, and if there is a path, a GET and the status of its answer; or a question by gRPC's
//! health protocol (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
//!
//! Of an answer only what is asked for is looked at, over HTTP/1 no more than the first line: whatever else is wrong with
//! it is not for a health check to find.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use http::{Request, Response, StatusCode, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Protocol;
use crate::config::upstream::HealthCheck;
use crate::registry::Scheme;
use crate::stream::{self, Stream};
use crate::tls::Connector;

/// What is read at most: interim answers may come first.
const MOST: usize = 16 << 10;

/// How checks call themselves.
const AGENT: &str = concat!("moongate/", env!("CARGO_PKG_VERSION"), " (health check)");

/// Asks an endpoint. It is the caller who gives up.
///
/// # Errors
/// What is wrong, in a few words.
pub async fn probe(
    address: SocketAddr,
    scheme: Scheme,
    connector: &Connector,
    check: &HealthCheck,
) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(plain)?;
    if stream::is_own_peer(&stream) {
        return Err("connection refused".into());
    }
    let protocol = if scheme.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
    let mut stream = match scheme.is_secure() {
        true => connector.connect(stream, address.ip(), protocol).await.map_err(plain)?,
        false => Stream::plain(stream),
    };
    let at = format!("{}://{address}", if scheme.is_secure() { "https" } else { "http" });
    let status = match &check.path {
        _ if scheme.is_http2() && check.grpc => return ask_grpc(stream, &at).await,
        None => return Ok(()),
        Some(path) if scheme.is_http2() => ask_http2(stream, &format!("{at}{}", path.0)).await?,
        Some(path) => {
            let request = format!(
                "GET {} HTTP/1.1\r\nhost: {address}\r\nuser-agent: {AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n",
                path.0,
            );
            stream.write_all(request.as_bytes()).await.map_err(plain)?;
            read(&mut stream).await?
        }
    };
    if check.status.contains(status) { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
}

async fn ask_http2(stream: Stream, uri: &str) -> Result<StatusCode, String> {
    let request = Request::get(uri).header("accept", "*/*");
    over_http2(stream, request, None, async |response| Ok(response.status())).await
}

/// Asks whether the server as a whole serves.
async fn ask_grpc(stream: Stream, at: &str) -> Result<(), String> {
    let request = Request::post(format!("{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let status = async |response: Response<RecvStream>| {
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let (head, mut body) = response.into_parts();
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            // What was read may be sent again.
            let _ = body.flow_control().release_capacity(data.len());
            message.extend_from_slice(&data);
            if message.len() > MOST {
                return Err("an endless answer".into());
            }
        }
        let trailers = body.trailers().await.map_err(broken)?;
        let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
        match status.map(|it| it.as_bytes()) {
            Some(b"0") => serving(&message),
            Some(code) => Err(format!("gRPC status {}", code.escape_ascii())),
            None => Err("an answer without a gRPC status".into()),
        }
    };
    // A message of no bytes, which is that of no name, behind its prefix: not compressed, and of that length.
    over_http2(stream, request, Some(Bytes::from_static(&[0; 5])), status).await
}

/// Reads a `HealthCheckResponse`: its first field is the status, of which 1 is SERVING and 0, UNKNOWN, is left out.
fn serving(message: &[u8]) -> Result<(), String> {
    match message {
        [0, 0, 0, 0, 2, 0x08, 1] => Ok(()),
        [0, 0, 0, 0, 2, 0x08, 2] => Err("not serving".into()),
        [0, 0, 0, 0, 2, 0x08, 3] => Err("no such service".into()),
        [0, 0, 0, 0, 0] => Err("it does not know whether it is serving".into()),
        _ => Err("an answer that is none of gRPC's health protocol".into()),
    }
}

/// One exchange over HTTP/2, of whose answer `look` makes something.
async fn over_http2<T>(
    stream: Stream,
    request: request::Builder,
    body: Option<Bytes>,
    look: impl AsyncFnOnce(Response<RecvStream>) -> Result<T, String>,
) -> Result<T, String> {
    let request = request.header("user-agent", AGENT).body(()).map_err(|error| error.to_string())?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MOST as u32);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(broken)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(broken)?;
        let (response, mut outgoing) = sender.send_request(request, body.is_none()).map_err(broken)?;
        if let Some(body) = body {
            outgoing.send_data(body, true).map_err(broken)?;
        }
        look(response.await.map_err(broken)?).await
    };
    tokio::select! {
        biased;
        outcome = exchange => outcome,
        ended = connection => Err(ended.map_or_else(broken, |()| "connection closed without an answer".into())),
    }
}

fn broken(error: h2::Error) -> String {
    format!("HTTP/2: {error}")
}

async fn read(stream: &mut Stream) -> Result<StatusCode, String> {
    let mut read = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await.map_err(plain)? == 0 {
            return Err("connection closed without an answer".into());
        }
        if let Some(status) = status(&read)? {
            return Ok(status);
        }
        if read.len() > MOST {
            return Err("an endless answer".into());
        }
    }
}

/// The status of the final answer, as soon as it is there.
fn status(mut read: &[u8]) -> Result<Option<StatusCode>, String> {
    loop {
        const VERSION: &[u8] = b"HTTP/1.";
        let seen = read.len().min(VERSION.len());
        if read[..seen] != VERSION[..seen] {
            return Err("an answer that is not HTTP/1".into());
        }
        let Some(end) = read.iter().position(|it| *it == b'\n') else { return Ok(None) };
        let code = read[..end].get(9..12).filter(|_| read[8] == b' ');
        let ends = read[..end].get(12).is_none_or(|it| matches!(it, b' ' | b'\r'));
        let status = code.filter(|_| ends).and_then(|code| StatusCode::from_bytes(code).ok());
        let status = status.ok_or("an answer without a status")?;
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some(status));
        }
        let Some(next) = read.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
        read = &read[next + 4..];
    }
}

fn plain(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_status_is_found() {
        let answer = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204\r\n";
        for end in 0..answer.len() {
            assert_eq!(status(&answer[..end]), Ok(None), "{end}");
        }
        assert_eq!(status(answer), Ok(Some(StatusCode::NO_CONTENT)));
        assert_eq!(status(b"HTTP/1.1 503 Sorry\nrest"), Ok(Some(StatusCode::SERVICE_UNAVAILABLE)));
        assert_eq!(status(b"HTTP/1.1 101 \r\n"), Ok(Some(StatusCode::SWITCHING_PROTOCOLS)));
    }

    #[test]
    fn only_what_serves_is_well() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        let others: [&[u8]; 6] =
            [&[], &[0; 5], &[0, 0, 0, 0, 2, 8, 0], &[0, 0, 0, 0, 2, 8, 2], &[0, 0, 0, 0, 3, 8, 1], &[1]];
        for message in others {
            assert!(serving(message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for nonsense in [
            "SSH-2.0-x\r\n",
            "HTTP/2",
            "HTTP/1.1\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1 2x0 OK\r\n",
            "\n",
            "HTTP/1.\n",
        ] {
            assert!(status(nonsense.as_bytes()).is_err(), "{nonsense:?}");
        }
    }
}

//! One health check: a connection, and if there is a path, a GET and the status of its answer.
//!
//! Only the head of the answer is looked at, and of that only the first line: whatever else is wrong with it is not for
//! a health check to find. An endpoint that speaks HTTP/2 is only connected to, and its TLS made.

use std::io;
use std::net::SocketAddr;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Protocol;
use crate::config::upstream::HealthCheck;
use crate::registry::Scheme;
use crate::stream::Stream;
use crate::tls::Connector;

/// What is read at most: interim answers may come first.
const MOST: usize = 16 << 10;

/// Asks an endpoint. It is the caller who gives up.
///
/// # Errors
/// What is wrong, in a few words.
pub(super) async fn probe(
    address: SocketAddr,
    scheme: Scheme,
    connector: &Connector,
    check: &HealthCheck,
) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(plain)?;
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        // The port was free, and the kernel has given it to this very socket, which is now connected with itself.
        return Err("connection refused".into());
    }
    let protocol = if scheme.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
    let mut stream = match scheme.is_secure() {
        true => connector.connect(stream, address.ip(), protocol).await.map_err(plain)?,
        false => Stream::plain(stream),
    };
    let Some(path) = check.path.as_ref().filter(|_| !scheme.is_http2()) else { return Ok(()) };
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {address}\r\nuser-agent: moongate/{} (health check)\r\naccept: */*\r\n\
         connection: close\r\n\r\n",
        path.0,
        env!("CARGO_PKG_VERSION"),
    );
    stream.write_all(request.as_bytes()).await.map_err(plain)?;
    let status = read(&mut stream).await?;
    if check.status.contains(status) { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
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

//! A connection, plain or TLS, read with a deadline; and how it ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, ServerConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use crate::bytes::{Fields, fields, find};

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Fin,
    /// By a reset, or by an error of TLS.
    Reset,
}

/// Why something could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Ended(End),
    Malformed(String),
    TooLate,
}

/// A connection's two kinds.
pub(crate) enum Stream {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Client(tls) => &tls.sock,
            Stream::Server(tls) => &tls.sock,
        }
    }

    fn io(&mut self) -> &mut dyn ReadWrite {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Client(tls) => tls,
            Stream::Server(tls) => tls,
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Connects; `from` is the address to come from, and so what the other side takes the client for.
pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Ends a connection with a reset instead of in order.
pub(crate) fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// A connection with what was read of it and not yet used.
pub(crate) struct Reader {
    pub(crate) stream: Stream,
    pub(crate) buffer: Vec<u8>,
    pub(crate) end: Option<End>,
    /// Where every byte is noted as well.
    pub(crate) tap: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Reader {
    pub(crate) fn new(stream: Stream) -> Reader {
        Reader { stream, buffer: Vec::new(), end: None, tap: None }
    }

    /// Reads something, or says why not.
    pub(crate) fn fill(&mut self, until: Instant) -> Result<(), Broken> {
        if let Some(end) = self.end {
            return Err(Broken::Ended(end));
        }
        let mut bytes = [0; 16 * 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Broken::TooLate);
            }
            let _ = self.stream.socket().set_read_timeout(Some(left));
            match self.stream.io().read(&mut bytes) {
                Ok(0) => self.end = Some(End::Fin),
                Ok(read) => {
                    if let Some(tap) = &self.tap {
                        tap.lock().unwrap().extend_from_slice(&bytes[..read]);
                    }
                    self.buffer.extend_from_slice(&bytes[..read]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => continue,
                    // TLS that ended without saying so.
                    ErrorKind::UnexpectedEof => self.end = Some(End::Fin),
                    _ => self.end = Some(End::Reset),
                },
            }
            return Err(Broken::Ended(self.end.unwrap()));
        }
    }

    /// Writes all of it within three seconds; whether that worked.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let _ = self.stream.socket().set_write_timeout(Some(Duration::from_secs(3)));
        let io = self.stream.io();
        io.write_all(bytes).and_then(|()| io.flush()).is_ok()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize, until: Instant) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < count {
            self.fill(until)?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// What was read already, or what comes next.
    pub(crate) fn take_some(&mut self, most: usize, until: Instant) -> Result<Vec<u8>, Broken> {
        if self.buffer.is_empty() {
            self.fill(until)?;
        }
        let count = most.min(self.buffer.len());
        Ok(self.buffer.drain(..count).collect())
    }

    /// A line with its LF.
    pub(crate) fn take_line(&mut self, until: Instant) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(self.buffer.drain(..=at).collect());
            }
            self.fill(until)?;
        }
    }

    /// A head with the empty line that ends it; lone line feeds end it too.
    pub(crate) fn take_head(&mut self, until: Instant) -> Result<Vec<u8>, Broken> {
        loop {
            let strict = find(&self.buffer, b"\r\n\r\n").map(|at| at + 4);
            let bare = [(&b"\n\n"[..], 2), (b"\n\r\n", 3)];
            let loose = bare.iter().filter_map(|(end, length)| Some(find(&self.buffer, end)? + length)).min();
            if let Some(end) = strict.into_iter().chain(loose).min() {
                return Ok(self.buffer.drain(..end).collect());
            }
            self.fill(until)?;
        }
    }

    /// A chunked body, each piece given to `got` as soon as it is there; its trailers are the result.
    pub(crate) fn take_chunked(&mut self, until: Instant, got: &mut dyn FnMut(&[u8])) -> Result<Fields, Broken> {
        let malformed = |what: &str, line: &[u8]| Broken::Malformed(format!("{what}: {}", crate::bytes::show(line)));
        loop {
            let line = self.take_line(until)?;
            let Some(text) = line.strip_suffix(b"\r\n") else { return Err(malformed("a bare LF", &line)) };
            let size = text.split(|byte| *byte == b';').next().unwrap();
            let size = String::from_utf8_lossy(size).trim_end_matches([' ', '\t']).to_owned();
            if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) || text.contains(&b'\r') {
                return Err(malformed("no chunk size", &line));
            }
            let mut left = usize::from_str_radix(&size, 16).map_err(|_| malformed("an oversize chunk", &line))?;
            if left == 0 {
                break;
            }
            while left > 0 {
                let piece = self.take_some(left, until)?;
                left -= piece.len();
                got(&piece);
            }
            let end = self.take(2, until)?;
            if end != b"\r\n" {
                return Err(malformed("no CRLF after a chunk", &end));
            }
        }
        let mut head = b"\r\n".to_vec();
        loop {
            let line = self.take_line(until)?;
            if line == b"\r\n" {
                return Ok(fields(&head));
            }
            if !line.ends_with(b"\r\n") || line[0].is_ascii_whitespace() || !line.contains(&b':') {
                return Err(malformed("a bad trailer", &line));
            }
            head.extend_from_slice(&line);
        }
    }
}

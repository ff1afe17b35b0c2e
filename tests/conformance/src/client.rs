//! The HTTP/1.1 client of the cases: sends exactly the bytes it is given and reads what comes back, strictly.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::bytes::{Fields, fields, lists, show, values};
use crate::stream::{Broken, End, Reader, Stream, connect};

/// How long a client waits for anything. The gateways' own time limits are two seconds and less, so that a peer which
/// does nothing for this long has none.
pub(crate) const PATIENCE: Duration = Duration::from_millis(4500);

/// What ends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Nothing,
    Length,
    Chunked,
    Close,
}

/// What a client got; status 0 means no response at all.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) version: String,
    pub(crate) head: Vec<u8>,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    pub(crate) framing: Framing,
    /// Why it is not whole.
    pub(crate) broken: Option<Broken>,
    /// The 1xx responses before it.
    pub(crate) interim: Vec<Response>,
}

impl Response {
    fn none(broken: Broken) -> Response {
        Response {
            status: 0,
            version: String::new(),
            head: Vec::new(),
            fields: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
            framing: Framing::Nothing,
            broken: Some(broken),
            interim: Vec::new(),
        }
    }

    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        values(&self.fields, name).first().copied()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Came in full, whatever its status.
    pub(crate) fn whole(&self) -> bool {
        self.status != 0 && self.broken.is_none()
    }

    /// In full, and a 200.
    pub(crate) fn ok(&self) -> bool {
        self.whole() && self.status == 200
    }

    /// Whether it says that the connection stays.
    pub(crate) fn keeps(&self) -> bool {
        match self.version.as_str() {
            "HTTP/1.1" => !lists(&self.fields, "connection", "close"),
            _ => lists(&self.fields, "connection", "keep-alive"),
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for interim in &self.interim {
            write!(f, "{}, ", interim.status)?;
        }
        match self.status {
            0 => write!(f, "no response")?,
            status => write!(f, "{} {status} with {} bytes ({:?})", self.version, self.body.len(), self.framing)?,
        }
        match &self.broken {
            Some(broken) => write!(f, ", {broken:?}"),
            None => Ok(()),
        }
    }
}

/// One connection to the gateway.
pub(crate) struct Client {
    pub(crate) reader: Reader,
    pub(crate) patience: Duration,
}

impl Client {
    /// A connection that could not be made reads as reset.
    pub(crate) fn open(to: SocketAddr) -> Result<Client, String> {
        Client::open_from(to, None)
    }

    pub(crate) fn open_from(to: SocketAddr, from: Option<IpAddr>) -> Result<Client, String> {
        let socket = connect(to, from).map_err(|error| format!("connecting to {to}: {error}"))?;
        Ok(Client { reader: Reader::new(Stream::Plain(socket)), patience: PATIENCE })
    }

    /// Over TLS, handshake done.
    pub(crate) fn open_tls(to: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<Client, String> {
        let socket = connect(to, None).map_err(|error| format!("connecting to {to}: {error}"))?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
        let session = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
        let mut tls = Box::new(StreamOwned::new(session, socket));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).map_err(|error| format!("the TLS handshake: {error}"))?;
        }
        Ok(Client { reader: Reader::new(Stream::Client(tls)), patience: PATIENCE })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.send(bytes.as_ref())
    }

    fn until(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// The next final response to a request with a body in its answer, with the interim ones before it.
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The next final response to this method.
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        let until = self.until();
        let mut interim = Vec::new();
        loop {
            let one = self.one(method, until);
            if !(100..200).contains(&one.status) || one.status == 101 || one.broken.is_some() {
                return Response { interim, ..one };
            }
            interim.push(one);
        }
    }

    /// The next head, interim or final, with its body.
    pub(crate) fn one(&mut self, method: &str, until: Instant) -> Response {
        let head = match self.reader.take_head(until) {
            Ok(head) => head,
            Err(broken) => return Response::none(broken),
        };
        let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap()).into_owned();
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap().to_owned();
        let status = parts.next().and_then(|it| it.parse().ok());
        let (Some(status), true) = (status, version.starts_with("HTTP/1.")) else {
            return Response::none(Broken::Malformed(show(&head)));
        };
        let mut response = Response { status, version, fields: fields(&head), ..Response::none(Broken::TooLate) };
        response.head = head;
        response.framing = framing(method, &response);
        response.broken = self.body(&mut response, until).err();
        response
    }

    fn body(&mut self, response: &mut Response, until: Instant) -> Result<(), Broken> {
        let body = &mut response.body;
        match response.framing {
            Framing::Nothing => Ok(()),
            Framing::Chunked => {
                response.trailers = self.reader.take_chunked(until, &mut |piece| body.extend_from_slice(piece))?;
                Ok(())
            }
            Framing::Length => {
                let text = values(&response.fields, "content-length")[0];
                let length: usize = text.parse().map_err(|_| Broken::Malformed(format!("content-length: {text}")))?;
                while body.len() < length {
                    body.extend(self.reader.take_some(length - body.len(), until)?);
                }
                Ok(())
            }
            Framing::Close => loop {
                match self.reader.take_some(usize::MAX, until) {
                    Ok(piece) => body.extend(piece),
                    Err(Broken::Ended(End::Fin)) => return Ok(()),
                    Err(broken) => return Err(broken),
                }
            },
        }
    }

    /// How the connection ended, if it did within `patience`; whatever still came is left in the buffer.
    pub(crate) fn end(&mut self) -> Option<End> {
        self.end_within(self.patience)
    }

    pub(crate) fn end_within(&mut self, patience: Duration) -> Option<End> {
        let until = Instant::now() + patience;
        loop {
            match self.reader.fill(until) {
                Ok(()) => {}
                Err(Broken::Ended(end)) => return Some(end),
                Err(_) => return None,
            }
        }
    }

    /// Everything until the connection ends or nothing came for `patience`.
    pub(crate) fn everything(&mut self) -> (Vec<u8>, Option<End>) {
        let end = self.end();
        (std::mem::take(&mut self.reader.buffer), end)
    }
}

fn framing(method: &str, response: &Response) -> Framing {
    let bodiless = matches!(response.status, 100..=199 | 204 | 304) || method == "HEAD";
    if bodiless || method == "CONNECT" && response.status == 200 {
        Framing::Nothing
    } else if lists(&response.fields, "transfer-encoding", "chunked") {
        Framing::Chunked
    } else if response.has("content-length") {
        Framing::Length
    } else {
        Framing::Close
    }
}

/// Sends one request and reads its response.
pub(crate) fn ask(to: SocketAddr, request: impl AsRef<[u8]>) -> Result<Response, String> {
    let mut client = Client::open(to)?;
    client.send(request.as_ref());
    let method = if request.as_ref().starts_with(b"HEAD") { "HEAD" } else { "GET" };
    Ok(client.response_to(method))
}

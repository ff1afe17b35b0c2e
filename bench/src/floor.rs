//! What a proxy costs if it does next to nothing: an epoll loop that finds the end of a head, and passes it and its body
//! on. No routes, no fields rewritten, no timers, no retries, bodies with a length only: a floor, not a gateway.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result};

use crate::epoll::{Interest, Poll, Ready};
use crate::{origin, wire};

/// One direction of one connection.
struct Socket {
    socket: TcpStream,
    /// The other side of the exchange that runs, by token.
    peer: Option<usize>,
    /// The start of a head that has not ended yet.
    head: Vec<u8>,
    /// What is still to come of the body that runs.
    body: u64,
    /// What the socket did not take at once.
    unsent: Vec<u8>,
    interest: Interest,
    /// Of an endpoint's socket: which endpoint; `None` is a client.
    endpoint: Option<usize>,
    /// The client wants the connection to end after the answer.
    closes: bool,
}

struct Floor {
    poll: Poll,
    sockets: Vec<Option<Socket>>,
    free: Vec<usize>,
    endpoints: Vec<SocketAddr>,
    /// Idle connections of each endpoint.
    pool: HashMap<usize, Vec<usize>>,
    turn: usize,
}

/// The token of the listener; sockets have those from 0.
const LISTENER: usize = usize::MAX;

impl Floor {
    fn insert(&mut self, socket: TcpStream, endpoint: Option<usize>) -> io::Result<usize> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let at = self.free.pop().unwrap_or(self.sockets.len());
        self.poll.add(&socket, at, Interest::Read)?;
        self.sockets.resize_with(self.sockets.len().max(at + 1), || None);
        self.sockets[at] = Some(Socket {
            socket,
            peer: None,
            head: Vec::new(),
            body: 0,
            unsent: Vec::new(),
            interest: Interest::Read,
            endpoint,
            closes: false,
        });
        Ok(at)
    }

    /// Ends a connection, and with it the other one of its exchange.
    fn close(&mut self, at: usize) {
        let Some(gone) = self.sockets[at].take() else { return };
        self.free.push(at);
        if let Some(endpoint) = gone.endpoint {
            self.pool.entry(endpoint).or_default().retain(|&it| it != at);
        }
        if let Some(peer) = gone.peer {
            self.close(peer);
        }
    }

    fn socket(&mut self, at: usize) -> io::Result<&mut Socket> {
        self.sockets[at].as_mut().ok_or_else(|| io::Error::other("closed"))
    }

    /// A connection to the endpoint whose turn it is.
    fn connection(&mut self) -> io::Result<usize> {
        self.turn = (self.turn + 1) % self.endpoints.len();
        let turn = self.turn;
        match self.pool.get_mut(&turn).and_then(Vec::pop) {
            Some(idle) => Ok(idle),
            None => self.insert(TcpStream::connect(self.endpoints[turn])?, Some(turn)),
        }
    }

    /// Passes bytes on; what does not go in waits, and its source with it.
    fn pass(&mut self, to: usize, bytes: &[u8]) -> io::Result<()> {
        let socket = self.socket(to)?;
        let sent = if socket.unsent.is_empty() { wire::send(&mut socket.socket, bytes)? } else { 0 };
        socket.unsent.extend_from_slice(&bytes[sent..]);
        if !socket.unsent.is_empty() {
            let peer = socket.peer;
            self.want(to, Interest::Write)?;
            if let Some(peer) = peer {
                self.want(peer, Interest::Nothing)?;
            }
        }
        Ok(())
    }

    fn want(&mut self, at: usize, interest: Interest) -> io::Result<()> {
        let poll = &self.poll;
        let Some(socket) = self.sockets[at].as_mut().filter(|it| it.interest != interest) else { return Ok(()) };
        socket.interest = interest;
        poll.change(&socket.socket, at, interest)
    }

    /// Bytes that came from `at`.
    fn take(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let socket = self.socket(at)?;
        if socket.body > 0 {
            socket.body = socket.body.checked_sub(bytes.len() as u64).ok_or_else(|| io::Error::other("too much"))?;
            let (peer, left) = (socket.peer, socket.body);
            self.pass(peer.ok_or_else(|| io::Error::other("nobody to pass it on to"))?, bytes)?;
            return if left == 0 { self.finish(at) } else { Ok(()) };
        }
        let whole;
        let bytes = if socket.head.is_empty() {
            bytes
        } else {
            socket.head.extend_from_slice(bytes);
            whole = std::mem::take(&mut socket.head);
            &whole[..]
        };
        let Some(end) = wire::head_end(bytes) else {
            socket.head = bytes.to_vec();
            return Ok(());
        };
        let length = wire::body_length(&bytes[..end]).map_err(io::Error::other)?;
        let body = (bytes.len() - end) as u64;
        socket.body = length.checked_sub(body).ok_or_else(|| io::Error::other("more than one message"))?;
        let (peer, is_client, left) = (socket.peer, socket.endpoint.is_none(), socket.body);
        let closes = is_client && wire::closes(&bytes[..end]);
        if is_client {
            let endpoint = self.connection()?;
            self.socket(endpoint)?.peer = Some(at);
            let socket = self.socket(at)?;
            (socket.peer, socket.closes) = (Some(endpoint), closes);
            if closes { self.pass(endpoint, &kept_alive(bytes)) } else { self.pass(endpoint, bytes) }
        } else {
            self.pass(peer.ok_or_else(|| io::Error::other("an answer nobody asked for"))?, bytes)?;
            if left == 0 { self.finish(at) } else { Ok(()) }
        }
    }

    /// The end of an answer ends the exchange; that of a request does not.
    fn finish(&mut self, at: usize) -> io::Result<()> {
        let socket = self.socket(at)?;
        let (Some(endpoint), Some(client)) = (socket.endpoint, socket.peer) else { return Ok(()) };
        socket.peer = None;
        self.want(at, Interest::Read)?;
        self.pool.entry(endpoint).or_default().push(at);
        let socket = self.socket(client)?;
        socket.peer = None;
        if socket.closes && socket.unsent.is_empty() {
            self.close(client);
        }
        Ok(())
    }

    fn step(&mut self, ready: Ready, scratch: &mut [u8]) -> io::Result<()> {
        let at = ready.token;
        let Some(socket) = &mut self.sockets[at] else { return Ok(()) };
        if ready.write && !socket.unsent.is_empty() {
            let unsent = std::mem::take(&mut socket.unsent);
            let sent = wire::send(&mut socket.socket, &unsent)?;
            socket.unsent = unsent[sent..].to_vec();
            if socket.unsent.is_empty() {
                let (peer, closes) = (socket.peer, socket.closes);
                match peer {
                    Some(peer) => self.want(peer, Interest::Read)?,
                    None if closes => return Err(io::Error::other("done")),
                    None => {}
                }
                self.want(at, Interest::Read)?;
            }
            return Ok(());
        }
        if ready.read {
            match wire::receive(&mut socket.socket, scratch)? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(read) => self.take(at, &scratch[..read])?,
                None => {}
            }
        }
        Ok(())
    }
}

/// The head without `connection: close`, which is for this connection and not for the endpoint's.
fn kept_alive(message: &[u8]) -> Vec<u8> {
    let lines = message.split_inclusive(|&it| it == b'\n');
    lines.filter(|it| !it.to_ascii_lowercase().starts_with(b"connection:")).flatten().copied().collect()
}

/// `floor PORT ENDPOINT...`; serves until it is ended.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (port, endpoints) = arguments.split_first().context("floor PORT ENDPOINT...")?;
    let listener = origin::listen(SocketAddr::from(([127, 0, 0, 1], port.parse().context("reading a port")?)))?;
    let endpoints = endpoints.iter().map(|it| it.parse()).collect::<Result<_, _>>().context("reading an endpoint")?;
    let poll = Poll::new().context("waiting for sockets")?;
    poll.add(&listener, LISTENER, Interest::Read)?;
    let mut floor = Floor { poll, sockets: Vec::new(), free: Vec::new(), endpoints, pool: HashMap::new(), turn: 0 };
    let (mut scratch, mut ready) = (vec![0; 1 << 19], Vec::new());
    loop {
        floor.poll.wait(&mut ready, None)?;
        for ready in &ready {
            if ready.token == LISTENER {
                if let Ok((socket, _)) = listener.accept() {
                    floor.insert(socket, None)?;
                }
            } else if floor.step(*ready, &mut scratch).is_err() {
                floor.close(ready.token);
            }
        }
    }
}

//! The endpoint behind every proxy: answers with about 100 bytes and ten fields, or with 64 KiB, or 1 MiB, and takes
//! bodies of any size. The last segment of the path says which.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};

use crate::epoll::{Interest, Poll, Ready};
use crate::wire;

/// What a small answer has for a body.
pub(crate) const SMALL: &str =
    "A small response of about a hundred bytes, as an API gives them: {'id': 1, 'name': 'x', 'stock': 12}";

/// What can be asked for, by the last segment of the path.
const ANSWERS: [(&str, u16, usize); 5] =
    [("item", 200, 0), ("64k", 200, 1 << 16), ("1m", 200, 1 << 20), ("upload", 200, 0), ("broken", 500, 0)];

/// Head and body of each of [`ANSWERS`].
fn answers() -> Vec<Vec<u8>> {
    let answer = |(_, status, length): (_, u16, usize)| {
        let body = if length == 0 { SMALL.as_bytes().to_vec() } else { vec![b'x'; length] };
        let mut answer = format!(
            "HTTP/1.1 {status} Answer\r\nServer: origin\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\nCache-Control: private, max-age=0\r\nETag: \"5f3c-1\"\r\nVary: Accept-Encoding\r\n\
             X-Content-Type-Options: nosniff\r\nX-Version: 42\r\nX-Region: a\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        answer
    };
    ANSWERS.into_iter().map(answer).collect()
}

/// Which of [`ANSWERS`] a request line asks for; the first where it names none.
fn asked(head: &[u8]) -> usize {
    let line = head.split(|&it| it == b'\r').next().unwrap_or_default();
    let path = line.split(|it| [b' ', b'?'].contains(it)).nth(1).unwrap_or_default();
    let last = path.rsplit(|&it| it == b'/').next().unwrap_or_default();
    ANSWERS.iter().position(|(name, ..)| name.as_bytes() == last).unwrap_or(0)
}

struct Connection {
    socket: TcpStream,
    /// What has been read of heads that are not complete.
    input: Vec<u8>,
    /// How much of a body is still to come.
    body: u64,
    /// The answer that is being written, or that the body is waited for with, and how much of it is out.
    answer: Option<(usize, usize)>,
    interest: Interest,
    closes: bool,
}

impl Connection {
    /// Takes what was read, and answers what is complete. `false`: it has ended.
    fn take(&mut self, mut bytes: &[u8], answers: &[Vec<u8>]) -> io::Result<bool> {
        loop {
            let of_body = self.body.min(bytes.len() as u64);
            self.body -= of_body;
            bytes = &bytes[of_body as usize..];
            if self.body > 0 {
                return Ok(true);
            }
            if self.answer.is_some() && !self.write(answers)? {
                // A client that sends more before it has read: kept for later.
                self.input.extend_from_slice(bytes);
                return Ok(true);
            }
            if self.closes && self.answer.is_none() {
                return Ok(false);
            }
            self.input.extend_from_slice(bytes);
            let Some(end) = wire::head_end(&self.input) else { return Ok(true) };
            let head = &self.input[..end];
            self.body = wire::body_length(head).map_err(io::Error::other)?;
            self.closes = wire::closes(head);
            self.answer = Some((asked(head), 0));
            let rest = self.input.split_off(end);
            self.input.clear();
            if !rest.is_empty() {
                return self.take(&rest, answers);
            }
            bytes = &[];
        }
    }

    /// Writes on; `true`: the answer is out.
    fn write(&mut self, answers: &[Vec<u8>]) -> io::Result<bool> {
        while let Some((which, written)) = self.answer {
            let left = &answers[which][written..];
            if left.is_empty() {
                self.answer = None;
                return Ok(true);
            }
            match wire::send(&mut self.socket, left)? {
                0 => return Ok(false),
                more => self.answer = Some((which, written + more)),
            }
        }
        Ok(true)
    }

    /// `false`: it has ended.
    fn step(&mut self, ready: Ready, scratch: &mut [u8], answers: &[Vec<u8>]) -> io::Result<bool> {
        if ready.write && self.answer.is_some() && self.body == 0 && !self.take(&[], answers)? {
            return Ok(false);
        }
        if !ready.read {
            return Ok(true);
        }
        match wire::receive(&mut self.socket, scratch)? {
            None => Ok(true),
            Some(0) => Ok(false),
            Some(read) => self.take(&scratch[..read], answers),
        }
    }

    fn wanted(&self) -> Interest {
        if self.answer.is_some() && self.body == 0 { Interest::Write } else { Interest::Read }
    }
}

/// `origin one PORT...` listens on 127.0.0.1, `origin all PORT` on every address of the loopback. Serves until it is
/// ended.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (one, ports) = arguments.split_first().context("origin one|all PORT...")?;
    // There is no socket for 127.0.0.0/8 alone: strangers' connections are closed as they come.
    let address = if one == "all" { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let listeners: Vec<TcpListener> = ports
        .iter()
        .map(|port| {
            let address = SocketAddr::from((address, port.parse().context("reading a port")?));
            listen(address)
        })
        .collect::<Result<_>>()?;
    let mut poll = Poll::new().context("waiting for sockets")?;
    for (token, listener) in listeners.iter().enumerate() {
        poll.add(listener, token, Interest::Read)?;
    }
    let answers = answers();
    let mut scratch = vec![0; 1 << 18];
    let (mut connections, mut free, mut ready) = (Vec::<Option<Connection>>::new(), Vec::new(), Vec::new());
    loop {
        poll.wait(&mut ready, None)?;
        for ready in &ready {
            if let Some(listener) = listeners.get(ready.token) {
                let Ok((socket, peer)) = listener.accept() else { continue };
                if !peer.ip().is_loopback() {
                    continue;
                }
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                let at = free.pop().unwrap_or(connections.len());
                poll.add(&socket, listeners.len() + at, Interest::Read)?;
                let connection = Connection {
                    socket,
                    input: Vec::new(),
                    body: 0,
                    answer: None,
                    interest: Interest::Read,
                    closes: false,
                };
                connections.resize_with(connections.len().max(at + 1), || None);
                connections[at] = Some(connection);
                continue;
            }
            let at = ready.token - listeners.len();
            let Some(connection) = &mut connections[at] else { continue };
            // A proxy that resets a connection has its reasons; whoever waits for the answer will tell.
            if !connection.step(*ready, &mut scratch, &answers).unwrap_or(false) {
                connections[at] = None;
                free.push(at);
                continue;
            }
            let wanted = connection.wanted();
            if wanted != connection.interest {
                connection.interest = wanted;
                poll.change(&connection.socket, ready.token, wanted)?;
            }
        }
    }
}

/// A listener that many may call at once.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address).with_context(|| format!("binding {address}"))?;
    listen(&socket, 4096)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_what_is_asked_for() {
        let which = |line: &str| ANSWERS[asked(format!("{line}\r\n\r\n").as_bytes())].0;
        assert_eq!(which("GET /bench/item?id=1 HTTP/1.1"), "item");
        assert_eq!(which("GET /bench/64k HTTP/1.1"), "64k");
        assert_eq!(which("POST /upload HTTP/1.1"), "upload");
        assert_eq!(which("GET /health HTTP/1.1"), "item");
    }
}

//! As much of HTTP/1.1 as origin, load and floor need of each other. Not for strangers.

use std::io::{self, Read, Write};

/// Where the head ends that starts `bytes`: the index after its empty line.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|it| it + 4)
}

/// The value of a field, in a head with its start line.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&it| it == b'\n').skip(1).find_map(|line| {
        let (own, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        own.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The length of the body as the head has it; 0 where it has none.
pub(crate) fn body_length(head: &[u8]) -> Result<u64, &'static str> {
    let Some(value) = field(head, "content-length") else {
        return match field(head, "transfer-encoding") {
            Some(_) => Err("a body in chunks, where one with a length was sent"),
            None => Ok(0),
        };
    };
    std::str::from_utf8(value).ok().and_then(|it| it.parse().ok()).ok_or("a content-length that is no number")
}

/// Whether the head asks for the connection to end.
pub(crate) fn closes(head: &[u8]) -> bool {
    field(head, "connection").is_some_and(|it| it.eq_ignore_ascii_case(b"close"))
}

/// The number in a status line.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}

/// Reads what is there; `None`: nothing now, 0: the other side has ended.
pub(crate) fn receive(socket: &mut impl Read, into: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match socket.read(into) {
            Ok(read) => return Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Writes as much as goes in; 0: nothing now.
pub(crate) fn send(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Ok(written) => return Ok(written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_understood() {
        let head = b"HTTP/1.1 503 No\r\nA: b\r\ncontent-Length:  17\r\nConnection: Close\r\n\r\nrest";
        assert_eq!(head_end(head), Some(head.len() - 4));
        assert_eq!(head_end(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!((status(head), body_length(head), closes(head)), (Some(503), Ok(17), true));
        assert_eq!((body_length(b"GET / HTTP/1.1\r\n\r\n"), closes(b"GET / HTTP/1.1\r\n\r\n")), (Ok(0), false));
        assert!(body_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}

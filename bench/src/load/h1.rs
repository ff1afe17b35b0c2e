//! HTTP/1.1 as a client that knows what the answer must be.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::wire;

/// Where a connection is in its answer.
#[derive(Default)]
pub(super) struct Answers {
    /// When the request was due whose answer is awaited.
    pub(super) since: Option<Instant>,
    head: Vec<u8>,
    body: u64,
}

impl Answers {
    /// Of a connection on which a request was just sent.
    pub(super) fn awaited(since: Instant) -> Answers {
        Answers { since: Some(since), ..Answers::default() }
    }

    /// Takes what was read; `true`: the answer is complete.
    pub(super) fn take(&mut self, bytes: &[u8], expected: u64) -> Result<bool> {
        ensure!(self.since.is_some(), "bytes that nobody asked for: {:?}", text(bytes));
        let of_body = if self.body > 0 {
            bytes.len()
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = wire::head_end(&self.head) else { return Ok(false) };
            let head = &self.head[..end];
            match wire::status(head) {
                Some(200) => {}
                Some(100) => {
                    let rest = self.head.split_off(end);
                    self.head.clear();
                    return if rest.is_empty() { Ok(false) } else { self.take(&rest, expected) };
                }
                Some(other) => bail!("answered {other}: {:?}", text(&self.head)),
                None => bail!("not an answer: {:?}", text(&self.head)),
            }
            let length = wire::body_length(head).map_err(anyhow::Error::msg)?;
            ensure!(length == expected, "a body of {length} bytes instead of {expected}");
            self.body = length;
            self.head.clear();
            before + bytes.len() - end
        };
        ensure!(of_body as u64 <= self.body, "more than the answer");
        self.body -= of_body as u64;
        Ok(self.body == 0)
    }
}

/// The start of some bytes, to be shown.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited() -> Answers {
        Answers::awaited(Instant::now())
    }

    #[test]
    fn only_the_right_answer_is_complete() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert!(awaited().take(ok, 3).unwrap());
        let mut answers = awaited();
        let complete: Vec<bool> = ok.iter().map(|it| answers.take(&[*it], 3).unwrap()).collect();
        assert_eq!(complete.iter().position(|&it| it), Some(ok.len() - 1));
        let interim = [b"HTTP/1.1 100 Continue\r\n\r\n", &ok[..]].concat();
        assert!(awaited().take(&interim, 3).unwrap());
        assert!(awaited().take(ok, 4).is_err());
        assert!(awaited().take(b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nabc", 3).is_err());
        assert!(awaited().take(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd", 3).is_err());
        assert!(Answers::default().take(ok, 3).is_err());
    }
}

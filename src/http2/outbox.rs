//! What a connection has to write: frames one behind the other, and large pieces of bodies where they lie.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::http1::connection::{put_by, spare};

/// A piece up to this long is copied behind what is to be written already; a longer one is written from where it lies.
const COPIED: usize = 4 << 10;

/// What may wait to be written before more is asked for: of bodies, and of answers to what the client sends.
const GATHERED: usize = 64 << 10;

/// Slices that are written at once: as many as [`GATHERED`] can make.
const SLICES: usize = 2 * (GATHERED / COPIED) + 4;

/// What is to be written.
#[derive(Default)]
pub struct Outbox {
    text: Vec<u8>,
    /// How much of `text` was written.
    written: usize,
    /// Pieces, and before which place of `text` each belongs.
    pieces: VecDeque<(usize, Bytes)>,
    /// Bytes of all that is left.
    left: usize,
}

impl Outbox {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Whether more may be put here that can wait.
    pub fn has_room(&self) -> bool {
        self.left < GATHERED
    }

    /// Lets `write` put something behind the rest.
    pub fn text<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.text.capacity() == 0 {
            self.text = spare();
        }
        let before = self.text.len();
        let made = write(&mut self.text);
        self.left += self.text.len() - before;
        made
    }

    /// Puts these bytes behind the rest.
    pub fn put(&mut self, bytes: &[u8]) {
        self.text(|text| text.extend_from_slice(bytes));
    }

    /// Puts a piece behind the rest.
    pub fn piece(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            return self.put(&piece);
        }
        self.left += piece.len();
        self.pieces.push_back((self.text.len(), piece));
    }

    /// All of it as one.
    pub fn all(&self) -> Vec<u8> {
        let (mut all, mut at) = (Vec::new(), self.written);
        for (place, piece) in &self.pieces {
            all.extend_from_slice(&self.text[at..*place]);
            all.extend_from_slice(piece);
            at = *place;
        }
        all.extend_from_slice(&self.text[at..]);
        all
    }

    /// Writes what there is. Ready when all is written.
    ///
    /// # Errors
    /// As of the connection.
    pub fn poll_flush(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
        moved: &mut usize,
    ) -> Poll<io::Result<()>> {
        while self.left > 0 {
            match self.poll_write(stream, context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(wrote)) => {
                    *moved += wrote;
                    self.advance(wrote);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    for (_, piece) in &mut self.pieces {
                        if !piece.is_unique() {
                            // It lies where others are to read to.
                            *piece = Bytes::copy_from_slice(piece);
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.text.capacity() > 0 {
            put_by(std::mem::take(&mut self.text));
        }
        self.written = 0;
        if self.pieces.capacity() > 0 {
            self.pieces = VecDeque::new();
        }
        // Only TLS has something of its own to flush.
        Pin::new(stream).poll_flush(context)
    }

    fn poll_write(&self, stream: &mut (impl AsyncWrite + Unpin), context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        if self.pieces.is_empty() {
            return stream.poll_write(context, &self.text[self.written..]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (mut count, mut at) = (0, self.written);
        for (place, piece) in &self.pieces {
            if count + 2 > SLICES {
                break;
            }
            slices[count] = IoSlice::new(&self.text[at..*place]);
            slices[count + 1] = IoSlice::new(piece);
            (count, at) = (count + 2, *place);
        }
        if count < SLICES && count == 2 * self.pieces.len() {
            slices[count] = IoSlice::new(&self.text[at..]);
            count += 1;
        }
        let wrote = ready!(stream.poll_write_vectored(context, &slices[..count]));
        Poll::Ready(wrote)
    }

    fn advance(&mut self, mut wrote: usize) {
        self.left -= wrote;
        while wrote > 0 {
            let end = self.pieces.front().map_or(self.text.len(), |it| it.0);
            let of_text = wrote.min(end - self.written);
            self.written += of_text;
            wrote -= of_text;
            if let Some((_, piece)) = self.pieces.front_mut().filter(|_| wrote > 0) {
                let of_piece = wrote.min(piece.len());
                piece.advance(of_piece);
                wrote -= of_piece;
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_its_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.map(|_| all)
        });
        const SEED: u64 = 0x6f75_7462;
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut expected = Vec::new();
        let mut outbox = Outbox::default();
        for _ in 0..300 {
            while outbox.has_room() {
                let bytes = vec![rng.u8(..); rng.usize(1..20_000)];
                expected.extend_from_slice(&bytes);
                match rng.bool() {
                    true => outbox.put(&bytes),
                    false => outbox.piece(bytes.into()),
                }
            }
            let mut moved = 0;
            let left = outbox.left;
            std::future::poll_fn(|context| outbox.poll_flush(&mut client, context, &mut moved)).await.unwrap();
            assert_eq!((moved, outbox.is_empty()), (left, true));
        }
        drop(client);
        assert!(reading.await.unwrap().unwrap() == expected, "seed {SEED}");
    }
}

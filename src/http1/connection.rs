//! One connection: what has been read from it and not been used, and what is to be written.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::encode;
use crate::stream::Stream;
use crate::timer::Timer;

/// Bytes to read at once while a head is expected; most are smaller than a tenth of it.
const HEAD: usize = 8 << 10;

/// Bytes to read at once while a body comes: what one body holds of our memory, whatever its size.
const BODY: usize = 64 << 10;

/// The same for one that comes faster than that: of large bodies most of the cost is by the read.
const FAST_BODY: usize = 256 << 10;

/// A piece up to this long is copied behind what is to be written already; a longer one is written from where it lies.
const COPIED: usize = 4 << 10;

/// Empty buffers for heads, for the connections of a thread: one that waits has none, and of those that do not there are few
/// at a time.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A connection with its buffers.
pub struct Connection {
    stream: Stream,
    /// What was read and not used yet.
    pub input: BytesMut,
    /// What is to be written, before anything else.
    pub output: Vec<u8>,
    /// How much of `output` was written.
    written: usize,
    /// What is to be written behind `output`.
    piece: Bytes,
    /// And what behind that: the end of a chunk.
    tail: &'static [u8],
    ended: bool,
    /// Bytes of a body to read at once.
    appetite: usize,
    /// For whatever it waits for.
    pub timer: Timer,
}

impl Connection {
    /// A connection nobody has read from.
    pub fn new(stream: Stream) -> Connection {
        Connection::with(stream, BytesMut::new())
    }

    /// A connection of which this much was read already.
    pub fn with(stream: Stream, input: BytesMut) -> Connection {
        Connection {
            stream,
            input,
            output: Vec::new(),
            written: 0,
            piece: Bytes::new(),
            tail: b"",
            ended: false,
            appetite: BODY,
            timer: Timer::default(),
        }
    }

    /// Reads more of a head. Zero bytes: the other side has ended.
    pub fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.poll_read(HEAD, context);
        if read.is_pending() && self.input.is_empty() {
            self.put_by();
        }
        read
    }

    /// Reads more of a body. Zero bytes: the other side has ended.
    pub fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.input.len();
        let read = self.poll_read(self.appetite, context);
        if let Poll::Ready(Ok(read)) = read {
            // All that there was room for, or not even a quarter of it.
            if self.input.len() == self.input.capacity() {
                self.appetite = (self.appetite * 2).min(FAST_BODY);
            } else if before == 0 && read < self.appetite / 4 {
                self.appetite = (self.appetite / 2).max(BODY);
            }
        }
        read
    }

    /// Gives up the buffer, in which nothing is left.
    pub fn put_by(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        // A larger one is a body's; and one that a piece of a body still lies in is of no use to others.
        if input.capacity() > 0 && input.capacity() <= HEAD && input.try_reclaim(HEAD) {
            // At its end a thread has no place for it any more.
            let _ = SPARES.try_with(|spares| {
                let mut spares = spares.borrow_mut();
                if spares.len() < SPARE {
                    spares.push(input);
                }
            });
        }
    }

    fn poll_read(&mut self, room: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() == 0 && room == HEAD {
            self.input = SPARES.try_with(|spares| spares.borrow_mut().pop()).ok().flatten().unwrap_or_default();
        }
        if self.input.capacity() - self.input.len() < room / 4 {
            self.input.reserve(room);
        }
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(context);
        if let Poll::Ready(Ok(0)) = read {
            self.ended = true;
        }
        read
    }

    /// Whether an idle connection can be used: nothing was read, and nothing has come, not even its end.
    pub fn is_quiet(&mut self) -> bool {
        self.input.is_empty()
            && (self.stream.is_quiet() || self.poll_head(&mut Context::from_waker(Waker::noop())).is_pending())
    }

    /// Whether the other side has said that it sends no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Puts a piece behind what is to be written. Only when [`Connection::has_room`].
    pub fn put(&mut self, piece: Bytes) {
        debug_assert!(self.has_room());
        if piece.len() <= COPIED {
            self.output.extend_from_slice(&piece);
        } else {
            self.piece = piece;
        }
    }

    /// Puts a piece as a chunk. Only when [`Connection::has_room`].
    pub fn put_chunk(&mut self, piece: Bytes) {
        encode::chunk_size(&mut self.output, piece.len());
        self.put(piece);
        if self.piece.is_empty() {
            self.output.extend_from_slice(b"\r\n");
        } else {
            self.tail = b"\r\n";
        }
    }

    /// Whether another piece may be put.
    pub fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.output.len() < BODY
    }

    /// Whether everything was written.
    pub fn is_flushed(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.output.len() == self.written
    }

    /// Writes what there is; says how many bytes went in this call, once all is written.
    ///
    /// # Errors
    /// As of the connection, which is of no more use for writing then.
    pub fn poll_flush(&mut self, context: &mut Context<'_>, moved: &mut usize) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let head = &self.output[self.written..];
            let stream = Pin::new(&mut self.stream);
            let wrote = if self.piece.is_empty() && self.tail.is_empty() {
                stream.poll_write(context, head)
            } else {
                let parts = [IoSlice::new(head), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                stream.poll_write_vectored(context, &parts)
            };
            let wrote = match wrote {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(wrote)) => wrote,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            *moved += wrote;
            let of_head = wrote.min(head.len());
            let of_piece = (wrote - of_head).min(self.piece.len());
            self.written += of_head;
            self.piece.advance(of_piece);
            self.tail = &self.tail[wrote - of_head - of_piece..];
        }
        self.output.clear();
        if self.output.capacity() > BODY {
            self.output = Vec::new();
        }
        self.written = 0;
        // Only TLS has something of its own to flush.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// Makes the end of the connection one that the other side cannot take for the end of a message.
    pub fn reset(&self) {
        self.stream.reset();
    }

    /// The connection itself, and what was read of it.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }
}

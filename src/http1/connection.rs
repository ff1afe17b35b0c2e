//! One connection: what has been read from it and not been used, and what is to be written.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::{encode, turn};
use crate::stream::Stream;
use crate::timer::Timer;

/// Bytes to read at once while a request's head is expected; most are smaller than a tenth of it. What comes behind it has to
/// be kept while the request is worked on.
const HEAD: usize = 8 << 10;

/// Bytes to read at once while a body comes: of large bodies most of the cost is by the read. Half of this costs a quarter
/// more, twice as much no less. A body of a round length takes no read more for the head before it.
const BODY: usize = (512 + 8) << 10;

/// The same where what was read stays where it is until the other side takes it, as with HTTP/2.
const LENT_BODY: usize = 256 << 10;

/// The same where the other side takes them more slowly than they come: what it has not taken has to be kept.
const SLOW_BODY: usize = 64 << 10;

/// A piece up to this long is copied behind what is to be written already; a longer one is written from where it lies.
const COPIED: usize = 4 << 10;

/// A message up to this long may wait for the end of a turn, all of it.
const SMALL: usize = 16 << 10;

/// What may wait to be written before more is asked for.
const GATHERED: usize = 64 << 10;

/// Empty buffers to write heads to, for the connections of a thread: one that has nothing to write has none.
const SPARE: usize = 16;

/// How large they may have become.
const SPARE_SIZE: usize = 16 << 10;

/// What the connections of a thread share.
struct Shared {
    /// Where all of them read to: one place, which the processor has near. What was read is used up or copied to where it can
    /// stay before another connection reads. Where that is not so, as with what HTTP/2 has to send, another takes its place.
    read: BytesMut,
    spare: Vec<Vec<u8>>,
}

thread_local! {
    static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

impl Shared {
    /// None when the thread is at its end.
    fn with<T>(work: impl FnOnce(&mut Shared) -> T) -> Option<T> {
        let new = || Shared { read: BytesMut::new(), spare: Vec::new() };
        SHARED.try_with(|shared| work(shared.borrow_mut().get_or_insert_with(new))).ok()
    }

    /// The place to read to, with room for so many bytes.
    fn place(&mut self, room: usize) -> &mut BytesMut {
        if !self.read.try_reclaim(BODY) && self.read.capacity() < room {
            self.read = BytesMut::with_capacity(BODY);
        }
        &mut self.read
    }

    fn put_by(buffer: Vec<u8>) {
        if (1..=SPARE_SIZE).contains(&buffer.capacity()) {
            Shared::with(|shared| {
                if shared.spare.len() < SPARE {
                    shared.spare.push(buffer);
                }
            });
        }
    }
}

/// Reads to the place that the connections of a thread share, behind what is there already: so what came before is copied, and
/// both are what is given back. None: the other side has ended.
pub(crate) fn poll_shared(
    stream: &mut Stream,
    before: &[u8],
    context: &mut Context<'_>,
) -> Poll<io::Result<Option<BytesMut>>> {
    let read = Shared::with(|shared| {
        let place = shared.place(before.len() + SLOW_BODY);
        place.extend_from_slice(before);
        let read = pin!(stream.read_buf(&mut (&mut *place).limit(SLOW_BODY))).poll(context);
        if let Poll::Ready(Ok(read @ 1..)) = read {
            return Poll::Ready(Ok(Some(place.split_to(before.len() + read))));
        }
        place.clear();
        read.map_ok(|_| None)
    });
    // At the end of the thread there is nobody to read for.
    read.unwrap_or(Poll::Ready(Ok(None)))
}

/// An empty buffer to write heads to.
pub(crate) fn spare() -> Vec<u8> {
    Shared::with(|shared| shared.spare.pop()).flatten().unwrap_or_else(|| Vec::with_capacity(1024))
}

/// A buffer that is written, for whoever is next.
pub(crate) fn put_by(mut buffer: Vec<u8>) {
    buffer.clear();
    Shared::put_by(buffer);
}

/// A connection with its buffers.
pub struct Connection {
    pub(super) line: Rc<RefCell<Line>>,
    /// What was read and not used yet.
    pub input: BytesMut,
    /// It lies where others are to read to, see [`Connection::keep`].
    lent: bool,
    ended: bool,
    /// Bytes of a body to read at once, and what that may grow to.
    appetite: usize,
    most: usize,
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
            line: Rc::new(RefCell::new(Line::new(stream))),
            input,
            lent: false,
            ended: false,
            appetite: BODY,
            most: BODY,
            timer: Timer::default(),
        }
    }

    /// Reads more of a head, and not much of what is behind it. Zero bytes: the other side has ended.
    pub fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_read(HEAD, context)
    }

    /// Reads more of a body, or a head with as much of its body as there is. Zero bytes: the other side has ended.
    pub fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.poll_read(self.appetite, context);
        if matches!(read, Poll::Ready(Ok(read)) if read == self.appetite) {
            self.appetite = (self.appetite * 2).min(self.most);
        }
        read
    }

    /// The message that comes next is for somebody who takes its body at once or (`lent`) later, from where it was read to.
    pub fn begin(&mut self, lent: bool) {
        self.line.borrow_mut().sent = 0;
        self.most = if lent { LENT_BODY } else { BODY };
        self.appetite = self.most;
    }

    /// Whoever takes what is read from here is slow.
    pub fn rest(&mut self) {
        self.appetite = SLOW_BODY;
        self.keep();
    }

    /// Has what was read, and is not used yet, in memory of its own. To be called before something else is waited for than
    /// more of it.
    pub fn keep(&mut self) {
        if std::mem::take(&mut self.lent) {
            self.input = BytesMut::from(&self.input[..]);
        }
    }

    fn poll_read(&mut self, room: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let line = &mut *self.line.borrow_mut();
        if line.late {
            // Whoever waits for an answer has to get the rest of the question out. If that fails, something may still come.
            let _ = line.poll_flush(context, &mut 0);
        }
        let stream = &mut line.stream;
        let read = if self.input.is_empty() {
            // Whether it was lent or its own, nothing is left in it.
            self.input = BytesMut::new();
            let read = Shared::with(|shared| {
                let place = shared.place(room);
                let read = pin!(stream.read_buf(&mut (&mut *place).limit(room))).poll(context);
                if let Poll::Ready(Ok(read @ 1..)) = read {
                    self.input = place.split_to(read);
                    self.lent = true;
                }
                read
            });
            // At the end of the thread there is nobody to read for.
            read.unwrap_or(Poll::Ready(Ok(0)))
        } else {
            if std::mem::take(&mut self.lent) {
                self.input = BytesMut::from(&self.input[..]);
            }
            if self.input.capacity() - self.input.len() < room / 4 {
                self.input.reserve(room);
            }
            pin!(stream.read_buf(&mut (&mut self.input).limit(room))).poll(context)
        };
        if let Poll::Ready(Ok(0)) = read {
            self.ended = true;
        }
        read
    }

    /// Whether an idle connection can be used: nothing was read, and nothing has come, not even its end.
    pub fn is_quiet(&mut self) -> bool {
        let told = self.line.borrow().stream.is_quiet();
        self.input.is_empty() && (told || self.poll_head(&mut Context::from_waker(Waker::noop())).is_pending())
    }

    /// Whether nobody on the way can read it.
    pub fn is_tls(&self) -> bool {
        self.line.borrow().stream.is_tls()
    }

    /// Whether the other side has said that it sends no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Puts a head, or another line, behind what is to be written.
    pub fn put_line(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.line.borrow_mut().output());
    }

    /// Puts a piece behind what is to be written. Only when [`Connection::has_room`].
    pub fn put(&mut self, piece: Bytes) {
        self.line.borrow_mut().put(piece);
    }

    /// Puts a piece as a chunk. Only when [`Connection::has_room`].
    pub fn put_chunk(&mut self, piece: Bytes) {
        let mut line = self.line.borrow_mut();
        encode::chunk_size(line.output(), piece.len());
        line.put(piece);
        if line.piece.is_empty() {
            line.output().extend_from_slice(b"\r\n");
        } else {
            line.tail = b"\r\n";
        }
    }

    /// Whether another piece may be put.
    pub fn has_room(&self) -> bool {
        self.line.borrow().has_room()
    }

    /// Whether everything was written.
    pub fn is_flushed(&self) -> bool {
        self.line.borrow().is_flushed()
    }

    /// Whether some of the message that [`Connection::begin`] was for has gone out, or may yet.
    pub fn has_sent(&self) -> bool {
        let line = self.line.borrow();
        line.sent > 0 || !line.failed
    }

    /// Writes what there is; says how many bytes went in this call, once all is written.
    ///
    /// # Errors
    /// As of the connection, which is of no more use for writing then.
    pub fn poll_flush(&mut self, context: &mut Context<'_>, moved: &mut usize) -> Poll<io::Result<()>> {
        self.line.borrow_mut().poll_flush(context, moved)
    }

    /// The same at the end of this [`turn`], for a message that is complete and small; ready at once. What the system does not
    /// take then goes out while the answer is read, and a failure shows in what is read and in [`Connection::has_sent`].
    ///
    /// # Errors
    /// As of [`Connection::poll_flush`].
    pub fn poll_flush_later(&mut self, context: &mut Context<'_>, moved: &mut usize) -> Poll<io::Result<()>> {
        let waits = self.line.borrow().may_wait();
        if let Some(bytes) = waits
            && turn::later(&self.line, context)
        {
            *moved += bytes;
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(context, moved)
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        ready!(line.poll_flush(context, &mut 0))?;
        Pin::new(&mut line.stream).poll_shutdown(context)
    }

    /// Makes the end of the connection one that the other side cannot take for the end of a message.
    pub fn reset(&self) {
        self.line.borrow().stream.reset();
    }

    /// The connection itself, and what was read of it.
    ///
    /// # Errors
    /// If something of it is still to be sent.
    pub fn into_parts(mut self) -> io::Result<(Stream, BytesMut)> {
        self.keep();
        let line = Rc::try_unwrap(self.line).map_err(|_| io::Error::other("the connection is still being written"))?;
        Ok((line.into_inner().stream, self.input))
    }
}

/// What of a connection writing needs, so that it can be done when the task of the connection does not run.
pub(super) struct Line {
    stream: Stream,
    /// What is to be written, before anything else.
    output: Vec<u8>,
    /// How much of `output` was written.
    written: usize,
    /// What is to be written behind `output`.
    piece: Bytes,
    /// And what behind that: the end of a chunk.
    tail: &'static [u8],
    /// Bytes that were written since the message began.
    sent: usize,
    /// The end of the turn has left some of it.
    late: bool,
    /// Nothing can be written any more.
    failed: bool,
}

impl Line {
    fn new(stream: Stream) -> Line {
        let (output, piece) = (Vec::new(), Bytes::new());
        Line { stream, output, written: 0, piece, tail: b"", sent: 0, late: false, failed: false }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = spare();
        }
        &mut self.output
    }

    fn put(&mut self, piece: Bytes) {
        debug_assert!(self.has_room());
        if piece.len() <= COPIED {
            self.output().extend_from_slice(&piece);
        } else {
            self.piece = piece;
        }
    }

    fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.output.len() < GATHERED
    }

    fn is_flushed(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.output.len() == self.written
    }

    /// How many bytes there are, if they may wait for the end of the turn.
    fn may_wait(&self) -> Option<usize> {
        let small = self.piece.is_empty() && self.tail.is_empty() && self.output.len() <= SMALL;
        (small && self.written == 0 && !self.late && !self.failed && !self.output.is_empty())
            .then_some(self.output.len())
    }

    /// Writes what has waited for the end of the turn. Whoever waits for an answer is woken if it did not go.
    pub(super) fn send(&mut self, waker: &Waker) {
        if self.is_flushed() {
            return;
        }
        // The runtime need not be asked first: hardly ever is there no room.
        if self.piece.is_empty()
            && self.tail.is_empty()
            && let Ok(wrote) = self.stream.try_write(&self.output[self.written..])
        {
            self.written += wrote;
            self.sent += wrote;
        }
        match self.poll_flush(&mut Context::from_waker(waker), &mut 0) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => waker.wake_by_ref(),
            Poll::Pending => self.late = true,
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, moved: &mut usize) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        while !self.is_flushed() {
            let head = &self.output[self.written..];
            let stream = Pin::new(&mut self.stream);
            // A plain write tells by itself that no more goes in, so that it need not be tried.
            let wrote = if self.piece.is_empty() && self.tail.is_empty() {
                stream.poll_write(context, head)
            } else if head.is_empty() && self.tail.is_empty() {
                stream.poll_write(context, &self.piece)
            } else {
                let parts = [IoSlice::new(head), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                stream.poll_write_vectored(context, &parts)
            };
            let wrote = match wrote {
                Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(wrote) => wrote,
                Poll::Pending => {
                    if !self.piece.is_empty() && !self.piece.is_unique() {
                        // It lies where others are to read to.
                        self.piece = Bytes::copy_from_slice(&self.piece);
                    }
                    return Poll::Pending;
                }
            };
            let wrote = wrote.inspect_err(|_| self.failed = true)?;
            *moved += wrote;
            self.sent += wrote;
            let of_head = wrote.min(head.len());
            let of_piece = (wrote - of_head).min(self.piece.len());
            self.written += of_head;
            self.piece.advance(of_piece);
            self.tail = &self.tail[wrote - of_head - of_piece..];
        }
        // Nothing is left of it, but it would keep all of what it was a part of.
        self.piece = Bytes::new();
        put_by(std::mem::take(&mut self.output));
        self.written = 0;
        // Only TLS has something of its own to flush.
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.late = false;
        Poll::Ready(flushed.inspect_err(|_| self.failed = true))
    }
}

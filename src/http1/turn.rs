//! What the connections of a worker have to send goes out together, at the end of a turn of its loop.
//!
//! A turn is a look at all that the system has reported: tasks run one after the other until none is ready. If each sent what it
//! has at once, the other side would be woken, find one message, and rest again before the next one is there; to wake somebody
//! who rests is a good part of what a small message costs. Sent in a row, the first wakes the other side, and the others are
//! there before it has looked.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::connection::Line;

/// What waits for the end of the turn, in its order, and who is told if it does not go out whole.
type Later = Vec<(Rc<RefCell<Line>>, Waker)>;

thread_local! {
    /// None outside of a turn: then nobody would send it.
    static TURN: RefCell<Option<Later>> = const { RefCell::new(None) };
}

/// Runs a worker: each poll of this future is a turn.
pub async fn turns<T>(worker: impl Future<Output = T>) -> T {
    let mut worker = pin!(worker);
    let mut room = Later::new();
    poll_fn(|context| {
        TURN.set(Some(std::mem::take(&mut room)));
        // Also when a task panics.
        let ending = Ending(&mut room);
        let polled = worker.as_mut().poll(context);
        drop(ending);
        polled
    })
    .await
}

/// The end of a turn.
struct Ending<'a>(&'a mut Later);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        *self.0 = TURN.take().unwrap_or_default();
        for (line, waker) in self.0.drain(..) {
            line.borrow_mut().send(&waker);
        }
    }
}

/// Sends what waits now, because the turn takes long: to be called where a task holds up the others.
pub fn send_now() {
    let waiting = TURN.try_with(|turn| turn.borrow_mut().as_mut().map(std::mem::take));
    for (line, waker) in waiting.ok().flatten().into_iter().flatten() {
        // That of the task that runs may be in use. It waits for the end then.
        let sent = line.try_borrow_mut().map(|mut line| line.send(&waker)).is_ok();
        if !sent {
            TURN.with_borrow_mut(|turn| turn.iter_mut().for_each(|later| later.push((line.clone(), waker.clone()))));
        }
    }
}

/// Has this sent at the end of the turn. False: there is none, so it has to be sent now.
pub(super) fn later(line: &Rc<RefCell<Line>>, context: &Context<'_>) -> bool {
    // At the end of a thread there are no turns any more.
    let pushed = TURN.try_with(|turn| {
        let mut turn = turn.borrow_mut();
        turn.iter_mut().for_each(|later| later.push((line.clone(), context.waker().clone())));
        turn.is_some()
    });
    pushed.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::Poll;

    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::Connection;
    use super::*;
    use crate::stream::Stream;

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    /// A connection, and its other side.
    async fn pair() -> (Connection, TcpStream) {
        let (ours, other) = sockets().await;
        (Connection::new(Stream::plain(ours)), other)
    }

    fn send(connection: &mut Connection, text: &[u8], context: &mut Context<'_>) -> usize {
        let mut moved = 0;
        connection.begin(false);
        connection.put_line(|out| out.extend_from_slice(text));
        assert!(matches!(connection.poll_flush_later(context, &mut moved), Poll::Ready(Ok(()))));
        moved
    }

    #[tokio::test]
    async fn what_is_sent_in_a_turn_goes_at_its_end() {
        let ((mut first, mut one), (mut second, mut two)) = (pair().await, pair().await);
        let mut turn = 0;
        turns(poll_fn(|context| {
            turn += 1;
            match turn {
                1 => {
                    assert_eq!(send(&mut first, b"a", context), 1);
                    assert_eq!(send(&mut second, b"b", context), 1);
                    // Behind what waits already.
                    send(&mut first, b"c", context);
                    assert!(!first.is_flushed() && !second.is_flushed() && first.has_sent());
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => {
                    assert!(first.is_flushed() && second.is_flushed());
                    Poll::Ready(())
                }
            }
        }))
        .await;
        let mut text = [0; 2];
        one.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"ac");
        assert_eq!(two.read_u8().await.unwrap(), b'b');

        // Nobody would send it later.
        poll_fn(|context| Poll::Ready(send(&mut first, b"d", context))).await;
        assert!(first.is_flushed());
        assert_eq!(one.read_u8().await.unwrap(), b'd');
    }

    #[tokio::test]
    async fn a_long_turn_holds_nothing_up() {
        let ((mut first, mut one), (mut second, two)) = (pair().await, pair().await);
        turns(async {
            poll_fn(|context| Poll::Ready((send(&mut first, b"a", context), send(&mut second, b"b", context)))).await;
            let used = second.line.borrow_mut();
            send_now();
            drop(used);
            assert!(first.is_flushed() && !second.is_flushed());
            assert_eq!(two.try_read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "not yet");
        })
        .await;
        assert!(second.is_flushed());
        assert_eq!(one.read_u8().await.unwrap(), b'a');
        // Outside of a turn there is nothing to send.
        send_now();
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_behind_what_it_has_to_send() {
        let (mut connection, mut other) = pair().await;
        turns(async {
            poll_fn(|context| Poll::Ready(send(&mut connection, b"last", context))).await;
            assert_eq!(other.try_read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "not yet");
            drop(connection);
        })
        .await;
        let mut text = Vec::new();
        other.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"last");
    }

    #[tokio::test]
    async fn what_the_system_does_not_take_goes_out_while_the_answer_is_read() {
        let (ours, mut other) = sockets().await;
        let mut before = 0;
        loop {
            ours.writable().await.unwrap();
            match ours.try_write(&[0; 64 << 10]) {
                Ok(written) => before += written,
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let mut connection = Connection::new(Stream::plain(ours));
        turns(async {
            let question = vec![b'?'; 8 << 10];
            poll_fn(|context| Poll::Ready(send(&mut connection, &question, context))).await;
            tokio::task::yield_now().await;
            assert!(!connection.is_flushed(), "the turn has ended, and there was no room");
            let answer = async {
                let mut text = vec![0; before + question.len()];
                other.read_exact(&mut text).await.unwrap();
                assert_eq!(text[before..], question);
                other.write_all(b"answer").await.unwrap();
            };
            let ((), came) = tokio::join!(answer, poll_fn(|context| connection.poll_head(context)));
            assert_eq!((came.unwrap(), &connection.input[..]), (6, &b"answer"[..]));
            assert!(connection.is_flushed());
        })
        .await;
    }

    #[tokio::test]
    async fn a_failure_is_told_to_whoever_waits_for_an_answer() {
        let (mut connection, other) = pair().await;
        other.set_zero_linger().unwrap();
        drop(other);
        let outcome = turns(async {
            poll_fn(|context| Poll::Ready(send(&mut connection, b"question", context))).await;
            poll_fn(|context| connection.poll_head(context)).await
        });
        assert!(matches!(outcome.await, Ok(0) | Err(_)));
        assert_eq!(connection.input, BytesMut::new());
        assert!(!connection.has_sent(), "so it may be asked elsewhere");
        let again = poll_fn(|context| connection.poll_flush(context, &mut 0)).await;
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

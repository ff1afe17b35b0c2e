//! One connection of a client: one task that reads frames, polls the futures that answer the streams, and writes what all of
//! them have to say. When a connection has to end for want of time is decided elsewhere.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::PREFACE;
use super::bells::{Bell, Board};
use super::exchange::Exchange;
use super::frame::{MOST, kind, reason};
use super::guard::Ledger;
use super::receive::{Event, Fault};
use super::session::{PING, Session};
use crate::config::limits::Limits;
use crate::http1::connection::poll_shared;
use crate::http1::head::HeadError;
use crate::message::RequestHead;
use crate::stream::Stream;

/// After we have ended our side: how long, and how many bytes, to listen to a client that still sends. Closing at once would
/// make its system discard what it has not read yet.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// How long one that must end may take to be told why.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often a connection reads before others of this worker have a turn.
const TURNS: usize = 8;

/// A stream as its connection has it.
struct Task<F> {
    /// What answers it. Its place stays for the next one: it is large, and would have to be given its memory anew.
    future: Pin<Box<Option<F>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// How far the end of a connection is.
#[derive(Clone, Copy)]
enum Stage {
    Serving,
    /// The client was warned, and asked whether it has read that.
    Warned,
    /// The client was told which stream is the last.
    Ending,
    /// It must be over by then, for this reason; nothing is read any more.
    Farewell(Instant, Fault),
    /// Our side has ended. Until when to listen, how much was heard, and why it ended if it was not asked to.
    Linger(Instant, usize, Option<Fault>),
}

/// A connection. `F` answers one stream.
pub struct Connection<F> {
    stream: Stream,
    /// What was read and not used yet.
    input: BytesMut,
    /// It lies where others are to read to.
    lent: bool,
    session: Rc<RefCell<Session>>,
    tasks: Vec<Task<F>>,
    board: Arc<Board>,
    rung: Vec<u32>,
    stage: Stage,
    /// The preface has come.
    begun: bool,
    /// Something was read before this connection was one of HTTP/2, and not looked at yet.
    unread: bool,
}

/// A request that has begun.
pub struct Begun {
    /// Its stream.
    pub exchange: Exchange,
    /// What was asked, if that can be understood.
    pub head: Box<Result<RequestHead, HeadError>>,
    /// There is no body.
    pub over: bool,
}

impl<F: Future<Output = ()>> Connection<F> {
    /// A connection of which this much was read already.
    pub fn new(stream: Stream, input: BytesMut, limits: &Limits) -> Connection<F> {
        Connection {
            unread: !input.is_empty(),
            stream,
            input,
            lent: false,
            session: Rc::new(RefCell::new(Session::new(limits))),
            tasks: Vec::new(),
            board: Arc::default(),
            rung: Vec::new(),
            stage: Stage::Serving,
            begun: false,
        }
    }

    /// Goes on with everything that can go on; `begin` makes what answers a request. Ready when the connection is over, with
    /// the reason if it is the client's fault.
    ///
    /// # Errors
    /// As of the connection.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        begin: &mut impl FnMut(Begun) -> F,
    ) -> Poll<io::Result<Option<Fault>>> {
        self.board.wake_up(context.waker());
        let outcome = self.poll_turns(context, begin);
        if outcome.is_pending() {
            self.keep();
            if !self.board.fall_asleep() {
                context.waker().wake_by_ref();
            }
        } else {
            self.drop_streams();
        }
        outcome
    }

    fn poll_turns(
        &mut self,
        context: &mut Context<'_>,
        begin: &mut impl FnMut(Begun) -> F,
    ) -> Poll<io::Result<Option<Fault>>> {
        for _ in 0..TURNS {
            if let Stage::Linger(..) = self.stage {
                return self.poll_linger(context);
            }
            let mut moved = self.answer();
            if std::mem::take(&mut self.unread) {
                moved = true;
                self.parse(begin);
                self.answer();
            }
            if !matches!(self.stage, Stage::Farewell(..)) && self.session.borrow().out.has_room() {
                match self.poll_read(context) {
                    Poll::Ready(Ok(0)) => {
                        // It may still hear what is ready.
                        let _ = self.poll_write(context, &mut moved)?;
                        return Poll::Ready(Ok(None));
                    }
                    Poll::Ready(Ok(_)) => {
                        moved = true;
                        self.parse(begin);
                        self.answer();
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            let written = self.poll_write(context, &mut moved)?;
            self.end_if_due(&mut moved);
            if written.is_ready()
                && self.is_done()
                && let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_shutdown(context)
            {
                outcome?;
                let fault = match self.stage {
                    Stage::Farewell(_, fault @ Fault::Abuse(_)) => return Poll::Ready(Ok(Some(fault))),
                    Stage::Farewell(_, fault) => Some(fault),
                    _ => None,
                };
                self.stage = Stage::Linger(Instant::now() + LINGER.0, 0, fault);
                continue;
            }
            if !moved {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads more, behind what is there. Zero bytes: the client has ended.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_shared(&mut self.stream, &self.input, context).map_ok(|read| match read {
            None => 0,
            Some(read) => {
                let more = read.len() - self.input.len();
                (self.input, self.lent) = (read, true);
                more
            }
        })
    }

    /// Takes what was read, frame by frame.
    fn parse(&mut self, begin: &mut impl FnMut(Begun) -> F) {
        if !self.begun {
            let here = self.input.len().min(PREFACE.len());
            if self.input[..here] != PREFACE[..here] {
                return self.fail(Fault::Protocol(reason::PROTOCOL_ERROR));
            }
            if here < PREFACE.len() {
                return;
            }
            self.input.advance(here);
            self.begun = true;
        }
        loop {
            let taken = self.session.borrow_mut().take(&mut self.input);
            match taken {
                None => break,
                Some(Ok(None)) => {}
                Some(Ok(Some(Event::Request { slot, head, over }))) => {
                    let exchange = Exchange::new(&self.session, slot);
                    let task = self.task(slot);
                    task.future.set(Some(begin(Begun { exchange, head, over })));
                    self.session.borrow_mut().wake(slot as usize);
                }
                // Before others take its place.
                Some(Ok(Some(Event::Gone { slot }))) => self.poll_task(slot),
                Some(Err(fault)) => return self.fail(fault),
            }
        }
        let session = &mut *self.session.borrow_mut();
        let within = session.is_within_block(&self.input);
        session.ledger.read(within);
        if self.input.is_empty() {
            // Whether it was lent or its own, nothing is left in it.
            (self.input, self.lent) = (BytesMut::new(), false);
        }
    }

    fn task(&mut self, slot: u32) -> &mut Task<F> {
        while self.tasks.len() <= slot as usize {
            let bell = Bell::new(self.tasks.len() as u32, &self.board);
            self.tasks.push(Task { future: Box::pin(None), waker: bell.clone().into(), bell });
        }
        &mut self.tasks[slot as usize]
    }

    /// Polls the streams for which something has changed. Says whether there were any.
    fn answer(&mut self) -> bool {
        let mut rung = std::mem::take(&mut self.rung);
        self.board.rung(&mut rung);
        rung.append(&mut self.session.borrow_mut().ready);
        let any = !rung.is_empty();
        for slot in rung.drain(..) {
            self.poll_task(slot);
        }
        self.rung = rung;
        any
    }

    fn poll_task(&mut self, slot: u32) {
        // A bell may ring after its stream has ended.
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        task.bell.answer();
        let Some(future) = task.future.as_mut().as_pin_mut() else { return };
        self.session.borrow_mut().look(slot);
        let mut context = Context::from_waker(&task.waker);
        // A panic in one stream is that stream's failure, not its neighbours' on the connection.
        let poll = catch_unwind(AssertUnwindSafe(|| future.poll(&mut context)));
        if !matches!(poll, Ok(Poll::Pending)) {
            task.future.set(None);
            let session = &mut *self.session.borrow_mut();
            if poll.is_err() {
                session.reset(slot, session.stream(slot), reason::INTERNAL_ERROR);
            }
            session.finish(slot);
        }
    }

    /// Writes what there is, and has those go on that waited for room. Ready when all is written.
    fn poll_write(&mut self, context: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        loop {
            {
                let session = &mut *self.session.borrow_mut();
                let mut wrote = 0;
                let flushed = session.out.poll_flush(&mut self.stream, context, &mut wrote);
                session.ledger.wrote(wrote > 0 || flushed.is_ready());
                *moved |= wrote > 0;
                if !matches!(flushed, Poll::Ready(Ok(()))) {
                    return flushed;
                }
            }
            // Whoever has to wait again ends this, because there is no room then.
            while let Some(slot) = self.next_waiting() {
                self.poll_task(slot);
                *moved = true;
            }
            if self.session.borrow().out.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn next_waiting(&self) -> Option<u32> {
        self.session.borrow_mut().next_waiting()
    }

    /// Has what was read, and is not used yet, in memory of its own.
    fn keep(&mut self) {
        self.session.borrow_mut().settle();
        if std::mem::take(&mut self.lent) {
            self.input = BytesMut::from(&self.input[..]);
        }
    }

    /// Ends the connection, because of what the client did.
    fn fail(&mut self, fault: Fault) {
        let why = match fault {
            Fault::Protocol(why) => why,
            Fault::Abuse(_) => reason::ENHANCE_YOUR_CALM,
        };
        self.stage = Stage::Farewell(Instant::now() + FAREWELL, fault);
        self.drop_streams();
        let session = &mut *self.session.borrow_mut();
        session.go_away(session.last, why);
    }

    /// Nobody answers any more: whoever did finds out.
    fn drop_streams(&mut self) {
        self.session.borrow_mut().gone = true;
        for slot in 0..self.tasks.len() as u32 {
            self.poll_task(slot);
            self.tasks[slot as usize].future.set(None);
        }
    }

    /// Tells the client to open no more streams; those that are open are finished. First a warning, so that no request is lost
    /// that is on its way (RFC 9113, section 6.8).
    pub fn end(&mut self) {
        if matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Warned;
            let session = &mut *self.session.borrow_mut();
            session.answered = false;
            session.go_away(MOST, reason::NO_ERROR);
            session.frame(kind::PING, 0, 0, &PING);
        }
    }

    /// The second step, when the client has read the first.
    fn end_if_due(&mut self, moved: &mut bool) {
        let session = &mut *self.session.borrow_mut();
        if matches!(self.stage, Stage::Warned) && session.answered {
            self.stage = Stage::Ending;
            session.end = Some(session.last);
            session.go_away(session.last, reason::NO_ERROR);
            *moved = true;
        }
    }

    /// Whether nothing is left to be done but to close.
    fn is_done(&self) -> bool {
        let session = self.session.borrow();
        match self.stage {
            Stage::Ending => session.streams() == 0 && session.out.is_empty(),
            Stage::Farewell(..) => session.out.is_empty(),
            _ => false,
        }
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Fault>>> {
        let Stage::Linger(_, heard, fault) = &mut self.stage else { return Poll::Pending };
        self.input.clear();
        while *heard < LINGER.1 {
            match poll_shared(&mut self.stream, b"", context) {
                Poll::Ready(Ok(Some(read))) => *heard += read.len(),
                Poll::Pending => return Poll::Pending,
                // It is over, one way or another.
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(*fault))
    }

    /// Asks the client whether it is still there.
    pub fn ask(&mut self) {
        // While it has to answer the warning there is one under way.
        if matches!(self.stage, Stage::Serving | Stage::Ending) {
            self.session.borrow_mut().frame(kind::PING, 0, 0, &PING);
        }
    }

    /// Streams that are answered.
    pub fn streams(&self) -> usize {
        self.session.borrow().streams()
    }

    /// Whether the client has begun as it must.
    pub fn is_greeted(&self) -> bool {
        self.session.borrow().greeted
    }

    /// When it must be over; none: it is being served. And the client's fault, if it is that.
    pub fn must_end(&self) -> Option<(Instant, Option<Fault>)> {
        match self.stage {
            Stage::Farewell(until, fault) => Some((until, Some(fault))),
            Stage::Linger(until, _, fault) => Some((until, fault)),
            _ => None,
        }
    }

    /// Whether the client was told to open no more streams.
    pub fn is_ending(&self) -> bool {
        !matches!(self.stage, Stage::Serving)
    }

    /// What the client costs.
    pub fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.session.borrow_mut().ledger)
    }

    /// Lets go of what only busy connections need. Only without streams.
    pub fn rest(&mut self) {
        self.tasks = Vec::new();
        self.rung = Vec::new();
        self.board.rest();
        self.session.borrow_mut().rest();
    }
}

impl<F> Drop for Connection<F> {
    fn drop(&mut self) {
        // Streams hold the session, and may be polled no more.
        self.session.borrow_mut().gone = true;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use h2::client::SendRequest;
    use http::{HeaderMap, Method, Request, StatusCode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::respond::{Sending, Source};
    use super::*;
    use crate::message::{BodyError, Frame, Known, ResponseHead};
    use crate::timer::Patience;

    /// What a client sends, sent back as it comes.
    struct Echo(Exchange);

    impl Source for Echo {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            self.0.poll_frame()
        }

        fn is_over(&self) -> bool {
            self.0.is_over()
        }

        fn meanwhile(&mut self, _: &mut Context<'_>) {}
    }

    async fn echo(begun: Begun) {
        let Begun { exchange, head, .. } = begun;
        let Ok(head) = *head else { return };
        assert_ne!(head.target.as_str(), "/panic", "as it was asked for");
        let mut response = ResponseHead::new(StatusCode::OK);
        response.fields.append("x-target", head.target.as_str().as_bytes());
        response.fields.append("x-method", head.method.as_str().as_bytes());
        for field in head.fields.iter().filter(|it| ![Known::Te, Known::Host].contains(&it.known)) {
            response.fields.append(field.name, field.value);
        }
        let mut early = ResponseHead::new(StatusCode::EARLY_HINTS);
        early.fields.append("link", b"</a>");
        exchange.tell(&early);
        if exchange.respond(&response, false).is_err() {
            return;
        }
        let mut body = Echo(exchange.clone());
        let mut sending = Sending::new(exchange, Patience::new(Duration::from_secs(20), 0));
        let _ = poll_fn(|context| sending.poll(&mut body, context)).await;
    }

    /// A connection that is served so, and how it ends.
    async fn served(limits: Limits, read: &[u8]) -> (TcpStream, tokio::task::JoinHandle<io::Result<Option<Fault>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let mut link = Connection::new(Stream::plain(server), BytesMut::from(read), &limits);
        let serving = async move { poll_fn(|context| link.poll(context, &mut echo)).await };
        (client, tokio::task::spawn_local(serving))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn text(rng: &mut fastrand::Rng, most: usize) -> String {
        (0..rng.usize(..=most)).map(|_| char::from(rng.u8(b'!'..=b'~'))).collect()
    }

    /// One request of `h2`'s, with a body in pieces, compared with what comes back.
    async fn compare(mut sender: SendRequest<Bytes>, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let method = [Method::GET, Method::POST, Method::PUT][rng.usize(..3)].clone();
        let target = format!(
            "/{}",
            text(&mut rng, 40).replace(['#', '?', '%', '<', '>', '"', '`', '{', '}', '|', '\\', '^'], "x")
        );
        let mut request = Request::builder().method(method.clone()).uri(format!("http://a{target}"));
        let mut names = Vec::new();
        for _ in 0..rng.usize(..20) {
            let name = ["x-a", "x-b", "etag", "date", "server", "accept", "x-a-very-long-name-that-nobody-has"]
                [rng.usize(..7)];
            let value =
                if rng.bool() { text(&mut rng, 8) } else { ["1", "two", "again and again"][rng.usize(..3)].into() };
            request = request.header(name, &value);
            names.push((name, value));
        }
        let pieces: Vec<Bytes> = (0..rng.usize(..4))
            .map(|_| {
                let length = [0, 1, 100, 5_000, 70_000, 300_000][rng.usize(..6)];
                Bytes::from(vec![rng.u8(..); length])
            })
            .collect();
        let trailers = rng.bool();
        let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        let sent = pieces.clone();
        let sending = async move {
            for mut piece in sent {
                while !piece.is_empty() {
                    stream.reserve_capacity(piece.len());
                    let room = poll_fn(|context| stream.poll_capacity(context)).await.unwrap().unwrap();
                    stream.send_data(piece.split_to(room.min(piece.len())), false).unwrap();
                }
            }
            match trailers {
                true => {
                    let mut map = HeaderMap::new();
                    map.insert("x-end", "1".parse().unwrap());
                    stream.send_trailers(map).unwrap();
                }
                false => stream.send_data(Bytes::new(), true).unwrap(),
            }
        };
        let receiving = async {
            let response = response.await.unwrap();
            assert_eq!(response.headers()["x-target"], &*target, "seed {seed}");
            assert_eq!(response.headers()["x-method"], method.as_str(), "seed {seed}");
            for name in names.iter().map(|it| it.0) {
                let given: Vec<&str> = names.iter().filter(|it| it.0 == name).map(|it| &*it.1).collect();
                let back: Vec<&str> = response.headers().get_all(name).iter().map(|it| it.to_str().unwrap()).collect();
                assert_eq!(back, given, "{name}, seed {seed}");
            }
            let mut body = response.into_body();
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            assert!(all == pieces.concat(), "seed {seed}");
            let end = body.trailers().await.unwrap();
            assert_eq!(end.is_some_and(|it| it["x-end"] == "1"), trailers, "seed {seed}");
        };
        tokio::join!(sending, receiving);
    }

    #[test]
    fn another_client_and_this_server_mean_the_same() {
        const SEED: u64 = 0x6832_6832;
        run(async {
            for round in 0..6 {
                let (client, serving) = served(Limits::default(), b"").await;
                let mut builder = h2::client::Builder::new();
                builder
                    .header_table_size([4096, 0, 100][round % 3])
                    .initial_window_size([65_535, 1_000, 1 << 20][round % 3]);
                let (sender, connection) = builder.handshake(client).await.unwrap();
                let driving = tokio::task::spawn_local(connection);
                let mut all = Vec::new();
                for number in 0..60 {
                    let sender = sender.clone().ready().await.unwrap();
                    all.push(tokio::task::spawn_local(compare(sender, SEED + 1000 * round as u64 + number)));
                    if number % 10 == 9 {
                        for one in all.drain(..) {
                            one.await.unwrap();
                        }
                    }
                }
                drop(sender);
                driving.await.unwrap().unwrap();
                assert_eq!(serving.await.unwrap().unwrap(), None);
            }
        });
    }

    #[test]
    fn a_panic_is_the_failure_of_one_stream() {
        run(async {
            let (client, _serving) = served(Limits::default(), b"").await;
            let (sender, connection) = h2::client::handshake(client).await.unwrap();
            tokio::task::spawn_local(connection);
            let mut sender = sender.ready().await.unwrap();
            let get = |target: &str| Request::builder().uri(format!("http://a{target}")).body(()).unwrap();
            let (panic, _) = sender.send_request(get("/panic"), true).unwrap();
            let (fine, _) = sender.send_request(get("/"), true).unwrap();
            assert_eq!(panic.await.unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
            assert_eq!(fine.await.unwrap().status(), StatusCode::OK);
        });
    }

    /// What comes of these bytes, but for answers to PING.
    async fn answer(bytes: &[u8], piece: usize) -> Vec<u8> {
        // Some of it may have been read before it was clear that this is HTTP/2.
        let (before, bytes) = bytes.split_at(piece.min(bytes.len()));
        let (mut client, serving) = served(Limits::default(), before).await;
        for part in bytes.chunks(piece) {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        serving.await.unwrap().unwrap();
        all
    }

    #[test]
    fn it_does_not_matter_how_frames_are_cut() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(b"\0\0\0\x04\0\0\0\0\0");
        // GET / of `a`, by literals; in two frames, and the second request with a body in two.
        let block = b"\x82\x86\x84\x41\x01a";
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let mut all = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
            all.extend_from_slice(payload);
            all
        };
        bytes.extend(frame(1, 1, 1, &block[..3]));
        bytes.extend(frame(9, 4, 1, &block[3..]));
        bytes.extend(frame(1, 4, 3, b"\x83\x86\x84\xbe"));
        bytes.extend(frame(0, 8, 3, b"\x02hello--"));
        bytes.extend(frame(0, 1, 3, b" world"));
        bytes.extend(frame(6, 0, 0, b"12345678"));
        run(async {
            for piece in [1, 2, 3, 7, 30, bytes.len()] {
                let answer = answer(&bytes, piece).await;
                let has = |text: &[u8]| answer.windows(text.len()).any(|it| it == text);
                assert!(has(b"hello") && has(b" world") && has(b"\x06\x01\0\0\0\x0012345678"), "in pieces of {piece}");
            }
        });
    }
}

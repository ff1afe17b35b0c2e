//! The endpoint behind the gateway: notes every byte it gets, and answers as the case wants.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::bytes::{Fields, fields, lists, values};
use crate::lint;
use crate::stream::{Broken, End, Reader, Stream, reset};

/// How long an endpoint waits for anything: longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(12);

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) head: Vec<u8>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The body came to its end.
    pub(crate) whole: bool,
    /// Which of the case's connections it came on, from 0.
    pub(crate) connection: usize,
}

impl Request {
    fn new(head: Vec<u8>, connection: usize) -> Request {
        let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\n').next().unwrap()).into_owned();
        let mut parts = line.trim_end().splitn(3, ' ').map(str::to_owned);
        Request {
            method: parts.next().unwrap_or_default(),
            target: parts.next().unwrap_or_default(),
            version: parts.next().unwrap_or_default(),
            fields: fields(&head),
            connection,
            head,
            ..Request::default()
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        values(&self.fields, name).first().copied()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// All values of a field, as one list.
    pub(crate) fn list(&self, name: &str) -> String {
        values(&self.fields, name).join(", ")
    }

    pub(crate) fn is_chunked(&self) -> bool {
        lists(&self.fields, "transfer-encoding", "chunked")
    }
}

/// One connection to the endpoint.
#[derive(Default)]
struct Connection {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Option<End>,
    /// How many of the bytes came before it became something else than HTTP/1.1.
    upgraded: Option<usize>,
}

/// What one case did to the endpoint.
#[derive(Default)]
struct Journal {
    connections: Vec<Connection>,
    requests: Vec<Request>,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
    Reset,
}

type Handler = Arc<dyn Fn(&mut Exchange<'_>) -> Then + Send + Sync>;

struct State {
    journal: Arc<(Mutex<Journal>, Condvar)>,
    handler: Handler,
    sockets: Vec<TcpStream>,
}

/// A listening endpoint; it lives as long as the process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A request being answered.
pub(crate) struct Exchange<'a> {
    pub(crate) reader: &'a mut Reader,
    pub(crate) request: Request,
    /// The how manyth request of this case it is, from 0.
    pub(crate) nth: usize,
    journal: &'a (Mutex<Journal>, Condvar),
    read: bool,
}

impl Exchange<'_> {
    /// Reads the rest of the request; whether it was whole.
    pub(crate) fn read_body(&mut self) -> bool {
        if std::mem::replace(&mut self.read, true) {
            return self.request.whole;
        }
        let (journal, changed) = self.journal;
        let nth = self.nth;
        let mut note = |piece: &[u8]| {
            journal.lock().unwrap().requests[nth].body.extend_from_slice(piece);
            changed.notify_all();
        };
        let until = Instant::now() + PATIENCE;
        let mut trailers = Vec::new();
        let done = if self.request.is_chunked() {
            self.reader.take_chunked(until, &mut note).map(|it| trailers = it)
        } else {
            let mut left: usize = self.request.field("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
            loop {
                if left == 0 {
                    break Ok(());
                }
                match self.reader.take_some(left, until) {
                    Ok(piece) => {
                        left -= piece.len();
                        note(&piece);
                    }
                    Err(broken) => break Err(broken),
                }
            }
        };
        let mut journal = journal.lock().unwrap();
        let request = &mut journal.requests[nth];
        request.whole = done.is_ok();
        request.trailers = trailers;
        self.request = request.clone();
        changed.notify_all();
        self.request.whole
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        if bytes.as_ref().starts_with(b"HTTP/1.1 101") {
            let mut journal = self.journal.0.lock().unwrap();
            let connection = &mut journal.connections[self.request.connection];
            let http = connection.bytes.lock().unwrap().len() - self.reader.buffer.len();
            connection.upgraded = Some(http);
        }
        self.reader.send(bytes.as_ref())
    }
}

/// A plain answer with a length.
pub(crate) fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Origin {
    /// On a free loopback port, with TLS if there is a configuration for it.
    pub(crate) fn start(tls: Option<Arc<ServerConfig>>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binding an endpoint's port");
        let address = listener.local_addr().expect("an endpoint's address");
        let state = Arc::new(Mutex::new(State {
            journal: Arc::default(),
            handler: Arc::new(|it: &mut Exchange<'_>| usual(it)),
            sockets: Vec::new(),
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (state, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || serve(socket, &state, tls));
            }
        });
        Origin { address, state }
    }

    /// Forgets the last case: closes its connections, and answers as usual again.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        state.journal = Arc::default();
        state.handler = Arc::new(|it: &mut Exchange<'_>| usual(it));
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How to answer from now on.
    pub(crate) fn answers(&self, handler: impl Fn(&mut Exchange<'_>) -> Then + Send + Sync + 'static) {
        self.state.lock().unwrap().handler = Arc::new(handler);
    }

    /// Reads each request whole, and answers with exactly these bytes.
    pub(crate) fn says(&self, bytes: impl Into<Vec<u8>>, then: Then) {
        let bytes = bytes.into();
        self.answers(move |it| {
            it.read_body();
            it.send(&bytes);
            then
        });
    }

    /// Answers with these bytes before any of the body is read.
    pub(crate) fn says_unread(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.answers(move |it| {
            it.send(&bytes);
            Then::Keep
        });
    }

    fn journal(&self) -> Arc<(Mutex<Journal>, Condvar)> {
        self.state.lock().unwrap().journal.clone()
    }

    /// What arrived, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.journal().0.lock().unwrap().requests.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.journal().0.lock().unwrap().requests.len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.journal().0.lock().unwrap().connections.len()
    }

    /// How the gateway ended each of its connections, so far.
    pub(crate) fn ends(&self) -> Vec<Option<End>> {
        self.journal().0.lock().unwrap().connections.iter().map(|it| it.end).collect()
    }

    /// The last request; an empty one if there is none.
    pub(crate) fn last(&self) -> Request {
        self.requests().pop().unwrap_or_default()
    }

    /// Every byte of each connection.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        let journal = self.journal();
        let journal = journal.0.lock().unwrap();
        journal.connections.iter().map(|it| it.bytes.lock().unwrap().clone()).collect()
    }

    /// Waits until what arrived is so; whether it came to that.
    pub(crate) fn until(&self, patience: Duration, is_so: impl Fn(&[Request]) -> bool) -> bool {
        let journal = self.journal();
        let (journal, changed) = &*journal;
        let wait = |guard: MutexGuard<'_, Journal>| {
            changed.wait_timeout_while(guard, patience, |it| !is_so(&it.requests)).unwrap().1.timed_out()
        };
        !wait(journal.lock().unwrap())
    }

    /// Waits until the gateway ended all of its connections; whether it did.
    pub(crate) fn until_closed(&self, patience: Duration) -> bool {
        let journal = self.journal();
        let (journal, changed) = &*journal;
        let open = |it: &mut Journal| it.connections.iter().any(|it| it.end.is_none());
        !changed.wait_timeout_while(journal.lock().unwrap(), patience, open).unwrap().1.timed_out()
    }

    /// What no gateway may send, whatever it was sent.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let journal = self.journal();
        let journal = journal.0.lock().unwrap();
        let judge = |it: &Connection| {
            let bytes = it.bytes.lock().unwrap();
            lint::complaints(&bytes[..it.upgraded.unwrap_or(bytes.len())])
        };
        journal.connections.iter().flat_map(judge).collect()
    }
}

fn usual(exchange: &mut Exchange<'_>) -> Then {
    if !exchange.read_body() {
        return Then::Close;
    }
    exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok");
    Then::Keep
}

fn serve(socket: TcpStream, state: &Mutex<State>, tls: Option<Arc<ServerConfig>>) {
    let _ = socket.set_nodelay(true);
    let (journal, bytes) = {
        let mut state = state.lock().unwrap();
        state.sockets.extend(socket.try_clone());
        (state.journal.clone(), Arc::new(Mutex::new(Vec::new())))
    };
    let number = {
        let mut journal = journal.0.lock().unwrap();
        journal.connections.push(Connection { bytes: bytes.clone(), ..Connection::default() });
        journal.connections.len() - 1
    };
    let stream = match tls {
        None => Stream::Plain(socket),
        Some(config) => match ServerConnection::new(config) {
            Ok(session) => Stream::Server(Box::new(StreamOwned::new(session, socket))),
            Err(_) => return,
        },
    };
    let mut reader = Reader { tap: Some(bytes), ..Reader::new(stream) };
    let then = exchange_all(&mut reader, &journal, number, state);
    if then == Then::Reset {
        reset(reader.stream.socket());
    }
    let end = reader.end;
    let mut journal_now = journal.0.lock().unwrap();
    journal_now.connections[number].end = end.or(Some(End::Fin));
    journal.1.notify_all();
    drop(journal_now);
    // The clone kept for `Origin::reset` would hold the connection open.
    if then != Then::Reset {
        let _ = reader.stream.socket().shutdown(Shutdown::Write);
        // What still arrives is noted too, and the gateway sees an end in order instead of a reset.
        let until = Instant::now() + Duration::from_secs(1);
        while reader.fill(until).is_ok() {}
    }
    let local = reader.stream.socket().peer_addr().ok();
    state.lock().unwrap().sockets.retain(|it| it.peer_addr().ok() != local);
}

fn exchange_all(
    reader: &mut Reader,
    journal: &Arc<(Mutex<Journal>, Condvar)>,
    number: usize,
    state: &Mutex<State>,
) -> Then {
    loop {
        let head = match reader.take_head(Instant::now() + PATIENCE) {
            Ok(head) => head,
            Err(Broken::Ended(_)) => return Then::Close,
            Err(_) => return Then::Reset,
        };
        let request = Request::new(head, number);
        let nth = {
            let mut now = journal.0.lock().unwrap();
            now.requests.push(request.clone());
            journal.1.notify_all();
            now.requests.len() - 1
        };
        let handler = state.lock().unwrap().handler.clone();
        let mut exchange = Exchange { reader, request, nth, journal, read: false };
        let then = handler(&mut exchange);
        if then != Then::Keep {
            return then;
        }
        if !exchange.read_body() {
            return Then::Close;
        }
    }
}

/// Something that one thread waits for and another says, any number of times.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Uses up one opening; whether it came in time.
    pub(crate) fn pass(&self, patience: Duration) -> bool {
        let opened = self.0.0.lock().unwrap();
        let (mut opened, result) = self.0.1.wait_timeout_while(opened, patience, |it| *it == 0).unwrap();
        if result.timed_out() {
            return false;
        }
        *opened -= 1;
        true
    }
}

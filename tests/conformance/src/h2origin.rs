//! The endpoint that speaks HTTP/2 without TLS.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::h2::{H2, Message, PREFACE};
use crate::origin::Then;
use crate::stream::{Reader, Stream, reset};

type Handler = Arc<dyn Fn(&mut H2, u32) -> Then + Send + Sync>;

#[derive(Default)]
struct Journal {
    messages: Vec<Message>,
    connections: usize,
    /// What came as a connection's first bytes where it was not HTTP/2.
    strangers: Vec<Vec<u8>>,
}

struct State {
    journal: Arc<Mutex<Journal>>,
    handler: Handler,
    sockets: Vec<TcpStream>,
}

/// A listening endpoint; it lives as long as the process.
pub(crate) struct H2Origin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl H2Origin {
    pub(crate) fn start() -> H2Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binding an endpoint's port");
        let address = listener.local_addr().expect("an endpoint's address");
        let state = State { journal: Arc::default(), handler: Arc::new(usual), sockets: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || serve(socket, &state));
            }
        });
        H2Origin { address, state }
    }

    pub(crate) fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        state.journal = Arc::default();
        state.handler = Arc::new(usual);
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How to answer a stream whose head is there.
    pub(crate) fn answers(&self, handler: impl Fn(&mut H2, u32) -> Then + Send + Sync + 'static) {
        self.state.lock().unwrap().handler = Arc::new(handler);
    }

    fn journal<T>(&self, read: impl FnOnce(&Journal) -> T) -> T {
        let journal = self.state.lock().unwrap().journal.clone();
        let journal = journal.lock().unwrap();
        read(&journal)
    }

    /// What arrived, each as it stood when it was answered.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.journal(|it| it.messages.clone())
    }

    /// The last of them; an empty one if there is none.
    pub(crate) fn last(&self) -> Message {
        self.messages().pop().unwrap_or_default()
    }

    pub(crate) fn connections(&self) -> usize {
        self.journal(|it| it.connections)
    }

    /// What came that was not HTTP/2.
    pub(crate) fn strangers(&self) -> Vec<Vec<u8>> {
        self.journal(|it| it.strangers.clone())
    }
}

/// Reads the whole request, and answers 200 with two bytes.
pub(crate) fn usual(h2: &mut H2, stream: u32) -> Then {
    h2.answer(stream);
    h2.headers(stream, &[(":status", "200"), ("content-type", "text/plain")], false);
    h2.data(stream, "ok", true);
    Then::Keep
}

fn serve(socket: TcpStream, state: &Mutex<State>) {
    let _ = socket.set_nodelay(true);
    let journal = {
        let mut state = state.lock().unwrap();
        state.sockets.extend(socket.try_clone());
        state.journal.clone()
    };
    journal.lock().unwrap().connections += 1;
    let mut h2 = H2::new(Reader::new(Stream::Plain(socket)));
    h2.patience = Duration::from_secs(12);
    let until = Instant::now() + h2.patience;
    let greeting = h2.reader.take(PREFACE.len(), until);
    if greeting.as_deref() != Ok(PREFACE) {
        let seen = greeting.unwrap_or_else(|_| h2.reader.buffer.clone());
        journal.lock().unwrap().strangers.extend((!seen.is_empty()).then_some(seen));
        return;
    }
    // Extended CONNECT is welcome.
    h2.set(&[(8, 1)]);
    let then = loop {
        let Some(stream) = h2.opened.pop_front() else {
            match h2.step(Instant::now() + h2.patience) {
                Ok(_) => continue,
                Err(_) => break Then::Close,
            }
        };
        let handler = state.lock().unwrap().handler.clone();
        let nth = {
            let mut journal = journal.lock().unwrap();
            journal.messages.push(h2.message(stream).clone());
            journal.messages.len() - 1
        };
        let then = handler(&mut h2, stream);
        journal.lock().unwrap().messages[nth] = h2.message(stream).clone();
        if then != Then::Keep {
            break then;
        }
    };
    if then == Then::Reset {
        reset(h2.reader.stream.socket());
    } else {
        let _ = h2.reader.stream.socket().shutdown(Shutdown::Both);
    }
    let local = h2.reader.stream.socket().peer_addr().ok();
    state.lock().unwrap().sockets.retain(|it| it.peer_addr().ok() != local);
}

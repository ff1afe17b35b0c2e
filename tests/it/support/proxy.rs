//! A TCP proxy whose connections a test can cut, and whose port it can close and open.
//!
//! Threads and blocking sockets: it must not depend on the runtime of the test that uses it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// New connections are closed at once.
    refusing: AtomicBool,
    ended: AtomicBool,
    attempts: AtomicUsize,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (refusing, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared =
            Arc::new(Shared { target, refusing, ended, attempts: AtomicUsize::new(0), sockets: Mutex::default() });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    accepting.attempts.fetch_add(1, SeqCst);
                    accepting.forward(client);
                }
            }
        });
        Proxy { address, shared }
    }

    /// How many connections were ever asked for.
    pub(crate) fn attempts(&self) -> usize {
        self.shared.attempts.load(SeqCst)
    }

    /// Ends what is connected now.
    pub(crate) fn cut(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Cuts, and lets nobody in until [`Self::open`].
    pub(crate) fn close(&self) {
        self.shared.refusing.store(true, SeqCst);
        self.cut();
    }

    pub(crate) fn open(&self) {
        self.shared.refusing.store(false, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.cut();
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn forward(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let mut sockets = self.sockets.lock().unwrap();
        // Asked under the lock: `close` sets it before it takes the lock to cut.
        if self.refusing.load(SeqCst) {
            return;
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            let _ = from.set_nodelay(true);
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            sockets.push(from.try_clone().unwrap());
            thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
    }
}

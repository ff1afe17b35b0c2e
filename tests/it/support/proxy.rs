//! A TCP proxy whose connections a test can cut, and whose port it can close and open.
//!
//! Threads and blocking sockets: it must not depend on the runtime of the test that uses it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// New connections are closed at once.
    refusing: AtomicBool,
    /// Nothing that is sent arrives.
    swallowing: AtomicBool,
    /// Bytes that came from the target.
    received: AtomicU64,
    ended: AtomicBool,
    attempts: AtomicUsize,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            refusing: AtomicBool::new(false),
            swallowing: AtomicBool::new(false),
            received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            attempts: AtomicUsize::new(0),
            sockets: Mutex::default(),
        });
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

    /// Takes everybody, and lets nothing through until [`Self::open`].
    pub(crate) fn swallow(&self) {
        self.shared.swallowing.store(true, SeqCst);
    }

    pub(crate) fn open(&self) {
        self.shared.refusing.store(false, SeqCst);
        self.shared.swallowing.store(false, SeqCst);
    }

    /// How many bytes have come from the target.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(SeqCst)
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
    fn forward(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let mut sockets = self.sockets.lock().unwrap();
        // Asked under the lock: `close` sets it before it takes the lock to cut.
        if self.refusing.load(SeqCst) {
            return;
        }
        for (from, to, counts) in [(&client, &server, false), (&server, &client, true)] {
            let _ = from.set_nodelay(true);
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            sockets.push(from.try_clone().unwrap());
            let shared = self.clone();
            thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    while shared.swallowing.load(SeqCst) && !shared.ended.load(SeqCst) {
                        thread::sleep(Duration::from_millis(2));
                    }
                    if counts {
                        shared.received.fetch_add(length as u64, SeqCst);
                    }
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

//! A listener as all its sockets share it: what is spoken there, and who may connect.
//!
//! Counts are taken when a connection is accepted and given back when it ends; nothing here is on the way of a request.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Limits, Protocol, Protocols};
use crate::tls::Acceptor;

/// The clients are counted in so many parts, so that workers that accept at the same time seldom meet.
const PARTS: usize = 16;

/// How often at most is told that connections were refused: whoever opens too many opens thousands.
const TELL: Duration = Duration::from_secs(1);

/// A listener.
pub struct Listener {
    /// What the configuration calls it; with port 0 as it is written.
    pub configured: SocketAddr,
    /// Where it is.
    pub bound: SocketAddr,
    /// What is spoken there.
    pub protocols: Protocols,
    /// With TLS.
    pub tls: Option<Arc<Acceptor>>,
    open: AtomicU32,
    clients: [Mutex<HashMap<Client, u32, Keys>>; PARTS],
    keys: Keys,
    /// Connections that were closed at once because there were too many.
    pub refused: AtomicU64,
    /// Handshakes that came to nothing.
    pub failed_handshakes: AtomicU64,
    told: Mutex<Told>,
}

/// Who counts as one client: an IPv4 address, or the network of 64 bits that one customer has of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    V4(u32),
    V6(u64),
}

impl Client {
    fn of(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V4(it) => Client::V4(it.to_bits()),
            IpAddr::V6(it) => Client::V6((it.to_bits() >> 64) as u64),
        }
    }
}

/// What clients are hashed with: secret, so that nobody can choose addresses that meet, and a tenth of what the standard
/// library's hash costs, of which every connection needs four.
#[derive(Clone, Copy)]
struct Keys([u64; 2]);

impl Keys {
    fn new() -> Keys {
        let random = RandomState::new();
        // Odd, so that a product loses nothing.
        Keys([random.hash_one(0), random.hash_one(1) | 1])
    }
}

impl BuildHasher for Keys {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: self.0[0], factor: self.0[1] }
    }
}

struct Folding {
    state: u64,
    factor: u64,
}

impl Hasher for Folding {
    fn finish(&self) -> u64 {
        self.state
    }

    /// Both halves of a product, as in wyhash.
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.state ^ number).wrapping_mul(u128::from(self.factor));
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }
}

impl std::hash::Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Client::V4(address) => state.write_u64((*address).into()),
            // Twice, so that no network hashes as an address does.
            Client::V6(network) => (0..2).for_each(|_| state.write_u64(*network)),
        }
    }
}

struct Told {
    at: Option<Instant>,
    since: u64,
}

/// The place of one connection; it is given back when this is dropped.
pub struct Place {
    listener: Arc<Listener>,
    client: Client,
}

impl Listener {
    /// A listener nobody is connected to.
    pub fn new(
        configured: SocketAddr,
        bound: SocketAddr,
        protocols: Protocols,
        tls: Option<Arc<Acceptor>>,
    ) -> Listener {
        let keys = Keys::new();
        Listener {
            configured,
            bound,
            protocols,
            tls,
            open: AtomicU32::new(0),
            clients: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(keys))),
            keys,
            refused: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
            told: Mutex::new(Told { at: None, since: 0 }),
        }
    }

    /// What clients begin with, if that is certain: on a listener without TLS the first bytes tell HTTP/2 from HTTP/1
    /// where both are spoken (RFC 9113, 3.3).
    pub fn only_protocol(&self) -> Option<Protocol> {
        let mut all = self.protocols.iter();
        all.next().filter(|_| all.next().is_none())
    }

    /// Open connections.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// A place for a connection of this client. None: there are as many as there may be, which is counted and, now
    /// and then, logged.
    pub fn admit(self: &Arc<Self>, client: IpAddr, limits: &Limits) -> Option<Place> {
        let free = |open: u32| (open < limits.connections).then_some(open + 1);
        if self.open.fetch_update(Relaxed, Relaxed, free).is_err() {
            self.refuse(client, "limits.connections");
            return None;
        }
        let place = Client::of(client);
        let admitted = {
            let mut clients = self.part(place).lock().unwrap_or_else(PoisonError::into_inner);
            let count = clients.entry(place).or_default();
            let free = *count < limits.connections_per_client;
            *count += u32::from(free);
            free
        };
        if !admitted {
            self.open.fetch_sub(1, Relaxed);
            self.refuse(client, "limits.connections_per_client");
            return None;
        }
        Some(Place { listener: self.clone(), client: place })
    }

    fn part(&self, client: Client) -> &Mutex<HashMap<Client, u32, Keys>> {
        // Not by the bits that the map in it goes by.
        &self.clients[(self.keys.hash_one(client) >> 32) as usize % PARTS]
    }

    fn refuse(&self, client: IpAddr, limit: &str) {
        self.refused.fetch_add(1, Relaxed);
        // Whoever finds another telling has nothing to add.
        let Ok(mut told) = self.told.try_lock() else { return };
        if told.at.is_some_and(|at| at.elapsed() < TELL) {
            return;
        }
        let refused = self.refused.load(Relaxed);
        let more = refused - told.since;
        *told = Told { at: Some(Instant::now()), since: refused };
        tracing::warn!(listener = %self.bound, last = %client, limit, refused = more, "connections refused");
    }
}

impl Place {
    /// Where it is.
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.listener.part(self.client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
        drop(clients);
        self.listener.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Arc<Listener> {
        let address = "127.0.0.1:0".parse().unwrap();
        Arc::new(Listener::new(address, address, Protocols::default(), None))
    }

    fn limits(connections: u32, connections_per_client: u32) -> Limits {
        Limits { connections, connections_per_client, ..Limits::default() }
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let (listener, limits) = (listener(), limits(3, 2));
        let first = listener.admit(client("10.0.0.1"), &limits).unwrap();
        let _second = listener.admit(client("::ffff:10.0.0.1"), &limits).unwrap();
        assert!(listener.admit(client("10.0.0.1"), &limits).is_none(), "two of one client");
        assert_eq!(listener.open(), 2);
        let _third = listener.admit(client("10.0.0.2"), &limits).unwrap();
        assert!(listener.admit(client("10.0.0.3"), &limits).is_none(), "three of all");
        assert_eq!((listener.open(), listener.refused.load(Relaxed)), (3, 2));
        drop(first);
        let lower = Limits { connections: 2, ..limits };
        assert!(listener.admit(client("10.0.0.1"), &lower).is_none(), "the limit is another now");
        assert!(listener.admit(client("10.0.0.1"), &limits).is_some());
    }

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let (listener, limits) = (listener(), limits(10, 1));
        let _first = listener.admit(client("2001:db8::1"), &limits).unwrap();
        assert!(listener.admit(client("2001:db8::ffff:1:2:3"), &limits).is_none());
        assert!(listener.admit(client("2001:db8:0:1::1"), &limits).is_some());
    }

    #[test]
    fn clients_are_spread_over_the_parts() {
        let listener = listener();
        let mut parts = [0; PARTS];
        for nth in 0..1600u32 {
            let hash = listener.keys.hash_one(Client::V4(0x0a00_0000 + nth));
            parts[(hash >> 32) as usize % PARTS] += 1;
        }
        assert!(parts.iter().all(|it| (20..400).contains(it)), "{parts:?}");
    }

    #[test]
    fn nothing_is_kept_of_clients_that_are_gone() {
        let (listener, limits) = (listener(), limits(10, 1));
        for last in 0..=255 {
            drop(listener.admit(IpAddr::from([10, 0, 0, last]), &limits));
        }
        assert_eq!(listener.open(), 0);
        assert!(listener.clients.iter().all(|it| it.lock().unwrap().is_empty()));
    }
}

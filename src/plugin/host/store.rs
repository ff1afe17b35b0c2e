//! What a binding remembers by name, for all workers.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use std::collections::HashMap;

/// Entries of one binding: at 100 bytes of bookkeeping, some 10 MiB.
const ENTRIES: usize = 100_000;

/// Bytes of names and values of one binding.
const BYTES: usize = 16 << 20;

/// Bytes of one value.
const VALUE: usize = 64 << 10;

/// Parts with a lock of their own, so that workers seldom meet.
const SHARDS: usize = 16;

/// What has run out is looked for when a shard has doubled since the last time; below this it is not worth it.
const SWEEP: usize = 256;

/// Numbers and bytes by name, each with an end. Most bindings have none, so there is nothing until the first.
#[derive(Debug, Default)]
pub(crate) struct Store {
    shards: OnceLock<Box<Shards>>,
    room: Room,
}

#[derive(Debug, Default)]
struct Shards {
    // Names may be a stranger's choice: with the standard hash, whose seed nobody knows.
    hash: RandomState,
    all: [Mutex<Shard>; SHARDS],
}

/// What is taken of the binding's share.
#[derive(Debug, Default)]
struct Room {
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Name, Entry>,
    swept: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Name {
    Number(Box<str>),
    Bytes(Box<str>),
}

impl Name {
    fn len(&self) -> usize {
        let (Name::Number(name) | Name::Bytes(name)) = self;
        name.len()
    }
}

#[derive(Debug)]
struct Entry {
    value: Value,
    /// None: without end.
    until: Option<Instant>,
}

#[derive(Debug)]
enum Value {
    Number(u64),
    Bytes(Box<[u8]>),
}

impl Entry {
    fn lasts(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn size(&self) -> usize {
        match &self.value {
            Value::Number(_) => 8,
            Value::Bytes(bytes) => bytes.len(),
        }
    }
}

impl Room {
    /// Takes this from the share; false: there is not so much.
    fn take(&self, entries: usize, bytes: usize) -> bool {
        let fits =
            self.entries.fetch_add(entries, Relaxed) + entries <= ENTRIES && self.bytes.load(Relaxed) + bytes <= BYTES;
        if fits {
            self.bytes.fetch_add(bytes, Relaxed);
        } else {
            self.entries.fetch_sub(entries, Relaxed);
        }
        fits
    }

    fn give(&self, entries: usize, bytes: usize) {
        self.entries.fetch_sub(entries, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

impl Shard {
    fn get(&self, name: &Name, now: Instant) -> Option<&Entry> {
        self.entries.get(name).filter(|entry| entry.lasts(now))
    }

    fn put(&mut self, name: Name, entry: Entry, now: Instant, room: &Room) -> bool {
        if self.entries.len() >= (2 * self.swept).max(SWEEP) {
            self.sweep(now, room);
        }
        let fits = |shard: &Shard| match shard.entries.get(&name) {
            Some(before) if before.size() >= entry.size() => {
                room.give(0, before.size() - entry.size());
                true
            }
            Some(before) => room.take(0, entry.size() - before.size()),
            None => room.take(1, name.len() + entry.size()),
        };
        if !fits(self) {
            self.sweep(now, room);
            if !fits(self) {
                return false;
            }
        }
        self.entries.insert(name, entry);
        true
    }

    fn remove(&mut self, name: &Name, room: &Room) {
        if let Some(entry) = self.entries.remove(name) {
            room.give(1, name.len() + entry.size());
        }
    }

    /// Lets go of what has run out.
    fn sweep(&mut self, now: Instant, room: &Room) {
        self.entries.retain(|name, entry| {
            let lasts = entry.lasts(now);
            if !lasts {
                room.give(1, name.len() + entry.size());
            }
            lasts
        });
        self.swept = self.entries.len();
    }
}

impl Store {
    fn shard(&self, name: &Name) -> MutexGuard<'_, Shard> {
        let shards = self.shards.get_or_init(Box::default);
        let place = shards.hash.hash_one(name) as usize % SHARDS;
        shards.all[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of this name; zero if there is none.
    pub(super) fn number(&self, name: &str, now: Instant) -> u64 {
        let name = Name::Number(name.into());
        match self.shard(&name).get(&name, now) {
            Some(Entry { value: Value::Number(number), .. }) => *number,
            _ => 0,
        }
    }

    /// Replaces a number that is as expected; what it was, and whether it was replaced.
    pub(super) fn exchange(
        &self,
        name: &str,
        (expected, new): (u64, u64),
        lasts: Option<Duration>,
        now: Instant,
    ) -> (u64, bool) {
        let name = Name::Number(name.into());
        let mut shard = self.shard(&name);
        let before = match shard.get(&name, now) {
            Some(Entry { value: Value::Number(number), .. }) => *number,
            _ => 0,
        };
        if before != expected {
            return (before, false);
        }
        let entry = Entry { value: Value::Number(new), until: lasts.map(|lasts| now + lasts) };
        (before, shard.put(name, entry, now, &self.room))
    }

    /// The bytes of this name.
    pub(super) fn read(&self, name: &str, now: Instant) -> Option<Vec<u8>> {
        let name = Name::Bytes(name.into());
        match self.shard(&name).get(&name, now) {
            Some(Entry { value: Value::Bytes(bytes), .. }) => Some(bytes.to_vec()),
            _ => None,
        }
    }

    /// Replaces them; false: they are too long, or there is no room.
    pub(super) fn write(&self, name: &str, value: &[u8], lasts: Option<Duration>, now: Instant) -> bool {
        if value.len() > VALUE {
            return false;
        }
        let name = Name::Bytes(name.into());
        let entry = Entry { value: Value::Bytes(value.into()), until: lasts.map(|lasts| now + lasts) };
        self.shard(&name).put(name, entry, now, &self.room)
    }

    /// Forgets number and bytes of this name.
    pub(super) fn remove(&self, name: &str) {
        for name in [Name::Number(name.into()), Name::Bytes(name.into())] {
            self.shard(&name).remove(&name, &self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn a_number_is_replaced_if_it_is_as_expected_and_ends_with_its_time() {
        let (store, now) = (Store::default(), Instant::now());
        let exchange = |numbers, now| store.exchange("a", numbers, SECOND, now);
        assert_eq!(exchange((0, 5), now), (0, true));
        assert_eq!(exchange((0, 6), now), (5, false));
        assert_eq!(exchange((5, 6), now + Duration::from_millis(900)), (5, true));
        assert_eq!(store.number("a", now + Duration::from_millis(1800)), 6, "it lasts from the last change on");
        assert_eq!(store.number("a", now + Duration::from_millis(1900)), 0);
        assert_eq!(store.number("b", now), 0);
    }

    #[test]
    fn bytes_and_numbers_do_not_share_names() {
        let (store, now) = (Store::default(), Instant::now());
        assert!(store.write("a", b"text", None, now));
        assert_eq!(store.number("a", now), 0);
        assert_eq!(store.exchange("a", (0, 1), None, now), (0, true));
        assert_eq!(store.read("a", now).unwrap(), b"text");
        store.remove("a");
        assert_eq!((store.read("a", now), store.number("a", now)), (None, 0));
        assert_eq!((store.room.entries.load(Relaxed), store.room.bytes.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_binding_has_so_much_room_and_gets_back_what_has_run_out() {
        let (store, now) = (Store::default(), Instant::now());
        assert!(!store.write("a", &[0; VALUE + 1], None, now));
        let fill = |now| (0..).take_while(|it: &usize| store.write(&it.to_string(), &[0; VALUE], SECOND, now)).count();
        let taken = fill(now);
        assert_eq!(taken, BYTES / (VALUE + 3), "names count too");
        assert!(store.write("0", &[1; 10], None, now), "what gets shorter always fits");
        assert!(store.write("1", &[1; VALUE], SECOND, now), "so does what stays as long");
        // Each shard finds out for itself; what has been put in once more is new.
        let later = now + Duration::from_secs(2);
        assert!((0..SHARDS * 4).filter(|it| store.write(&format!("late {it}"), &[0; 100], None, later)).count() > 0);
        for name in 0..taken {
            store.shard(&Name::Bytes(name.to_string().into())).sweep(later, &store.room);
        }
        assert_eq!(store.read("2", later), None);
        assert!(store.room.bytes.load(Relaxed) < 100 * 100, "{:?}", store.room);
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let (store, now) = (Store::default(), Instant::now());
        let taken = (0..2 * ENTRIES).filter(|it| store.exchange(&it.to_string(), (0, 1), None, now).1).count();
        assert_eq!(taken, ENTRIES);
    }
}

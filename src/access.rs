//! The access log's way out: from the buffers of the workers to a thread that writes them, so that no request waits for a
//! disk. What a line says is in [`crate::proxy::access`].

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::config::access::{AccessLog, Format, Target};

/// Bytes of lines that a worker gathers before it hands them on; what there is after a second goes as well. Of a
/// file that grows by more at a time the kernel takes the page cache in larger pieces: with 32 KiB the thread took twice as long.
const GATHERED: usize = 256 << 10;

/// Buffers that may wait for the disk. If it is slower than that, lines are dropped and counted: the log is no reason to
/// answer slowly, or to fill the memory.
const WAITING: usize = 32;

/// Buffers that are kept when they have been written, for all workers. New memory of their size would come from the system,
/// page by page, each time.
const KEPT: usize = 2;

/// At most one complaint about the file in this time.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Where the workers' lines go.
#[derive(Debug)]
pub struct Log {
    orders: SyncSender<Order>,
    format: Format,
    dropped: AtomicU64,
    written: Arc<Written>,
}

/// Buffers that have been written, and are empty.
type Written = Mutex<Vec<Vec<u8>>>;

enum Order {
    Write(Vec<u8>),
    /// Opens the file anew.
    Reopen,
}

impl Log {
    /// Opens it, and starts the thread that writes. That ends when nobody holds the log any more and all is written.
    ///
    /// # Errors
    /// If the file cannot be opened, or the system has no threads left.
    pub fn start(config: &AccessLog) -> Result<(Arc<Log>, JoinHandle<()>)> {
        let (orders, receiver) = sync_channel(WAITING);
        let log = Log { orders, format: config.format, dropped: AtomicU64::new(0), written: Arc::default() };
        let (target, sink, written) = (config.path.clone(), open(&config.path)?, log.written.clone());
        let write = move || write(&receiver, &target, sink, &written);
        let thread = thread::Builder::new().name("access-log".into()).spawn(write);
        let thread = thread.context("starting the thread of the access log")?;
        Ok((Arc::new(log), thread))
    }

    /// Lines that were dropped because writing took too long.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Has the file opened anew.
    pub fn reopen(&self) {
        // If there is no room it waits for a slow disk, and so do we: this is the control side.
        let _ = self.orders.send(Order::Reopen);
    }

    fn buffer(&self) -> Vec<u8> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).pop();
        written.unwrap_or_else(|| Vec::with_capacity(GATHERED + 1024))
    }

    fn put(&self, lines: Vec<u8>) {
        if let Err(full) = self.orders.try_send(Order::Write(lines)) {
            let (std::sync::mpsc::TrySendError::Full(order) | std::sync::mpsc::TrySendError::Disconnected(order)) =
                full;
            if let Order::Write(lines) = order {
                self.dropped.fetch_add(memchr::memchr_iter(b'\n', &lines).count() as u64, Relaxed);
            }
        }
    }
}

fn open(target: &Target) -> Result<Option<File>> {
    let Target::File(path) = target else { return Ok(None) };
    let file = append(path).with_context(|| format!("opening the access log {}", path.display()))?;
    Ok(Some(file))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Writes what comes, to the end.
fn write(orders: &Receiver<Order>, target: &Target, mut file: Option<File>, written: &Written) {
    let mut complained: Option<Instant> = None;
    while let Ok(order) = orders.recv() {
        let outcome = match (&order, target) {
            (Order::Write(lines), Target::Stdout) => io::stdout().write_all(lines).and_then(|()| io::stdout().flush()),
            (Order::Write(lines), Target::Stderr) => io::stderr().write_all(lines),
            (Order::Write(lines), Target::File(_)) => file.as_mut().map_or(Ok(()), |file| file.write_all(lines)),
            (Order::Reopen, Target::File(path)) => append(path).map(|new| file = Some(new)),
            (Order::Reopen, _) => Ok(()),
        };
        if let Order::Write(mut lines) = order {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            if written.len() < KEPT {
                lines.clear();
                written.push(lines);
            }
        }
        if let Err(error) = outcome
            && complained.is_none_or(|at| at.elapsed() >= COMPLAINTS)
        {
            complained = Some(Instant::now());
            tracing::error!(%error, ?target, "the access log cannot be written, lines are lost");
        }
    }
}

/// A worker's lines.
pub struct Journal {
    log: Arc<Log>,
    lines: RefCell<Vec<u8>>,
    clock: RefCell<Wall>,
    /// The buffers of lines that were written, for new ones.
    spare: RefCell<Vec<Vec<u8>>>,
}

/// Buffers of lines that are kept.
const SPARE: usize = 64;

impl Journal {
    /// Of a worker that has logged nothing.
    pub fn new(log: Arc<Log>) -> Rc<Journal> {
        let (lines, clock) = (RefCell::new(log.buffer()), RefCell::new(Wall::now()));
        Rc::new(Journal { log, lines, clock, spare: RefCell::default() })
    }

    /// What lines look like.
    pub fn format(&self) -> Format {
        self.log.format
    }

    /// An empty buffer for a line.
    pub fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(512))
    }

    /// Takes a line, which ends with a line feed, and its buffer.
    pub fn put(&self, mut line: Vec<u8>) {
        let mut lines = self.lines.borrow_mut();
        lines.extend_from_slice(&line);
        if lines.len() >= GATHERED {
            self.log.put(std::mem::replace(&mut *lines, self.log.buffer()));
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE && line.capacity() <= 4096 {
            line.clear();
            spare.push(line);
        }
    }

    /// Hands on what there is. To be called about once a second, and at the end.
    pub fn flush(&self) {
        *self.clock.borrow_mut() = Wall::now();
        let mut lines = self.lines.borrow_mut();
        if !lines.is_empty() {
            self.log.put(std::mem::replace(&mut *lines, self.log.buffer()));
        }
    }

    /// Writes when that was, as RFC 3339 has it, with milliseconds.
    pub fn time(&self, at: Instant, out: &mut Vec<u8>) {
        self.clock.borrow_mut().write(at, out);
    }
}

/// The time of day, for moments that the monotonic clock has measured: so nobody asks the system for it, and the text is
/// written once a millisecond.
struct Wall {
    instant: Instant,
    time: Duration,
    /// The millisecond, since 1970, of which the text is.
    millis: u64,
    text: [u8; STAMP],
}

/// Bytes of a time as it is written, until the year 10,000.
const STAMP: usize = "2001-09-09T01:46:39.950Z".len();

impl Wall {
    fn now() -> Wall {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Wall::of(Instant::now(), time)
    }

    /// At `instant` it was `time` since 1970.
    fn of(instant: Instant, time: Duration) -> Wall {
        Wall { instant, time, millis: u64::MAX, text: [b'-'; STAMP] }
    }

    fn write(&mut self, at: Instant, out: &mut Vec<u8>) {
        let time = match at.checked_duration_since(self.instant) {
            Some(since) => self.time + since,
            None => self.time.saturating_sub(self.instant - at),
        };
        let millis = time.as_secs() * 1000 + u64::from(time.subsec_millis());
        if millis != self.millis {
            self.millis = millis;
            let text = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + time).to_string();
            self.text = text.as_bytes().try_into().unwrap_or([b'-'; STAMP]);
        }
        out.extend_from_slice(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_their_time_of_day() {
        let instant = Instant::now();
        let mut wall = Wall::of(instant, Duration::from_millis(999_999_999_950));
        let mut at = |instant| {
            let mut out = Vec::new();
            wall.write(instant, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at(instant), "2001-09-09T01:46:39.950Z");
        assert_eq!(at(instant + Duration::from_millis(60)), "2001-09-09T01:46:40.010Z");
        assert_eq!(at(instant - Duration::from_millis(951)), "2001-09-09T01:46:38.999Z");
    }

    #[test]
    fn what_the_disk_is_too_slow_for_is_counted() {
        let (orders, receiver) = sync_channel(1);
        let written = Arc::default();
        let log = Arc::new(Log { orders, format: Format::Text, dropped: AtomicU64::new(0), written });
        let journal = Journal::new(log.clone());
        for _ in 0..3 {
            journal.put(b"a\n".to_vec());
            journal.put(b"b\n".to_vec());
            journal.flush();
        }
        assert_eq!(log.dropped(), 4);
        assert!(matches!(receiver.recv(), Ok(Order::Write(lines)) if lines == b"a\nb\n"));
    }

    #[test]
    fn a_file_is_opened_anew() {
        let dir = tempfile::TempDir::new().unwrap();
        let (path, renamed) = (dir.path().join("a.log"), dir.path().join("b.log"));
        let config = AccessLog { path: Target::File(path.clone()), format: Format::Text };
        let (log, thread) = Log::start(&config).unwrap();
        let journal = Journal::new(log.clone());
        let write = |text: &[u8]| {
            journal.put(text.to_vec());
            journal.flush();
        };
        write(b"one\n");
        // In the order of the orders: what was handed on before goes where it was meant to go.
        std::fs::rename(&path, &renamed).unwrap();
        log.reopen();
        write(b"two\n");
        drop((journal, log));
        thread.join().unwrap();
        assert_eq!(std::fs::read_to_string(renamed).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
        let config = AccessLog { path: Target::File(dir.path().join("none/a.log")), format: Format::Text };
        assert!(format!("{:#}", Log::start(&config).unwrap_err()).contains("none/a.log"));
    }
}

//! Waiting for many sockets, level-triggered: who reads less than there is hears of the rest again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// What is to be heard of a socket; its end is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Nothing but its end.
    Nothing,
    /// That there is something to read.
    Read,
    /// That it can be written to.
    Write,
    /// Both.
    Both,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Nothing => EventFlags::empty(),
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// What it was added under.
    pub(crate) token: usize,
    /// There is something to read, or it has ended.
    pub(crate) read: bool,
    /// It can be written to.
    pub(crate) write: bool,
}

/// A set of sockets to wait for.
pub(crate) struct Poll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll { fd: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    pub(crate) fn add(&self, socket: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, socket, EventData::new_u64(token as u64), interest.flags())?)
    }

    pub(crate) fn change(&self, socket: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, socket, EventData::new_u64(token as u64), interest.flags())?)
    }

    /// Waits until something happens, or for `limit`, and puts it into `ready`, which is emptied first.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>, limit: Option<Duration>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit = limit.map(|it| Timespec { tv_sec: it.as_secs() as i64, tv_nsec: it.subsec_nanos().into() });
        match epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut self.events), limit.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        let ended = EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        ready.extend(self.events.iter().map(|it| {
            let flags = it.flags;
            Ready {
                token: it.data.u64() as usize,
                read: flags.intersects(EventFlags::IN | ended),
                write: flags.intersects(EventFlags::OUT | ended),
            }
        }));
        Ok(())
    }
}

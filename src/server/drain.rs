//! The end of a worker: its connections are told, finish what they are doing, and are counted out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use rustc_hash::FxHashMap;

/// The connections of one worker, and whether they are to end.
#[derive(Default)]
pub struct Drain {
    /// Since when they are to end.
    ending: Cell<Option<Instant>>,
    next: Cell<u64>,
    /// A waker for each connection: idle ones must be woken to notice.
    open: RefCell<FxHashMap<u64, Option<Waker>>>,
    empty: RefCell<Option<Waker>>,
}

/// An open connection; it is counted out when this is dropped.
pub struct Open {
    drain: Rc<Drain>,
    number: u64,
    registered: bool,
}

impl Drain {
    /// Counts a connection in.
    pub fn open(self: &Rc<Self>) -> Open {
        let number = self.next.replace(self.next.get() + 1);
        self.open.borrow_mut().insert(number, None);
        Open { drain: self.clone(), number, registered: false }
    }

    /// Tells all connections to end.
    pub fn start(&self) {
        self.ending.set(Some(Instant::now()));
        let wakers: Vec<Waker> = self.open.borrow_mut().values_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Connections that are open.
    pub fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// Completes when no connection is open.
    pub async fn finished(&self) {
        poll_fn(|context| {
            if self.open.borrow().is_empty() {
                return Poll::Ready(());
            }
            *self.empty.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Open {
    /// Where it is counted; for tasks of the connection that must be told on their own.
    pub fn drain(&self) -> &Rc<Drain> {
        &self.drain
    }

    /// Since when the connection is to end; none: it is not. To be asked whenever it is polled: the first time leaves the
    /// waker, which for a task is always the same one.
    pub fn ending(&mut self, waker: &Waker) -> Option<Instant> {
        if !self.registered {
            self.registered = true;
            self.drain.open.borrow_mut().insert(self.number, Some(waker.clone()));
        }
        self.drain.ending.get()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.drain.open.borrow_mut();
        open.remove(&self.number);
        if open.is_empty()
            && let Some(waker) = self.drain.empty.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

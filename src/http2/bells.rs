//! How the streams of a connection say that they can go on: each has a bell, and all bells ring for the connection's task.
//!
//! So a request needs no task of its own, and all that is ready at the same time is done in one turn and written at once.

use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Where the bells of a connection ring. A mutex, because wakers may be sent anywhere; in fact nobody else ever has it.
#[derive(Debug, Default)]
pub struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rung: Vec<u32>,
    task: Option<Waker>,
    /// The task looks no more by itself.
    asleep: bool,
}

/// One stream's bell.
#[derive(Debug)]
pub struct Bell {
    slot: u32,
    rung: AtomicBool,
    board: Arc<Board>,
}

impl Board {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The task is awake, and looks by itself.
    pub fn wake_up(&self, waker: &Waker) {
        self.with(|state| {
            state.asleep = false;
            if !state.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
                state.task = Some(waker.clone());
            }
        });
    }

    /// The task looks no more until it is woken. Says whether it may: no bell has rung meanwhile.
    pub fn fall_asleep(&self) -> bool {
        self.with(|state| {
            state.asleep = state.rung.is_empty();
            state.asleep
        })
    }

    /// Whose bells have rung.
    pub fn rung(&self, into: &mut Vec<u32>) {
        self.with(|state| into.append(&mut state.rung));
    }

    /// Lets go of what only busy connections need.
    pub fn rest(&self) {
        self.with(|state| state.rung = Vec::new());
    }
}

impl Bell {
    /// A bell for this slot.
    pub fn new(slot: u32, board: &Arc<Board>) -> Arc<Bell> {
        Arc::new(Bell { slot, rung: AtomicBool::new(false), board: board.clone() })
    }

    /// It is being answered, and may ring again.
    pub fn answer(&self) {
        self.rung.swap(false, AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, AcqRel) {
            return;
        }
        self.board.with(|state| {
            state.rung.push(self.slot);
            if std::mem::take(&mut state.asleep) {
                state.task.iter().for_each(Waker::wake_by_ref);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_task_is_woken_once_and_only_when_it_sleeps() {
        let (board, count) = (Arc::<Board>::default(), Arc::<Count>::default());
        let (task, bells) = (Waker::from(count.clone()), [0, 1].map(|slot| Waker::from(Bell::new(slot, &board))));
        let rung = || {
            let mut all = Vec::new();
            board.rung(&mut all);
            all
        };
        board.wake_up(&task);
        bells[1].wake_by_ref();
        bells[1].wake_by_ref();
        assert!(!board.fall_asleep(), "somebody has rung");
        assert_eq!((rung(), count.0.load(SeqCst)), (vec![1], 0));
        assert!(board.fall_asleep());
        bells[1].wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 0, "nobody has answered it");
        bells[0].wake_by_ref();
        bells[0].wake_by_ref();
        assert_eq!((rung(), count.0.load(SeqCst)), (vec![0], 1));
    }
}

//! Deadlines of connections, cheap where they are moved much more often than they are met.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

thread_local! {
    static RECENT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time, which is then also the [`recent`] one.
pub fn now() -> Instant {
    let now = Instant::now();
    RECENT.set(Some(now));
    now
}

/// When this thread last asked for [`now`]: to a worker that is at a request, the beginning of that or of another after it;
/// to one that rests, no more than a second ago. To ask the system costs as much as to read a short head.
pub fn recent() -> Instant {
    RECENT.get().unwrap_or_else(now)
}

/// The timer of one connection, for one deadline at a time.
///
/// A connection moves its deadline several times a request and hardly ever meets it, so the runtime's timer is left where
/// it is when the deadline moves back: it wakes the task once in that time, which then sets it anew.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once the deadline has passed; the task is woken then.
    pub fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.deadline().into_std() > deadline {
            sleep.as_mut().reset(deadline.into());
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline().into_std() >= deadline || Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}

/// How long one side may keep the other waiting while a body moves.
///
/// A pause may last as long as `idle`. Whoever moves bytes earns time back, at the rate that is the least acceptable: so a
/// peer that sends or takes a byte now and then, to look busy, is found out after `idle` as well.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    idle: Duration,
    /// Bytes a second; zero: a byte earns everything back.
    rate: u64,
    left: Duration,
    /// Since when the other side has been waited for.
    since: Option<Instant>,
}

impl Patience {
    /// All of it is left.
    pub fn new(idle: Duration, rate: u64) -> Patience {
        Patience { idle, rate, left: idle, since: None }
    }

    /// Until when the other side, who has to move now, may take.
    pub fn deadline(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now) + self.left
    }

    /// Whether somebody is waiting.
    pub fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// So many bytes have moved.
    pub fn moved(&mut self, bytes: usize) {
        // Nobody had to wait for most pieces.
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        } else if self.left == self.idle {
            return;
        }
        let earned = match self.rate {
            0 => self.idle,
            rate => Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate),
        };
        self.left = self.idle.min(self.left.saturating_add(earned));
    }

    /// It is the turn of the side that asks, or of nobody.
    pub fn rest(&mut self) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
    }

    /// How long a pause may be.
    pub fn idle(&self) -> Duration {
        self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moves_both_ways() {
        let mut timer = Timer::default();
        let begin = tokio::time::Instant::now();
        let mut reached = async |after: u64| {
            let deadline = (begin + Duration::from_secs(after)).into_std();
            std::future::poll_fn(|context| timer.poll(deadline, context)).await;
            begin.elapsed().as_secs()
        };
        assert_eq!(reached(5).await, 5);
        assert_eq!(reached(20).await, 20);
        let far = (begin + Duration::from_secs(100)).into_std();
        std::future::poll_fn(|context| {
            assert!(timer.poll(far, context).is_pending());
            Poll::Ready(())
        })
        .await;
        let mut reached = async |after: u64| {
            let deadline = (begin + Duration::from_secs(after)).into_std();
            std::future::poll_fn(|context| timer.poll(deadline, context)).await;
            begin.elapsed().as_secs()
        };
        assert_eq!(reached(30).await, 30, "earlier than the timer was set to");
    }

    #[test]
    fn a_drip_does_not_earn_its_time() {
        let mut patience = Patience::new(Duration::from_secs(60), 100);
        patience.left = Duration::from_secs(10);
        patience.moved(1);
        assert_eq!(patience.left, Duration::from_millis(10_010));
        patience.moved(100_000);
        assert_eq!(patience.left, Duration::from_secs(60));
        let mut any = Patience::new(Duration::from_secs(60), 0);
        any.left = Duration::from_secs(1);
        any.moved(1);
        assert_eq!(any.left, Duration::from_secs(60));
    }
}

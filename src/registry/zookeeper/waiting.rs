//! Waiting for one of several things, and keeping the log short. Knows nothing of services.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The least time between two log lines of one kind that a broken registry could repeat for ever.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Waits for a moment; for ever if there is none.
pub(super) async fn until(moment: Option<std::time::Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// What `future` gives without waiting.
pub(super) async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}

/// Keeps a log line that could repeat for ever to one in [`LOG_INTERVAL`].
#[derive(Default)]
pub(super) struct Throttle {
    said: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    /// Calls `line` with the number of lines that were held back since the last one, or holds this one back.
    pub(super) fn say(&mut self, line: impl FnOnce(u64)) {
        if self.said.is_some_and(|said| said.elapsed() < LOG_INTERVAL) {
            self.unsaid += 1;
        } else {
            line(std::mem::take(&mut self.unsaid));
            self.said = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_is_said_once() {
        let mut throttle = Throttle::default();
        let mut said = Vec::new();
        for _ in 0..3 {
            throttle.say(|unsaid| said.push(unsaid));
        }
        assert_eq!((said, throttle.unsaid), (vec![0], 2));
    }
}

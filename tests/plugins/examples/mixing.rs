//! In turn, but through the list of whichever use was updated last.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use moongate_plugin::{Balancer, Config, Endpoint, Turn};

static COUNT: AtomicU32 = AtomicU32::new(0);

struct Fixture;

impl Balancer for Fixture {
    fn configure(_: Config<'_>) -> Result<Self, String> {
        Ok(Self)
    }
    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        COUNT.store(endpoints.len() as u32, Relaxed);
        Ok(())
    }
    fn pick(&mut self, turn: Turn) -> Option<u32> {
        let count = u64::from(COUNT.load(Relaxed));
        Some(turn.sequence.checked_rem(count)? as u32)
    }
}

moongate_plugin::plugin!(Fixture: Balancer);

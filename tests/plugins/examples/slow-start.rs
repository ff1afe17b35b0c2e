//! Takes five seconds to be configured.

use moongate_plugin::{Balancer, Config, Endpoint, Turn};

struct Fixture;

impl Balancer for Fixture {
    fn configure(_: Config<'_>) -> Result<Self, String> {
        let until = moongate_plugin::now() + 5_000_000_000;
        while moongate_plugin::now() < until {}
        Ok(Self)
    }
    fn update(&mut self, _: Vec<Endpoint>) -> Result<(), String> {
        Ok(())
    }
    fn pick(&mut self, _: Turn) -> Option<u32> {
        Some(0)
    }
}

moongate_plugin::plugin!(Fixture: Balancer);

//! Traps while it is configured.

use moongate_plugin::{Balancer, Config, Endpoint, Turn};

struct Fixture;

impl Balancer for Fixture {
    fn configure(_: Config<'_>) -> Result<Self, String> {
        panic!("not today")
    }
    fn update(&mut self, _: Vec<Endpoint>) -> Result<(), String> {
        Ok(())
    }
    fn pick(&mut self, _: Turn) -> Option<u32> {
        None
    }
}

moongate_plugin::plugin!(Fixture: Balancer);

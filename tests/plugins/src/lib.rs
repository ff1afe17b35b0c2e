//! What the fixtures in `examples/` share: a plugin that is one expression.

/// A balancer that picks by `fn(Turn, count) -> Option<u32>`.
#[macro_export]
macro_rules! pick {
    ($pick:expr) => {
        use moongate_plugin::{Balancer, Config, Endpoint, Turn};

        struct Fixture {
            count: u32,
        }

        impl Balancer for Fixture {
            fn configure(_: Config<'_>) -> Result<Self, String> {
                Ok(Self { count: 0 })
            }
            fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
                self.count = endpoints.len() as u32;
                Ok(())
            }
            fn pick(&mut self, turn: Turn) -> Option<u32> {
                let pick: fn(Turn, u32) -> Option<u32> = $pick;
                pick(turn, self.count)
            }
        }

        moongate_plugin::plugin!(Fixture: Balancer);
    };
}

/// A request filter that is a `fn(Request) -> Verdict`.
#[macro_export]
macro_rules! on_request {
    ($on_request:expr) => {
        use moongate_plugin::{Config, Request, RequestFilter, Verdict};

        struct Fixture;

        impl RequestFilter for Fixture {
            fn configure(_: Config<'_>) -> Result<Self, String> {
                Ok(Self)
            }
            fn on_request(&mut self, request: Request) -> Verdict {
                let on_request: fn(Request) -> Verdict = $on_request;
                on_request(request)
            }
        }

        moongate_plugin::plugin!(Fixture: RequestFilter);
    };
}

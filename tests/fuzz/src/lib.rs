//! What must hold of everything that reads bytes of strangers: one function for each target. It takes any bytes and
//! panics where a promise is broken, not only where the code panics by itself.
//!
//! libFuzzer drives them by `fuzz_targets/`, see `run`. The gateway's own tests take this very file in, replay `corpus/`
//! and change it a little (`tests/it/fuzz.rs`); so a target that does not hold fails there too.
//!
//! Another target is a file here and a line in [`ALL`], a file in `fuzz_targets/` with its `[[bin]]`, and a folder in
//! `corpus/` with a few inputs. What it reads has to be in `parsers/`, as the head and the chunks of HTTP/1.1 are.

mod authority;
mod chunked;
mod config;
mod forwarded;
mod frames;
mod hpack;
mod http1;
mod names;
mod path;
mod request;
mod response;
mod routes;
mod services;
mod znode;

pub use authority::authority;
pub use chunked::chunked;
pub use config::config;
pub use forwarded::forwarded;
pub use frames::frames;
pub use hpack::hpack;
pub use names::names;
pub use path::path;
pub use request::request;
pub use response::response;
pub use routes::routes;
pub use services::services;
pub use znode::znode;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, each with a folder in `corpus/` and a file in `fuzz_targets/` of its name.
pub const ALL: &[(&str, Target)] = &[
    ("authority", authority),
    ("chunked", chunked),
    ("config", config),
    ("forwarded", forwarded),
    ("frames", frames),
    ("hpack", hpack),
    ("names", names),
    ("path", path),
    ("request", request),
    ("response", response),
    ("routes", routes),
    ("services", services),
    ("znode", znode),
];

/// The first byte, by which a target chooses among its settings, as a number from 0; a digit counts as itself, so that
/// a corpus can be written by hand.
fn choice(data: &[u8], of: usize) -> (usize, &[u8]) {
    match data {
        [first @ b'0'..=b'9', rest @ ..] => (usize::from(first - b'0') % of, rest),
        [first, rest @ ..] => (usize::from(*first) % of, rest),
        [] => (0, data),
    }
}

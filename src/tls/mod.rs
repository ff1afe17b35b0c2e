//! TLS: what listeners show to clients ([`Acceptor`]) and how endpoints are connected to ([`Connector`]). The only home
//! of rustls, except for the stream that comes out of it, which is in [`crate::stream`].
//!
//! Both are made from files, which [`Followed`] makes anew when they change: connections go on as they are, the next
//! handshake uses the new files, and files that are bad change nothing.

mod acceptor;
mod connector;
mod connectors;
mod files;
mod followed;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use acceptor::Acceptor;
pub use connector::Connector;
pub use connectors::Connectors;
pub use files::Refused;
pub use followed::{Followed, Kept};

/// The one provider of cryptography. Given to each configuration by hand: a default for the process is a thing that
/// may be set once, by anybody.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

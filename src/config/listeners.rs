//! `[[listeners]]`: where requests are taken, beside the plain addresses of `listen`.

use std::fmt;
use std::net::SocketAddr;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::tls::ListenerTls;
use super::{Config, values};

/// A listener with all that can be said of one.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Port 0: any free one.
    #[serde(deserialize_with = "values::address")]
    pub address: SocketAddr,
    /// What is spoken there.
    #[serde(default)]
    pub protocols: Protocols,
    /// With TLS; without, clients are plain.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
}

impl Listener {
    /// As `listen` means it.
    pub fn plain(address: SocketAddr) -> Listener {
        Listener { address, protocols: Protocols::default(), tls: None }
    }
}

/// A protocol by its name in ALPN.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2; on a listener without TLS with prior knowledge (RFC 9113, 3.3).
    #[serde(rename = "h2")]
    Http2,
    /// HTTP/1.1 and 1.0.
    #[serde(rename = "http/1.1")]
    Http1,
}

impl Protocol {
    /// Its name in ALPN.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http2 => "h2",
            Protocol::Http1 => "http/1.1",
        }
    }
}

/// Protocols, the one that is liked best first; never empty, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols(Vec<Protocol>);

impl Default for Protocols {
    fn default() -> Self {
        Protocols(vec![Protocol::Http2, Protocol::Http1])
    }
}

impl Protocols {
    /// All of them, the one that is liked best first.
    pub fn iter(&self) -> impl Iterator<Item = Protocol> {
        self.0.iter().copied()
    }

    /// Whether it is one of them.
    pub fn has(&self, protocol: Protocol) -> bool {
        self.0.contains(&protocol)
    }
}

impl<'de> Deserialize<'de> for Protocols {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Protocols;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list like [\"h2\", \"http/1.1\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Protocols, A::Error> {
                let mut all: Vec<Protocol> = Vec::new();
                while let Some(protocol) = list.next_element()? {
                    if all.contains(&protocol) {
                        return Err(A::Error::custom(format!("{:?} is there twice", protocol.name())));
                    }
                    all.push(protocol);
                }
                if all.is_empty() {
                    return Err(A::Error::custom("an empty list: write at least one of \"h2\" and \"http/1.1\""));
                }
                Ok(Protocols(all))
            }
        }

        from.deserialize_any(Written)
    }
}

impl Config {
    /// Everything to be opened for requests: the addresses of `listen`, then `[[listeners]]`, in the order of the
    /// file.
    pub fn all_listeners(&self) -> Vec<Listener> {
        let plain = self.listen.0.iter().copied().map(Listener::plain);
        plain.chain(self.listeners.iter().map(|it| it.get_ref().clone())).collect()
    }

    /// An address that is to be listened on twice. The system would allow it, and clients would get the one listener
    /// or the other.
    pub fn listened_twice(&self) -> Option<SocketAddr> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.all_listeners().into_iter().map(|it| it.address);
        all.filter(|it| it.port() != 0).find(|it| !seen.insert(*it))
    }
}

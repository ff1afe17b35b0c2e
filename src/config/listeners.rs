//! `listen` and `[[listeners]]`: where requests are taken.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::Config;
use super::tls::ListenerTls;
use super::values::{self, Address};

/// Where to listen: one address or a list, never empty, each address once. Port 0: any free port.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Listen(pub Vec<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    /// One address, or several with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let all: Vec<Address> = text.split(',').map(|it| it.trim().parse()).collect::<Result<_, String>>()?;
        Listen::of(all)
    }
}

impl Listen {
    fn of(all: Vec<Address>) -> Result<Listen, String> {
        let mut seen = BTreeSet::new();
        if all.is_empty() {
            return Err("an empty list: write at least one address like \"127.0.0.1:8080\"".into());
        }
        match all.iter().find(|it| it.0.port() != 0 && !seen.insert(it.0)) {
            Some(twice) => Err(format!("\"{}\" is there twice", twice.0)),
            None => Ok(Listen(all.into_iter().map(|it| it.0).collect())),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Listen;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an address like \"127.0.0.1:8080\" or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Listen, E> {
                text.parse::<Address>().map(|it| Listen(vec![it.0])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listen, A::Error> {
                let mut all = Vec::new();
                while let Some(address) = list.next_element::<Address>()? {
                    all.push(address);
                }
                Listen::of(all).map_err(A::Error::custom)
            }
        }

        from.deserialize_any(Written)
    }
}

impl schemars::JsonSchema for Listen {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(of: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = of.subschema_for::<Address>();
        let title = "an address like \"127.0.0.1:8080\" or a list of them";
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }], "title": title })
    }
}

/// A listener with all that can be said of one.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Port 0: any free one.
    #[serde(deserialize_with = "values::address")]
    #[schemars(with = "Address")]
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
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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

impl schemars::JsonSchema for Protocols {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Protocols".into()
    }

    fn json_schema(of: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = of.subschema_for::<Protocol>();
        schemars::json_schema!({ "type": "array", "items": one, "minItems": 1, "uniqueItems": true })
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
        let mut seen = BTreeSet::new();
        let all = self.all_listeners().into_iter().map(|it| it.address);
        all.filter(|it| it.port() != 0).find(|it| !seen.insert(*it))
    }
}

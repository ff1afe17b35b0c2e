//! The `tls` tables: what a listener shows to clients, and what the gateway shows to, and asks of, endpoints.
//!
//! The files are only named here; [`crate::tls`] reads them, and says of each what is wrong with it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::values::{displayed, written_as_string};

/// `[listeners.tls]`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "WrittenListenerTls", into = "WrittenListenerTls")]
pub struct ListenerTls {
    /// At least one. Which one a client gets is decided by the names in them; the first is for all others.
    pub certificates: Vec<Certificate>,
    /// Clients are asked for certificates, and whether they must have one. None: they are not asked.
    pub clients: Option<Clients>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// A certificate and the key that belongs to it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM: the certificate, and after it those it was issued through.
    #[schemars(with = "PathBuf")]
    pub certificate: Spanned<PathBuf>,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    #[schemars(with = "PathBuf")]
    pub key: Spanned<PathBuf>,
}

/// How clients are asked for certificates.
#[derive(Clone, Debug)]
pub struct Clients {
    /// PEM: the authorities that may have issued them.
    pub ca: Spanned<PathBuf>,
    /// `required` or `optional`.
    pub auth: ClientAuth,
}

/// Whether a client must have a certificate. One that is shown must be good either way.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// No handshake without.
    Required,
    /// It may have none.
    Optional,
}

/// A version of TLS. Older ones are not spoken (RFC 8996).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246, with authenticated ciphers and ephemeral keys only.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct WrittenListenerTls {
    /// At least one. A client gets the one with the name it asks for (or a wildcard for it, or the address it came to), else
    /// the first.
    certificates: Vec<Certificate>,
    /// PEM: authorities whose certificates clients are asked for; none: clients are not asked.
    #[schemars(with = "Option<PathBuf>")]
    client_ca: Option<Spanned<PathBuf>>,
    /// Whether a client must have a certificate, with `client_ca`; `required` if nothing is said.
    client_auth: Option<ClientAuth>,
    /// The oldest version that is spoken.
    min_version: TlsVersion,
}

impl From<ListenerTls> for WrittenListenerTls {
    fn from(tls: ListenerTls) -> Self {
        let (client_ca, client_auth) = tls.clients.map(|it| (it.ca, it.auth)).unzip();
        let ListenerTls { certificates, min_version, .. } = tls;
        WrittenListenerTls { certificates, client_ca, client_auth, min_version }
    }
}

impl TryFrom<WrittenListenerTls> for ListenerTls {
    type Error = &'static str;

    fn try_from(written: WrittenListenerTls) -> Result<Self, Self::Error> {
        let WrittenListenerTls { certificates, client_ca, client_auth, min_version } = written;
        if certificates.is_empty() {
            return Err("no certificate: write certificates = [{ certificate = \"a.pem\", key = \"a.key\" }]");
        }
        let clients = match (client_ca, client_auth) {
            (Some(ca), auth) => Some(Clients { ca, auth: auth.unwrap_or(ClientAuth::Required) }),
            (None, None) => None,
            (None, Some(_)) => return Err("\"client_auth\" without \"client_ca\", which says whom to believe"),
        };
        Ok(ListenerTls { certificates, clients, min_version })
    }
}

impl ListenerTls {
    /// Makes relative paths start at `dir`.
    pub(super) fn resolve(&mut self, dir: &Path) {
        let files = self.certificates.iter_mut().flat_map(|it| [&mut it.certificate, &mut it.key]);
        files.chain(self.clients.as_mut().map(|it| &mut it.ca)).for_each(|it| resolve(it, dir));
    }
}

/// `[upstream.tls]`, and the same for one service. For endpoints whose scheme is `https` or `h2`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "WrittenEndpointTls", into = "WrittenEndpointTls")]
pub struct EndpointTls {
    /// PEM: the authorities that may have issued an endpoint's certificate. None: those that the system trusts.
    pub ca: Option<Spanned<PathBuf>>,
    /// What is shown to an endpoint that asks. None: nothing.
    pub identity: Option<Certificate>,
    /// What an endpoint's certificate must be for, and what it is told that we want (SNI). None: its IP address, and
    /// nothing is told.
    pub server_name: Option<ServerName>,
    /// Whether an endpoint's certificate is looked at; yes if nothing is said. No: anybody on the way can read and
    /// change everything.
    pub verify: Option<bool>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct WrittenEndpointTls {
    /// PEM: authorities that may have issued an endpoint's certificate; those that the system trusts if absent.
    #[schemars(with = "Option<PathBuf>")]
    ca: Option<Spanned<PathBuf>>,
    /// PEM: what is shown to an endpoint that asks, with `key`; nothing if absent.
    #[schemars(with = "Option<PathBuf>")]
    certificate: Option<Spanned<PathBuf>>,
    /// PEM: the key of `certificate`.
    #[schemars(with = "Option<PathBuf>")]
    key: Option<Spanned<PathBuf>>,
    /// The name or address that an endpoint's certificate must be for, and that it is told (SNI); its own IP address if
    /// absent, and nothing is told.
    server_name: Option<ServerName>,
    /// Whether an endpoint's certificate is looked at; yes if nothing is said. No: anybody on the way can read and change
    /// everything.
    verify: Option<bool>,
}

impl From<EndpointTls> for WrittenEndpointTls {
    fn from(tls: EndpointTls) -> Self {
        let (certificate, key) = tls.identity.map(|it| (it.certificate, it.key)).unzip();
        let EndpointTls { ca, server_name, verify, .. } = tls;
        WrittenEndpointTls { ca, certificate, key, server_name, verify }
    }
}

impl TryFrom<WrittenEndpointTls> for EndpointTls {
    type Error = &'static str;

    fn try_from(written: WrittenEndpointTls) -> Result<Self, Self::Error> {
        let WrittenEndpointTls { ca, certificate, key, server_name, verify } = written;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Certificate { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err("\"certificate\" without \"key\""),
            (None, Some(_)) => return Err("\"key\" without \"certificate\""),
        };
        Ok(EndpointTls { ca, identity, server_name, verify })
    }
}

impl EndpointTls {
    /// What is left out, as the defaults have it; certificate and key go together.
    pub fn over(&self, defaults: &EndpointTls) -> EndpointTls {
        EndpointTls {
            ca: self.ca.clone().or_else(|| defaults.ca.clone()),
            identity: self.identity.clone().or_else(|| defaults.identity.clone()),
            server_name: self.server_name.clone().or_else(|| defaults.server_name.clone()),
            verify: self.verify.or(defaults.verify),
        }
    }

    /// Makes relative paths start at `dir`.
    pub fn resolve(&mut self, dir: &Path) {
        let pair = self.identity.as_mut().map(|it| [&mut it.certificate, &mut it.key]);
        pair.into_iter().flatten().chain(self.ca.as_mut()).for_each(|it| resolve(it, dir));
    }
}

fn resolve(path: &mut Spanned<PathBuf>, dir: &Path) {
    // `join` leaves an absolute path as it is.
    *path.get_mut() = dir.join(path.get_ref());
}

/// The name or the address that a certificate is for: `shop.internal`, `10.0.0.7`, `::1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName(pub String);

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = text.parse::<std::net::IpAddr>().is_ok()
            || text.parse::<super::HostName>().is_ok_and(|it| !it.0.starts_with(['*', '[']));
        if good {
            Ok(ServerName(text.to_ascii_lowercase()))
        } else {
            Err(format!("{text:?} is not a name like \"shop.internal\" or an address"))
        }
    }
}

displayed! {
    ServerName: |it, out| out.write_str(&it.0),
}

written_as_string! {
    ServerName: "a name like \"shop.internal\" or an address",
}

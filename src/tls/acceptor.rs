//! The server's side of a listener: certificates by name, and the handshake.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use toml::Spanned;
use webpki::EndEntityCert;

use super::files::Files;
use super::followed::Kept;
use super::{PROVIDER, Refused};
use crate::config::tls::{ClientAuth, ListenerTls, TlsVersion};
use crate::config::{Protocol, Protocols};
use crate::stream::Stream;

/// What a listener with TLS shows to its clients.
pub struct Acceptor {
    name: String,
    tls: ListenerTls,
    protocols: Protocols,
    current: ArcSwap<Certificates>,
    digest: Mutex<[u8; 32]>,
}

impl Acceptor {
    /// Reads the files of the listener at this address. Says also what there is to warn of.
    ///
    /// # Errors
    /// If one is bad.
    pub fn load(
        address: SocketAddr,
        tls: &ListenerTls,
        protocols: &Protocols,
    ) -> Result<(Arc<Acceptor>, Vec<String>), Refused> {
        let files = Files::read(paths(tls));
        let (certificates, warnings) = Certificates::from(&files, tls, protocols)?;
        let acceptor = Acceptor {
            name: format!("listener {address}"),
            tls: tls.clone(),
            protocols: protocols.clone(),
            current: ArcSwap::from_pointee(certificates),
            digest: Mutex::new(files.digest()),
        };
        Ok((Arc::new(acceptor), warnings))
    }

    /// The handshake, and what both sides will speak. `local` is the address that the client came to.
    ///
    /// The caller sets the time that it may take.
    ///
    /// # Errors
    /// If the client is gone, speaks something else, or either side does not want the other. The client has been told.
    pub async fn accept(&self, stream: TcpStream, local: SocketAddr) -> io::Result<(Stream, Protocol)> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let config = self.current.load().choose(&start.client_hello(), local.ip()).clone();
        let stream = start.into_stream(config).await?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(name) => self.protocols.iter().find(|it| it.name().as_bytes() == name),
            // Nothing is said of protocols by those who know one only.
            None => Some(Protocol::Http1).filter(|it| self.protocols.has(*it)),
        };
        let protocol =
            protocol.ok_or_else(|| io::Error::other("the client does not ask for HTTP/2, the only one here"))?;
        Ok((Stream::tls(stream), protocol))
    }
}

impl Kept for Acceptor {
    fn name(&self) -> &str {
        &self.name
    }

    fn paths(&self) -> Vec<&Spanned<PathBuf>> {
        paths(&self.tls)
    }

    fn make(&self, files: &Files) -> Result<Vec<String>, Refused> {
        let (certificates, warnings) = Certificates::from(files, &self.tls, &self.protocols)?;
        self.current.store(Arc::new(certificates));
        Ok(warnings)
    }

    fn digest(&self) -> &Mutex<[u8; 32]> {
        &self.digest
    }
}

fn paths(tls: &ListenerTls) -> Vec<&Spanned<PathBuf>> {
    let certificates = tls.certificates.iter().flat_map(|it| [&it.certificate, &it.key]);
    certificates.chain(tls.clients.as_ref().map(|it| &it.ca)).collect()
}

/// What all certificates of a listener have in common.
fn config(
    tls: &ListenerTls,
    authorities: Option<RootCertStore>,
    protocols: &Protocols,
) -> Result<ServerConfig, String> {
    let versions: &[_] = match tls.min_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(PROVIDER.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match (&tls.clients, authorities) {
        (Some(clients), Some(authorities)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities.into(), PROVIDER.clone());
            let verifier = match clients.auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Nobody));
    config.alpn_protocols = protocols.iter().map(|it| it.name().into()).collect();
    // Sessions are resumed by tickets, which are the client's to keep: no memory and no lock of ours. The key to them is
    // made anew with every change of the files, so that a client's certificate is looked at again when the authorities
    // have changed, and changes by itself every six hours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(config)
}

/// The resolver of a configuration that is not used yet.
#[derive(Debug)]
struct Nobody;

impl rustls::server::ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// The certificates of a listener, by their names.
struct Certificates {
    /// In the order of the configuration; never empty.
    all: Vec<Served>,
    /// Which have a name, in lower case; of wildcards with the `*`.
    named: HashMap<String, Vec<usize>>,
}

/// A certificate, and the configuration that serves it.
struct Served {
    key: Arc<CertifiedKey>,
    config: Arc<ServerConfig>,
}

impl Certificates {
    /// Also what there is to warn of.
    fn from(files: &Files, tls: &ListenerTls, protocols: &Protocols) -> Result<(Certificates, Vec<String>), Refused> {
        let mut warnings = Vec::new();
        let pairs = tls.certificates.iter().map(|it| files.pair(it, &mut warnings));
        let pairs = pairs.collect::<Result<Vec<CertifiedKey>, Refused>>()?;
        let authorities = tls.clients.as_ref().map(|it| files.authorities(&it.ca)).transpose()?;
        let config = config(tls, authorities, protocols).map_err(|reason| {
            let about = tls.clients.as_ref().map_or(&tls.certificates[0].certificate, |it| &it.ca);
            Refused::new(about, reason)
        })?;

        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        let mut all = Vec::new();
        for (index, pair) in pairs.into_iter().enumerate() {
            for name in pair.cert.first().map(names).unwrap_or_default() {
                named.entry(name).or_default().push(index);
            }
            let key = Arc::new(pair);
            let mut config = config.clone();
            config.cert_resolver = Arc::new(SingleCertAndKey::from(key.clone()));
            all.push(Served { key, config: Arc::new(config) });
        }
        Ok((Certificates { all, named }, warnings))
    }

    /// The certificate with the name that the client asks for, else one with a wildcard for it, else the first. A
    /// client that asks for no name, because it came by address, gets the one with the address.
    fn choose(&self, hello: &ClientHello<'_>, local: IpAddr) -> &Arc<ServerConfig> {
        let found = match hello.server_name() {
            Some(name) => self.by_name(&name.to_ascii_lowercase()),
            None => self.by_address(local.to_canonical()),
        };
        // For one name there may be certificates with keys of several kinds.
        let usable = |it: &&Served| it.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let all = || found.iter().filter_map(|index| self.all.get(*index));
        &all().find(usable).or_else(|| all().next()).unwrap_or(&self.all[0]).config
    }

    fn by_name(&self, name: &str) -> Vec<usize> {
        let wildcard = || self.named.get(&format!("*.{}", name.split_once('.')?.1));
        self.named.get(name).or_else(wildcard).cloned().unwrap_or_default()
    }

    fn by_address(&self, address: IpAddr) -> Vec<usize> {
        let name = ServerName::from(address);
        let is_for = |it: &Served| {
            let certificate = it.key.cert.first().and_then(|it| EndEntityCert::try_from(it).ok());
            certificate.is_some_and(|it| it.verify_is_valid_for_subject_name(&name).is_ok())
        };
        // With one there is nothing to choose.
        let all = if self.all.len() > 1 { &self.all[..] } else { &[] };
        all.iter().enumerate().filter(|(_, it)| is_for(it)).map(|(index, _)| index).collect()
    }
}

/// The DNS names in a certificate, in lower case.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = EndEntityCert::try_from(certificate).ok();
    parsed.map(|it| it.valid_dns_names().map(str::to_ascii_lowercase).collect()).unwrap_or_default()
}

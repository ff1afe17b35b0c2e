//! The client's side, towards endpoints: whom to believe, what to show, and the handshake.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use toml::Spanned;

use super::files::Files;
use super::followed::Kept;
use super::{PROVIDER, Refused};
use crate::config::Protocol;
use crate::config::tls::EndpointTls;
use crate::stream::Stream;

/// The authorities that the system trusts. Read once, at the first connection that needs them: they are some hundred,
/// and most gateways have an authority of their own, or endpoints without TLS.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, bad) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let errors = errors.join("; ");
        tracing::error!(errors, "this system trusts no authority, so no endpoint either; name one with \"ca\"");
    } else {
        tracing::info!(added, bad, "authorities of the system read");
    }
    Arc::new(store)
});

/// How endpoints of a service are connected to with TLS.
pub struct Connector {
    name: String,
    tls: EndpointTls,
    /// What to check and ask for in place of the endpoint's address.
    server_name: Option<ServerName<'static>>,
    current: ArcSwap<Made>,
    digest: Mutex<[u8; 32]>,
}

/// What the files make.
struct Made {
    /// None: whoever the system trusts.
    verifier: Option<Arc<dyn ServerCertVerifier>>,
    identity: Option<Arc<SingleCertAndKey>>,
    /// Made at the first connection, because with the system's authorities it takes a while.
    configs: OnceLock<Result<Configs, String>>,
}

/// One for each protocol, because the protocol is part of the handshake.
struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Connector {
    /// Reads the files. `name` is what the log calls it: "service shop". Says also what there is to warn of.
    ///
    /// # Errors
    /// If one is bad.
    pub fn load(name: &str, tls: &EndpointTls) -> Result<(Arc<Connector>, Vec<String>), Refused> {
        let files = Files::read(paths(tls));
        let (made, warnings) = Made::from(&files, tls)?;
        let connector = Connector {
            name: name.to_owned(),
            tls: tls.clone(),
            // The configuration has checked it.
            server_name: tls.server_name.as_ref().and_then(|it| ServerName::try_from(it.0.clone()).ok()),
            current: ArcSwap::from_pointee(made),
            digest: Mutex::new(files.digest()),
        };
        Ok((Arc::new(connector), warnings))
    }

    /// The handshake with an endpoint at this address that is to speak this protocol.
    ///
    /// Its certificate must be for `server_name`, or, without one, for the address itself: that is what the registry
    /// says of an endpoint, while the name of a service is the registry's own and seldom in a certificate.
    ///
    /// The caller sets the time that it may take.
    ///
    /// # Errors
    /// If the endpoint is gone, is not who it should be, or does not want us or the protocol.
    pub async fn connect(&self, stream: TcpStream, address: IpAddr, protocol: Protocol) -> io::Result<Stream> {
        let config = {
            let current = self.current.load();
            let configs = current.configs.get_or_init(|| current.configs()).as_ref();
            let configs = configs.map_err(|error| io::Error::other(error.clone()))?;
            match protocol {
                Protocol::Http1 => configs.http1.clone(),
                Protocol::Http2 => configs.http2.clone(),
            }
        };
        let name = self.server_name.clone().unwrap_or_else(|| ServerName::from(address.to_canonical()));
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        // RFC 9113, 3.2: HTTP/2 is spoken with those only who said so.
        if protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(protocol.name().as_bytes()) {
            return Err(io::Error::other("the endpoint does not speak HTTP/2"));
        }
        Ok(Stream::tls(stream))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kept for Connector {
    fn name(&self) -> &str {
        &self.name
    }

    fn paths(&self) -> Vec<&Spanned<PathBuf>> {
        paths(&self.tls)
    }

    fn make(&self, files: &Files) -> Result<Vec<String>, Refused> {
        let (made, warnings) = Made::from(files, &self.tls)?;
        self.current.store(Arc::new(made));
        Ok(warnings)
    }

    fn digest(&self) -> &Mutex<[u8; 32]> {
        &self.digest
    }
}

fn paths(tls: &EndpointTls) -> Vec<&Spanned<PathBuf>> {
    let pair = tls.identity.as_ref().map(|it| [&it.certificate, &it.key]);
    pair.into_iter().flatten().chain(tls.ca.as_ref()).collect()
}

impl Made {
    /// Also what there is to warn of.
    fn from(files: &Files, tls: &EndpointTls) -> Result<(Made, Vec<String>), Refused> {
        let mut warnings = Vec::new();
        let identity = tls.identity.as_ref().map(|it| files.pair(it, &mut warnings)).transpose()?;
        let verifier: Option<Arc<dyn ServerCertVerifier>> = match &tls.ca {
            _ if tls.verify == Some(false) => {
                warnings.push("verify = false: whoever answers is believed, and may read and change everything".into());
                Some(Arc::new(Anybody))
            }
            Some(ca) => {
                let authorities = files.authorities(ca)?.into();
                let verifier = WebPkiServerVerifier::builder_with_provider(authorities, PROVIDER.clone()).build();
                Some(verifier.map_err(|error| Refused::new(ca, error.to_string()))?)
            }
            None => None,
        };
        let identity = identity.map(|it| Arc::new(SingleCertAndKey::from(it)));
        Ok((Made { verifier, identity, configs: OnceLock::new() }, warnings))
    }

    fn configs(&self) -> Result<Configs, String> {
        let verifier = match &self.verifier {
            Some(verifier) => verifier.clone(),
            None => {
                let verifier = WebPkiServerVerifier::builder_with_provider(SYSTEM.clone(), PROVIDER.clone()).build();
                verifier.map_err(|_| "this system trusts no authority; name one with \"ca\"")?
            }
        };
        let versions = [&version::TLS13, &version::TLS12];
        let builder = ClientConfig::builder_with_provider(PROVIDER.clone()).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut http1 = match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(identity.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![Protocol::Http1.name().into()];
        http2.alpn_protocols = vec![Protocol::Http2.name().into()];
        Ok(Configs { http1: http1.into(), http2: http2.into() })
    }
}

/// Believes whoever answers, because the operator says so. That the other side has the key of the certificate that it
/// shows is checked all the same, or not even the handshake would mean anything.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

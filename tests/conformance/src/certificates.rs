//! Certificates of this run: two names for clients, client certificates of the right and of a wrong authority, and the
//! same for endpoints.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A certificate with its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("our own certificate")]
    }

    fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own key")
    }
}

/// All of them; in a directory also as files, by their names here.
pub(crate) struct Certificates {
    ca: Pair,
    client: Pair,
    stranger: Pair,
    origin: Pair,
    origin_wrong: Pair,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: Pair,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("signing");
    let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
    Authority { issuer: Issuer::new(params, key), pair }
}

fn leaf(authority: &Authority, names: &[&str]) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|&it| it.into()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("sound names");
    params.distinguished_name.push(rcgen::DnType::CommonName, names[0].as_str());
    let certificate = params.signed_by(&key, &authority.issuer).expect("signing");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

impl Certificates {
    /// Makes them, and writes them into `dir`.
    pub(crate) fn make(dir: &Path) -> Certificates {
        let (ca, wrong) = (authority("the suite"), authority("somebody else"));
        let (a, b) = (leaf(&ca, &["a.test", "localhost"]), leaf(&ca, &["b.test"]));
        let all = Certificates {
            client: leaf(&ca, &["client.test"]),
            stranger: leaf(&wrong, &["client.test"]),
            origin: leaf(&ca, &["origin.test", "127.0.0.1"]),
            origin_wrong: leaf(&wrong, &["origin.test", "127.0.0.1"]),
            ca: ca.pair,
        };
        for (name, pair) in [("ca", &all.ca), ("a", &a), ("b", &b), ("client", &all.client)] {
            let write = |kind: &str, text: &str| fs::write(dir.join(format!("{name}.{kind}")), text).expect("a file");
            write("pem", &pair.certificate);
            write("key", &pair.key);
            // HAProxy wants both in one.
            write("both", &format!("{}{}", pair.certificate, pair.key));
        }
        all
    }

    /// What a client trusts and presents: nothing, the right certificate, or a stranger's.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        with: Identity,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.chain().remove(0)).expect("our own authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that rustls has")
            .with_root_certificates(roots);
        let own = |pair: &Pair| (pair.chain(), pair.secret());
        let mut config = match with {
            Identity::Nobody => builder.with_no_client_auth(),
            Identity::Client | Identity::Stranger => {
                let (chain, key) = own(if with == Identity::Client { &self.client } else { &self.stranger });
                builder.with_client_auth_cert(chain, key).expect("our own certificate")
            }
        };
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// An endpoint's: of the authority that the gateway trusts, or of another.
    pub(crate) fn origin(&self, trusted: bool) -> Arc<ServerConfig> {
        let pair = if trusted { &self.origin } else { &self.origin_wrong };
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that rustls has")
            .with_no_client_auth();
        Arc::new(builder.with_single_cert(pair.chain(), pair.secret()).expect("our own certificate"))
    }
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Nobody,
    Client,
    Stranger,
}

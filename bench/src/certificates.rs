//! The certificate that all proxies have, and its authority, which the load trusts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Files in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one.
    pub(crate) both: PathBuf,
}

impl Certificates {
    /// Makes them: ECDSA over P-256, for `bench.test`.
    pub(crate) fn make(dir: &Path) -> Result<Certificates> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the benchmark");
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["bench.test".to_owned()])?.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        let write = |name: &str, text: &str| {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            Ok::<_, anyhow::Error>(file)
        };
        Ok(Certificates {
            authority: write("authority.pem", &authority)?,
            both: write("both.pem", &format!("{certificate}{key}"))?,
            certificate: write("certificate.pem", &certificate)?,
            key: write("key.pem", &key)?,
        })
    }
}

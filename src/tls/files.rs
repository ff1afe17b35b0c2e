//! The files that TLS is made from: read whole, told apart by content, and each with its reason where it is bad.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use sha2::{Digest, Sha256};
use toml::Spanned;
use webpki::{EndEntityCert, KeyUsage};

use super::PROVIDER;
use crate::config::tls::Certificate;

/// The most bytes of a file. A system's whole list of authorities has a quarter of that.
const LARGEST: u64 = 1 << 20;

/// A file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, in one line.
    pub reason: String,
    /// Where in the configuration the file is named, in bytes.
    pub at: Range<usize>,
}

impl Refused {
    pub(super) fn new(file: &Spanned<PathBuf>, reason: impl Into<String>) -> Refused {
        Refused { file: file.get_ref().clone(), reason: reason.into(), at: file.span() }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.file.display(), self.reason)
    }
}

/// What files held when they were read.
pub struct Files {
    /// The content of each, or why it could not be read.
    all: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
}

impl Files {
    pub(super) fn read<'a>(paths: impl IntoIterator<Item = &'a Spanned<PathBuf>>) -> Files {
        let paths = paths.into_iter().map(|path| path.get_ref().clone());
        Files { all: paths.map(|path| (path.clone(), read(&path))).collect() }
    }

    /// By which the same contents are known.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (path, content) in &self.all {
            let (good, bytes) = match content {
                Ok(bytes) => (1, &bytes[..]),
                Err(reason) => (0, reason.as_bytes()),
            };
            digest.update(path.as_os_str().as_encoded_bytes());
            digest.update([0, good]);
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }

    fn content(&self, file: &Spanned<PathBuf>) -> Result<&[u8], Refused> {
        match self.all.get(file.get_ref()) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(reason)) => Err(Refused::new(file, reason.clone())),
            None => Err(Refused::new(file, "it has not been read")),
        }
    }

    fn certificates(&self, file: &Spanned<PathBuf>) -> Result<Vec<CertificateDer<'static>>, Refused> {
        let all = CertificateDer::pem_slice_iter(self.content(file)?).collect::<Result<Vec<_>, _>>();
        match all {
            Ok(all) if all.is_empty() => Err(Refused::new(file, "there is no certificate in it")),
            Ok(all) => Ok(all),
            Err(error) => Err(Refused::new(file, format!("it is not PEM: {}", plain(&error)))),
        }
    }

    fn key(&self, file: &Spanned<PathBuf>) -> Result<PrivateKeyDer<'static>, Refused> {
        let content = self.content(file)?;
        PrivateKeyDer::from_pem_slice(content).map_err(|error| {
            let encrypted = content.windows(9).any(|it| it == b"ENCRYPTED");
            Refused::new(
                file,
                match error {
                    pem::Error::NoItemsFound if encrypted => {
                        "the key in it is encrypted, and there is nobody to ask for the password".to_owned()
                    }
                    pem::Error::NoItemsFound => "there is no private key in it".to_owned(),
                    error => format!("it is not PEM: {}", plain(&error)),
                },
            )
        })
    }

    /// The authorities in a file.
    pub(super) fn authorities(&self, file: &Spanned<PathBuf>) -> Result<RootCertStore, Refused> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates(file)? {
            store
                .add(certificate)
                .map_err(|error| Refused::new(file, format!("a certificate in it is bad: {error}")))?;
        }
        Ok(store)
    }

    /// A certificate with its chain and its key, and what there is to warn of.
    pub(super) fn pair(&self, files: &Certificate, warnings: &mut Vec<String>) -> Result<CertifiedKey, Refused> {
        let chain = self.certificates(&files.certificate)?;
        let key = self.key(&files.key)?;
        let bad = |error: webpki::Error| Refused::new(&files.certificate, format!("the certificate is bad: {error}"));
        let certificate = EndEntityCert::try_from(&chain[0]).map_err(bad)?;
        if let Some(warning) = out_of_time(&certificate, UnixTime::now()) {
            warnings.push(format!("{}: {warning}", files.certificate.get_ref().display()));
        }
        CertifiedKey::from_der(chain, key, &PROVIDER).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let certificate = files.certificate.get_ref().display();
                Refused::new(&files.key, format!("the key does not belong to the certificate in {certificate}"))
            }
            error => Refused::new(&files.key, format!("the key cannot be used: {error}")),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("reading it: {error}");
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(told)?.is_file() {
        return Err("it is not a file".into());
    }
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(told)?;
    file.take(LARGEST + 1).read_to_end(&mut content).map_err(told)?;
    if content.len() as u64 > LARGEST { Err("it is larger than 1 MiB".into()) } else { Ok(content) }
}

/// The parser's words, without what it shows of the file: that may be part of a key.
fn plain(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is bad",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read as such",
    }
}

/// What is wrong with the certificate's time, if anything.
fn out_of_time(certificate: &EndEntityCert<'_>, now: UnixTime) -> Option<String> {
    // Without any authority to trust this fails, but first it looks at the time.
    let algorithms = PROVIDER.signature_verification_algorithms.all;
    let verified = certificate.verify_for_usage(algorithms, &[], &[], now, KeyUsage::server_auth(), None, None);
    let date = |time: UnixTime| {
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
    };
    match verified.err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(format!("the certificate expired on {}", date(not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Some(format!("the certificate is not valid before {}", date(not_before)))
        }
        _ => None,
    }
}

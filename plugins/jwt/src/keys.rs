//! The keys that tokens may be signed with, and what each is for: a key knows its algorithm, so that no token can choose
//! another for it (RFC 8725, section 3.1).

use crate::rsa;
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Verifier as _;
use pkcs1::der::Decode;
use serde::{Deserialize, Deserializer, de};
use sha2::Sha256;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use std::fmt;

/// The algorithms of JWS that are known here (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// No `Debug`, so that no message has a secret in it.
enum Verifier {
    Hs256(Hmac<Sha256>),
    Rs256(rsa::PublicKey),
    Es256(p256::ecdsa::VerifyingKey),
}

/// One key.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    verifier: Verifier,
}

/// Bytes of the shortest secret (RFC 7518, section 3.2).
const SECRET: usize = 32;

impl Key {
    fn new(verifier: Verifier) -> Self {
        Self { id: None, verifier }
    }

    /// The error never has the secret in it.
    pub(crate) fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET {
            return Err(format!("has {} bytes, but must have at least {SECRET}, and be random", secret.len()));
        }
        let hmac = Hmac::new_from_slice(secret).map_err(|_| "is no key")?;
        Ok(Self::new(Verifier::Hs256(hmac)))
    }

    /// A `SubjectPublicKeyInfo` (RFC 5280, section 4.1) as PEM (RFC 7468, section 13).
    pub(crate) fn pem(text: &str) -> Result<Self, String> {
        let no_pem = "is no PEM text: it begins with `-----BEGIN PUBLIC KEY-----`";
        let (label, document) = spki::Document::from_pem(text.trim_ascii()).map_err(|_| no_pem)?;
        if label != "PUBLIC KEY" {
            return Err(format!(
                "is a PEM text of a {label}: `openssl pkey -pubout` or `openssl x509 -pubkey` makes the PUBLIC KEY"
            ));
        }
        let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).map_err(|_| "is no public key")?;
        let bits = info.subject_public_key.as_bytes().ok_or("is no public key")?;
        /// RFC 3279, section 2.3.1; RFC 5480, section 2.1.1.
        const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
        const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
        match info.algorithm.oid {
            RSA => {
                let key = pkcs1::RsaPublicKey::from_der(bits).map_err(|_| "is no RSA key")?;
                Self::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
            }
            EC if info.algorithm.parameters_oid() == Ok(P256) => Self::p256(bits),
            _ => Err("is neither an RSA key nor one of the curve P-256".into()),
        }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        rsa::PublicKey::new(modulus, exponent).map(|key| Self::new(Verifier::Rs256(key)))
    }

    /// A point as in SEC 1, section 2.3.3.
    fn p256(point: &[u8]) -> Result<Self, String> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| "is no point of the curve P-256")?;
        Ok(Self::new(Verifier::Es256(key)))
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.verifier {
            Verifier::Hs256(_) => Algorithm::Hs256,
            Verifier::Rs256(_) => Algorithm::Rs256,
            Verifier::Es256(_) => Algorithm::Es256,
        }
    }

    /// Whether this is the key's signature of the message, as JWS has it.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            // Compares in constant time.
            Verifier::Hs256(hmac) => hmac.clone().chain_update(message).verify_slice(signature).is_ok(),
            Verifier::Rs256(key) => key.verify(message, signature),
            // RFC 7518, section 3.4: both numbers, of 32 bytes each.
            Verifier::Es256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// A JSON Web Key (RFC 7517, section 4), of the kinds that are known here; other members mean nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: String,
    e: String,
    x: String,
    y: String,
    k: String,
}

impl Jwk {
    /// The key; none if it is of another kind, or for something else: such are to be left out (RFC 7517, section 5).
    fn key(&self) -> Result<Option<Key>, String> {
        let for_signatures = self.usage.as_ref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|it| it == "verify"));
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Algorithm::Hs256,
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            _ => return Ok(None),
        };
        if !for_signatures || self.alg.as_ref().is_some_and(|alg| alg != algorithm.name()) {
            return Ok(None);
        }
        let bytes = |member: &str, text: &str| {
            let bytes = Base64UrlUnpadded::decode_vec(text).ok().filter(|bytes| !bytes.is_empty());
            bytes.ok_or_else(|| format!("has a `{member}` that is not there, or no base64url"))
        };
        let key = match algorithm {
            Algorithm::Hs256 => Key::secret(&bytes("k", &self.k)?)?,
            Algorithm::Rs256 => Key::rsa(&bytes("n", &self.n)?, &bytes("e", &self.e)?)?,
            Algorithm::Es256 => Key::p256(&[&[4], &*bytes("x", &self.x)?, &*bytes("y", &self.y)?].concat())?,
        };
        Ok(Some(Key { id: self.kid.clone(), ..key }))
    }
}

/// A JSON Web Key Set, as a table or as text.
pub(crate) struct KeySet(Vec<Jwk>);

impl KeySet {
    /// Its keys that can verify signatures here.
    pub(crate) fn keys(&self) -> Result<Vec<Key>, String> {
        let key = |(index, jwk): (usize, &Jwk)| {
            let name = || jwk.kid.as_ref().map_or(format!("number {index}"), |kid| format!("`{kid}`"));
            jwk.key().map_err(|error| format!("`jwks`: the key {} {error}", name())).transpose()
        };
        (1..).zip(&self.0).filter_map(key).collect()
    }
}

impl<'de> Deserialize<'de> for KeySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = KeySet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`jwks` to be a JSON Web Key Set, as a table or as text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<KeySet, E> {
                let set = moongate_plugin::json::read::<Set>(text);
                set.map(|set| KeySet(set.keys)).map_err(|error| E::custom(format_args!("`jwks`: {error}")))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<KeySet, A::Error> {
                Set::deserialize(de::value::MapAccessDeserializer::new(table)).map(|set| KeySet(set.keys))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

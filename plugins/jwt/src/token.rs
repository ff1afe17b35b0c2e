//! A token's signature: JWS in its compact form (RFC 7515, section 7.1).

use crate::claims::Claims;
use crate::keys::{Algorithm, Key};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Deserializer, de};

/// Bytes of the longest token.
const LONGEST: usize = 16 * 1024;

/// Keys that are tried for one token: whoever sends one chooses how much work that is, and ES256 takes 2 ms. Two are the old
/// one and the new one of an issuer that changes its key; issuers with more keys name them.
const TRIES: usize = 2;

/// The header of a token (RFC 7515, section 4.1). What it says of keys beyond `kid` (`jwk`, `jku`, `x5c`, …) is its
/// sender's word, and not heard.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    #[serde(default)]
    #[allow(dead_code)]
    crit: NotUnderstood,
}

/// A member that must not be there: no extension is understood here, and a token with a critical one is not to be taken
/// (RFC 7515, section 4.1.11).
#[derive(Default)]
struct NotUnderstood;

impl<'de> Deserialize<'de> for NotUnderstood {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("not understood"))
    }
}

/// The claims of a token that one of the keys has signed; none if there is anything wrong with it. `alg` is one of the
/// keys', and of them only those that it names, or that have no name, are tried.
pub(crate) fn verified(token: &str, keys: &[Key]) -> Option<Claims> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    if token.len() > LONGEST || payload.contains('.') {
        return None;
    }
    let header = String::from_utf8(Base64UrlUnpadded::decode_vec(header).ok()?).ok()?;
    let Header { alg, kid, .. } = moongate_plugin::json::read(&header).ok()?;
    let signature = Base64UrlUnpadded::decode_vec(signature).ok()?;
    let named = |key: &&Key| kid.is_some() && key.id == kid;
    let any = keys.iter().filter(|key| key.algorithm() == alg).any(|key| named(&key));
    let mut candidates = keys
        .iter()
        .filter(|key| key.algorithm() == alg)
        .filter(|key| if any { named(key) } else { kid.is_none() || key.id.is_none() })
        .take(TRIES);
    if !candidates.any(|key| key.verify(message.as_bytes(), &signature)) {
        return None;
    }
    // Only now: what nobody signed is nothing to parse.
    let payload = String::from_utf8(Base64UrlUnpadded::decode_vec(payload).ok()?).ok()?;
    moongate_plugin::json::read(&payload).ok()
}

//! What is kept of a password.

use base64ct::{Base64, Encoding};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A password's hash. No `Debug`, so that it is in no message.
pub(crate) enum Entry {
    Sha256 { salt: Vec<u8>, hash: [u8; 32] },
    Sha1([u8; 20]),
}

impl Entry {
    /// The errors name the user and never the entry.
    pub(crate) fn new(user: &str, text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("the entry of user `{user}` {why}");
        if let Some(password) = text.strip_prefix("plain:") {
            if password.is_empty() {
                return Err(wrong("is `plain:` without a password"));
            }
            // Hashed, so that comparing takes as long whatever the lengths.
            return Ok(Self::Sha256 { salt: Vec::new(), hash: Sha256::digest(password).into() });
        }
        if let Some(rest) = text.strip_prefix("sha256:") {
            let malformed = || wrong("must be `sha256:SALT:HASH` in hexadecimal digits, a hash of 64 of them");
            let (salt, hash) = rest.split_once(':').ok_or_else(malformed)?;
            let decoded = |digits: &str| base16ct::mixed::decode_vec(digits).map_err(|_| malformed());
            let hash = decoded(hash)?.try_into().map_err(|_| malformed())?;
            return Ok(Self::Sha256 { salt: decoded(salt)?, hash });
        }
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let hash = Base64::decode_vec(encoded).ok().and_then(|hash| hash.try_into().ok());
            return hash.map(Self::Sha1).ok_or_else(|| wrong("must be `{SHA}` and 20 bytes in base64"));
        }
        let reason = if ["$2a$", "$2b$", "$2y$", "$5$", "$6$", "$y$", "$argon2"].iter().any(|it| text.starts_with(it)) {
            "is of a hash that is made to be slow, too slow to be checked at every request"
        } else if text.starts_with("$apr1$") || text.starts_with("$1$") {
            "is of an MD5 hash, which is weak and yet too slow to be checked at every request"
        } else {
            "is of no form that is known here"
        };
        Err(wrong(reason)
            + ": use a long random password and `sha256:SALT:HASH`, the SHA-256 of the salt's bytes and the password in \
               hexadecimal digits")
    }

    /// The entry of a user who does not exist: no password is known to fit.
    pub(crate) fn nobody() -> Self {
        Self::Sha256 { salt: vec![0; 16], hash: [0; 32] }
    }

    /// Whether this is the password; it takes as long if it is not.
    pub(crate) fn fits(&self, password: &str) -> bool {
        match self {
            Self::Sha256 { salt, hash } => {
                let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
                digest.as_slice().ct_eq(hash).into()
            }
            Self::Sha1(hash) => Sha1::digest(password).as_slice().ct_eq(hash).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(entry: &str, password: &str) -> bool {
        Entry::new("ada", entry).ok().unwrap().fits(password)
    }

    #[test]
    fn every_form_knows_its_password_and_no_other() {
        // The hashes of `abc` of FIPS 180-2, appendices A.1 and B.1: with `a` as salt, `bc` is the password.
        for (entry, password) in [
            ("plain:open sesame", "open sesame"),
            ("sha256::ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "abc"),
            ("sha256:61:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", "bc"),
            ("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "abc"),
        ] {
            assert!(fits(entry, password), "{entry}");
            for wrong in ["", "ab", "abcd", "open sesam", "open sesame "] {
                assert!(!fits(entry, wrong), "{entry}: {wrong}");
            }
        }
        assert!(!Entry::nobody().fits(""));
    }

    #[test]
    fn entries_that_cannot_be_used_say_why_and_not_what_they_are() {
        let long = format!("sha256:00:{}", "0".repeat(66));
        for (entry, words) in [
            ("$2y$05$hunter2", "made to be slow"),
            ("$6$hunter2", "made to be slow"),
            ("$argon2id$hunter2", "made to be slow"),
            ("$apr1$hunter2", "MD5"),
            ("hunter2", "no form that is known"),
            ("", "no form that is known"),
            ("plain:", "without a password"),
            ("sha256:hunter2", "`sha256:SALT:HASH`"),
            ("sha256:00:hunter2", "`sha256:SALT:HASH`"),
            (long.as_str(), "`sha256:SALT:HASH`"),
            ("sha256:0:00", "`sha256:SALT:HASH`"),
            ("{SHA}hunter2", "20 bytes in base64"),
        ] {
            let error = Entry::new("ada", entry).err().unwrap();
            assert!(error.contains("user `ada`") && error.contains(words), "{entry}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

//! RSASSA-PKCS1-v1_5 verification with SHA-256 (RFC 8017, section 8.2.2).
//!
//! Not the crate `rsa`: its stable line has RUSTSEC-2023-0071, about its private keys, which are not needed here, and brings
//! generation, encryption and random numbers along. To verify is one power of public numbers, whose time may depend on
//! them, and one comparison of whole messages: nothing of the padding is parsed, so there is nothing to parse wrongly.

use num_bigint::BigUint;
use sha2::{Digest, Sha256};

/// The shortest modulus (RFC 7518, section 3.3), in bits.
const SHORTEST: u64 = 2048;

/// The longest: beyond, a signature takes more of a call's time than a guard should.
const LONGEST: u64 = 4096;

/// `DigestInfo` of SHA-256 before the hash (RFC 8017, section 9.2, note 1).
const DIGEST_INFO: [u8; 19] = *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// A public key.
#[derive(Debug)]
pub(crate) struct PublicKey {
    modulus: BigUint,
    exponent: u32,
}

impl PublicKey {
    /// Modulus and exponent, the highest byte first. The error says what the key is and should not be.
    pub(crate) fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent));
        let bits = modulus.bits();
        if !(SHORTEST..=LONGEST).contains(&bits) {
            return Err(format!("is an RSA key of {bits} bits, but must be of {SHORTEST} to {LONGEST}"));
        }
        let exponent = u32::try_from(&exponent).ok().filter(|exponent| *exponent >= 3 && exponent % 2 == 1);
        let exponent = exponent.ok_or("is an RSA key whose exponent is even, 1 or above 32 bits")?;
        if !modulus.bit(0) {
            return Err("is no RSA key: its modulus is even".into());
        }
        Ok(Self { modulus, exponent })
    }

    /// Whether this is the key's signature of the message.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let length = self.modulus.bits().div_ceil(8) as usize;
        let number = BigUint::from_bytes_be(signature);
        if signature.len() != length || number >= self.modulus {
            return false;
        }
        self.power(number) == BigUint::from_bytes_be(&encoded(message, length))
    }

    /// The number to the power of the exponent: exponents have few bits, most often two of them set, for which squaring
    /// and dividing is quicker than `modpow` and its tables.
    fn power(&self, number: BigUint) -> BigUint {
        let mut power = number.clone();
        let highest = self.exponent.ilog2();
        for bit in (0..highest).rev() {
            power = &power * &power % &self.modulus;
            if self.exponent >> bit & 1 == 1 {
                power = power * &number % &self.modulus;
            }
        }
        power
    }
}

/// EMSA-PKCS1-v1_5 (RFC 8017, section 9.2), `length` bytes, of which there are at least 256.
fn encoded(message: &[u8], length: usize) -> Vec<u8> {
    let hash = Sha256::digest(message);
    let mut encoded = vec![0xff; length - DIGEST_INFO.len() - hash.len()];
    encoded[..2].copy_from_slice(&[0, 1]);
    *encoded.last_mut().expect("a key is longer than a hash") = 0;
    encoded.extend_from_slice(&DIGEST_INFO);
    encoded.extend_from_slice(&hash);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_broken_keys_are_refused() {
        let key = |bits: usize, last: u8, exponent: &[u8]| {
            let mut modulus = vec![0xff; bits / 8];
            *modulus.last_mut().unwrap() = last;
            PublicKey::new(&modulus, exponent)
        };
        assert!(key(2048, 1, &[1, 0, 1]).is_ok() && key(4096, 1, &[3]).is_ok());
        assert!(key(2040, 1, &[3]).unwrap_err().contains("2040 bits, but must be of 2048 to 4096"));
        assert!(key(4104, 1, &[3]).unwrap_err().contains("4104 bits"));
        assert!(key(2048, 2, &[3]).unwrap_err().contains("modulus is even"));
        for exponent in [&[][..], &[1], &[4], &[1, 0, 0, 0, 1]] {
            assert!(key(2048, 1, exponent).unwrap_err().contains("exponent"), "{exponent:?}");
        }
        assert!(PublicKey::new(&[], &[]).is_err());
    }

    #[test]
    fn a_power_is_what_modpow_says() {
        let modulus = vec![0xab; 256];
        for exponent in [3u32, 5, 17, 65_537, 0x8000_0001, u32::MAX] {
            let key = PublicKey::new(&modulus, &exponent.to_be_bytes()).unwrap();
            let number = BigUint::from(7u8).pow(900) % &key.modulus;
            assert_eq!(key.power(number.clone()), number.modpow(&exponent.into(), &key.modulus), "{exponent}");
        }
    }

    #[test]
    fn an_encoded_message_fills_its_length() {
        let encoded = encoded(b"abc", 256);
        assert_eq!(encoded.len(), 256);
        assert_eq!(encoded[..3], [0, 1, 0xff]);
        assert_eq!(encoded[203..206], [0xff, 0, 0x30], "202 bytes of padding");
        assert_eq!(encoded[224..228], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn a_signature_of_another_length_or_above_the_modulus_is_none() {
        let key = PublicKey::new(&[0xab; 256], &[3]).unwrap();
        assert!(!key.verify(b"", &[]) && !key.verify(b"", &[0; 255]) && !key.verify(b"", &[0; 257]));
        assert!(!key.verify(b"", &[0xff; 256]) && !key.verify(b"", &[0; 256]));
    }
}

//! Hashes that are the same in every worker, gateway and release, for what is derived from an endpoint's address.

/// SipHash-2-4 (Aumasson and Bernstein, 2012): without the key nobody can tell what was hashed, or hash something else.
pub fn sip(key: (u64, u64), bytes: &[u8]) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        (0..2).for_each(|_| round(&mut v));
        v[0] ^= word;
    };
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        absorb(little_endian(chunk));
    }
    absorb(little_endian(rest) | (bytes.len() as u64) << 56);
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// The step of a [`mix`]ed sequence: 2^64 divided by the golden ratio, odd.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer (Steele, Lea and Flood, 2014): each bit of the result depends on every bit of the number, and
/// no two numbers have the same. `mix(seed + n * STEP)` for n = 1, 2, … is its sequence of random numbers.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number below `limit`, each with the same chance if `random` is one of 2^64; 0 if `limit` is 0. No division.
pub fn below(limit: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's appendix A, and the first vectors of its reference implementation.
    #[test]
    fn sip_is_siphash_2_4() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let text: Vec<u8> = (0..15).collect();
        assert_eq!(sip(key, &text), 0xa129_ca61_49be_45e5);
        assert_eq!(sip(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(sip(key, &text[..1]), 0x74f8_39c5_93dc_67fd);
        assert_eq!(sip(key, &text[..8]), 0x93f5_f579_9a93_2462);
    }

    /// The first numbers of java.util.SplittableRandom's algorithm with seed 0.
    #[test]
    fn mix_is_splitmix64() {
        assert_eq!(mix(STEP), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(STEP.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_number_below_a_limit_is() {
        assert_eq!((below(0, u64::MAX), below(1, u64::MAX), below(7, 0)), (0, 0, 0));
        assert_eq!((below(7, u64::MAX), below(u64::MAX, u64::MAX), below(2, 1 << 63)), (6, u64::MAX - 1, 1));
    }
}

//! A deterministic random generator that is seeded from outside, for a crate without a global one.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Random bytes from a 32-byte seed: repeated HMAC-SHA256, whose key is replaced after every request, so that a later
/// look into memory does not reveal what was given out before. The same seed gives the same bytes.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SeededRandom {
    key: [u8; 32],
}

impl SeededRandom {
    /// Starts from 32 bytes of the operating system's generator (or of a test).
    pub fn new(seed: [u8; 32]) -> Self {
        let mut random = Self { key: seed };
        random.key = random.block(b"gateway/random/seed", 0);
        random
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for (index, chunk) in (0_u64..).zip(out.chunks_mut(32)) {
            let mut block = self.block(b"gateway/random/out", index);
            chunk.copy_from_slice(&block[..chunk.len()]);
            block.zeroize();
        }
        self.key = self.block(b"gateway/random/next", 0);
    }

    /// An array of random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A uniformly random number, for jitter.
    pub fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    fn block(&self, label: &[u8], index: u64) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&self.key).expect("invariant: HMAC takes keys of any length");
        mac.update(label);
        mac.update(&index.to_be_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let first: [u8; 80] = SeededRandom::new([1; 32]).bytes();
        assert_eq!(first, SeededRandom::new([1; 32]).bytes::<80>());
        assert_ne!(first, SeededRandom::new([2; 32]).bytes::<80>());
    }

    #[test]
    fn successive_requests_and_successive_blocks_differ() {
        let mut random = SeededRandom::new([1; 32]);
        let first: [u8; 64] = random.bytes();
        assert_ne!(first[..32], first[32..]);
        assert_ne!(first, random.bytes::<64>());
    }

    #[test]
    fn debug_shows_nothing_of_the_state() {
        assert_eq!(format!("{:?}", SeededRandom::new([7; 32])), "SeededRandom(…)");
    }
}

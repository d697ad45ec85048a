//! Random bytes for keys, nonces, ids and jitter, from the generator of the TLS provider.

/// `N` random bytes, fit for keys.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    crate::tls::provider()
        .secure_random
        .fill(&mut bytes)
        .expect("invariant: the operating system's random source does not fail");
    bytes
}

/// A random number that names something in logs and records, and is no secret: a hundredth of the time of [`random`], whose
/// generator asks the processor for each draw.
pub fn random_name() -> u64 {
    rand::random()
}

/// A random number, for jitter.
pub fn random_u32() -> u32 {
    u32::from_be_bytes(random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(random::<32>(), random::<32>());
    }
}

//! Which policy keys a relay believes, and how it learns of new ones without being told by hand.
//!
//! The configuration names the keys to begin with. From a control plane the relay takes a [`KeyStatement`]: the keys that count
//! now, signed by the one that signs, with the links ([`crate::succession`]) that lead to it from a key that the relay
//! believes already. Nothing else is evidence: not the address it came from, not its certificate. What a statement names takes
//! the place of the keys that lead to it, so that a key that was replaced, or stolen and replaced at once, counts no more,
//! although it still stands in the configuration.
//!
//! **Never back.** A statement older than the one in force, or older than a day, is refused; whoever has an old one, or an old key,
//! cannot bring the old key back. **Overlap.** A key that was replaced in order counts until the tokens it signed have expired; it
//! vouches for nothing any more. **Several control planes.** A statement replaces the keys that lead to it, and no others.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    identity::{Context, GatewayKey, GatewayPublicKey},
    signed::{Envelope, SignedError},
    succession::follow,
};

/// Where a control plane answers with [`RelayKeys`]; to anybody, because public keys are no secret.
pub const PATH: &str = "/api/v1/relay-keys";
/// Keys in a statement at most, and retired ones.
pub const MAX_KEYS: usize = 16;
/// Bytes of an answer at most.
pub const MAX_ANSWER_LEN: usize = 64 << 10;
/// A statement that was made longer ago is refused, seconds.
pub const MAX_AGE_SECS: u64 = 24 * 3600;
/// The two clocks may differ by so much, seconds.
const SKEW_SECS: u64 = 600;
/// A retired key counts no longer than this, seconds: more than any relay token lives.
const MAX_OVERLAP_SECS: u64 = 31 * 24 * 3600;
/// Replaced keys that are remembered; beyond it no statement is taken, and the configuration has to be brought up to date.
const MAX_REPLACED: usize = 64;

/// The keys that count, said by the one that signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatement {
    /// The key that signs now, and the one that will.
    pub keys: Vec<GatewayPublicKey>,
    /// Keys that were replaced in order, and until when tokens they signed may be shown.
    pub retired: Vec<RetiredKey>,
    /// When it was said, Unix seconds.
    pub at: u64,
}

/// A key that signs no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredKey {
    /// The key.
    pub key: GatewayPublicKey,
    /// When its last token expires, Unix seconds.
    pub until: u64,
}

impl KeyStatement {
    /// The statement as it is sent.
    pub fn sign(&self, key: &GatewayKey) -> Result<Envelope, serde_json::Error> {
        Envelope::sign(key, Context::RelayKeys, self)
    }
}

/// What a control plane answers to a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RelayKeys {
    /// The signed [`KeyStatement`].
    pub statement: Envelope,
    /// The links between its keys, oldest first.
    pub links: Vec<Envelope>,
}

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No key that is believed signed it, or vouches for the one that did.
    #[error("no key that this relay believes signed the statement or vouches for the key that did")]
    Stranger(#[source] SignedError),
    /// It is not from now.
    #[error(
        "the statement was made at {at} (Unix seconds), and it is {now} here: it was kept back, or a clock is wrong"
    )]
    OutOfTime {
        /// When it was made.
        at: u64,
        /// What our clock says.
        now: u64,
    },
    /// One that was made later is in force.
    #[error("the statement was made at {at} (Unix seconds), before the one in force")]
    Older {
        /// When it was made.
        at: u64,
    },
    /// It does not name its own signer, or too many keys.
    #[error("the statement contradicts itself")]
    Contradictory,
    /// Too many keys were replaced.
    #[error("more than {MAX_REPLACED} keys were replaced: bring the keys of the configuration up to date")]
    TooMany,
}

/// What is kept of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptKeys {
    statement: KeyStatement,
    /// Keys that lead to those of the statement, and count no more.
    replaced: BTreeSet<GatewayPublicKey>,
}

/// The keys a relay believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBook {
    configured: Vec<GatewayPublicKey>,
    kept: Option<KeptKeys>,
}

impl KeyBook {
    /// With the keys of the configuration, and what was kept; that is forgotten when none of its keys is configured any more.
    pub fn new(configured: Vec<GatewayPublicKey>, kept: Option<KeptKeys>) -> Self {
        let follows = |kept: &KeptKeys| {
            configured.iter().any(|key| kept.replaced.contains(key) || kept.statement.keys.contains(key))
        };
        let kept = kept.filter(follows);
        Self { configured, kept }
    }

    /// What is to be kept.
    pub fn kept(&self) -> Option<&KeptKeys> {
        self.kept.as_ref()
    }

    /// The keys whose tokens count at `now`, Unix seconds.
    pub fn keys(&self, now: u64) -> Vec<GatewayPublicKey> {
        let mut keys = self.vouching();
        let retired = self.kept.iter().flat_map(|kept| &kept.statement.retired).filter(|retired| now < retired.until);
        keys.extend(retired.map(|retired| retired.key));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Takes the answer of a control plane; whether anything is another than before.
    pub fn take(&mut self, answer: &RelayKeys, now: u64) -> Result<bool, KeysError> {
        let known = follow(&self.vouching(), &answer.links);
        let statement: KeyStatement = answer.statement.open(Context::RelayKeys, &known).map_err(KeysError::Stranger)?;
        let signer = answer.statement.key;
        if !statement.keys.contains(&signer)
            || statement.keys.len() > MAX_KEYS
            || statement.retired.len() > MAX_KEYS
            || statement.retired.iter().any(|retired| retired.until > now.saturating_add(MAX_OVERLAP_SECS))
        {
            return Err(KeysError::Contradictory);
        }
        let at = statement.at;
        if at > now.saturating_add(SKEW_SECS) || at.saturating_add(MAX_AGE_SECS) < now {
            return Err(KeysError::OutOfTime { at, now });
        }
        if self.kept.as_ref().is_some_and(|kept| at < kept.statement.at) {
            return Err(KeysError::Older { at });
        }
        let leads = |key: &GatewayPublicKey| follow(&[*key], &answer.links).contains(&signer);
        let mut replaced: BTreeSet<_> = self.kept.iter().flat_map(|kept| kept.replaced.clone()).collect();
        replaced.extend(self.vouching().into_iter().filter(leads));
        for key in &statement.keys {
            replaced.remove(key);
        }
        if replaced.len() > MAX_REPLACED {
            return Err(KeysError::TooMany);
        }
        let kept = KeptKeys { statement, replaced };
        let is_same = |before: &KeptKeys| {
            let KeyStatement { keys, retired, .. } = &before.statement;
            (keys, retired, &before.replaced) == (&kept.statement.keys, &kept.statement.retired, &kept.replaced)
        };
        let is_news = !self.kept.as_ref().is_some_and(is_same);
        self.kept = Some(kept);
        Ok(is_news)
    }

    /// Keys that may vouch for others: all that count, but the retired ones.
    fn vouching(&self) -> Vec<GatewayPublicKey> {
        let Some(KeptKeys { statement, replaced }) = &self.kept else { return self.configured.clone() };
        let others = self.configured.iter().filter(|key| !replaced.contains(key) && !statement.keys.contains(key));
        statement.keys.iter().chain(others).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::succession::Succession;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u8) -> GatewayKey {
        GatewayKey::from_seed(&[n; 32])
    }

    fn public(keys: &[u8]) -> Vec<GatewayPublicKey> {
        let mut keys: Vec<_> = keys.iter().map(|n| key(*n).public()).collect();
        keys.sort_unstable();
        keys
    }

    fn link(from: u8, to: u8) -> Envelope {
        Succession { from: key(from).public(), to: key(to).public(), at: 1 }.sign(&key(from)).unwrap()
    }

    fn answer(signer: u8, keys: &[u8], retired: &[(u8, u64)], at: u64, links: &[(u8, u8)]) -> RelayKeys {
        let retired = retired.iter().map(|(n, until)| RetiredKey { key: key(*n).public(), until: *until });
        let statement = KeyStatement { keys: public(keys), retired: retired.collect(), at };
        RelayKeys {
            statement: statement.sign(&key(signer)).unwrap(),
            links: links.iter().map(|(from, to)| link(*from, *to)).collect(),
        }
    }

    #[test]
    fn a_rotation_in_order_reaches_a_relay_before_the_new_key_signs_and_ends_with_the_last_old_token() {
        let mut book = KeyBook::new(public(&[1]), None);
        assert_eq!(book.keys(NOW), public(&[1]));
        assert_eq!(book.take(&answer(1, &[1, 2], &[], NOW, &[(1, 2)]), NOW), Ok(true));
        assert_eq!(book.keys(NOW), public(&[1, 2]));
        assert_eq!(book.take(&answer(1, &[1, 2], &[], NOW + 5, &[(1, 2)]), NOW + 5), Ok(false), "said again");
        assert_eq!(book.take(&answer(2, &[2], &[(1, NOW + 100)], NOW + 10, &[(1, 2)]), NOW + 10), Ok(true));
        assert_eq!(book.keys(NOW + 99), public(&[1, 2]));
        assert_eq!(book.keys(NOW + 100), public(&[2]), "although it is configured");
        // After a restart it is the same.
        let again = KeyBook::new(public(&[1]), book.kept().cloned());
        assert_eq!(again, book);
    }

    #[test]
    fn a_relay_that_was_away_for_several_rotations_follows_them_all() {
        let mut book = KeyBook::new(public(&[1]), None);
        assert_eq!(book.take(&answer(4, &[4], &[], NOW, &[(3, 4), (1, 2), (2, 3)]), NOW), Ok(true));
        assert_eq!(book.keys(NOW), public(&[4]));
        // A key between two that were known was skipped, and vouches for nobody.
        assert!(matches!(book.take(&answer(9, &[9], &[], NOW + 1, &[(2, 9)]), NOW + 1), Err(KeysError::Stranger(_))));
    }

    #[test]
    fn a_stolen_key_brings_neither_itself_nor_another_back() {
        let mut book = KeyBook::new(public(&[1]), None);
        let before = answer(1, &[1], &[], NOW, &[]);
        assert_eq!(book.take(&before, NOW), Ok(true));
        assert_eq!(book.take(&answer(2, &[2], &[], NOW + 10, &[(1, 2)]), NOW + 10), Ok(true));
        assert_eq!(book.keys(NOW + 10), public(&[2]));
        for thief in [
            before,
            answer(1, &[1], &[], NOW + 20, &[]),
            answer(9, &[9], &[], NOW + 20, &[(1, 9)]),
            answer(9, &[9, 1], &[(1, NOW + 500)], NOW + 20, &[(1, 9), (9, 1)]),
        ] {
            let refused = book.take(&thief, NOW + 20);
            assert!(matches!(refused, Err(KeysError::Stranger(_))), "{refused:?}");
            assert_eq!(book.keys(NOW + 20), public(&[2]));
        }
        // Nor does it in its overlap: a retired key vouches for nothing.
        assert_eq!(book.take(&answer(3, &[3], &[(2, NOW + 1000)], NOW + 30, &[(2, 3)]), NOW + 30), Ok(true));
        assert_eq!(book.keys(NOW + 30), public(&[2, 3]));
        assert!(book.take(&answer(9, &[9], &[], NOW + 40, &[(2, 9)]), NOW + 40).is_err());
    }

    #[test]
    fn what_is_older_early_late_or_contradicts_itself_changes_nothing() {
        let mut book = KeyBook::new(public(&[1]), None);
        assert_eq!(book.take(&answer(1, &[1, 2], &[], NOW, &[]), NOW), Ok(true));
        let kept = book.clone();
        let refused = [
            (answer(1, &[1], &[], NOW - 1, &[]), KeysError::Older { at: NOW - 1 }),
            (answer(1, &[2], &[], NOW + 1, &[]), KeysError::Contradictory),
            (answer(1, &[1], &[(3, NOW + MAX_OVERLAP_SECS + 100)], NOW + 1, &[]), KeysError::Contradictory),
            (answer(1, &[1], &[], NOW + 1000, &[]), KeysError::OutOfTime { at: NOW + 1000, now: NOW + 1 }),
        ];
        for (answer, error) in refused {
            assert_eq!(book.take(&answer, NOW + 1), Err(error));
        }
        let late = NOW + 1 + MAX_AGE_SECS + 1;
        let kept_back = book.take(&answer(1, &[1], &[], NOW + 1, &[]), late);
        assert_eq!(kept_back, Err(KeysError::OutOfTime { at: NOW + 1, now: late }));
        let many: Vec<u8> = (1..=17).collect();
        assert_eq!(book.take(&answer(1, &many, &[], NOW + 1, &[]), NOW + 1), Err(KeysError::Contradictory));
        assert_eq!(book, kept);
    }

    #[test]
    fn the_keys_of_other_control_planes_stay_whatever_one_says() {
        let mut book = KeyBook::new(public(&[1, 50]), None);
        // It names the other one's key as retired, and as its own.
        assert_eq!(book.take(&answer(2, &[2, 50], &[(50, NOW + 1)], NOW, &[(1, 2)]), NOW), Ok(true));
        assert_eq!(book.take(&answer(2, &[2], &[], NOW + 1, &[]), NOW + 1), Ok(true));
        assert_eq!(book.keys(NOW + 1), public(&[2, 50]));
    }

    #[test]
    fn what_was_kept_is_forgotten_with_the_key_that_led_to_it() {
        let mut book = KeyBook::new(public(&[1]), None);
        assert_eq!(book.take(&answer(2, &[2], &[], NOW, &[(1, 2)]), NOW), Ok(true));
        let kept = book.kept().cloned();
        assert_eq!(KeyBook::new(public(&[2]), kept.clone()).keys(NOW), public(&[2]), "brought up to date by hand");
        assert_eq!(KeyBook::new(public(&[7]), kept).keys(NOW), public(&[7]), "another control plane");
    }
}

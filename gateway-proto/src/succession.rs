//! How trust passes from one policy key of a control plane to the next, with nobody enrolled anew.
//!
//! A new key is vouched for once, by the key before it, when it is made: a [`Succession`] in an envelope that the old key
//! signs. The old key is needed for nothing else afterwards and may be destroyed; the envelope stays. A gateway that was
//! away for all of a rotation, or for several, follows the links from a key that it trusts to the one that signs now
//! ([`follow`]). What a link adds is trust to read a policy; which keys count from then on is what that policy says.
//!
//! Life of a key ([`KeyRing`]): *next* (named in every policy beside the one that signs, so that gateways and relays know
//! it before they need it), *signing*, *retired* (signs no more, but names the control plane to gateways that know no
//! newer key), forgotten. A key that was stolen is followed at once: no policy names it any more, and a gateway that has
//! read one such policy will never again believe the old key.

use serde::{Deserialize, Serialize};

use crate::{
    identity::{Context, GatewayKey, GatewayPublicKey},
    signed::{Envelope, SignedError},
};

/// Links that are followed at most: more keys than a platform keeps.
pub const MAX_LINKS: usize = 16;

/// A policy key's word for the one that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// The key that vouches, and signs this.
    pub from: GatewayPublicKey,
    /// The key that follows it.
    pub to: GatewayPublicKey,
    /// When it was said, Unix seconds.
    pub at: u64,
}

impl Succession {
    /// The link as it is sent.
    pub fn sign(&self, key: &GatewayKey) -> Result<Envelope, serde_json::Error> {
        Envelope::sign(key, Context::Succession, self)
    }

    /// Reads a link that a trusted key signed for itself.
    pub fn open(link: &Envelope, trusted: &[GatewayPublicKey]) -> Result<Self, SignedError> {
        let succession: Self = link.open(Context::Succession, trusted)?;
        if succession.from == link.key { Ok(succession) } else { Err(SignedError::Malformed) }
    }
}

/// The keys that `trusted` vouch for by these links, directly or one through the other, `trusted` first. Links that do not
/// lead on from there are of no account; their order does not matter.
pub fn follow(trusted: &[GatewayPublicKey], links: &[Envelope]) -> Vec<GatewayPublicKey> {
    let mut known = trusted.to_vec();
    let links = links.get(..links.len().min(MAX_LINKS)).unwrap_or_default();
    loop {
        let before = known.len();
        for link in links {
            if let Ok(succession) = Succession::open(link, &known)
                && !known.contains(&succession.to)
            {
                known.push(succession.to);
            }
        }
        if known.len() == before {
            return known;
        }
    }
}

/// What a policy key does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKeyState {
    /// Named in policies, so that gateways and relays know it when it begins to sign.
    Next,
    /// Signs policies and relay tokens.
    Signing,
    /// Signs no more; gateways that know no newer key may still name the control plane by it.
    Retired,
}

/// A key of a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKey {
    /// The key.
    pub key: GatewayPublicKey,
    /// What it does.
    pub state: PolicyKeyState,
    /// When it begins to sign, or began, Unix seconds.
    pub signs_from: u64,
    /// The word of the key before it; none: there was none, or it vouches no more.
    pub link: Option<Envelope>,
}

/// The keys of a control plane, oldest first; one of them signs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRing {
    keys: Vec<RingKey>,
}

/// Why there is no new key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// One waits already.
    #[error("a new key waits already and begins to sign in {0} s; with --at-once another takes its place")]
    Waiting(u64),
    /// Too many.
    #[error("there are {0} keys; forget the oldest retired one first")]
    TooMany(usize),
    /// No key signs.
    #[error("no key signs: the storage is damaged")]
    NoSigner,
}

/// Keys at the same time.
const MAX_KEYS: usize = 8;

impl KeyRing {
    /// The keys, oldest first.
    pub fn new(keys: Vec<RingKey>) -> Self {
        Self { keys }
    }

    /// The key that signs.
    pub fn signing(&self) -> Option<&RingKey> {
        self.in_state(PolicyKeyState::Signing)
    }

    /// The key that will sign.
    pub fn next(&self) -> Option<&RingKey> {
        self.in_state(PolicyKeyState::Next)
    }

    /// What every policy names: whose policies count from then on.
    pub fn named(&self) -> Vec<GatewayPublicKey> {
        self.signing().into_iter().chain(self.next()).map(|key| key.key).collect()
    }

    /// By which keys a gateway may mean us.
    pub fn known(&self) -> Vec<GatewayPublicKey> {
        self.keys.iter().map(|key| key.key).collect()
    }

    /// All links, oldest first.
    pub fn links(&self) -> Vec<Envelope> {
        self.keys.iter().filter_map(|key| key.link.clone()).collect()
    }

    /// The links that lead from a key to all that followed it; empty: there is nothing behind it, or it is not ours.
    pub fn links_from(&self, key: &GatewayPublicKey) -> Vec<Envelope> {
        let followers = self.keys.iter().skip_while(|known| known.key != *key).skip(1);
        followers.filter_map(|key| key.link.clone()).collect()
    }

    /// The key whose time to sign has come.
    pub fn due(&self, now: u64) -> Option<GatewayPublicKey> {
        self.next().filter(|next| next.signs_from <= now).map(|next| next.key)
    }

    /// Whether a new key may be made now.
    pub fn may_rotate(&self, at_once: bool, now: u64) -> Result<(), RotationError> {
        if self.signing().is_none() {
            return Err(RotationError::NoSigner);
        }
        match self.next() {
            Some(next) if !at_once => return Err(RotationError::Waiting(next.signs_from.saturating_sub(now))),
            // It makes room for the new one.
            Some(_) => return Ok(()),
            None => {}
        }
        if self.keys.len() >= MAX_KEYS { Err(RotationError::TooMany(self.keys.len())) } else { Ok(()) }
    }

    fn in_state(&self, state: PolicyKeyState) -> Option<&RingKey> {
        self.keys.iter().find(|key| key.state == state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> GatewayKey {
        GatewayKey::from_seed(&[n; 32])
    }

    fn link(from: u8, to: u8) -> Envelope {
        Succession { from: key(from).public(), to: key(to).public(), at: 1 }.sign(&key(from)).unwrap()
    }

    fn publics(numbers: &[u8]) -> Vec<GatewayPublicKey> {
        numbers.iter().map(|n| key(*n).public()).collect()
    }

    #[test]
    fn who_missed_several_rotations_follows_the_links_in_any_order() {
        assert_eq!(follow(&publics(&[1]), &[link(2, 3), link(1, 2)]), publics(&[1, 2, 3]));
        assert_eq!(follow(&publics(&[2]), &[link(1, 2), link(2, 3)]), publics(&[2, 3]), "what is behind adds nothing");
        assert_eq!(follow(&publics(&[3]), &[link(1, 2), link(2, 3)]), publics(&[3]));
    }

    #[test]
    fn nobody_vouches_without_being_trusted() {
        // A stranger, a retired key that is not trusted any more, a link whose signer says it is another.
        let forged = Succession { from: key(1).public(), to: key(9).public(), at: 1 }.sign(&key(9)).unwrap();
        let renamed = Envelope { key: key(1).public(), ..forged.clone() };
        let for_another = Succession { from: key(2).public(), to: key(9).public(), at: 1 }.sign(&key(1)).unwrap();
        let as_policy =
            Envelope::sign(&key(1), Context::Policy, &Succession { from: key(1).public(), to: key(9).public(), at: 1 })
                .unwrap();
        for links in [vec![link(9, 1), link(9, 8)], vec![forged], vec![renamed], vec![for_another], vec![as_policy]] {
            assert_eq!(follow(&publics(&[1]), &links), publics(&[1]));
        }
        let many: Vec<_> = (0..u8::try_from(MAX_LINKS).unwrap()).map(|_| link(8, 9)).chain([link(1, 2)]).collect();
        assert_eq!(follow(&publics(&[1]), &many), publics(&[1]), "no more links than there can be are looked at");
    }

    fn ring(states: &[(u8, PolicyKeyState, u64)]) -> KeyRing {
        let keys = states.iter().enumerate().map(|(at, (n, state, signs_from))| RingKey {
            key: key(*n).public(),
            state: *state,
            signs_from: *signs_from,
            link: (at > 0).then(|| link(states[at - 1].0, *n)),
        });
        KeyRing::new(keys.collect())
    }

    #[test]
    fn the_next_key_is_named_before_it_signs_and_the_old_one_is_not_after() {
        use PolicyKeyState::{Next, Retired, Signing};
        let waiting = ring(&[(1, Signing, 0), (2, Next, 100)]);
        assert_eq!(waiting.named(), publics(&[1, 2]));
        assert_eq!((waiting.due(99), waiting.due(100)), (None, Some(key(2).public())));
        assert_eq!(waiting.may_rotate(false, 40), Err(RotationError::Waiting(60)));
        assert_eq!(waiting.may_rotate(true, 40), Ok(()), "a stolen key waits for nothing");
        let turned = ring(&[(1, Retired, 0), (2, Signing, 100)]);
        assert_eq!((turned.named(), turned.known()), (publics(&[2]), publics(&[1, 2])));
        assert_eq!(follow(&publics(&[1]), &turned.links_from(&key(1).public())), publics(&[1, 2]));
        assert!(turned.links_from(&key(2).public()).is_empty() && turned.links_from(&key(9).public()).is_empty());
        assert_eq!((turned.may_rotate(false, 0), turned.due(u64::MAX)), (Ok(()), None));
        let full: Vec<_> = (1..8).map(|n| (n, Retired, 0)).chain([(8, Signing, 0)]).collect();
        assert_eq!(ring(&full).may_rotate(true, 0), Err(RotationError::TooMany(8)));
        assert_eq!(ring(&[(1, Retired, 0)]).may_rotate(false, 0), Err(RotationError::NoSigner));
    }
}

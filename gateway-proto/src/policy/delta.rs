//! What changes from one signed policy to the next, for a link that shall not carry thousands of entries because of one.
//!
//! A delta is no second signed format. It says how the *bytes* of the next policy are made from those of the one before, and carries
//! the signature of the next policy, which covers all of it. Whoever applies a delta has exactly what was signed, or something whose
//! signature is wrong: one that is damaged, replayed, forged or meant for another base costs a whole policy, and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{identity::GatewayPublicKey, signed::Envelope};

/// What an edit costs on the link beside its text, bytes, about.
const EDIT_COST: usize = 40;

/// How a signed policy is made from the one before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDelta {
    /// The revision that it is made from.
    pub from: u64,
    /// The key that signed the next policy, hex.
    pub key: GatewayPublicKey,
    /// Its signature over the whole next policy, base64.
    pub signature: String,
    /// The changes, from the first byte to the last. What is behind the last one is left out.
    pub edits: Vec<Edit>,
}

/// One step through the bytes of the policy before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// So many bytes stay.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keep: usize,
    /// So many bytes after them are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: usize,
    /// This comes in their place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub insert: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A policy holds secrets.
impl std::fmt::Debug for PolicyDelta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PolicyDelta(from {}, {} edits, masked)", self.from, self.edits.len())
    }
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Edit(keep {}, skip {}, {} bytes masked)", self.keep, self.skip, self.insert.len())
    }
}

/// Why a delta gives no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// Another revision is in force here.
    #[error("the change is one of revision {from}, and {in_force} is in force")]
    OtherRevision {
        /// What it changes.
        from: u64,
        /// What is in force.
        in_force: u64,
    },
    /// It goes beyond the policy that it changes, or into the middle of a character.
    #[error("the change does not fit the policy that it changes")]
    Misfit,
}

impl PolicyDelta {
    /// How `next` is made from `base`, which has the revision `from`. None where that would not be shorter than half of `next`, or
    /// one of them holds no text.
    pub fn between(from: u64, base: &Envelope, next: &Envelope) -> Option<Self> {
        let (old, new) = (base.text()?, next.text()?);
        let edits = edits(&old, &new);
        let cost: usize = edits.iter().map(|edit| edit.insert.len() + EDIT_COST).sum();
        (cost < new.len() / 2).then(|| Self { from, key: next.key, signature: next.signature.clone(), edits })
    }

    /// The next policy, which nobody has verified. Its length is at most that of `base` and of the delta together.
    pub fn apply(&self, base: &Envelope) -> Result<Envelope, DeltaError> {
        let old = base.text().ok_or(DeltaError::Misfit)?;
        let (mut rest, mut new) = (old.as_str(), String::with_capacity(old.len()));
        for Edit { keep, skip, insert } in &self.edits {
            let (kept, left) = rest.split_at_checked(*keep).ok_or(DeltaError::Misfit)?;
            (_, rest) = left.split_at_checked(*skip).ok_or(DeltaError::Misfit)?;
            new.push_str(kept);
            new.push_str(insert);
        }
        Ok(Envelope::of_text(self.key, &new, self.signature.clone()))
    }
}

/// Where a piece stands in the policy before, and how often in both.
#[derive(Default)]
struct Place {
    first: usize,
    in_old: usize,
    in_new: usize,
}

/// The edits between two texts of JSON. Objects are the pieces, in their order. What follows on what was kept is kept; what stands
/// once in both and later than where we are is gone on from, and what is before it is left out. Pieces that stand in several
/// places, as the ends of entries do, say nothing of where they belong. Work grows with the length of both, not with their product.
fn edits(old: &str, new: &str) -> Vec<Edit> {
    let pieces: Vec<&str> = old.split_inclusive('}').collect();
    let mut places = BTreeMap::<&str, Place>::new();
    for (first, piece) in pieces.iter().enumerate() {
        places.entry(piece).or_insert(Place { first, ..Place::default() }).in_old += 1;
    }
    for piece in new.split_inclusive('}') {
        if let Some(place) = places.get_mut(piece) {
            place.in_new += 1;
        }
    }
    let is_once_in_both = |place: &&Place| place.in_old == 1 && place.in_new == 1;
    let (mut edits, mut at) = (Vec::new(), 0);
    for piece in new.split_inclusive('}') {
        let follows = pieces.get(at) == Some(&piece);
        let later = || places.get(piece).filter(is_once_in_both).map(|place| place.first).filter(|first| *first > at);
        let Some(place) = follows.then_some(at).or_else(later) else {
            insert(&mut edits, piece);
            continue;
        };
        skip(&mut edits, pieces[at..place].iter().map(|piece| piece.len()).sum());
        keep(&mut edits, piece.len());
        at = place + 1;
    }
    edits
}

fn keep(edits: &mut Vec<Edit>, length: usize) {
    match edits.last_mut() {
        Some(last) if last.skip == 0 && last.insert.is_empty() => last.keep += length,
        _ => edits.push(Edit { keep: length, skip: 0, insert: String::new() }),
    }
}

fn skip(edits: &mut Vec<Edit>, length: usize) {
    if length == 0 {
        return;
    }
    match edits.last_mut() {
        Some(last) => last.skip += length,
        None => edits.push(Edit { keep: 0, skip: length, insert: String::new() }),
    }
}

fn insert(edits: &mut Vec<Edit>, text: &str) {
    match edits.last_mut() {
        Some(last) => last.insert.push_str(text),
        None => edits.push(Edit { keep: 0, skip: 0, insert: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests;

//! Mutating requests that may be sent twice: the key of the request is claimed in the transaction of its change, and the
//! answer is kept beside it. Sent again, the same request gets the same answer and changes nothing; sent at the same time,
//! one of the two is done. A request that was refused changed nothing and leaves no claim: it is tried anew.

use data_encoding::HEXLOWER;
use gateway_proto::id::{OrganizationId, UserId};
use sha2::{Digest, Sha256};

use super::{Actor, Service, ServiceError, ServiceResult, Work};
use crate::storage::{KeptAnswer, StorageError};

/// A key is remembered for a day.
const KEPT_SECS: u64 = 24 * 3600;
/// Keys of one user; the oldest go.
const KEYS_PER_USER: u32 = 1_000;
/// Answers up to this size are kept.
const MAX_ANSWER: usize = 64 << 10;

/// A request with a key.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose user asks.
    pub organization: OrganizationId,
    /// Who asks.
    pub user: UserId,
    /// The key, the user's own choice.
    pub key: String,
    /// Method, path, condition and body, with what the credential allows, hashed.
    pub request_hash: String,
}

/// An answer that was given, and is given again.
#[derive(Debug)]
pub struct GivenAnswer {
    /// Its status.
    pub status: u16,
    /// Its text.
    pub text: String,
    /// The entity tag that came with it.
    pub etag: Option<String>,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Known {
    /// Nothing: the request is to be done.
    New,
    /// It was done, and this was the answer.
    Answered(GivenAnswer),
}

impl Service {
    /// What a request is and what may be done with it, hashed with a key that is not in the storage: a body may hold a
    /// password, which nobody who reads the storage shall be able to guess at. The key comes from the policy key, the one
    /// secret that is known to be the same at all replicas. Another role, other scopes or another condition make another
    /// request: nobody is answered what was once answered to somebody who was allowed more.
    pub fn request_hash(&self, actor: &Actor, method: &str, path: &str, condition: &[u8], body: &[u8]) -> String {
        let key =
            Sha256::new_with_prefix(b"idempotency ").chain_update(self.settings.signer.seed().as_slice()).finalize();
        let mut mac = Sha256::new_with_prefix(key);
        let scopes = actor.scopes.as_ref().map(|scopes| scopes.iter().cloned().collect::<Vec<_>>().join(","));
        let who = format!("{:?} {scopes:?}", actor.user.role);
        for part in [who.as_bytes(), method.as_bytes(), path.as_bytes(), condition, body] {
            mac.update((part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        HEXLOWER.encode(&mac.finalize())
    }

    /// Looks a request up.
    pub async fn look_up(&self, claim: &Claim) -> ServiceResult<Known> {
        let since = self.clock.unix_secs().saturating_sub(KEPT_SECS);
        let known = self.storage.read().await?.idempotency_key(claim.user, &claim.key, since).await?;
        let Some(known) = known else { return Ok(Known::New) };
        if known.request_hash != claim.request_hash {
            return Err(ServiceError::IdempotencyKey(
                "this Idempotency-Key was used for another request; a new request needs a new key",
            ));
        }
        match known.answer {
            Some(KeptAnswer { status, text: Some(text), etag }) => {
                Ok(Known::Answered(GivenAnswer { status, text, etag }))
            }
            Some(KeptAnswer { text: None, .. }) | None => Err(ServiceError::IdempotencyKey(DONE)),
        }
    }

    /// Keeps the answer to a request that was done; `secret`: only that it was done.
    pub async fn keep_answer(&self, claim: &Claim, answer: GivenAnswer, secret: bool) -> ServiceResult<()> {
        let GivenAnswer { status, text, etag } = answer;
        let text = Some(text).filter(|text| !secret && text.len() <= MAX_ANSWER);
        let answer = KeptAnswer { status, text, etag };
        let _turn = self.turn_to_write(claim.organization).await?;
        let mut tx = self.storage.begin().await?;
        tx.put_idempotent_answer(claim.user, &claim.key, &claim.request_hash, &answer).await?;
        Ok(tx.commit().await?)
    }
}

const DONE: &str = "the request with this Idempotency-Key was done, or is being done, and its answer is not kept (it holds a \
                    secret, or was lost): look at what it should have made, and use a new key for a new request";

impl Work {
    /// Claims the key of a request, once and for all with this change.
    pub(super) async fn claim(&mut self, claim: &Claim) -> ServiceResult<()> {
        let now = self.now;
        // A key from before is free again, whether it was swept already or not.
        let since = now.saturating_sub(KEPT_SECS);
        if let Some(known) = self.idempotency_key(claim.user, &claim.key, since).await? {
            return Err(ServiceError::IdempotencyKey(if known.request_hash == claim.request_hash {
                DONE
            } else {
                "this Idempotency-Key was used for another request; a new request needs a new key"
            }));
        }
        let inserted =
            self.insert_idempotency_key(claim.user, &claim.key, &claim.request_hash, now, since, KEYS_PER_USER).await;
        self.claimed = true;
        inserted.map_err(|error| {
            if matches!(error, StorageError::Duplicate) { ServiceError::IdempotencyKey(DONE) } else { error.into() }
        })
    }

    /// Ends a change that found nothing to change: a claimed key stays claimed, so that the same request sent again changes
    /// nothing either, whatever happened in between.
    pub(super) async fn unchanged(self) -> ServiceResult<()> {
        if self.claimed || self.condition.is_some() { self.commit().await } else { Ok(()) }
    }

    /// Forgets keys that are older than a day.
    pub(super) async fn forget_keys(&mut self) -> ServiceResult<()> {
        let before = self.now.saturating_sub(KEPT_SECS);
        Ok(self.purge_idempotency_keys(before).await?)
    }
}

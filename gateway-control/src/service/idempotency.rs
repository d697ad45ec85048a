//! Mutating requests that may be sent twice: the key of the request is claimed in the transaction of its change, and the
//! answer is kept beside it. Sent again, the same request gets the same answer and changes nothing; sent at the same time,
//! one of the two is done. A request that was refused changed nothing and leaves no claim: it is tried anew.
//!
//! Whoever sends a key does so for the case that the answer does not arrive. So the answer is kept though nobody waits for it any
//! more: a request with a key is done to its end whether or not its client stays ([`Service::to_its_end`]).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use data_encoding::HEXLOWER;
use gateway_proto::id::OrganizationId;
use sha2::{Digest, Sha256};

use super::{Actor, OperatorCaller, Service, ServiceError, ServiceResult, Work, work::Who};
use crate::storage::{IdempotencyRow, KeptAnswer, KeyHolder, StorageError};

/// A key is remembered for a day.
const KEPT_SECS: u64 = 24 * 3600;
/// Keys of one user, and of the operator; the oldest go.
const KEYS_PER_HOLDER: u32 = 1_000;
/// Answers up to this size are kept.
const MAX_ANSWER: usize = 64 << 10;

/// A request with a key.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose user asks; none: the operator of the platform.
    pub organization: Option<OrganizationId>,
    /// Who asks.
    pub holder: KeyHolder,
    /// The key, the holder's own choice.
    pub key: String,
    /// Method, path, condition and body, with what the credential allows, hashed.
    pub request_hash: String,
    /// It was written down with a change, by whoever has a clone of it.
    made: Arc<AtomicBool>,
}

impl Claim {
    /// The claim of a user's request, not made yet.
    pub fn of_user(actor: &Actor, key: String, request_hash: String) -> Self {
        let (organization, holder) = (Some(actor.organization.id), KeyHolder::User(actor.user.id));
        Self { organization, holder, key, request_hash, made: Arc::default() }
    }

    /// The same of the operator's.
    pub fn of_operator(key: String, request_hash: String) -> Self {
        Self { organization: None, holder: KeyHolder::Operator, key, request_hash, made: Arc::default() }
    }
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
    /// request: nobody is answered what was once answered to somebody who was allowed more. No actor: the operator, who may
    /// always do the same.
    pub fn request_hash(
        &self,
        actor: Option<&Actor>,
        method: &str,
        path: &str,
        condition: &[u8],
        body: &[u8],
    ) -> String {
        let key =
            Sha256::new_with_prefix(b"idempotency ").chain_update(self.settings.signer.seed().as_slice()).finalize();
        let mut mac = Sha256::new_with_prefix(key);
        let who = actor.map_or_else(|| "operator".to_owned(), may_what);
        for part in [who.as_bytes(), method.as_bytes(), path.as_bytes(), condition, body] {
            mac.update((part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        HEXLOWER.encode(&mac.finalize())
    }

    /// A change by the operator of the platform: on the condition, and with the key, of the request.
    pub(super) async fn work_of_operator(&self, operator: &OperatorCaller) -> ServiceResult<Work> {
        let mut work = self.work(Who::operator(operator)).await?;
        work.condition.clone_from(&operator.if_match);
        if let Some(claim) = &operator.claim {
            work.claim(claim).await?;
        }
        Ok(work)
    }

    /// Looks a request up.
    pub async fn look_up(&self, claim: &Claim) -> ServiceResult<Known> {
        let since = self.clock.unix_secs().saturating_sub(KEPT_SECS);
        let _turn = match claim.organization {
            Some(organization) => Some(self.turns.reads.turn(organization).await?),
            None => None,
        };
        let known = self.storage.read().await?.idempotency_key(claim.holder, &claim.key, since).await?;
        let Some(known) = known else { return Ok(Known::New) };
        fits(&known, claim)?;
        match known.answer {
            Some(KeptAnswer { status, text: Some(text), etag }) => {
                Ok(Known::Answered(GivenAnswer { status, text, etag }))
            }
            Some(KeptAnswer { text: None, .. }) | None => Err(ServiceError::IdempotencyKey(DONE)),
        }
    }

    /// Does the work of a request to its end, whether or not its client waits for it.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> ServiceResult<T> {
        let done = self.commits.spawn(work).await;
        done.map_err(|_| ServiceError::Internal("a request ended early"))
    }

    /// Keeps the answer to a request that was done; `secret`: only that it was done. Where nothing was claimed there is nothing
    /// to keep. It takes no turn of its own: whoever comes here had one a moment ago, and one row would be lost to a full lane.
    pub async fn keep_answer(&self, claim: &Claim, answer: GivenAnswer, secret: bool) -> ServiceResult<()> {
        if !claim.made.load(Ordering::Relaxed) {
            return Ok(());
        }
        let GivenAnswer { status, text, etag } = answer;
        let text = Some(text).filter(|text| !secret && text.len() <= MAX_ANSWER);
        let answer = KeptAnswer { status, text, etag };
        let mut tx = self.storage.begin().await?;
        tx.put_idempotent_answer(claim.holder, &claim.key, &claim.request_hash, &answer).await?;
        Ok(tx.commit().await?)
    }
}

const DONE: &str = "the request with this Idempotency-Key was done, or is being done, and its answer is not kept (it holds a \
                    secret, or was lost): look at what it should have made, and use a new key for a new request";

const OTHER: &str = "this Idempotency-Key was used for another request; a new request needs a new key";

/// What a credential allows.
fn may_what(actor: &Actor) -> String {
    let scopes = actor.scopes.as_ref().map(|scopes| scopes.iter().cloned().collect::<Vec<_>>().join(","));
    format!("{:?} {scopes:?}", actor.user.role)
}

/// Refuses a key that was used for another request.
fn fits(known: &IdempotencyRow, claim: &Claim) -> ServiceResult<()> {
    if known.request_hash == claim.request_hash { Ok(()) } else { Err(ServiceError::IdempotencyKey(OTHER)) }
}

impl Work {
    /// Claims the key of a request, once and for all with this change.
    pub(super) async fn claim(&mut self, claim: &Claim) -> ServiceResult<()> {
        let now = self.now;
        // A key from before is free again, whether it was swept already or not.
        let since = now.saturating_sub(KEPT_SECS);
        if let Some(known) = self.idempotency_key(claim.holder, &claim.key, since).await? {
            fits(&known, claim)?;
            return Err(ServiceError::IdempotencyKey(DONE));
        }
        let inserted = self
            .insert_idempotency_key(claim.holder, &claim.key, &claim.request_hash, now, since, KEYS_PER_HOLDER)
            .await;
        self.claimed = true;
        claim.made.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use axum::{
        body::Body,
        http::{Request, header},
        response::Response,
    };
    use gateway_net::shutdown::Shutdown;
    use tokio::{task::yield_now, time::timeout};
    use tower::ServiceExt;

    use super::*;
    use crate::{
        http::{App, Rates},
        test_world::World,
    };

    const LIMIT: Duration = Duration::from_secs(20);

    async fn send(world: &World) -> Response {
        let rate = NonZeroU32::new(100).unwrap();
        let rates = Rates { requests_per_second: rate, logins_per_minute: rate };
        let app = App::new(world.service.clone(), rates, Arc::default(), Shutdown::manual());
        let request = Request::post("/api/v1/servers")
            .header(header::AUTHORIZATION, format!("Bearer {}", world.session.token.0))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", "k");
        app.router().oneshot(request.body(Body::from(r#"{"name": "main"}"#)).unwrap()).await.unwrap()
    }

    async fn until(is: impl Fn() -> bool) {
        let wait = async {
            while !is() {
                yield_now().await;
            }
        };
        timeout(LIMIT, wait).await.expect("it never came about");
    }

    #[tokio::test]
    async fn a_client_that_goes_away_finds_the_answer_when_it_asks_again() {
        let world = World::open().await;
        let turn = world.service.turn_to_write(world.session.organization.id).await.unwrap();
        let waits = || world.service.turns.writes.counts().waiting.get() == 1;
        tokio::select! {
            _ = send(&world) => panic!("it was answered out of turn"),
            () = until(waits) => {}
        }
        // Its client is gone by now; nobody hears the answer that comes next.
        drop(turn);
        until(|| world.service.commits.is_empty()).await;
        let again = send(&world).await;
        assert_eq!(again.status(), 201);
        assert!(again.headers().contains_key("idempotency-replayed"), "it was done once, and is answered as it was");
    }

    #[tokio::test]
    async fn an_answer_is_kept_whatever_its_organization_has_waiting_and_only_where_there_is_a_claim() {
        let world = World::open().await;
        let service = &world.service;
        let mut actor = service.authenticate(&world.session.token.0, "").await.unwrap();
        let claim = Claim::of_user(&actor, "k".to_owned(), "hash".to_owned());
        let answer = || GivenAnswer { status: 201, text: "{}".to_owned(), etag: None };
        {
            // Where nothing was claimed nobody stands in line for the database either.
            let _writer = service.storage.begin().await.unwrap();
            timeout(LIMIT, service.keep_answer(&claim, answer(), false)).await.unwrap().unwrap();
        }
        actor.claim = Some(claim.clone());
        service.work_of(&actor).await.unwrap().commit().await.unwrap();
        let _others = service.turn_to_write(actor.id()).await.unwrap();
        service.keep_answer(&claim, answer(), false).await.unwrap();
        assert!(matches!(service.look_up(&claim).await, Ok(Known::Answered(GivenAnswer { status: 201, .. }))));
    }
}

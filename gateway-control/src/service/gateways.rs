//! What gateways ask and tell: who they are, which policy they have in force, where they can be reached.

#[cfg(test)]
mod tests;

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{
        gateway::{INTROSPECT_PATH, WATCH_PATH},
        refusal::{GatewayRefusal, RefusalReason},
    },
    id::{ConnectionId, OrganizationId, RelayId, ServerId},
    identity::GatewayPublicKey,
    policy::PolicyDelta,
    signed::{ASSERTION_WINDOW_SECS, Assertion, Envelope, SignedError},
    twice::{Instance, Seat},
};
use sha2::{Digest, Sha256};

use super::{Newcomer, Service, ServiceError, ServiceResult, Work, desk::Note, policy};
use crate::{
    limits::NonceRefusal,
    seldom::Seldom,
    storage::{ServerRow, StorageError},
    watchers::brief,
};

static STRANGE_LOOKS: Seldom = Seldom::every(Duration::from_secs(1));
static STRANGE_KEYS: Seldom = Seldom::new();

/// A gateway that proved its key.
#[derive(Debug, Clone, Copy)]
pub struct GatewayCaller {
    /// Its server.
    pub server: ServerId,
    /// The organization of that server.
    pub organization: OrganizationId,
    /// Its key.
    pub key: GatewayPublicKey,
    /// The policy key by which it means us: it trusts this one, and perhaps newer ones.
    pub knows: GatewayPublicKey,
}

/// How a watch begins.
#[derive(Debug, Clone)]
pub enum WatchStart {
    /// An enrolled gateway, and what it proved itself with.
    Enrolled(GatewayCaller, Proof),
    /// A gateway that was removed while it was away: it is told so.
    Removed,
}

/// The nonce of an assertion, to be spent.
#[derive(Debug, Clone)]
pub struct Proof {
    pub(super) digest: String,
    pub(super) until: u64,
}

/// A policy on its way to its gateway.
#[derive(Debug)]
pub struct Newest {
    /// Its revision.
    pub revision: u64,
    /// The signed policy.
    pub envelope: Envelope,
    /// What it changes in the one before, where that is little.
    pub delta: Option<PolicyDelta>,
    /// The connections it names, sorted.
    pub connections: Vec<ConnectionId>,
    /// The relays it names.
    pub relays: Vec<RelayId>,
    /// Which process of the gateway holds its place.
    pub seat: Seat,
}

pub(super) const USED_BEFORE: &str = "this assertion was used before; sign a new one";

impl Service {
    /// Checks the assertion a gateway opens its watch with.
    pub async fn authenticate_gateway(&self, token: &str) -> ServiceResult<WatchStart> {
        self.authenticate_gateway_for(token, "GET", WATCH_PATH).await
    }

    /// Checks the assertion of a gateway that asks about a device token. It is accepted once by each replica: the answer
    /// changes nothing.
    pub async fn authenticate_introspection(&self, token: &str) -> ServiceResult<GatewayCaller> {
        match self.authenticate_gateway_for(token, "POST", INTROSPECT_PATH).await? {
            WatchStart::Enrolled(caller, _) => Ok(caller),
            WatchStart::Removed => Err(ServiceError::Unauthenticated("this gateway was removed")),
        }
    }

    async fn authenticate_gateway_for(&self, token: &str, method: &str, path: &str) -> ServiceResult<WatchStart> {
        let now = self.clock.unix_secs();
        let assertion = self.verify_assertion(token, method, path, now).await?;
        if HEXLOWER.decode(assertion.nonce.as_bytes()).map_or(0, |nonce| nonce.len()) != 16 {
            return Err(ServiceError::Unauthenticated("the assertion's nonce is not 32 hex digits"));
        }
        self.rates.openings.check(&assertion.key).map_err(ServiceError::RateLimited)?;
        let mut tx = self.storage.read_for_gateways().await?;
        let server = tx.server_by_gateway(assertion.key).await?;
        let removed = server.is_none() && tx.is_removed_gateway(assertion.key).await?;
        drop(tx);
        if server.is_none() && !removed {
            return Err(refused(RefusalReason::NotEnrolled, now));
        }
        let proof = self.spend_nonce(&assertion, now)?;
        Ok(server.map_or(WatchStart::Removed, |server| {
            let Assertion { key, aud: knows, .. } = assertion;
            let caller = GatewayCaller { server: server.id, organization: server.organization, key, knows };
            WatchStart::Enrolled(caller, proof)
        }))
    }

    /// By the keys that this process has seen; what names another one is worth a look into the storage.
    async fn verify_assertion(&self, token: &str, method: &str, path: &str, now: u64) -> ServiceResult<Assertion> {
        let seen = self.known_keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match Assertion::verify(token, &seen, method, path, now) {
            Err(SignedError::WrongAudience("control plane")) => {}
            known => return known.map_err(|error| refusal(error, now)),
        }
        let known = self.known_keys().await?;
        *self.known_keys.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        match Assertion::verify(token, &known, method, path, now) {
            Err(SignedError::WrongAudience("control plane")) => Err(self.strange_policy_key(token, now).await),
            verified => verified.map_err(|error| refusal(error, now)),
        }
    }

    /// Somebody means a control plane with a policy key that we do not know. When it is one of our gateways, it is we who have
    /// forgotten the key, and the operator must hear of it: anybody else may say what he likes.
    async fn strange_policy_key(&self, token: &str, now: u64) -> ServiceError {
        let refusal = refused(RefusalReason::PolicyKey, now);
        // Each of them would be a look into the storage.
        if STRANGE_LOOKS.turn(Instant::now()).is_none() {
            return refusal;
        }
        let Ok(assertion) = Assertion::open(token) else { return refusal };
        let known = async { self.storage.read_for_gateways().await?.server_by_gateway(assertion.key).await };
        let server = match known.await {
            Ok(server) => server,
            Err(error) => return error.into(),
        };
        if let Some(server) = server
            && let Some(left_out) = STRANGE_KEYS.turn(Instant::now())
        {
            tracing::warn!(
                server = %server.id,
                policy_key = %assertion.aud,
                left_out,
                "gateways that are enrolled here trust a policy key that the database does not know, and cannot be let in: was it \
                 restored from a backup from before `policy-key rotate`? Restore a newer one, or enrol these gateways anew"
            );
        }
        refusal
    }

    /// Whether a gateway may watch although its hello could not be written: the database takes nothing, so nobody revokes
    /// anything meanwhile; and no assertion can be used twice, because this process has seen all that are still valid.
    pub fn may_greet_unwritten(&self, error: &ServiceError) -> bool {
        let takes_nothing =
            matches!(error, ServiceError::Unavailable(StorageError::Full(_) | StorageError::ReadOnly(_)));
        // One from the future was valid for a minute before its time, and is for a minute after it.
        let seen_all = self.clock.unix_secs() >= self.started_at.saturating_add(2 * ASSERTION_WINDOW_SECS);
        takes_nothing && seen_all && !self.shared
    }

    /// Refuses what this process has seen before. What another one has seen, or this one before it was started again,
    /// is found out by [`Service::gateway_hello`], before the watch says anything.
    fn spend_nonce(&self, assertion: &Assertion, now: u64) -> ServiceResult<Proof> {
        let mut digest = Sha256::new_with_prefix(assertion.key.as_bytes());
        digest.update(assertion.nonce.as_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let until = now.max(assertion.iat) + ASSERTION_WINDOW_SECS;
        self.nonces.accept(digest, until, now).map_err(|refusal| match refusal {
            NonceRefusal::Replayed => ServiceError::Replay(USED_BEFORE),
            NonceRefusal::Full => ServiceError::Busy,
        })?;
        Ok(Proof { digest: HEXLOWER.encode(&digest), until })
    }

    /// The newest policy of a gateway; none: the gateway was removed or replaced.
    pub async fn newest_policy(&self, caller: &GatewayCaller) -> ServiceResult<Option<Newest>> {
        let mut tx = self.storage.read_for_gateways().await?;
        let server = tx.server(caller.server).await?.filter(|server| server.gateway == Some(caller.key));
        let Some(server) = server else { return Ok(None) };
        let Some(row) = tx.policy(caller.server).await? else { return Ok(None) };
        let envelope = policy::envelope(&row)?;
        let content = policy::content(&envelope)?;
        let mut connections: Vec<_> = content.connections.iter().map(|entry| entry.id).collect();
        connections.sort_unstable();
        let relays = content.relays.iter().map(|relay| relay.id).collect();
        // Of a delta that cannot be read, or is of another policy, nobody depends: the whole one is there.
        let delta = row.delta.as_ref().and_then(|delta| serde_json::from_str::<PolicyDelta>(&delta.0).ok());
        let delta = delta.filter(|delta| delta.key == envelope.key && delta.signature == envelope.signature);
        Ok(Some(Newest { revision: row.revision, envelope, delta, connections, relays, seat: server.seat() }))
    }

    /// A fresh relay token; none: the gateway was removed or replaced.
    pub async fn new_relay_token(&self, caller: &GatewayCaller) -> ServiceResult<Option<String>> {
        let mut tx = self.storage.read_for_gateways().await?;
        match tx.server(caller.server).await?.filter(|server| server.gateway == Some(caller.key)) {
            Some(server) => Ok(Some(self.relay_token(&mut *tx, &server).await?)),
            None => Ok(None),
        }
    }

    /// A gateway says which revision it has in force and which version it is. It watches with `session` from now on.
    ///
    /// A `newcomer` may be refused as the second process of its gateway: [`ServiceError::RunsTwice`].
    ///
    /// A revision that we do not know comes from the time before a restored backup: the gateway refuses anything older,
    /// so the next policy gets a higher one.
    pub async fn gateway_hello(
        &self,
        caller: &GatewayCaller,
        proof: &Proof,
        session: u64,
        revision: u64,
        version: &str,
        newcomer: Option<Newcomer>,
    ) -> ServiceResult<()> {
        let note = Note::Hello { proof: proof.clone(), session, revision, version: version.to_owned(), newcomer };
        self.note(caller, note).await
    }

    /// A gateway has put a policy into force.
    pub async fn gateway_applied(&self, caller: &GatewayCaller, revision: u64) -> ServiceResult<()> {
        self.note(caller, Note::Applied { revision }).await
    }

    /// A gateway has refused a policy, or has it `in_force` and could not save it: what the policy would have introduced has failed,
    /// and the rest goes on.
    ///
    /// `in_force` is what the gateway said it has in force: that may not be written down yet, or never be, where a newer policy was
    /// compiled meanwhile; and what runs has not failed.
    pub async fn gateway_rejected(
        &self,
        caller: &GatewayCaller,
        revision: u64,
        in_force: u64,
        reason: &str,
    ) -> ServiceResult<()> {
        let Some((mut work, mut server)) = self.work_of_gateway(caller).await? else { return Ok(()) };
        let newest = work.policy_revision(server.id).await?;
        if revision != 0 && revision != newest {
            return Ok(());
        }
        let reason = brief(reason);
        if server.policy_problem.as_ref() != Some(&reason) {
            server.policy_problem = Some(reason.clone());
            work.update_server(&server).await?;
            work.audit(&[server.organization], "policy.rejected", server.id, reason).await?;
        }
        // Told before, it may be that not all has failed that had to: the database was busy then.
        // A revision that was never given out proves nothing.
        let in_force = in_force.min(newest);
        while work.fail_introduced(&server, server.applied_revision.max(in_force), newest).await? {
            work.commit().await?;
            // Others go between.
            let Some(next) = self.work_of_gateway(caller).await? else { return Ok(()) };
            (work, server) = next;
        }
        work.commit().await
    }

    /// A gateway can be reached at another relay now: only those connected with it need to know. Refused with the time to wait where it
    /// moves too often.
    pub async fn gateway_moved(&self, caller: &GatewayCaller, home_relay: Option<RelayId>) -> ServiceResult<()> {
        // Most of the time it says what is known, and a look is cheaper than a turn to write.
        let mut tx = self.storage.read_for_gateways().await?;
        if tx.server(caller.server).await?.is_none_or(|server| server.home_relay == home_relay) {
            return Ok(());
        }
        drop(tx);
        // On whichever watch: one that ends and begins anew is no reason to move more often.
        let lent = self.rates.moves.lend(&caller.server, Instant::now()).map_err(ServiceError::RateLimited)?;
        let Some((mut work, mut server)) = self.work_of_gateway(caller).await? else { return Ok(()) };
        if let Some(id) = home_relay
            && !work.relays().await?.iter().any(|relay| relay.id == id)
        {
            lent.used();
            return Ok(());
        }
        if server.home_relay == home_relay {
            return Ok(());
        }
        server.home_relay = home_relay;
        work.update_server(&server).await?;
        // When a relay goes, all of its gateways move at once, and have the same neighbours: left to the reconciler,
        // each neighbour's policy is compiled once for many moves.
        let now_ms = work.now_ms();
        work.mark_neighbours_stale(server.id, now_ms).await?;
        work.backlog = true;
        work.lent.push(lent);
        work.commit().await
    }

    /// A watch ended: the last sign of life is written down.
    pub async fn gateway_left(
        &self,
        caller: &GatewayCaller,
        session: u64,
        last_heard: u64,
        instance: Option<Instance>,
    ) -> ServiceResult<()> {
        let mut taken = self.watchers.take_head(caller.server, caller.key);
        self.note(caller, Note::Left { session, last_heard, head: taken.one(), instance }).await?;
        taken.heads.clear();
        Ok(())
    }

    /// A change on behalf of a gateway; none: it was removed or replaced meanwhile and has nothing to say.
    pub(super) async fn work_of_gateway(&self, caller: &GatewayCaller) -> ServiceResult<Option<(Work, ServerRow)>> {
        let mut work = self.work_told_by(caller).await?;
        let server = work.server(caller.server).await?.filter(|server| server.gateway == Some(caller.key));
        Ok(server.map(|server| (work, server)))
    }
}

fn refused(reason: RefusalReason, now: u64) -> ServiceError {
    ServiceError::Refused(GatewayRefusal { reason, now })
}

fn refusal(error: SignedError, now: u64) -> ServiceError {
    ServiceError::Unauthenticated(match error {
        SignedError::Malformed | SignedError::UnknownKey(_) => "the gateway assertion is malformed",
        SignedError::BadSignature => "the gateway assertion is not signed by the key it names",
        SignedError::OutOfTime { .. } => return refused(RefusalReason::Clock, now),
        SignedError::WrongAudience(_) => "the gateway assertion was made for another request",
    })
}

//! What gateways ask and tell: who they are, which policy they have in force, where they can be reached.

use std::sync::PoisonError;

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::gateway::{INTROSPECT_PATH, WATCH_PATH},
    id::{ConnectionId, OrganizationId, RelayId, ServerId},
    identity::{Context, GatewayPublicKey},
    peering::{ConnectionAct, ConnectionStatus, Side, next},
    policy::Policy,
    signed::{ASSERTION_WINDOW_SECS, Assertion, Envelope, SignedError},
};
use sha2::{Digest, Sha256};

use super::{Service, ServiceError, ServiceResult, Work, desk::Note, policy};
use crate::{limits::NonceRefusal, storage::ServerRow, watchers::brief};

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
    /// The connections it names, sorted.
    pub connections: Vec<ConnectionId>,
    /// The relays it names.
    pub relays: Vec<RelayId>,
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
        self.openings.check(&assertion.key).map_err(ServiceError::RateLimited)?;
        let mut tx = self.storage.read_for_gateways().await?;
        let server = tx.server_by_gateway(assertion.key).await?;
        let removed = server.is_none() && tx.is_removed_gateway(assertion.key).await?;
        drop(tx);
        if server.is_none() && !removed {
            return Err(ServiceError::Unauthenticated("this gateway is not enrolled here"));
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
            known => return known.map_err(refusal),
        }
        let known = self.known_keys().await?;
        *self.known_keys.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Assertion::verify(token, &known, method, path, now).map_err(refusal)
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
        if tx.server(caller.server).await?.is_none_or(|server| server.gateway != Some(caller.key)) {
            return Ok(None);
        }
        let Some(row) = tx.policy(caller.server).await? else { return Ok(None) };
        let envelope = policy::envelope(&row)?;
        let content: Policy = envelope
            // Whose signature it is, is for the gateway to judge.
            .open(Context::Policy, &[envelope.key])
            .map_err(|_| ServiceError::Internal("a stored policy has a wrong signature"))?;
        let mut connections: Vec<_> = content.connections.iter().map(|entry| entry.id).collect();
        connections.sort_unstable();
        let relays = content.relays.iter().map(|relay| relay.id).collect();
        Ok(Some(Newest { revision: row.revision, envelope, connections, relays }))
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
    /// A revision that we do not know comes from the time before a restored backup: the gateway refuses anything older,
    /// so the next policy gets a higher one.
    pub async fn gateway_hello(
        &self,
        caller: &GatewayCaller,
        proof: &Proof,
        session: u64,
        revision: u64,
        version: &str,
    ) -> ServiceResult<()> {
        let note = Note::Hello { proof: proof.clone(), session, revision, version: version.to_owned() };
        self.note(caller, note).await
    }

    /// A gateway has put a policy into force.
    pub async fn gateway_applied(&self, caller: &GatewayCaller, revision: u64) -> ServiceResult<()> {
        self.note(caller, Note::Applied { revision }).await
    }

    /// A gateway has refused a policy: what it would have introduced has failed, and the rest goes on.
    pub async fn gateway_rejected(&self, caller: &GatewayCaller, revision: u64, reason: &str) -> ServiceResult<()> {
        let Some((mut work, mut server)) = self.work_of_gateway(caller).await? else { return Ok(()) };
        let newest = work.policy_revision(server.id).await?;
        let reason = brief(reason);
        if (revision != 0 && revision != newest) || server.policy_problem.as_deref() == Some(&reason) {
            return Ok(());
        }
        server.policy_problem = Some(reason.clone());
        work.update_server(&server).await?;
        work.audit(&[server.organization], "policy.rejected", server.id, reason).await?;
        for mut row in work.open_connections_of_server(server.id).await? {
            let introduced =
                row.ends().iter().any(|end| end.server == Some(server.id) && end.revision > server.applied_revision);
            if row.status != ConnectionStatus::Ready || !introduced {
                continue;
            }
            row.status = next(row.status, ConnectionAct::Fail, Side::System)?;
            work.update_connection(&row).await?;
            work.touch_ends(&row);
            let organizations = [row.sender.organization, row.listener.organization];
            work.audit(&organizations, "connection.fail", row.id, "a gateway refused the policy").await?;
        }
        work.commit().await
    }

    /// A gateway can be reached at another relay now: only those connected with it need to know.
    pub async fn gateway_moved(&self, caller: &GatewayCaller, home_relay: Option<RelayId>) -> ServiceResult<()> {
        // Most of the time it says what is known, and a look is cheaper than a turn to write.
        let mut tx = self.storage.read_for_gateways().await?;
        if tx.server(caller.server).await?.is_none_or(|server| server.home_relay == home_relay) {
            return Ok(());
        }
        drop(tx);
        let Some((mut work, mut server)) = self.work_of_gateway(caller).await? else { return Ok(()) };
        if let Some(id) = home_relay
            && !work.relays().await?.iter().any(|relay| relay.id == id)
        {
            return Ok(());
        }
        if server.home_relay == home_relay {
            return Ok(());
        }
        server.home_relay = home_relay;
        work.update_server(&server).await?;
        // When a relay goes, all of its gateways move at once, and have the same neighbours: left to the reconciler,
        // each neighbour's policy is compiled once for many moves.
        work.mark_neighbours_stale(server.id).await?;
        work.backlog = true;
        work.commit().await
    }

    /// A watch ended: the last sign of life is written down.
    pub async fn gateway_left(&self, caller: &GatewayCaller, session: u64, last_heard: u64) -> ServiceResult<()> {
        let head = self.watchers.take_head(caller.server, caller.key);
        self.note(caller, Note::Left { session, last_heard, head }).await
    }

    /// A change on behalf of a gateway; none: it was removed or replaced meanwhile and has nothing to say.
    pub(super) async fn work_of_gateway(&self, caller: &GatewayCaller) -> ServiceResult<Option<(Work, ServerRow)>> {
        let mut work = self.work_told_by(caller).await?;
        let server = work.server(caller.server).await?.filter(|server| server.gateway == Some(caller.key));
        Ok(server.map(|server| (work, server)))
    }
}

fn refusal(error: SignedError) -> ServiceError {
    ServiceError::Unauthenticated(match error {
        SignedError::Malformed | SignedError::UnknownKey(_) => "the gateway assertion is malformed",
        SignedError::BadSignature => "the gateway assertion is not signed by the key it names",
        SignedError::OutOfTime { .. } => "the gateway assertion is not valid at this time; compare the two clocks",
        SignedError::WrongAudience(_) => "the gateway assertion was made for another control plane or request",
    })
}

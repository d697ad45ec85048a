//! What a note changes.

use std::time::Instant;

use gateway_proto::{id::OrganizationId, twice::Instance};

use super::{
    super::{GatewayCaller, Newcomer, Proof, ServiceError, ServiceResult, Work, gateways::USED_BEFORE},
    Aside, Note,
};
use crate::storage::ServerRow;

/// Revisions are times: those from a later time than tomorrow cannot have come from us.
const REVISION_AHEAD_MS: u64 = 24 * 3600 * 1000;

/// What a note has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct Changed {
    /// Connections, about.
    pub(in crate::service) connections: u64,
    /// Nothing is left of it for another transaction.
    pub(in crate::service) is_all: bool,
}

impl Changed {
    /// A row or two.
    const LITTLE: Self = Self { connections: 0, is_all: true };
}

impl Work {
    pub(super) async fn write(&mut self, caller: &GatewayCaller, note: &Note) -> ServiceResult<Changed> {
        self.told_by(caller.server);
        let server = self.server(caller.server).await?;
        // Removed or replaced meanwhile, it has nothing to say.
        let Some(server) = server.filter(|server| server.gateway == Some(caller.key)) else {
            return Ok(Changed::LITTLE);
        };
        match note {
            Note::Hello { proof, session, revision, version, newcomer } => {
                self.hello(server, proof, *session, *revision, version, newcomer.as_ref()).await
            }
            Note::Applied { revision } => self.applied(server, *revision).await,
            Note::Confirmed => self.confirm(&server).await,
            Note::Head(head) => {
                self.enter_head(server.id, caller.key, head.clone(), true).await?;
                Ok(Changed::LITTLE)
            }
            Note::Left { session, last_heard, head, instance } => {
                if let Some(head) = head {
                    self.enter_head(server.id, caller.key, head.clone(), true).await?;
                }
                self.left(server, *session, *last_heard, *instance).await
            }
        }
    }

    pub(super) async fn write_aside(&mut self, whose: OrganizationId, aside: &Aside) -> ServiceResult<Changed> {
        match aside {
            Aside::TokenUsed(id) => {
                let now = self.now;
                self.api_token_used(*id, now).await?;
            }
            Aside::Refused { who, user, detail } => {
                self.by(who.clone());
                self.audit(&[whose], "session.refuse", user, detail.clone()).await?;
            }
        }
        Ok(Changed::LITTLE)
    }

    async fn hello(
        &mut self,
        mut server: ServerRow,
        proof: &Proof,
        session: u64,
        revision: u64,
        version: &str,
        newcomer: Option<&Newcomer>,
    ) -> ServiceResult<Changed> {
        let newest = self.policy_revision(server.id).await?;
        // What it was raised to is known, also before there is a policy that exceeds it.
        let known = newest.max(server.policy_floor);
        if revision > known.max(self.now_ms() + REVISION_AHEAD_MS) {
            return Err(ServiceError::Invalid("no policy has such a revision".to_owned()));
        }
        // A backup is restored now and then, and not every minute.
        let lent =
            if revision > known { Some(self.service().rates.raises.lend(&server.id, Instant::now())) } else { None };
        let lent = lent.transpose().map_err(|_| {
            ServiceError::Invalid("this gateway had newer policies than the storage too often".to_owned())
        })?;
        if !self.spend_nonce(&proof.digest, proof.until).await? {
            return Err(ServiceError::Replay(USED_BEFORE));
        }
        if let Some(newcomer) = newcomer {
            self.take_seat(&server, newcomer).await?;
        }
        self.lent.extend(lent);
        server.gateway_version = Some(version.chars().filter(|c| !c.is_control()).take(60).collect());
        server.last_seen_at = Some(self.now);
        let mut changed = 0;
        if revision > known {
            self.raise_floor(server.id, revision).await?;
            self.touch(server.id);
            tracing::warn!(server = %server.id, revision, newest, "a gateway has a newer policy than the storage: raised");
            server.applied_revision = 0;
            changed += self.take_out_of_force(server.id, 0).await?;
        } else if revision == newest {
            server.applied_revision = revision;
        } else if revision < server.applied_revision {
            // What lies between may be from a time that the storage does not remember.
            server.applied_revision = revision;
            changed += self.take_out_of_force(server.id, revision).await?;
        }
        self.update_server(&server).await?;
        self.watches_here(server.id, session).await?;
        let Changed { connections, is_all } = self.confirm(&server).await?;
        Ok(Changed { connections: connections + changed, is_all })
    }

    async fn applied(&mut self, mut server: ServerRow, revision: u64) -> ServiceResult<Changed> {
        let newest = self.policy_revision(server.id).await?;
        if revision > newest && revision <= server.policy_floor {
            // From before the storage was restored: one that it knows is on its way.
            return Ok(Changed::LITTLE);
        }
        if revision > newest {
            return Err(ServiceError::Invalid("that revision was never given out".to_owned()));
        }
        let settled = revision < newest || server.policy_problem.is_none();
        if revision <= server.applied_revision && settled {
            // Said before: nothing to write, and nobody to wake.
            return Ok(Changed::LITTLE);
        }
        server.applied_revision = revision.max(server.applied_revision);
        server.last_seen_at = Some(self.now);
        if revision == newest {
            server.policy_problem = None;
        }
        self.update_server(&server).await?;
        self.confirm(&server).await
    }

    async fn left(
        &mut self,
        mut server: ServerRow,
        session: u64,
        last_heard: u64,
        instance: Option<Instance>,
    ) -> ServiceResult<Changed> {
        if let Some(instance) = instance {
            self.leave_seat(&server, instance).await?;
        }
        server.last_seen_at = Some(last_heard);
        self.update_server(&server).await?;
        self.watched_here(server.id, session).await?;
        Ok(Changed::LITTLE)
    }
}

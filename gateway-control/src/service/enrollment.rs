//! Enrolment: a one-time code makes a gateway's keys those of a server.
//!
//! The code is bound to the key that uses it first: the same key gets the same answer again (a lost reply loses
//! nothing) for ten minutes, any other key is refused. A fresh code used by another gateway replaces the one before it.
//!
//! It goes in the lane of the organization that gave the code away, and costs what a change may cost. Connections that waited for a
//! gateway by the hundred become ready in portions, a policy that is larger than a portion is compiled by the reconciler; the answer
//! waits for both. Whoever did not wait for it asks again.

#[cfg(test)]
mod tests;

use std::time::Duration;

use gateway_proto::{
    api::gateway::{EnrollAnswer, EnrollRequest},
    id::{ConnectionId, ServerId},
    identity::GatewayPublicKey,
    peering::{ConnectionAct, ConnectionStatus, Side},
    twice::Seat,
};
use tokio::time::{sleep, timeout};

use super::{
    Service, ServiceError, ServiceResult, Stranger, Work, backlog::FOLLOWED_AT_ONCE, bounds, digest, policy, validate,
    work::Who,
};
use crate::storage::{ConnectionRow, EnrollmentCodeRow, ServerRow, Transaction};

const UNKNOWN: &str =
    "this enrolment code is unknown: it was revoked or replaced by a newer one, or is from another platform";
const EXPIRED: &str = "this enrolment code has expired; ask for a new one";
const REPEATED: &str =
    "this enrolment code was used by this gateway already; if its answer was lost, ask for a new code";
const USED: &str = "this enrolment code was used by another gateway; ask for a new one";

/// How long the same gateway gets the same answer again.
const REPEAT_SECS: u64 = 600;
/// How long the answer waits for its policy, and how often it is looked for; a request has ten seconds more.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Service {
    /// Enrols a gateway.
    pub async fn enroll(&self, stranger: &Stranger, request: EnrollRequest) -> ServiceResult<EnrollAnswer> {
        let version = validate::single_line("version", &request.version, bounds::MAX_VERSION)?;
        request
            .verify()
            .map_err(|_| ServiceError::Invalid("the request is not signed by the key it wants to enrol".to_owned()))?;
        // A secret that nobody was given is the guess of a stranger: it concerns no organization, takes nobody's turn and is
        // not kept.
        let (_, server) = code_of(&mut *self.storage.read().await?, &request.secret).await?;
        let who = Who::Enrolling { server: server.id, request: stranger.request.clone() };
        let waiting = self.enroll_at(&server, who.clone(), &request, version).await?;
        for some in waiting.chunks(FOLLOWED_AT_ONCE as usize) {
            let mut work = self.work_in(&server, who.clone()).await?;
            work.provision_some(some).await?;
            work.commit().await?;
        }
        self.answer_to(server.id, request.key).await
    }

    /// Makes the gateway that of the server, unless that is done; which connections still wait for it.
    async fn enroll_at(
        &self,
        server: &ServerRow,
        who: Who,
        request: &EnrollRequest,
        version: String,
    ) -> ServiceResult<Vec<ConnectionId>> {
        let mut work = self.work_in(server, who).await?;
        let (code, server) = code_of(work.tx(), &request.secret).await?;
        if let Err(refusal) = check(&mut work, &code, &server, request).await {
            let detail = format!("key {}: {refusal}", request.key.short());
            work.audit(&[server.organization], "gateway.enroll_refused", server.id, detail).await?;
            work.commit().await?;
            return Err(refusal);
        }
        if code.used_by.is_none() {
            work.put_gateway(&server, request, version).await?;
            let now = work.now;
            work.use_enrollment_code(&code.secret_hash, request.key, now).await?;
            let detail = format!("key {}", request.key);
            work.audit(&[server.organization], "gateway.enroll", server.id, detail).await?;
        }
        let mut first = work.provisioning_connections(server.id).await?;
        let rest = first.split_off(first.len().min(FOLLOWED_AT_ONCE as usize));
        work.provision_some(&first).await?;
        work.awaits(server.id);
        work.commit().await?;
        Ok(rest)
    }

    /// A change in the lane of the organization whose server it is.
    async fn work_in(&self, server: &ServerRow, who: Who) -> ServiceResult<Work> {
        let turn = self.turn_to_write(server.organization).await?;
        Work::begin(self, who, Some(turn)).await
    }

    /// What an enrolled gateway is told, as soon as there is a policy for it.
    async fn answer_to(&self, server: ServerId, key: GatewayPublicKey) -> ServiceResult<EnrollAnswer> {
        let answer = async {
            let mut seen = None;
            loop {
                if let Some(answer) = self.answer_if_compiled(server, key, &mut seen).await? {
                    return ServiceResult::Ok(answer);
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, answer).await.unwrap_or(Err(ServiceError::Busy))
    }

    /// The same now; none: the newest policy, whose revision is in `seen` from then on, is not for this gateway.
    async fn answer_if_compiled(
        &self,
        id: ServerId,
        key: GatewayPublicKey,
        seen: &mut Option<u64>,
    ) -> ServiceResult<Option<EnrollAnswer>> {
        let mut tx = self.storage.read_for_gateways().await?;
        let server = tx.server(id).await?.filter(|server| server.gateway == Some(key));
        let server = server.ok_or(ServiceError::EnrollmentCode(USED))?;
        let revision = tx.policy_revision(id).await?;
        if *seen == Some(revision) {
            return Ok(None);
        }
        *seen = Some(revision);
        let Some(stored) = tx.policy(id).await? else { return Ok(None) };
        let envelope = policy::envelope(&stored)?;
        if policy::content(&envelope)?.gateway != key {
            return Ok(None);
        }
        let organization = tx.organization(server.organization).await?;
        let signer = self.signer(&mut *tx).await?;
        Ok(Some(EnrollAnswer {
            server_id: server.id.to_string(),
            server_name: server.name.clone(),
            organization_name: organization.map(|row| row.name).unwrap_or_default(),
            // A repeated answer may hold a policy from before the key that signs now.
            policy_key: envelope.key,
            succession: signer.ring.links(),
            policy: envelope,
            relay_token: self.relay_token(&mut *tx, &server).await?,
        }))
    }
}

/// The code that a gateway shows, and its server.
async fn code_of(tx: &mut dyn Transaction, secret: &str) -> ServiceResult<(EnrollmentCodeRow, ServerRow)> {
    let code = tx.enrollment_code(&digest(secret)).await?.ok_or(ServiceError::EnrollmentCode(UNKNOWN))?;
    let server = tx.server(code.server).await?.filter(|server| server.removed_at.is_none());
    Ok((code, server.ok_or(ServiceError::EnrollmentCode(UNKNOWN))?))
}

async fn check(
    work: &mut Work,
    code: &EnrollmentCodeRow,
    server: &ServerRow,
    request: &EnrollRequest,
) -> ServiceResult<()> {
    match code.used_by {
        // The answer holds secrets and the request no time: whoever gets hold of it later must not get them again.
        Some(key) if key == request.key && server.gateway == Some(key) => {
            let lately = code.used_at.is_some_and(|at| work.now < at + REPEAT_SECS);
            return if lately { Ok(()) } else { Err(ServiceError::EnrollmentCode(REPEATED)) };
        }
        Some(_) => return Err(ServiceError::EnrollmentCode(USED)),
        None => {}
    }
    if work.now >= code.expires_at {
        return Err(ServiceError::EnrollmentCode(EXPIRED));
    }
    let owner = work.server_by_gateway(request.key).await?;
    if owner.is_some_and(|owner| owner.id != server.id) {
        return Err(ServiceError::Conflict(
            "this gateway is enrolled for another server already; remove that server first, or give this gateway a \
             state directory of its own"
                .to_owned(),
        ));
    }
    Ok(())
}

impl Work {
    /// Makes the gateway the one of the server; an older one is removed.
    async fn put_gateway(&mut self, server: &ServerRow, request: &EnrollRequest, version: String) -> ServiceResult<()> {
        let mut server = server.clone();
        if let Some(older) = server.gateway.filter(|older| *older != request.key) {
            let now = self.now;
            self.insert_removed_gateway(older, now).await?;
            self.delete_pair_secrets(older).await?;
            self.remove_gateway(server.id);
            self.set_seat(server.id, &Seat::default()).await?;
            self.cuts();
        }
        self.delete_removed_gateway(request.key).await?;
        server.gateway = Some(request.key);
        server.noise = Some(request.noise);
        server.gateway_version = Some(version);
        server.applied_revision = 0;
        server.policy_problem = None;
        server.home_relay = None;
        server.last_seen_at = Some(self.now);
        self.update_server(&server).await?;
        self.touch_neighbourhood(server.id).await
    }

    /// Goes on with connections that waited for a gateway, those that still do.
    async fn provision_some(&mut self, connections: &[ConnectionId]) -> ServiceResult<()> {
        for id in connections {
            let row = self.connection(*id).await?.filter(|row| row.status == ConnectionStatus::Provisioning);
            if let Some(row) = row {
                self.provision(row).await?;
            }
        }
        Ok(())
    }

    /// Makes a connection ready if both servers have a gateway, or offers it to the other side.
    pub(super) async fn provision(&mut self, mut connection: ConnectionRow) -> ServiceResult<ConnectionRow> {
        if connection.admin.is_some() {
            return self.provision_admin(connection).await;
        }
        for server in connection.servers().collect::<Vec<_>>() {
            if self.server(server).await?.is_none_or(|server| server.gateway.is_none()) {
                return Ok(connection);
            }
        }
        connection.status = gateway_proto::peering::next(connection.status, ConnectionAct::Provision, Side::System)?;
        self.update_connection(&connection).await?;
        self.touch_ends(&connection);
        Ok(connection)
    }
}

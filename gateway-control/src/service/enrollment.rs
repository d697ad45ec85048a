//! Enrolment: a one-time code makes a gateway's keys those of a server.
//!
//! The code is bound to the key that uses it first: the same key gets the same answer again (a lost reply loses
//! nothing) for ten minutes, any other key is refused. A fresh code used by another gateway replaces the one before it.

use gateway_proto::{
    api::gateway::{EnrollAnswer, EnrollRequest},
    peering::{ConnectionAct, ConnectionStatus, Side},
};

use super::{Service, ServiceError, ServiceResult, Work, digest, policy, validate, work::Who};
use crate::storage::{ConnectionRow, EnrollmentCodeRow, ServerRow};

const UNKNOWN: &str =
    "this enrolment code is unknown: it was revoked or replaced by a newer one, or is from another platform";
const EXPIRED: &str = "this enrolment code has expired; ask for a new one";
const REPEATED: &str =
    "this enrolment code was used by this gateway already; if its answer was lost, ask for a new code";
const USED: &str = "this enrolment code was used by another gateway; ask for a new one";

/// How long the same gateway gets the same answer again.
const REPEAT_SECS: u64 = 600;

impl Service {
    /// Enrols a gateway.
    pub async fn enroll(&self, request: EnrollRequest) -> ServiceResult<EnrollAnswer> {
        let version = validate::single_line("version", &request.version, 60)?;
        request
            .verify()
            .map_err(|_| ServiceError::Invalid("the request is not signed by the key it wants to enrol".to_owned()))?;
        let mut work = self.work(Who::System).await?;
        // A secret that nobody was given is the guess of a stranger: it concerns no organization and is not kept.
        let code = work.enrollment_code(&digest(&request.secret)).await?;
        let code = code.ok_or(ServiceError::EnrollmentCode(UNKNOWN))?;
        let server = work.server(code.server).await?.filter(|server| server.removed_at.is_none());
        let server = server.ok_or(ServiceError::EnrollmentCode(UNKNOWN))?;
        let mut work = work.acting_as(Who::Gateway(server.id));
        if let Err(refusal) = check(&mut work, &code, &server, &request).await {
            let detail = format!("key {}: {refusal}", request.key.short());
            work.audit(&[server.organization], "gateway.enroll_refused", server.id, detail).await?;
            work.commit().await?;
            return Err(refusal);
        }
        if code.used_by.is_none() {
            work.put_gateway(&server, &request, version).await?;
            let now = work.now;
            work.use_enrollment_code(&code.secret_hash, request.key, now).await?;
            let detail = format!("key {}", request.key);
            work.audit(&[server.organization], "gateway.enroll", server.id, detail).await?;
        }
        work.compile_one(server.id).await?;
        let server = work.server(server.id).await?.ok_or(ServiceError::Internal("a server vanished"))?;
        let organization = work.organization(server.organization).await?;
        let stored =
            work.policy(server.id).await?.ok_or(ServiceError::Internal("an enrolled gateway has no policy"))?;
        let (signer, envelope) = (work.signer().await?, policy::envelope(&stored)?);
        let answer = EnrollAnswer {
            server_id: server.id.to_string(),
            server_name: server.name.clone(),
            organization_name: organization.map(|row| row.name).unwrap_or_default(),
            // A repeated answer may hold a policy from before the key that signs now.
            policy_key: envelope.key,
            succession: signer.ring.links(),
            policy: envelope,
            relay_token: self.relay_token(work.tx(), &server).await?,
        };
        work.commit().await?;
        Ok(answer)
    }
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
        for connection in self.open_connections_of_server(server.id).await? {
            if connection.status == ConnectionStatus::Provisioning {
                self.provision(connection).await?;
            }
        }
        self.touch_neighbourhood(server.id).await
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

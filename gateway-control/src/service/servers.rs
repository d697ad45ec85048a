//! Servers and their enrolment codes.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{
        Page,
        gateway::EnrollmentCode,
        platform::{
            CreateEnrollmentCode, CreateServer, CreatedEnrollmentCode, Hidden, OpenEnrollmentCode, Server, TwoProcesses,
        },
    },
    id::{EnrollmentCodeId, OrganizationId, ServerId},
    peering::{ConnectionAct, GrantAct, Side},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work, bounds, digest,
    error::OrConflict,
    page::{Paging, cut},
    permission::Act,
    tiers::Counted,
    validate,
};
use crate::storage::{Ahead, ConnectionRow, EnrollmentCodeRow, ServerRow, Transaction};

impl Service {
    /// Servers of the own organization.
    pub async fn servers(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<Server>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let (rows, next) = cut(tx.servers(actor.id(), &slice).await?, &slice, |row| row.id.to_string());
        let ids: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
        self.watches_ahead(&mut *tx, ids.clone()).await?;
        tx.read_ahead(Ahead::Revisions(ids)).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.show_server(&mut *tx, row).await?);
        }
        Ok(Page { items, next })
    }

    /// One server.
    pub async fn server(&self, actor: &Actor, id: ServerId) -> ServiceResult<Server> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = own_server(&mut *tx, actor.id(), id).await?;
        self.show_server(&mut *tx, row).await
    }

    /// Registers a server.
    pub async fn create_server(&self, actor: &Actor, body: CreateServer) -> ServiceResult<Server> {
        actor.may(Act::ManageServers)?;
        let name = validate::name("name", &body.name)?;
        let mut work = self.work_of(actor).await?;
        work.has_room(actor.id(), Counted::Servers).await?;
        let (ms, random) = work.seed();
        let row = ServerRow::new(ServerId::new(ms, random), actor.id(), name, work.now);
        work.insert_server(&row)
            .await
            .or_conflict(|| format!("your organization has a server called '{}' already", row.name))?;
        work.add_device_of_server(&row).await?;
        work.audit(&[actor.id()], "server.create", row.id, row.name.clone()).await?;
        let shown = self.show_server(work.tx(), row).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Removes a server: its channels go, their grants are revoked, the grants it received are given back, its
    /// connections end, the device it is goes with its tokens, and its gateway is told to keep nothing open.
    pub async fn delete_server(&self, actor: &Actor, id: ServerId) -> ServiceResult<()> {
        actor.may(Act::ManageServers)?;
        let mut work = self.work_of(actor).await?;
        let row = own_server(work.tx(), actor.id(), id).await?;
        if actor.is_conditional() {
            actor.check_match(&self.show_server(work.tx(), row.clone()).await?)?;
        }
        work.remove_server(row).await?;
        work.commit().await
    }

    /// Makes a new enrolment code; an unused older one of the server ends.
    pub async fn create_enrollment_code(
        &self,
        actor: &Actor,
        id: ServerId,
        body: CreateEnrollmentCode,
    ) -> ServiceResult<CreatedEnrollmentCode> {
        actor.may(Act::ManageServers)?;
        let (min, default, max) = bounds::ENROLLMENT_CODE_SECS;
        let valid = validate::range("valid_secs", body.valid_secs.unwrap_or(default), min, max)?;
        let mut work = self.work_of(actor).await?;
        let server = own_server(work.tx(), actor.id(), id).await?;
        let policy_key = work.signer().await?.key.public();
        let code = EnrollmentCode {
            control: self.settings.public_url.clone(),
            pin: self.settings.tls_pin.clone(),
            policy_key,
            secret: HEXLOWER.encode(&gateway_net::random::<16>()),
        };
        let expires_at = work.now + valid;
        let (ms, random) = work.seed();
        let row = EnrollmentCodeRow {
            id: EnrollmentCodeId::new(ms, random),
            secret_hash: digest(&code.secret),
            server: id,
            issued_by: Some(actor.user.id),
            expires_at,
            used_by: None,
            used_at: None,
        };
        work.insert_enrollment_code(&row).await?;
        let detail = format!("{}, valid for {valid} s", row.id);
        work.audit(&[actor.id()], "enrollment_code.create", server.id, detail).await?;
        work.commit().await?;
        Ok(CreatedEnrollmentCode { code: Hidden(code.to_string()), expires_at })
    }

    /// The enrolment codes of a server that can still be used: one at most.
    pub async fn enrollment_codes(&self, actor: &Actor, id: ServerId) -> ServiceResult<Vec<OpenEnrollmentCode>> {
        actor.may(Act::ManageServers)?;
        let mut tx = self.storage.read().await?;
        own_server(&mut *tx, actor.id(), id).await?;
        let mut codes = Vec::new();
        for row in tx.open_enrollment_codes(id, self.clock.unix_secs()).await? {
            let issued_by = match row.issued_by {
                Some(user) => tx.user(user).await?.map(|user| user.email),
                None => None,
            };
            codes.push(OpenEnrollmentCode { id: row.id, issued_by, expires_at: row.expires_at });
        }
        Ok(codes)
    }

    /// Revokes an enrolment code that nobody used.
    pub async fn delete_enrollment_code(
        &self,
        actor: &Actor,
        id: ServerId,
        code: EnrollmentCodeId,
    ) -> ServiceResult<()> {
        actor.may(Act::ManageServers)?;
        let mut work = self.work_of(actor).await?;
        own_server(work.tx(), actor.id(), id).await?;
        let now = work.now;
        if !work.open_enrollment_codes(id, now).await?.iter().any(|row| row.id == code) {
            return Err(ServiceError::NotFound("open enrolment code"));
        }
        work.delete_enrollment_code(code).await?;
        work.audit(&[actor.id()], "enrollment_code.delete", id, code.to_string()).await?;
        work.commit().await
    }

    pub(super) async fn show_server(&self, tx: &mut dyn Transaction, row: ServerRow) -> ServiceResult<Server> {
        let watching = self.last_heard(tx, row.id).await?;
        let policy_revision = tx.policy_revision(row.id).await?;
        let runs_twice = row.seat().twice(self.clock.unix_secs()).map(|twice| TwoProcesses {
            since: twice.since,
            at: twice.at,
            address: twice.address.clone(),
            other_address: twice.other_address.clone(),
        });
        Ok(Server {
            id: row.id,
            name: row.name,
            gateway: row.gateway,
            gateway_version: row.gateway_version,
            online: watching.is_some(),
            last_seen_at: watching.or(row.last_seen_at),
            policy_revision,
            applied_revision: row.applied_revision,
            policy_problem: row.policy_problem,
            audit_alarm: row.audit_alarm,
            runs_twice,
            created_at: row.created_at,
        })
    }
}

/// A server of the organization that is not removed.
pub(super) async fn own_server(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    id: ServerId,
) -> ServiceResult<ServerRow> {
    let row = tx.server(id).await?.filter(|row| row.organization == organization && row.removed_at.is_none());
    row.ok_or(ServiceError::NotFound("server"))
}

impl Work {
    /// Removes a server with everything that stands on it.
    pub(super) async fn remove_server(&mut self, mut row: ServerRow) -> ServiceResult<()> {
        let id = row.id;
        for channel in self.channels_of_server(id).await? {
            self.remove_channel(channel).await?;
        }
        for grant in self.waiting_grants_of_sender(id).await? {
            // Nobody could approve it any more.
            self.end_grant(grant, GrantAct::Close, Side::System).await?;
        }
        for connection in self.open_connections_of_server(id).await? {
            let grant_act = connection.grant.map(|_| GrantAct::Surrender);
            self.close_connection(connection, ConnectionAct::Terminate, grant_act, Side::Both).await?;
        }
        for share in self.open_shares_of_server(id).await? {
            self.end_share_of(share).await?;
        }
        self.remove_server_from_devices(id).await?;
        if let Some(key) = row.gateway.take() {
            let now = self.now;
            self.insert_removed_gateway(key, now).await?;
            self.delete_pair_secrets(key).await?;
            self.remove_gateway(id);
        }
        row.noise = None;
        row.removed_at = Some(self.now);
        self.update_server(&row).await?;
        self.audit(&[row.organization], "server.delete", id, row.name).await
    }

    /// The policies of a server and of every server connected with it may have changed.
    pub(super) async fn touch_neighbourhood(&mut self, server: ServerId) -> ServiceResult<()> {
        self.touch(server);
        for neighbour in self.neighbours(server).await? {
            self.touch(neighbour);
        }
        Ok(())
    }

    /// The policies of both ends may have changed.
    pub(super) fn touch_ends(&mut self, connection: &ConnectionRow) {
        for server in connection.servers() {
            self.touch(server);
        }
    }

    /// The same for every server of an organization; ids are read and no connections, which may be many thousands.
    pub(super) async fn touch_organization(&mut self, organization: OrganizationId) -> ServiceResult<()> {
        let all = crate::storage::Slice { after: String::new(), limit: u32::MAX };
        for server in self.servers(organization, &all).await? {
            self.touch(server.id);
        }
        for neighbour in self.neighbours_of_organization(organization).await? {
            self.touch(neighbour);
        }
        Ok(())
    }
}

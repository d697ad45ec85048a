//! What time alone does: unanswered requests expire, grants end, old sessions go. Run by the reconciler; idempotent.

use std::{collections::BTreeSet, fmt};

use gateway_proto::{
    id::{ConnectionId, GrantId, PeeringRequestId, ServerId, ShareId},
    peering::{ConnectionAct, GrantAct, PeeringAct, Side, next},
};

use super::{
    Service, ServiceError, ServiceResult, Work,
    backlog::{Backlog, POLICIES_AT_ONCE},
    connections, grants, peering,
    sessions::latest_end,
    shares,
    work::{Who, changes},
};

/// Rows that could not be expired and are passed over for the rest of a round; more of them end it.
const PASSED_OVER: usize = 500;
/// Rows handled in one transaction, so that a backlog never holds the writers up for long.
const BATCH: u32 = 50;
/// An ended code is kept for a day: whoever uses it then is told why it does not work.
const CODE_KEPT_SECS: u64 = 24 * 3600;
/// A removed gateway that does not come back for 90 days is a stranger.
const REMOVED_KEPT_SECS: u64 = 90 * 24 * 3600;
/// A replica that was silent for ten minutes has ended without a word.
const REPLICA_KEPT_SECS: u64 = 600;

/// Something that time ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overdue {
    /// A request that nobody answered.
    Request(PeeringRequestId),
    /// A grant: unanswered, or its end has come.
    Grant(GrantId),
    /// A share whose end has come.
    Share(ShareId),
    /// An admin connection: unanswered, or its time-box is over.
    Connection(ConnectionId),
    /// The old secret of a connection: streams are not opened with it any more, or not accepted either.
    OldSecret(ConnectionId),
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(id) => write!(f, "{id}"),
            Self::Grant(id) => write!(f, "{id}"),
            Self::Share(id) => write!(f, "{id}"),
            Self::Connection(id) | Self::OldSecret(id) => write!(f, "{id}"),
        }
    }
}

impl Service {
    /// Expires some of what is overdue; whether there may be more. What cannot be expired is added to `passed_over`, which
    /// lasts for a round, and holds up nothing else.
    pub async fn expire_overdue(&self, passed_over: &mut BTreeSet<Overdue>) -> ServiceResult<bool> {
        let overdue = self.overdue(passed_over).await?;
        if overdue.is_empty() || passed_over.len() > PASSED_OVER {
            return Ok(false);
        }
        match self.expire_all(&overdue).await {
            Ok(()) => {}
            Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
            Err(_) => {
                for one in &overdue {
                    if let Err(error) = self.expire_all(&[*one]).await {
                        tracing::error!(%one, error = &error as &dyn std::error::Error, "what is overdue cannot be ended");
                        passed_over.insert(*one);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Some of what is overdue, kind by kind.
    async fn overdue(&self, passed_over: &BTreeSet<Overdue>) -> ServiceResult<Vec<Overdue>> {
        let now = self.clock.unix_secs();
        let limit = BATCH + u32::try_from(passed_over.len()).unwrap_or(u32::MAX - BATCH);
        let mut tx = self.storage.read_for_gateways().await?;
        let requests = tx.overdue_peering_requests(now, limit).await?.into_iter().map(Overdue::Request);
        let grants = tx.overdue_grants(now, limit).await?.into_iter().map(Overdue::Grant);
        let shares = tx.overdue_shares(now, limit).await?.into_iter().map(Overdue::Share);
        let connections = tx.overdue_connections(now, limit).await?.into_iter().map(Overdue::Connection);
        let secrets = tx.connections_with_secret_due(now, limit).await?.into_iter().map(Overdue::OldSecret);
        let all = requests.chain(grants).chain(shares).chain(connections).chain(secrets);
        Ok(all.filter(|one| !passed_over.contains(one)).take(BATCH as usize).collect())
    }

    async fn expire_all(&self, overdue: &[Overdue]) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        for one in overdue {
            work.expire(*one).await?;
        }
        work.commit().await
    }

    /// Compiles a portion of the policies that changes left behind; whether there may be more. One that cannot be compiled is
    /// left behind again, and holds up nobody else.
    pub async fn compile_backlog(&self, backlog: &mut Backlog) -> ServiceResult<bool> {
        let servers = self.pick_portion(backlog).await?;
        if servers.is_empty() {
            return Ok(false);
        }
        match self.compile_all(&servers).await {
            Ok(()) => {}
            Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
            Err(_) => {
                for server in servers {
                    if let Err(error) = self.compile_all(&[server]).await {
                        tracing::error!(%server, error = &error as &dyn std::error::Error, "a policy cannot be compiled");
                        backlog.pass_over(server);
                        self.put_behind(server).await?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// The servers whose turn it is. It is no reader of people's, whose lists nobody shall wait for here.
    async fn pick_portion(&self, backlog: &mut Backlog) -> ServiceResult<Vec<ServerId>> {
        let limit = u32::try_from(POLICIES_AT_ONCE).unwrap_or(u32::MAX);
        let mut tx = self.storage.read_for_gateways().await?;
        let mut picking = backlog.pick();
        while let Some((after, ends)) = picking.wants() {
            picking.found(&tx.stale_servers_of_next(after, ends, limit).await?);
        }
        Ok(picking.picked())
    }

    async fn compile_all(&self, servers: &[ServerId]) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        for server in servers {
            // A change may have compiled it meanwhile.
            if work.server(*server).await?.is_some_and(|row| row.stale) {
                work.touch(*server);
                work.compile_one(*server).await?;
            }
        }
        work.commit().await
    }

    /// The next round begins with others of its organization.
    async fn put_behind(&self, server: ServerId) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        let now_ms = work.now_ms();
        work.put_behind(server, now_ms).await?;
        work.commit().await
    }

    /// Removes what nobody will ask for again.
    pub async fn purge(&self) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        let now = work.now;
        work.forget_keys().await?;
        work.purge_credentials(now).await?;
        work.purge_device_tokens(now).await?;
        work.tend_token_keys().await?;
        work.forget_executions().await?;
        work.forget_heads().await?;
        let (codes, gateways) = (now.saturating_sub(CODE_KEPT_SECS), now.saturating_sub(REMOVED_KEPT_SECS));
        work.purge(now, latest_end(now), codes, gateways).await?;
        work.delete_replicas(now.saturating_sub(REPLICA_KEPT_SECS)).await?;
        work.commit().await
    }
}

impl Work {
    /// Ends what is overdue, unless somebody else ended it, or something ended it with it, meanwhile.
    async fn expire(&mut self, one: Overdue) -> ServiceResult<()> {
        let now = self.now;
        match one {
            Overdue::Request(id) => {
                let row = self.peering_request(id).await?.filter(|row| peering::is_overdue(row, now));
                let Some(mut row) = row else { return Ok(()) };
                let before = row.status;
                row.status = next(before, PeeringAct::Expire, Side::System)?;
                self.close_request(&mut row).await?;
                let changes = changes(&[("status", &before, &row.status)]);
                self.audit(&[row.from, row.to], "peering_request.expire", row.id, changes).await
            }
            Overdue::Grant(id) => {
                let row = self.grant(id).await?.filter(|row| grants::is_overdue(row, now));
                let Some(row) = row else { return Ok(()) };
                self.end_grant(row, GrantAct::Expire, Side::System).await?;
                Ok(())
            }
            Overdue::Share(id) => {
                let row = self.share(id).await?.filter(|row| shares::is_overdue(row, now));
                let Some(row) = row else { return Ok(()) };
                self.close_share(row, "").await?;
                Ok(())
            }
            Overdue::Connection(id) => {
                let row = self.connection(id).await?.filter(|row| connections::is_overdue(row, now));
                let Some(row) = row else { return Ok(()) };
                let before = row.status;
                let row = self.end_connection(row, ConnectionAct::Expire, None, Side::System).await?;
                let changes = changes(&[("status", &before, &row.status)]);
                self.audit(&[row.sender.organization, row.listener.organization], "admin.expire", row.id, changes).await
            }
            Overdue::OldSecret(id) => match self.connection(id).await? {
                Some(row) => self.retire_secret(row).await,
                None => Ok(()),
            },
        }
    }
}

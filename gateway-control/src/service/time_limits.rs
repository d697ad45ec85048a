//! What time alone does: unanswered requests expire, grants end, old sessions go. Run by the reconciler; idempotent.

use gateway_proto::{
    id::ServerId,
    peering::{ConnectionAct, GrantAct, PeeringAct, Side, next},
};

use super::{Service, ServiceError, ServiceResult, work::Who};

/// Rows handled in one transaction, so that a backlog never holds the writers up for long.
const BATCH: u32 = 50;
const _: () =
    assert!(BATCH as usize <= super::work::COMPILED_AT_ONCE, "what was left behind would be left behind again");
/// An ended code is kept for a day: whoever uses it then is told why it does not work.
const CODE_KEPT_SECS: u64 = 24 * 3600;
/// A removed gateway that does not come back for 90 days is a stranger.
const REMOVED_KEPT_SECS: u64 = 90 * 24 * 3600;
/// A replica that was silent for ten minutes has ended without a word.
const REPLICA_KEPT_SECS: u64 = 600;

impl Service {
    /// Expires what is overdue; whether there may be more.
    pub async fn expire_overdue(&self) -> ServiceResult<bool> {
        let now = self.clock.unix_secs();
        let mut tx = self.storage.read().await?;
        let requests = tx.overdue_peering_requests(now, BATCH).await?.len();
        let grants = tx.overdue_grants(now, BATCH).await?.len();
        let connections = tx.overdue_connections(now, BATCH).await?.len();
        let shares = tx.overdue_shares(now, BATCH).await?.len();
        drop(tx);
        let most = requests.max(grants).max(connections).max(shares);
        if most == 0 {
            return Ok(false);
        }
        let mut work = self.work(Who::System).await?;
        let now = work.now;
        for mut row in work.overdue_peering_requests(now, BATCH).await? {
            row.status = next(row.status, PeeringAct::Expire, Side::System)?;
            work.update_peering_request(&row).await?;
            work.audit(&[row.from, row.to], "peering_request.expire", row.id, "").await?;
        }
        for row in work.overdue_grants(now, BATCH).await? {
            let row = work.end_grant(row, GrantAct::Expire, Side::System).await?;
            work.audit(&[row.owner, row.peer], "grant.expire", row.id, "").await?;
        }
        for row in work.overdue_shares(now, BATCH).await? {
            let row = work.close_share(row).await?;
            work.audit(&[row.owner, row.peer], "share.expire", row.id, "").await?;
        }
        for row in work.overdue_connections(now, BATCH).await? {
            let row = work.end_connection(row, ConnectionAct::Expire, None, Side::System).await?;
            work.audit(&[row.sender.organization, row.listener.organization], "admin.expire", row.id, "").await?;
        }
        work.commit().await?;
        Ok(most >= BATCH as usize)
    }

    /// Compiles some of the policies that larger changes left behind, those after `after`, and moves `after` on; whether
    /// there may be more. One that cannot be compiled is left behind again, and holds up nobody else.
    pub async fn compile_backlog(&self, after: &mut String) -> ServiceResult<bool> {
        let servers: Vec<ServerId> = self.storage.read().await?.stale_servers(after, BATCH).await?;
        let Some(last) = servers.last() else { return Ok(false) };
        match self.compile_all(&servers).await {
            Ok(()) => {}
            Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
            Err(_) => {
                for server in &servers {
                    if let Err(error) = self.compile_all(&[*server]).await {
                        tracing::error!(%server, error = &error as &dyn std::error::Error, "a policy cannot be compiled");
                    }
                }
            }
        }
        *after = last.to_string();
        Ok(servers.len() >= BATCH as usize)
    }

    async fn compile_all(&self, servers: &[ServerId]) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        for server in servers {
            work.touch(*server);
        }
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
        work.purge(now, now.saturating_sub(CODE_KEPT_SECS), now.saturating_sub(REMOVED_KEPT_SECS)).await?;
        work.delete_replicas(now.saturating_sub(REPLICA_KEPT_SECS)).await?;
        work.commit().await
    }
}

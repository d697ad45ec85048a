//! The secret of a connection is replaced while data flows.
//!
//! The policies of the two gateways arrive apart, and nobody knows when. So the old secret is accepted for an overlap, and the
//! gateway that opens streams turns to the new one in the middle of it, by its own clock: each half is time for the other end's
//! policy. Streams that are open go on: a secret is asked for when a stream begins. The reconciler writes down what time did, and
//! takes the old secret out of the policies.

use gateway_proto::{
    api::platform::{Connection, RotateSecret},
    id::ConnectionId,
    peering::activation,
    policy::{ConnectionSecret, Secret},
};

use super::{
    super::{Actor, Service, ServiceError, ServiceResult, Work, bounds, permission::Act, validate},
    grant_of,
};
use crate::storage::{ConnectionRow, RotationRow};

impl Service {
    /// Replaces the secret of a connection that policies have, for either side. While one rotation runs only one at once follows it:
    /// of three secrets an end could know the wrong two.
    pub async fn rotate_secret(
        &self,
        actor: &Actor,
        id: ConnectionId,
        body: RotateSecret,
    ) -> ServiceResult<Connection> {
        actor.may(Act::RotateSecret)?;
        if body.at_once && body.overlap_secs.is_some() {
            return Err(ServiceError::Invalid("at_once is without an overlap: leave overlap_secs out".to_owned()));
        }
        let (least, most) = bounds::SECRET_OVERLAP_SECS;
        let asked = body.overlap_secs.map(|secs| validate::range("overlap_secs", secs, least, most)).transpose()?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (mut row, _) = self.connection_to_change(actor, &mut work, id).await?;
        let agreement = work.agreement(row.agreement).await?;
        let agreement = agreement.ok_or(ServiceError::Internal("a connection without agreement"))?;
        if activation(row.status, agreement.status).is_none() {
            return Err(ServiceError::Blocked(format!(
                "the connection is {}: no gateway has its secret; it is for connections that are ready, active or paused",
                row.status
            )));
        }
        let running = row.rotation.as_ref().filter(|rotation| work.now < rotation.until);
        if let Some(rotation) = running.filter(|_| !body.at_once) {
            return Err(ServiceError::Blocked(format!(
                "the secret is being replaced until {} (Unix seconds); wait for it, or replace it at_once",
                rotation.until
            )));
        }
        let sound = staleness(&mut work, &row).await?.saturating_mul(2).clamp(least, most);
        if asked.is_some_and(|secs| secs < sound) {
            self.both_follow(&mut work, &row, sound).await?;
        }
        self.may_disturb(actor, row.agreement)?;
        let overlap = if body.at_once { 0 } else { asked.unwrap_or(sound) };
        let old = std::mem::replace(&mut row.secret, Secret::from_bytes(gateway_net::random()));
        let rotation = RotationRow::begin(old, work.now, overlap);
        let detail = if body.at_once {
            work.cuts();
            "secret: the old one → a new one; the old one counts no more".to_owned()
        } else {
            let until = rotation.until;
            format!("secret: the old one → a new one; the old one is accepted for {overlap} s, until {until}")
        };
        row.rotation = Some(rotation).filter(|_| !body.at_once);
        work.update_connection(&row).await?;
        work.touch_ends(&row);
        let organizations = [row.sender.organization, row.listener.organization];
        work.audit(&organizations, "connection.rotate_secret", id, detail).await?;
        self.changed_connection(work, own, row).await
    }

    /// An overlap below the `sound` one, seconds, which outlasts every end that has not heard of it, is for gateways that hear of it
    /// at once: an end that missed half of it would be refused until it is back, or refuse the other one.
    async fn both_follow(&self, work: &mut Work, row: &ConnectionRow, sound: u64) -> ServiceResult<()> {
        for end in row.ends() {
            let Some(id) = end.server else { continue };
            let server = work.server(id).await?.ok_or(ServiceError::Internal("a connection without server"))?;
            let newest = work.policy_revision(id).await?;
            let why = if self.last_heard(work.tx(), id).await?.is_none() {
                "is out of reach"
            } else if server.stale || server.applied_revision < newest {
                "does not have its newest policy in force"
            } else {
                continue;
            };
            return Err(ServiceError::Blocked(format!(
                "the gateway of server {:?} {why}, and an overlap below {sound} s (twice the staleness budget) could end before it \
                 knows the new secret: leave overlap_secs out, try again when both gateways have their newest policies in force, \
                 or replace the secret at_once if new streams may be refused meanwhile",
                server.name
            )));
        }
        Ok(())
    }
}

/// For how long an end of the connection may carry data without hearing of the control plane, seconds.
async fn staleness(work: &mut Work, row: &ConnectionRow) -> ServiceResult<u64> {
    if let Some(admin) = &row.admin {
        return Ok(admin.terms.staleness_secs);
    }
    let grant = grant_of(work.tx(), row).await?;
    Ok(grant.ok_or(ServiceError::Internal("a connection without a grant"))?.staleness_secs)
}

/// What a policy says of a connection's secrets at an end that opens streams, or takes them.
///
/// Whoever takes streams takes both secrets of a rotation, each as long as it counts; whoever opens them opens them with the first
/// one that counts. What time does to them stays until it is written down: the gateways look at the time themselves.
pub(in crate::service) fn secrets(connection: &ConnectionRow, opens: bool) -> Vec<ConnectionSecret> {
    let current = ConnectionSecret { secret: connection.secret.clone(), until: None };
    let Some(rotation) = &connection.rotation else { return vec![current] };
    let old = |until| ConnectionSecret { secret: rotation.old.clone(), until: Some(until) };
    match (opens, rotation.has_turned()) {
        (true, true) => vec![current],
        (true, false) => vec![old(rotation.turns_at), current],
        (false, _) => vec![current, old(rotation.until)],
    }
}

impl Work {
    /// What time did to an old secret: its sender opens no streams with it any more, and then nobody accepts it.
    pub(in crate::service) async fn retire_secret(&mut self, mut row: ConnectionRow) -> ServiceResult<()> {
        let now = self.now;
        let Some(mut rotation) = row.rotation.take().filter(|rotation| rotation.due_at <= now) else { return Ok(()) };
        if now < rotation.until {
            rotation.due_at = rotation.until;
            row.rotation = Some(rotation);
        }
        self.update_connection(&row).await?;
        if row.status.is_ended() {
            return Ok(());
        }
        self.touch_ends(&row);
        if row.rotation.is_none() {
            let organizations = [row.sender.organization, row.listener.organization];
            self.audit(&organizations, "connection.retire_secret", row.id, "old secret: accepted → refused").await?;
        }
        Ok(())
    }
}

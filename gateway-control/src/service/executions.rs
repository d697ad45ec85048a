//! Metering: how often which device took part in which behavior, by day.
//!
//! The gateways count for the delivery proof, and what is new in those counts is entered here in the same transaction: a report
//! that comes twice counts once. What one execution is depends on the behavior (docs/observers.md): a message, a request, an association,
//! or a connection of an engine where nothing else can be counted. Each organization is shown what its own devices did,
//! whichever side of the exchange they were on; with itself a server is metered once, because one report stands for both ends.

use gateway_proto::{
    api::{Page, platform::Executions},
    id::{DeviceId, OrganizationId},
};
use serde::Deserialize;

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    page::{Paging, cut},
    permission::Act,
    validate,
};
use crate::{
    clock::DAY_SECS,
    storage::{Ahead, ConnectionRow, EndRow, ExecutionsFilter, ExecutionsRow},
};

/// For how long days are kept, seconds: a year and a month.
const KEPT_SECS: u64 = 400 * DAY_SECS;

/// Which executions.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExecutionsQuery {
    /// First day, UTC, `2026-01-31`; default: 30 days ago.
    #[serde(default)]
    pub from: Option<String>,
    /// Last day; default: today.
    #[serde(default)]
    pub to: Option<String>,
    /// Those of one device.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Those of one behavior.
    #[serde(default)]
    pub behavior: Option<String>,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Entries of a page at most, 1–200; default 100.
    #[serde(default)]
    pub limit: Option<u32>,
}

impl Service {
    /// What the own devices did.
    pub async fn executions(&self, actor: &Actor, query: ExecutionsQuery) -> ServiceResult<Page<Executions>> {
        actor.may(Act::Read)?;
        self.executions_of(actor.id(), query).await
    }

    /// What the devices of an organization did, for the operator of the platform.
    pub async fn executions_of(
        &self,
        organization: OrganizationId,
        query: ExecutionsQuery,
    ) -> ServiceResult<Page<Executions>> {
        let now = self.clock.unix_secs();
        let filter = ExecutionsFilter {
            from: day_or("from", query.from, now.saturating_sub(30 * DAY_SECS))?,
            to: day_or("to", query.to, now)?,
            device: query.device,
            behavior: query.behavior.as_deref().map(validate::behavior).transpose()?,
        };
        let slice = Paging { cursor: query.cursor, limit: query.limit }.slice()?;
        let mut tx = self.storage.read().await?;
        tx.organization(organization).await?.ok_or(ServiceError::NotFound("organization"))?;
        let rows = tx.executions(organization, &filter, &slice).await?;
        let (rows, next) = cut(rows, &slice, |row| format!("{} {} {}", row.day, row.device, row.behavior));
        tx.read_ahead(Ahead::Devices(rows.iter().map(|row| row.device).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let device_name = tx.device(row.device).await?.map(|device| device.name).unwrap_or_default();
            items.push(Executions {
                day: row.day,
                device_id: row.device,
                device_name,
                behavior: row.behavior,
                number: row.number,
            });
        }
        Ok(Page { items, next })
    }
}

impl Work {
    /// Enters what is new in the counts of one end of a connection.
    pub(super) async fn meter(&mut self, row: &ConnectionRow, end: &EndRow, number: u64) -> ServiceResult<()> {
        let (Some(server), Some(channel)) = (end.server, row.channel) else { return Ok(()) };
        let Some(channel) = self.channel(channel).await?.filter(|_| number > 0) else { return Ok(()) };
        let executions = ExecutionsRow {
            organization: end.organization,
            day: day(self.now),
            device: DeviceId::from_bytes(server.to_bytes()),
            behavior: channel.behavior,
            number,
        };
        Ok(self.add_executions(&executions).await?)
    }

    /// Forgets days of long ago.
    pub(super) async fn forget_executions(&mut self) -> ServiceResult<()> {
        let before = day(self.now.saturating_sub(KEPT_SECS));
        Ok(self.purge_executions(&before).await?)
    }
}

fn day_or(field: &str, text: Option<String>, default: u64) -> ServiceResult<String> {
    let Some(text) = text else { return Ok(day(default)) };
    let mut parts = text.split('-').map(|part| (part.len(), part.bytes().all(|byte| byte.is_ascii_digit())));
    let sound = [(4, true), (2, true), (2, true)];
    if parts.by_ref().take(3).eq(sound) && parts.next().is_none() {
        Ok(text)
    } else {
        Err(ServiceError::Invalid(format!("{field} is not a day like 2026-01-31")))
    }
}

/// The day of a moment (UTC), by the civil calendar.
fn day(unix_secs: u64) -> String {
    let days = unix_secs / DAY_SECS + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_of_its_day() {
        for (secs, text) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
            (1_767_225_600, "2026-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(secs), text);
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        assert_eq!(day_or("from", Some("2026-01-31".into()), 0).unwrap(), "2026-01-31");
        for text in ["", "2026", "2026-1-31", "2026-01-31-", "2026-01-3a", "31-01-2026x", "%"] {
            assert!(day_or("from", Some(text.into()), 0).is_err(), "{text}");
        }
    }
}

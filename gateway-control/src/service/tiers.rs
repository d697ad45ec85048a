//! Subscription tiers: limits that are data, enforced here and nowhere else ([`Work::has_room`], [`Work::allows_read_write`]).
//!
//! A limit only ever stops something new. What is there when a tier changes stays, and is shown as surplus.

use gateway_proto::{
    api::{
        Page,
        platform::{
            AssignTier, ChannelGrants, Count, MAX_CONNECTIONS_PER_SERVER, MAX_GRANTS_PER_CHANNEL, PlatformOrganization,
            PutTier, ServerConnections, ServerCount, Tier, Usage,
        },
    },
    id::{ChannelId, OrganizationId, ServerId},
};

use super::{
    Actor, OperatorCaller, Service, ServiceError, ServiceResult, Work, bounds,
    page::{Paging, page},
    permission::Act,
    validate,
    work::changes,
};
use crate::storage::{ConnectionRow, TierRow, Transaction};

/// Servers shown with their channels.
const SERVERS_SHOWN: u32 = 100;
/// Channels shown with their grants.
const CHANNELS_SHOWN: u32 = 100;

/// Said where something still counts that no list shows any more.
pub(super) const TIME_IS_OVER: &str =
    "those whose time is over are written down as ended within seconds, five minutes after a start, and";

/// What a tier limits the number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Servers of an organization.
    Servers,
    /// Agreements with others.
    Peers,
    /// Channels of one server.
    Channels(ServerId),
    /// Connections of one server, at either end.
    Connections(ServerId),
    /// Grants of one channel.
    Grants(ChannelId),
}

impl Service {
    /// All tiers.
    pub async fn tiers(&self) -> ServiceResult<Vec<Tier>> {
        Ok(self.storage.read().await?.tiers().await?.into_iter().map(show).collect())
    }

    /// What the own organization uses of its tier.
    pub async fn usage(&self, actor: &Actor) -> ServiceResult<Usage> {
        actor.may(Act::Read)?;
        let own = actor.id();
        let mut tx = self.storage.read().await?;
        let now = self.clock.unix_secs();
        let tier = tier_of(&mut *tx, own).await?;
        let servers = count(tx.count_servers(own).await?, tier.max_servers);
        let peers = count(tx.count_peers(own).await?, tier.max_peers);
        let fullest = tx.fullest_servers(own, SERVERS_SHOWN).await?;
        let channels = fullest.into_iter().map(|row| ServerCount {
            server_id: row.server,
            server_name: row.name,
            channels: count(row.channels, tier.max_channels_per_server),
        });
        let most = connections_per_server(&tier);
        let connections = tx.busiest_servers(own, SERVERS_SHOWN).await?.into_iter().map(|row| ServerConnections {
            server_id: row.server,
            server_name: row.name,
            connections: count(row.connections, most),
        });
        let most = grants_per_channel(&tier);
        let grants = tx.most_granted_channels(own, CHANNELS_SHOWN, now).await?.into_iter().map(|row| ChannelGrants {
            channel_id: row.channel,
            channel_name: row.name,
            grants: count(row.grants, most),
        });
        Ok(Usage {
            organization_id: own,
            servers,
            peers,
            channels: channels.collect(),
            connections: connections.collect(),
            grants: grants.collect(),
            tier: show(tier),
        })
    }

    /// Adds or replaces a tier, as the operator of the platform. A limit that came after the first of them stays where it is
    /// left out: a request from before would lift it without a word.
    pub async fn put_tier(&self, operator: &OperatorCaller, name: &str, body: PutTier) -> ServiceResult<Tier> {
        is_name_of_tier(name)?;
        let most = body.max_grants_per_channel.unwrap_or(MAX_GRANTS_PER_CHANNEL);
        validate::range("max_grants_per_channel", most, 0, MAX_GRANTS_PER_CHANNEL)?;
        let most = body.max_connections_per_server.unwrap_or(MAX_CONNECTIONS_PER_SERVER);
        validate::range("max_connections_per_server", most, 0, MAX_CONNECTIONS_PER_SERVER)?;
        let mut work = self.work_of_operator(operator).await?;
        let before = work.tiers().await?.into_iter().find(|tier| tier.name == name);
        let kept = |limit: fn(&TierRow) -> Option<u32>| before.as_ref().and_then(limit);
        let row = TierRow {
            name: name.to_owned(),
            max_servers: body.max_servers,
            max_peers: body.max_peers,
            max_channels_per_server: body.max_channels_per_server,
            max_grants_per_channel: body.max_grants_per_channel.or_else(|| kept(|tier| tier.max_grants_per_channel)),
            max_connections_per_server: body
                .max_connections_per_server
                .or_else(|| kept(|tier| tier.max_connections_per_server)),
            admin_read_write: body.admin_read_write,
            initial: body.initial,
        };
        if !row.initial && before.as_ref().is_some_and(|tier| tier.initial) {
            return Err(ServiceError::Conflict(
                "new organizations begin with this tier; make another one the initial one first".to_owned(),
            ));
        }
        if before.as_ref() == Some(&row) {
            work.unchanged().await?;
            return Ok(show(row));
        }
        work.put_tier(&row).await?;
        work.audit_platform("tier.put", name, put(before.as_ref(), &row)).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// All organizations with their tiers, for the operator of the platform.
    pub async fn platform_organizations(&self, paging: &Paging) -> ServiceResult<Page<PlatformOrganization>> {
        let slice = paging.slice()?;
        let rows = self.storage.read().await?.platform_organizations(&slice).await?;
        Ok(page(
            rows,
            &slice,
            |row| row.id.to_string(),
            |row| PlatformOrganization { id: row.id, name: row.name, tier: row.tier, created_at: row.created_at },
        ))
    }

    /// Puts an organization into a tier, as the operator of the platform.
    pub async fn assign_tier(
        &self,
        operator: &OperatorCaller,
        organization: OrganizationId,
        body: AssignTier,
    ) -> ServiceResult<()> {
        is_name_of_tier(&body.tier)?;
        let mut work = self.work_of_operator(operator).await?;
        let known = work.organization(organization).await?.filter(|row| row.removed_at.is_none());
        known.ok_or(ServiceError::NotFound("organization"))?;
        if !work.tiers().await?.iter().any(|tier| tier.name == body.tier) {
            return Err(ServiceError::NotFound("tier"));
        }
        let before = work.tier_of(organization).await?.map(|tier| tier.name).unwrap_or_default();
        work.assign_tier(organization, &body.tier).await?;
        let detail = format!("tier: {before} → {}", body.tier);
        work.audit(&[organization], "organization.assign_tier", organization, detail.clone()).await?;
        work.audit_platform("organization.assign_tier", organization, detail).await?;
        work.commit().await
    }
}

fn is_name_of_tier(name: &str) -> ServiceResult<()> {
    let most = bounds::MAX_WORD;
    let sound = (1..=most).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if sound {
        return Ok(());
    }
    Err(ServiceError::Invalid(format!("the name of a tier is 1–{most} of a-z, 0-9, '-' and '_'")))
}

impl Work {
    /// Refuses one more of something that there are enough of, of the own organization or another one. What a policy may name counts
    /// until its end is written down, however the wall clock is set meanwhile: a limit is what a policy can grow to. What only
    /// waits takes no room once its time is over.
    pub(super) async fn has_room(&mut self, organization: OrganizationId, what: Counted) -> ServiceResult<()> {
        let now = self.now;
        let tier = tier_of(self.tx(), organization).await?;
        let (used, limit, words) = match what {
            Counted::Servers => (self.count_servers(organization).await?, tier.max_servers, "servers"),
            Counted::Peers => (self.count_peers(organization).await?, tier.max_peers, "peers"),
            Counted::Channels(server) => {
                (self.count_channels(server).await?, tier.max_channels_per_server, "channels per server")
            }
            Counted::Connections(server) => {
                (self.count_open_connections(server).await?, connections_per_server(&tier), "connections per server")
            }
            Counted::Grants(channel) => {
                (self.count_open_grants(channel, now).await?, grants_per_channel(&tier), "grants per channel")
            }
        };
        match limit {
            Some(limit) if used >= u64::from(limit) => {
                let tier = &tier.name;
                let until = match what {
                    Counted::Connections(_) | Counted::Grants(_) => format!(" ({TIME_IS_OVER} count until then)"),
                    Counted::Servers | Counted::Peers | Counted::Channels(_) => String::new(),
                };
                let own = format!(
                    "the tier '{tier}' allows {limit} {words}, and there are {used}{until}; remove one or ask for a \
                     larger tier"
                );
                let theirs = "the other organization has no room for this in its tier; ask it to make some";
                Err(self.limit_of(organization, own, theirs))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the tier of an organization does not allow, in words for the one that acts. Where that is another one, `theirs`: which tier
    /// an organization is in, and how much room it has there, is its own to know.
    fn limit_of(&self, organization: OrganizationId, own: String, theirs: &str) -> ServiceError {
        let is_own = self.own() == Some(organization);
        ServiceError::Limit(if is_own { own } else { theirs.to_owned() })
    }

    /// Refuses one more connection between servers of which one has enough.
    pub(super) async fn has_room_at_ends(&mut self, connection: &ConnectionRow) -> ServiceResult<()> {
        for end in connection.ends() {
            if let Some(server) = end.server {
                self.has_room(end.organization, Counted::Connections(server)).await?;
            }
        }
        Ok(())
    }

    /// Refuses a read-write admin connection where the tier of its owner has none, be that the own organization or another one.
    pub(super) async fn allows_read_write(&mut self, organization: OrganizationId) -> ServiceResult<()> {
        let tier = tier_of(self.tx(), organization).await?;
        if tier.admin_read_write {
            return Ok(());
        }
        let own = format!(
            "the tier '{}' has no read-write admin connections; offer it read-only or ask for a larger tier",
            tier.name
        );
        let theirs = "the other organization can have no read-write admin connections now; ask it for a read-only one";
        Err(self.limit_of(organization, own, theirs))
    }

    /// A new organization begins with the initial tier.
    pub(super) async fn begin_tier(&mut self, organization: OrganizationId) -> ServiceResult<()> {
        let initial = self.tiers().await?.into_iter().find(|tier| tier.initial);
        let initial = initial.ok_or(ServiceError::Internal("no tier is the initial one"))?;
        Ok(self.assign_tier(organization, &initial.name).await?)
    }
}

/// What a tier was and what it is, as far as it differs; all of a new one.
fn put(before: Option<&TierRow>, row: &TierRow) -> String {
    let names = [
        "max_servers",
        "max_peers",
        "max_channels_per_server",
        "max_grants_per_channel",
        "max_connections_per_server",
        "admin_read_write",
        "initial",
    ];
    let before = before.map_or_else(|| names.map(|_| "none".to_owned()), in_words);
    let after = in_words(row);
    let said: Vec<(&str, &dyn ToString, &dyn ToString)> = names
        .into_iter()
        .zip(before.iter().zip(&after))
        .map(|(name, (before, after))| (name, before as &dyn ToString, after as &dyn ToString))
        .collect();
    changes(&said)
}

/// In the order of the names in [`put`].
fn in_words(tier: &TierRow) -> [String; 7] {
    let limit = |most: Option<u32>| most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
    [
        limit(tier.max_servers),
        limit(tier.max_peers),
        limit(tier.max_channels_per_server),
        limit(tier.max_grants_per_channel),
        limit(tier.max_connections_per_server),
        tier.admin_read_write.to_string(),
        tier.initial.to_string(),
    ]
}

async fn tier_of(tx: &mut dyn Transaction, organization: OrganizationId) -> ServiceResult<TierRow> {
    tx.tier_of(organization).await?.ok_or(ServiceError::Internal("an organization without tier"))
}

fn connections_per_server(tier: &TierRow) -> Option<u32> {
    tier.max_connections_per_server.or(Some(MAX_CONNECTIONS_PER_SERVER))
}

fn grants_per_channel(tier: &TierRow) -> Option<u32> {
    tier.max_grants_per_channel.or(Some(MAX_GRANTS_PER_CHANNEL))
}

fn count(used: u64, limit: Option<u32>) -> Count {
    let used = u32::try_from(used).unwrap_or(u32::MAX);
    Count { used, limit, surplus: limit.map_or(0, |limit| used.saturating_sub(limit)) }
}

fn show(row: TierRow) -> Tier {
    Tier {
        name: row.name,
        max_servers: row.max_servers,
        max_peers: row.max_peers,
        max_channels_per_server: row.max_channels_per_server,
        max_grants_per_channel: row.max_grants_per_channel,
        max_connections_per_server: row.max_connections_per_server,
        admin_read_write: row.admin_read_write,
        initial: row.initial,
    }
}

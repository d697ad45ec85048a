//! `gateway-ctl tier`: subscription tiers. Everybody reads them, the operator of the platform sets and assigns them.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{
        AssignTier, Count, MAX_CONNECTIONS_PER_SERVER, MAX_GRANTS_PER_CHANNEL, PlatformOrganization, PutTier, Tier,
        Usage,
    },
    id::OrganizationId,
};

use crate::{
    cmd::{Context, id_of, relay::Operator},
    error::CtlError,
    output::{View, time, yes_no},
    resolve::Named,
};

const PATH: &str = "/tiers";
const ORGANIZATIONS: &str = "/organizations";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum TierVerb {
    /// List the tiers and their limits.
    List,
    /// What the own organization uses of its tier.
    Usage,
    /// Add a tier, or replace the limits of one (for the operator of the platform).
    Set(Box<Set>),
    /// List all organizations with their tiers (for the operator of the platform).
    Organizations {
        #[command(flatten)]
        operator: Operator,
    },
    /// Put an organization into a tier (for the operator of the platform).
    Assign {
        /// Name or id of the organization.
        organization: String,
        /// Name of the tier.
        tier: String,
        #[command(flatten)]
        operator: Operator,
    },
}

/// The limits of a tier; one that is left out is none, but of grants and connections, which stay as they are.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Name of the tier.
    name: String,
    /// Servers of an organization.
    #[arg(long, value_name = "N")]
    servers: Option<u32>,
    /// Agreements of an organization with others.
    #[arg(long, value_name = "N")]
    peers: Option<u32>,
    /// Channels of a server.
    #[arg(long, value_name = "N")]
    channels: Option<u32>,
    /// Grants of a channel that wait or are in force, 2,000 at most; left out: as it is (a new tier: 2,000).
    #[arg(long, value_name = "N")]
    grants: Option<u32>,
    /// Connections of a server that have not ended, 2,000 at most; left out: as it is (a new tier: 2,000).
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Allow read-write admin connections.
    #[arg(long)]
    admin_read_write: bool,
    /// New organizations begin with it.
    #[arg(long)]
    initial: bool,
    #[command(flatten)]
    operator: Operator,
}

impl TierVerb {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List => {
                let tiers: Vec<Tier> = context.control()?.list(PATH, &[], None).await?;
                context.out.list(&tiers)
            }
            Self::Usage => {
                let usage: Usage = context.control()?.get("/organization/usage").await?;
                context.out.item(&usage)
            }
            Self::Set(set) => {
                let body = PutTier {
                    max_servers: set.servers,
                    max_peers: set.peers,
                    max_channels_per_server: set.channels,
                    max_grants_per_channel: set.grants,
                    max_connections_per_server: set.connections,
                    admin_read_write: set.admin_read_write,
                    initial: set.initial,
                };
                let tier: Tier = set.operator.control(context)?.put(&format!("{PATH}/{}", set.name), &body).await?;
                context.out.item(&tier)
            }
            Self::Organizations { operator } => {
                let all: Vec<PlatformOrganization> = operator.control(context)?.list(ORGANIZATIONS, &[], None).await?;
                context.out.list(&all)
            }
            Self::Assign { organization, tier, operator } => {
                let control = operator.control(context)?;
                let id = id_of::<PlatformOrganization>(&control, ORGANIZATIONS, &organization, |_| true).await?;
                control.put_only(&format!("{ORGANIZATIONS}/{id}/tier"), &AssignTier { tier: tier.clone() }).await?;
                context.out.deed("organization.assign_tier", id, &format!("'{organization}' is in the tier '{tier}'."))
            }
        }
    }
}

impl View for Tier {
    const HEADERS: &'static [&'static str] =
        &["TIER", "SERVERS", "PEERS", "CHANNELS", "GRANTS", "CONNECTIONS", "ADMIN READ-WRITE", "INITIAL"];

    fn row(&self, _now: u64) -> Vec<String> {
        let limit = |limit: Option<u32>| limit.map_or_else(|| "any number".to_owned(), |limit| limit.to_string());
        vec![
            self.name.clone(),
            limit(self.max_servers),
            limit(self.max_peers),
            limit(self.max_channels_per_server),
            self.max_grants_per_channel.unwrap_or(MAX_GRANTS_PER_CHANNEL).to_string(),
            self.max_connections_per_server.unwrap_or(MAX_CONNECTIONS_PER_SERVER).to_string(),
            yes_no(self.admin_read_write),
            yes_no(self.initial),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let labels = [
            "Tier",
            "Servers",
            "Peers",
            "Channels per server",
            "Grants per channel",
            "Connections per server",
            "Admin read-write",
            "Initial",
        ];
        labels.into_iter().zip(self.row(now)).collect()
    }
}

impl View for Usage {
    const HEADERS: &'static [&'static str] = &["TIER", "SERVERS", "PEERS"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.tier.name.clone(), count(&self.servers), count(&self.peers)]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Tier", self.tier.name.clone()),
            ("Servers", count(&self.servers)),
            ("Peers", count(&self.peers)),
            ("Admin read-write", yes_no(self.tier.admin_read_write)),
        ];
        for server in &self.channels {
            lines.push(("Channels", format!("{} on '{}'", count(&server.channels), server.server_name)));
        }
        for server in &self.connections {
            lines.push(("Connections", format!("{} of '{}'", count(&server.connections), server.server_name)));
        }
        for channel in &self.grants {
            lines.push(("Grants", format!("{} of '{}'", count(&channel.grants), channel.channel_name)));
        }
        lines
    }
}

fn count(count: &Count) -> String {
    let limit = count.limit.map_or_else(|| "any number".to_owned(), |limit| limit.to_string());
    let surplus = if count.surplus > 0 { format!(", {} above the limit", count.surplus) } else { String::new() };
    format!("{} of {limit}{surplus}", count.used)
}

impl Named for PlatformOrganization {
    type Id = OrganizationId;
    const KIND: &'static str = "organization";
    const LIST: &'static str = "tier organizations";

    fn id(&self) -> OrganizationId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}, {}", self.name, self.tier)
    }
}

impl View for PlatformOrganization {
    const HEADERS: &'static [&'static str] = &["NAME", "TIER", "CREATED", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![self.name.clone(), self.tier.clone(), time::relative(now, self.created_at), self.id.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Name", "Tier", "Created", "Id"].into_iter().zip(self.row(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_limit_is_said() {
        assert_eq!(count(&Count { used: 3, limit: Some(2), surplus: 1 }), "3 of 2, 1 above the limit");
        assert_eq!(count(&Count { used: 3, limit: None, surplus: 0 }), "3 of any number");
    }
}

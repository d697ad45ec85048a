//! What has to be done so that what is found becomes what is wanted. Decides only; knows no network.

use std::fmt;

use gateway_proto::{
    api::platform::{Agreement, Channel, Grant, PeeringRequest, Server},
    id::{AgreementId, ChannelId, ServerId},
    peering::{AgreementStatus, GrantStatus, PeeringStatus},
};

use super::site::{Site, SiteChannel, SiteGrant, SitePeer};
use crate::args::Span;

/// How the platform names the own organization.
const SELF: &str = "self";

/// What the platform has.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) servers: Vec<Server>,
    pub(super) channels: Vec<Channel>,
    pub(super) requests: Vec<PeeringRequest>,
    pub(super) agreements: Vec<Agreement>,
    pub(super) grants: Vec<Grant>,
    /// Unix seconds.
    pub(super) now: u64,
}

/// Something to do, or to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A server is missing.
    CreateServer(String),
    /// A channel is missing.
    CreateChannel { server_id: ServerId, channel: SiteChannel },
    /// A channel is not as wanted.
    ChangeChannel { id: ChannelId, channel: SiteChannel, changes: Vec<String> },
    /// There is neither an agreement nor a request.
    RequestPeering { organization: String, message: String },
    /// A channel is not granted.
    OfferGrant { agreement_id: AgreementId, channel_id: ChannelId, grant: SiteGrant, expires_at: Option<u64> },
    /// Nothing can be done yet.
    Wait(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateServer(name) => write!(f, "create the server '{name}'"),
            Self::CreateChannel { channel, .. } => {
                write!(f, "create the channel '{}/{}'", channel.server, channel.name)
            }
            Self::ChangeChannel { channel, changes, .. } => {
                write!(f, "change the channel '{}/{}': {}", channel.server, channel.name, changes.join("; "))
            }
            Self::RequestPeering { organization, .. } => write!(f, "ask '{organization}' for an agreement"),
            Self::OfferGrant { grant, .. } => write!(f, "offer the channel '{}' to '{}'", grant.channel, grant.to),
            Self::Wait(words) => f.write_str(words),
        }
    }
}

/// The steps that can be taken now, in their order, and what has to be waited for.
pub(super) fn plan(site: &Site, found: &Found) -> Vec<Step> {
    let mut steps = Vec::new();
    for server in &site.servers {
        if found.server(&server.name).is_none() {
            steps.push(Step::CreateServer(server.name.clone()));
        }
    }
    steps.extend(site.channels.iter().filter_map(|channel| found.channel_step(channel, site)));
    steps.extend(site.peers.iter().filter_map(|peer| found.peer_step(peer)));
    steps.extend(site.grants.iter().filter_map(|grant| found.grant_step(grant, site)));
    steps
}

impl Found {
    fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    fn channel(&self, server: &str, name: &str) -> Option<&Channel> {
        let server = self.server(server)?;
        self.channels.iter().find(|channel| channel.server_id == server.id && channel.name == name)
    }

    fn agreement(&self, peer: &str) -> Option<&Agreement> {
        self.agreements.iter().find(|agreement| {
            agreement.status != AgreementStatus::Ended && agreement.peer_name.eq_ignore_ascii_case(peer)
        })
    }

    fn channel_step(&self, wanted: &SiteChannel, site: &Site) -> Option<Step> {
        let Some(server) = self.server(&wanted.server) else {
            let comes = site.servers.iter().any(|server| server.name == wanted.server);
            let words = format!("the channel '{}/{}' waits for its server", wanted.server, wanted.name);
            return Some(Step::Wait(if comes { words } else { format!("{words}, which the file does not name") }));
        };
        let Some(channel) = self.channel(&wanted.server, &wanted.name) else {
            return Some(Step::CreateChannel { server_id: server.id, channel: wanted.clone() });
        };
        let published = channel.published.then_some(&channel.public_name);
        let mut changes = Vec::new();
        if channel.engine != wanted.engine {
            changes.push(format!("engine {} → {}", channel.engine, wanted.engine));
        }
        if published != wanted.publish.as_ref() {
            let name =
                |name: Option<&String>| name.map_or_else(|| "not published".to_owned(), |name| format!("'{name}'"));
            changes.push(format!("published {} → {}", name(published), name(wanted.publish.as_ref())));
        }
        if wanted.description.as_ref().is_some_and(|description| *description != channel.public_description) {
            changes.push("public description".to_owned());
        }
        if wanted.behavior.as_ref().is_some_and(|behavior| *behavior != channel.behavior) {
            let words = format!(
                "the channel '{}/{}' is for {}: a channel's behavior never changes, make a new one",
                wanted.server, wanted.name, channel.behavior
            );
            return Some(Step::Wait(words));
        }
        (!changes.is_empty()).then(|| Step::ChangeChannel { id: channel.id, channel: wanted.clone(), changes })
    }

    fn peer_step(&self, wanted: &SitePeer) -> Option<Step> {
        let name = &wanted.organization;
        if self.agreement(name).is_some() {
            return None;
        }
        let pending = self
            .requests
            .iter()
            .find(|request| request.status == PeeringStatus::Pending && request.peer_name.eq_ignore_ascii_case(name));
        Some(match pending {
            Some(request) if request.direction == "incoming" => {
                Step::Wait(format!("'{name}' asked already: decide with `gateway-ctl peering accept`"))
            }
            Some(_) => Step::Wait(format!("'{name}' has not answered the peering request yet")),
            None => Step::RequestPeering { organization: name.clone(), message: wanted.message.clone() },
        })
    }

    fn grant_step(&self, wanted: &SiteGrant, site: &Site) -> Option<Step> {
        let (server, name) = wanted.channel.split_once('/')?;
        let waits = |why: &str| {
            Some(Step::Wait(format!("the grant of '{}' to '{}' waits for {why}", wanted.channel, wanted.to)))
        };
        let Some(channel) = self.channel(server, name) else {
            let comes = site.channels.iter().any(|channel| channel.server == server && channel.name == name);
            return waits(if comes { "its channel" } else { "a channel that the file does not name" });
        };
        if wanted.to.eq_ignore_ascii_case(SELF) {
            return waits("`gateway-ctl grant offer`: inside the own organization both ends have to be named");
        }
        let Some(agreement) = self.agreement(&wanted.to) else { return waits("an agreement") };
        if agreement.status == AgreementStatus::Suspended {
            return waits("the suspension of the agreement to be lifted");
        }
        if !channel.published {
            return waits("its channel to be published");
        }
        let given = self.grants.iter().any(|grant| {
            let open = matches!(grant.status, GrantStatus::Pending | GrantStatus::Requested | GrantStatus::Active);
            open && grant.channel_id == channel.id && grant.agreement_id == agreement.id
        });
        let span = wanted.expires.as_ref().and_then(|text| text.parse::<Span>().ok());
        (!given).then(|| Step::OfferGrant {
            agreement_id: agreement.id,
            channel_id: channel.id,
            grant: wanted.clone(),
            expires_at: span.map(|span| self.now.saturating_add(span.secs)),
        })
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::id::OrganizationId;

    use super::*;

    const SITE: &str = "
        [[server]]
        name = 'lab'
        [[channel]]
        server = 'lab'
        name = 'adt'
        engine = '127.0.0.1:6661'
        publish = 'ADT feed'
        [[peer]]
        organization = 'Clinic B'
        [[grant]]
        channel = 'lab/adt'
        to = 'Clinic B'
        expires = '90d'
    ";

    fn site() -> Site {
        toml::from_str(SITE).unwrap()
    }

    fn words(found: &Found) -> Vec<String> {
        plan(&site(), found).iter().map(ToString::to_string).collect()
    }

    fn server() -> Server {
        Server {
            id: ServerId::new(1, [0; 10]),
            name: "lab".into(),
            gateway: None,
            gateway_version: None,
            online: false,
            last_seen_at: None,
            policy_revision: 0,
            applied_revision: 0,
            policy_problem: None,
            audit_alarm: false,
            created_at: 0,
        }
    }

    fn channel(engine: &str) -> Channel {
        Channel {
            id: ChannelId::new(1, [0; 10]),
            server_id: server().id,
            name: "adt".into(),
            engine: engine.into(),
            behavior: "hl7v2-mllp".into(),
            published: true,
            public_name: "ADT feed".into(),
            public_description: String::new(),
            created_at: 0,
        }
    }

    fn agreement() -> Agreement {
        Agreement {
            id: AgreementId::new(1, [0; 10]),
            peer_id: OrganizationId::new(2, [0; 10]),
            peer_name: "Clinic B".into(),
            status: AgreementStatus::Active,
            suspended_by_us: false,
            suspended_by_peer: false,
            created_at: 0,
            ended_at: None,
        }
    }

    #[test]
    fn what_is_missing_is_made_in_the_order_it_can_be() {
        let mut found = Found { now: 1000, ..Found::default() };
        assert_eq!(
            words(&found),
            [
                "create the server 'lab'",
                "the channel 'lab/adt' waits for its server",
                "ask 'Clinic B' for an agreement",
                "the grant of 'lab/adt' to 'Clinic B' waits for its channel",
            ]
        );
        found.servers.push(server());
        assert_eq!(words(&found)[0], "create the channel 'lab/adt'");
        found.channels.push(channel("127.0.0.1:6661"));
        found.agreements.push(agreement());
        let steps = plan(&site(), &found);
        assert!(matches!(&steps[..], [Step::OfferGrant { expires_at: Some(7_777_000), .. }]), "{steps:?}");
    }

    #[test]
    fn what_differs_is_changed_and_what_is_as_wanted_is_left_alone() {
        let mut found = Found { servers: vec![server()], agreements: vec![agreement()], ..Found::default() };
        found.channels.push(channel("127.0.0.1:7000"));
        assert_eq!(words(&found)[0], "change the channel 'lab/adt': engine 127.0.0.1:7000 → 127.0.0.1:6661");
        found.channels = vec![Channel { published: false, ..channel("127.0.0.1:6661") }];
        assert_eq!(words(&found)[0], "change the channel 'lab/adt': published not published → 'ADT feed'");
        assert_eq!(words(&found)[1], "the grant of 'lab/adt' to 'Clinic B' waits for its channel to be published");
    }
}

//! The people of the organizations: grant channels over the API and revoke the grants, and wait for the gateways.
//!
//! Everybody grants to the one before in the ring, where nothing is connected in that direction: change `n` concerns
//! organization `n` (round and round) and one server on either side, so that changes at the same time rarely meet.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use gateway_proto::{
    id::{ConnectionId, GrantId},
    policy::Activation,
};
use gateway_tests::{ctl::text, platform::Platform};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    fleet::{Fleet, trust},
    measure::Spread,
    seed::{SERVERS, Seeded},
};

/// Longest wait for one change.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// All owners.
#[derive(Debug)]
pub(crate) struct Owners<'f> {
    seeded: &'f Seeded,
    fleet: &'f Fleet,
    client: reqwest::Client,
    url: String,
}

/// A grant that was made, and how long it took.
#[derive(Debug)]
pub(crate) struct Granted {
    grant: GrantId,
    connection: ConnectionId,
    /// Numbers of the two gateways.
    ends: [usize; 2],
    /// The organization that may revoke it.
    owner: usize,
    /// From the approval until both gateways have it in a policy.
    pub(crate) reached: Duration,
    /// From the approval until both let data pass.
    pub(crate) carries: Duration,
}

impl<'f> Owners<'f> {
    pub(crate) fn new(platform: &Platform, seeded: &'f Seeded, fleet: &'f Fleet) -> anyhow::Result<Self> {
        let client = gateway_net::http::client(trust(platform)?, None)?;
        Ok(Self { seeded, fleet, client, url: platform.control.ready("url")?.to_owned() })
    }

    /// Grants so many channels, so many at once.
    pub(crate) async fn grant(&self, count: usize, at_once: usize) -> anyhow::Result<Vec<Granted>> {
        stream::iter(0..count).map(|n| self.grant_one(n)).buffer_unordered(at_once).try_collect().await
    }

    /// Revokes the grants, so many at once; how long each took to reach both gateways.
    pub(crate) async fn revoke(&self, granted: &[Granted], at_once: usize) -> anyhow::Result<Spread> {
        let revoked = stream::iter(granted).map(|granted| self.revoke_one(granted)).buffer_unordered(at_once);
        Ok(revoked.try_collect::<Vec<_>>().await?.into_iter().collect())
    }

    async fn grant_one(&self, n: usize) -> anyhow::Result<Granted> {
        let organizations = self.seeded.organizations.len();
        let owner = n % organizations;
        let peer = (owner + 1) % organizations;
        let server = n / organizations % SERVERS;
        let ends = [peer * SERVERS + server, owner * SERVERS + server];
        let [sender, listener] = ends.map(|end| &self.seeded.gateways[end]);
        let offer = json!({"agreement_id": self.seeded.organizations[owner].agreement, "channel_id": listener.channel});
        let offered = self.post(owner, "/grants", offer).await?;
        let id = text(&offered, "id")?;
        let begun = Instant::now();
        let body = json!({"sender_server_id": sender.server});
        let approved = self.post(peer, &format!("/grants/{id}/approve"), body).await?;
        let connection = text(&approved, "connection_id")?.parse().ok().context("no connection id")?;
        self.both(ends, connection, |activation| activation.is_some()).await?;
        let reached = begun.elapsed();
        self.both(ends, connection, |activation| activation == Some(Activation::Active)).await?;
        let grant = id.parse().ok().context("no grant id")?;
        Ok(Granted { grant, connection, ends, owner, reached, carries: begun.elapsed() })
    }

    async fn revoke_one(&self, granted: &Granted) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.post(granted.owner, &format!("/grants/{}/revoke", granted.grant), json!({})).await?;
        self.both(granted.ends, granted.connection, |activation| activation.is_none()).await?;
        Ok(begun.elapsed())
    }

    async fn both(
        &self,
        ends: [usize; 2],
        connection: ConnectionId,
        is: impl Fn(Option<Activation>) -> bool + Copy,
    ) -> anyhow::Result<()> {
        for end in ends {
            timeout(CHANGE_LIMIT, self.fleet.says(end, connection, is)).await.context("the change never came")??;
        }
        Ok(())
    }

    async fn post(&self, organization: usize, path: &str, body: Value) -> anyhow::Result<Value> {
        let token = &self.seeded.organizations[organization].token;
        let url = format!("{}/api/v1{path}", self.url);
        let answer = self.client.post(url).bearer_auth(token).json(&body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }
}

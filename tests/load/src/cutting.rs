//! Two real gateways among the others: a channel is granted, bytes flow through the tunnel, the owner revokes the grant,
//! and both engines must see a reset. From the request until each of them does.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gateway_tests::{
    ctl::text,
    mllp::{Broken, Connection, Ending, Engine, Manners},
    platform::{Platform, Site},
};
use serde_json::{Value, json};

use super::{fleet::trust, measure::Spread};

/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(30);

/// Two organizations with a real gateway each.
#[derive(Debug)]
pub(crate) struct Cutting {
    engine: Engine,
    north: Site,
    _south: Site,
    agreement: String,
    channel: String,
}

/// A user who is signed in.
struct Owner {
    client: reqwest::Client,
    url: String,
    token: String,
}

impl Cutting {
    /// Two enrolled gateways with an agreement, and a published channel in front of an engine that never answers.
    pub(crate) async fn set(platform: &Platform) -> anyhow::Result<Self> {
        let (north, south) = (platform.site("north").await?, platform.site("south").await?);
        let agreement = platform.peer(&north, &south).await?;
        let engine = Engine::start(Manners::Polite)?;
        let owner = Owner::sign_in(platform, "south").await?;
        let body = json!({"server_id": south.server_id, "name": "orders", "engine": engine.address(),
            "public_name": "Orders"});
        let channel = text(&owner.post("/channels", body).await?, "id")?.to_owned();
        Ok(Self { engine, north, _south: south, agreement, channel })
    }

    /// Grants, sends and revokes so many times; until the sending engine and the receiving one saw the reset.
    pub(crate) async fn cut(&mut self, platform: &Platform, times: usize) -> anyhow::Result<(Spread, Spread)> {
        let (south, north) = (Owner::sign_in(platform, "south").await?, Owner::sign_in(platform, "north").await?);
        let mut ends = Vec::with_capacity(times);
        for n in 0..times {
            ends.push(self.cut_once(platform, &south, &north).await.with_context(|| format!("cut number {n}"))?);
        }
        Ok((ends.iter().map(|(near, _)| *near).collect(), ends.iter().map(|(_, far)| *far).collect()))
    }

    async fn cut_once(
        &mut self,
        platform: &Platform,
        south: &Owner,
        north: &Owner,
    ) -> anyhow::Result<(Duration, Duration)> {
        let offer = json!({"agreement_id": self.agreement, "channel_id": self.channel});
        let grant = south.post("/grants", offer).await?;
        let grant = text(&grant, "id")?;
        let body = json!({"sender_server_id": self.north.server_id});
        let approved = north.post(&format!("/grants/{grant}/approve"), body).await?;
        let local = platform.opened(text(&approved, "connection_id")?, &self.north).await?;
        let mut connection = Connection::open(local).await.map_err(|error| anyhow::anyhow!("connect: {error:?}"))?;
        connection.write(b"\x0bMSH|^~\\&|").await.map_err(|error| anyhow::anyhow!("write: {error:?}"))?;
        let engine = &self.engine;
        let before = engine.bytes();
        let revoking = async {
            engine.wait_for_bytes(before + (64 << 10), LIMIT).await?;
            engine.forget_ends();
            let asked = Instant::now();
            south.post(&format!("/grants/{grant}/revoke"), json!({})).await?;
            let (end, at) = engine.wait_for_end(LIMIT).await?;
            anyhow::Ok((asked, end, at))
        };
        let chunk = vec![b'x'; 4 << 10];
        let ((near, near_at), revoked) = tokio::join!(connection.write_until_end(&chunk, LIMIT), revoking);
        let (asked, far, far_at) = revoked?;
        ensure!(near == Broken::Reset && far == Ending::Reset, "near {near:?}, far {far:?}");
        Ok((near_at.duration_since(asked), far_at.duration_since(asked)))
    }
}

impl Owner {
    /// The owner of an organization that [`Platform::site`] made.
    async fn sign_in(platform: &Platform, profile: &str) -> anyhow::Result<Self> {
        let client = gateway_net::http::client(trust(platform)?, None)?;
        let mut owner = Self { client, url: platform.control.ready("url")?.to_owned(), token: String::new() };
        let body = json!({"email": format!("owner@{profile}.example"),
            "password": format!("password of {profile} in a test")});
        owner.token = text(&owner.post("/sessions", body).await?, "token")?.to_owned();
        Ok(owner)
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1{path}", self.url);
        let answer = self.client.post(url).bearer_auth(&self.token).json(&body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }
}

//! Fills the SQLite database of a stopped control plane with a fleet, through the control plane's own storage: what the
//! API would take an hour for. Policies are left to the control plane: everything is marked for compilation.
//!
//! Organizations of [`SERVERS`] servers stand in a ring; each has an agreement with the next one, and each of its servers
//! sends to all servers of that one. So a gateway of any fleet has as many connections and as many peers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use data_encoding::HEXLOWER;
use gateway_control::storage::{
    AgreementRow, ChannelRow, ConnectionRow, EndRow, GrantRow, Location, OrganizationRow, PasswordHash, ServerRow,
    SqlStorage, Storage, Transaction, UserRow,
};
use gateway_proto::{
    api::platform::Role,
    id::{AgreementId, ChannelId, ConnectionId, GrantId, OrganizationId, RelayId, ServerId, TenantId, UserId},
    identity::{GatewayKey, NoiseBinding, NoiseKey},
    limits::ChannelLimits,
    peering::{AgreementStatus, ConnectionStatus, GrantStatus},
    policy::{ConnectionKind, DEFAULT_STALENESS_SECS, HL7V2_MLLP, Secret},
};
use gateway_tests::{platform::Platform, wait};
use sha2::{Digest, Sha256};

/// Servers of one organization, and connections that each of them sends over.
pub(crate) const SERVERS: usize = 10;
/// Organizations written in one transaction.
const BATCH: usize = 20;
/// Every organization is in this tier, which has no limits of its own.
const TIER: &str = "enterprise";
/// How long somebody who signs in stays signed in.
const SESSION_SECS: u64 = 12 * 3600;

/// What the rest needs to know of the fleet.
#[derive(Debug, Default)]
pub(crate) struct Seeded {
    /// One per gateway, in the order of organizations.
    pub(crate) gateways: Vec<Enrolled>,
    /// One per organization.
    pub(crate) organizations: Vec<Organization>,
    /// One per connection.
    pub(crate) connections: Vec<ConnectionId>,
    /// The relay where all gateways are reached.
    pub(crate) home: Option<RelayId>,
}

/// An enrolled gateway, its server and the channel where that receives.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) key: GatewayKey,
    pub(crate) server: ServerId,
    pub(crate) channel: ChannelId,
}

/// An organization, a session of its owner, and the agreement with the next one.
#[derive(Debug)]
pub(crate) struct Organization {
    pub(crate) id: OrganizationId,
    pub(crate) token: String,
    pub(crate) agreement: AgreementId,
}

/// Where the control plane of a platform keeps its database.
pub(crate) fn database(platform: &Platform) -> PathBuf {
    platform.dir().join("control/control.sqlite")
}

/// Writes a fleet of so many gateways.
pub(crate) async fn seed(database: &Path, gateways: usize) -> anyhow::Result<Seeded> {
    let storage = open(database).await?;
    let home = storage.read().await?.relays().await?.first().context("there is no relay")?.id;
    let seeded = Seeded { home: Some(home), ..Seeded::default() };
    let mut seeder = Seeder { now_ms: gateway_net::time::unix_ms(), made: 0, seeded };
    let organizations: Vec<_> = (0..gateways / SERVERS).collect();
    for batch in organizations.chunks(BATCH) {
        let mut tx = storage.begin().await?;
        for number in batch {
            seeder.organization(&mut *tx, *number).await?;
        }
        tx.commit().await?;
    }
    for batch in organizations.chunks(BATCH) {
        let mut tx = storage.begin().await?;
        for number in batch {
            seeder.connect_with_next(&mut *tx, *number).await?;
        }
        tx.commit().await?;
    }
    let mut tx = storage.begin().await?;
    tx.mark_all_stale(seeder.now_ms).await?;
    tx.commit().await?;
    storage.close().await;
    Ok(seeder.seeded)
}

/// Waits until the control plane has compiled every policy.
pub(crate) async fn compiled(database: &Path) -> anyhow::Result<()> {
    let storage = open(database).await?;
    wait::until_true(Duration::from_secs(1_800), "all policies are compiled", async || {
        // It looks often; the answer costs an index of those that are left.
        Ok(storage.read().await?.stale_servers("", 1).await?.is_empty())
    })
    .await?;
    storage.close().await;
    Ok(())
}

async fn open(database: &Path) -> anyhow::Result<SqlStorage> {
    SqlStorage::open(&Location::Sqlite(database.to_owned())).await.context("cannot open the database")
}

struct Seeder {
    now_ms: u64,
    made: u64,
    seeded: Seeded,
}

impl Seeder {
    fn now(&self) -> u64 {
        self.now_ms / 1000
    }

    /// What an id is made of: the time and a number.
    fn id(&mut self) -> (u64, [u8; 10]) {
        self.made += 1;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.made.to_be_bytes());
        (self.now_ms, random)
    }

    async fn organization(&mut self, tx: &mut dyn Transaction, number: usize) -> anyhow::Result<()> {
        let now = self.now();
        let (ms, random) = self.id();
        let id = OrganizationId::new(ms, random);
        tx.insert_organization(&OrganizationRow {
            id,
            tenant: TenantId::new(ms, random),
            name: format!("Hospital number {number}"),
            description: String::new(),
            discoverable: false,
            two_person_admin: false,
            created_at: now,
            removed_at: None,
        })
        .await?;
        tx.assign_tier(id, TIER).await?;
        let (ms, random) = self.id();
        let user = UserId::new(ms, random);
        tx.insert_user(&UserRow {
            id: user,
            organization: id,
            email: format!("owner@{number}.example"),
            name: "Owner".to_owned(),
            role: Role::Owner,
            password_hash: PasswordHash("nobody signs in with a password here".to_owned()),
            created_at: now,
        })
        .await?;
        let token = format!("gws_{}", HEXLOWER.encode(&gateway_net::random::<32>()));
        // No longer than a session that was signed in for: a longer one counts as made by a clock that was ahead.
        let end = now + SESSION_SECS;
        tx.insert_session(&HEXLOWER.encode(&Sha256::digest(&token)), user, end, end, 1).await?;
        for n in 0..SERVERS {
            let enrolled = self.server(tx, id, n).await?;
            self.seeded.gateways.push(enrolled);
        }
        let (ms, random) = self.id();
        self.seeded.organizations.push(Organization { id, token, agreement: AgreementId::new(ms, random) });
        Ok(())
    }

    async fn server(
        &mut self,
        tx: &mut dyn Transaction,
        organization: OrganizationId,
        n: usize,
    ) -> anyhow::Result<Enrolled> {
        let now = self.now();
        let (ms, random) = self.id();
        let server = ServerId::new(ms, random);
        let key = GatewayKey::from_seed(&gateway_net::random());
        let row = ServerRow::new(server, organization, format!("engine {n}"), now);
        let mut row = ServerRow { home_relay: self.seeded.home, ..row };
        tx.insert_server(&row).await?;
        row.gateway = Some(key.public());
        row.noise = Some(NoiseBinding::new(&key, &NoiseKey::from_bytes(gateway_net::random())));
        tx.update_server(&row).await?;
        let (ms, random) = self.id();
        let channel = ChannelId::new(ms, random);
        tx.insert_channel(&ChannelRow {
            id: channel,
            organization,
            server,
            name: "orders".to_owned(),
            engine: "127.0.0.1:6661".to_owned(),
            behavior: HL7V2_MLLP.to_owned(),
            published: true,
            public_name: format!("Orders {n}"),
            public_description: "Orders of the outpatient clinic".to_owned(),
            created_at: now,
            removed_at: None,
        })
        .await?;
        Ok(Enrolled { key, server, channel })
    }

    /// The agreement with the next organization of the ring, and every server's connections with those of that one.
    async fn connect_with_next(&mut self, tx: &mut dyn Transaction, number: usize) -> anyhow::Result<()> {
        let next = (number + 1) % self.seeded.organizations.len();
        let (own, other) = (&self.seeded.organizations[number], &self.seeded.organizations[next]);
        let (own, other, agreement) = (own.id, other.id, own.agreement);
        tx.insert_agreement(&AgreementRow {
            id: agreement,
            first: own,
            second: other,
            status: AgreementStatus::Active,
            first_suspends: false,
            second_suspends: false,
            kept_names: None,
            created_at: self.now(),
            ended_at: None,
        })
        .await?;
        for sender in 0..SERVERS {
            for listener in 0..SERVERS {
                let sender = self.seeded.gateways[number * SERVERS + sender].server;
                let listener = &self.seeded.gateways[next * SERVERS + listener];
                let ends = [(sender, own), (listener.server, other)];
                let id = self.connect(tx, agreement, listener.channel, ends).await?;
                self.seeded.connections.push(id);
            }
        }
        Ok(())
    }

    async fn connect(
        &mut self,
        tx: &mut dyn Transaction,
        agreement: AgreementId,
        channel: ChannelId,
        [sender, listener]: [(ServerId, OrganizationId); 2],
    ) -> anyhow::Result<ConnectionId> {
        let now = self.now();
        let (ms, random) = self.id();
        let grant = GrantId::new(ms, random);
        tx.insert_grant(&GrantRow {
            id: grant,
            agreement,
            channel,
            owner: listener.1,
            peer: sender.1,
            status: GrantStatus::Active,
            answer_by: now,
            expires_at: None,
            max_streams: 64,
            limits: ChannelLimits::default(),
            behaviors: Vec::new(),
            staleness_secs: DEFAULT_STALENESS_SECS,
            require_post_quantum: true,
            sender_server: Some(sender.0),
            sender_port: 0,
            kept_endpoint: None,
            created_at: now,
        })
        .await?;
        let (ms, random) = self.id();
        let id = ConnectionId::new(ms, random);
        let end = |(server, organization)| EndRow {
            server: Some(server),
            organization,
            paused: false,
            revision: 0,
            in_force_at: None,
        };
        tx.insert_connection(&ConnectionRow {
            id,
            grant: Some(grant),
            agreement,
            channel: Some(channel),
            admin: None,
            kind: ConnectionKind::P2p,
            status: ConnectionStatus::Active,
            auto_activate: true,
            secret: Secret::from_bytes(gateway_net::random()),
            rotation: None,
            sender: end(sender),
            sender_port: 0,
            listener: end(listener),
            created_at: now,
            ended_at: None,
        })
        .await?;
        Ok(id)
    }
}

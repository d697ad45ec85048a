//! A service for tests inside the crate: on a file of SQLite, with rows put straight into it, and nothing at work but the test. What a
//! change leaves to the reconciler stays where it is until the test compiles it.

mod failing;

use std::sync::Arc;

use gateway_proto::{
    api::{
        gateway::{ConnectionReport, Connectivity},
        platform::{Hidden, Role},
    },
    balance::EndCounts,
    id::{AgreementId, ChannelId, ConnectionId, GrantId, OrganizationId, ServerId, TenantId, UserId},
    identity::{GatewayKey, NoiseBinding, NoiseKey},
    limits::ChannelLimits,
    peering::{AgreementStatus, ConnectionStatus, GrantStatus},
    policy::{ConnectionKind, HL7V2_MLLP, Secret},
};
use tempfile::TempDir;

use self::failing::Failing;
pub(crate) use self::failing::Faults;
use super::{Backlog, DeliverySettings, GatewayCaller, Passwords, Registration, Service, Settings};
use crate::{
    clock::Clock,
    oidc::Providers,
    storage::{
        AgreementRow, ChannelRow, ConnectionRow, EndRow, GrantRow, Location, OrganizationRow, PasswordHash, ServerRow,
        SqlStorage, Storage, Transaction, UserRow,
    },
    vault::Vault,
};

/// One organization, which has an agreement with itself.
pub(crate) struct Ground {
    pub(crate) service: Service,
    pub(crate) organization: OrganizationId,
    agreement: AgreementId,
    _directory: TempDir,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        Self::on(|storage| -> Arc<dyn Storage> { Arc::new(storage) }).await
    }

    /// The same on a storage that fails to begin a change with what is put into the queue.
    pub(crate) async fn with_faults() -> (Self, Faults) {
        let faults = Faults::default();
        let shared = faults.clone();
        (Self::on(|storage| Arc::new(Failing { storage, faults: shared })).await, faults)
    }

    async fn on(wrap: impl FnOnce(SqlStorage) -> Arc<dyn Storage>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(directory.path().join("control.sqlite"));
        let storage = SqlStorage::open(&location).await.unwrap();
        let settings = Settings {
            signer: GatewayKey::from_seed(&[99; 32]),
            vault: Arc::new(Vault::new([99; 32])),
            operator_token: Hidden("operator".repeat(8)),
            registration_token: Hidden("registration".repeat(8)),
            registration: Registration::Closed,
            public_url: "https://control.example".to_owned(),
            tls_pin: None,
            relay_token_secs: 3_600,
            delivery: DeliverySettings { interval_secs: 60 },
            audit_retention_days: None,
            oidc: Providers::default(),
        };
        let service = Service::new(wrap(storage), settings, Passwords::new().unwrap(), Clock::system());
        service.claim_storage().await.unwrap();
        let (organization, agreement) = (OrganizationId::from_bytes([1; 16]), AgreementId::from_bytes([1; 16]));
        let ground = Self { service, organization, agreement, _directory: directory };
        let mut tx = ground.begin().await;
        let row = OrganizationRow {
            id: organization,
            tenant: TenantId::from_bytes([1; 16]),
            name: "Lab".to_owned(),
            description: String::new(),
            discoverable: true,
            two_person_admin: false,
            created_at: 1,
            removed_at: None,
        };
        tx.insert_organization(&row).await.unwrap();
        let row = AgreementRow {
            id: agreement,
            first: organization,
            second: organization,
            status: AgreementStatus::Active,
            first_suspends: false,
            second_suspends: false,
            kept_names: None,
            created_at: 1,
            ended_at: None,
        };
        tx.insert_agreement(&row).await.unwrap();
        tx.commit().await.unwrap();
        ground
    }

    /// A transaction that writes; whoever writes waits for its end.
    pub(crate) async fn begin(&self) -> Box<dyn Transaction> {
        self.service.storage.begin().await.unwrap()
    }

    /// A user of the organization, its owner.
    pub(crate) async fn owner(&self) -> UserId {
        let row = UserRow {
            id: UserId::from_bytes([1; 16]),
            organization: self.organization,
            email: "owner@lab.example".to_owned(),
            name: "Owner".to_owned(),
            role: Role::Owner,
            password_hash: PasswordHash(String::new()),
            created_at: 1,
        };
        let mut tx = self.begin().await;
        tx.insert_user(&row).await.unwrap();
        tx.commit().await.unwrap();
        row.id
    }

    pub(crate) async fn read(&self) -> Box<dyn Transaction> {
        self.service.storage.read().await.unwrap()
    }

    /// A server without a gateway.
    pub(crate) async fn server(&self, n: u8) -> ServerId {
        let row = ServerRow::new(ServerId::from_bytes([n; 16]), self.organization, format!("server {n}"), 1);
        let mut tx = self.begin().await;
        tx.insert_server(&row).await.unwrap();
        tx.commit().await.unwrap();
        row.id
    }

    /// A server with a gateway.
    pub(crate) async fn gateway(&self, n: u8) -> GatewayCaller {
        let (server, key) = (self.server(n).await, gateway_key(n));
        let mut tx = self.begin().await;
        let mut row = tx.server(server).await.unwrap().unwrap();
        row.gateway = Some(key.public());
        row.noise = Some(NoiseBinding::new(&key, &NoiseKey::from_bytes([n; 32])));
        tx.update_server(&row).await.unwrap();
        tx.commit().await.unwrap();
        let knows = GatewayKey::from_seed(&[99; 32]).public();
        GatewayCaller { server, organization: self.organization, key: key.public(), knows }
    }

    /// A published channel at a server; its port tells it from others.
    pub(crate) async fn channel(&self, server: ServerId, port: u16) -> ChannelId {
        let row = ChannelRow {
            id: ChannelId::new(1, gateway_net::random()),
            organization: self.organization,
            server,
            name: format!("channel {port}"),
            engine: format!("127.0.0.1:{port}"),
            behavior: HL7V2_MLLP.to_owned(),
            published: true,
            public_name: format!("channel {port}"),
            public_description: String::new(),
            created_at: 1,
            removed_at: None,
        };
        let mut tx = self.begin().await;
        tx.insert_channel(&row).await.unwrap();
        tx.commit().await.unwrap();
        row.id
    }

    /// So many connections from a server to a channel.
    pub(crate) async fn connect(
        &self,
        sender: ServerId,
        channel: ChannelId,
        status: ConnectionStatus,
        count: usize,
    ) -> Vec<ConnectionId> {
        let mut tx = self.begin().await;
        let listener = tx.channel(channel).await.unwrap().unwrap().server;
        let organization = self.organization;
        let end = |server| EndRow { server: Some(server), organization, paused: false, revision: 0, in_force_at: None };
        let mut made = Vec::with_capacity(count);
        for _ in 0..count {
            let grant = GrantRow {
                id: GrantId::new(1, gateway_net::random()),
                agreement: self.agreement,
                channel,
                owner: organization,
                peer: organization,
                status: GrantStatus::Active,
                answer_by: u64::MAX >> 1,
                expires_at: None,
                max_streams: 1,
                limits: ChannelLimits::default(),
                behaviors: Vec::new(),
                staleness_secs: 60,
                require_post_quantum: true,
                sender_server: Some(sender),
                sender_port: 0,
                kept_endpoint: None,
                created_at: 1,
            };
            tx.insert_grant(&grant).await.unwrap();
            let row = ConnectionRow {
                id: ConnectionId::new(1, gateway_net::random()),
                grant: Some(grant.id),
                agreement: self.agreement,
                channel: Some(channel),
                admin: None,
                kind: ConnectionKind::P2p,
                status,
                auto_activate: true,
                secret: Secret::from_bytes(gateway_net::random()),
                rotation: None,
                sender: end(sender),
                sender_port: 0,
                listener: end(listener),
                created_at: 1,
                ended_at: None,
            };
            tx.insert_connection(&row).await.unwrap();
            made.push(row.id);
        }
        tx.commit().await.unwrap();
        made
    }

    /// Two servers with gateways, and so many ready connections from the first to the second; their policies are compiled.
    pub(crate) async fn connected(&self, count: usize) -> (GatewayCaller, GatewayCaller) {
        let (sender, listener) = (self.gateway(1).await, self.gateway(2).await);
        let channel = self.channel(listener.server, 6_661).await;
        self.connect(sender.server, channel, ConnectionStatus::Ready, count).await;
        self.mark(&[sender.server, listener.server]).await;
        self.compile().await;
        (sender, listener)
    }

    pub(crate) async fn mark(&self, servers: &[ServerId]) {
        let mut tx = self.begin().await;
        tx.mark_stale(servers, false, 1).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Compiles everything that was left behind.
    pub(crate) async fn compile(&self) {
        let mut backlog = Backlog::default();
        while self.service.compile_backlog(&mut backlog).await.unwrap() {}
    }

    pub(crate) async fn row(&self, server: ServerId) -> ServerRow {
        self.read().await.server(server).await.unwrap().unwrap()
    }

    pub(crate) async fn revision(&self, server: ServerId) -> u64 {
        self.read().await.policy_revision(server).await.unwrap()
    }

    /// How many open connections of a server are in a status, to somebody who comes to write and waits for a turn.
    pub(crate) async fn count_in_turn(&self, server: ServerId, status: ConnectionStatus) -> usize {
        let rows = self.begin().await.open_connections_of_server(server).await.unwrap();
        rows.iter().filter(|row| row.status == status).count()
    }

    /// Comes to write again and again while something goes on, until it has seen some and not all of the connections of a server in
    /// a status: others go between. None: it saw nothing like it before all of them were.
    pub(crate) async fn sees_some(&self, server: ServerId, status: ConnectionStatus, all: usize) -> Option<usize> {
        loop {
            match self.count_in_turn(server, status).await {
                0 => {}
                seen if seen >= all => return None,
                seen => return Some(seen),
            }
        }
    }
}

/// The key of the gateway with this number.
pub(crate) fn gateway_key(n: u8) -> GatewayKey {
    GatewayKey::from_seed(&[n; 32])
}

/// What a gateway reports of a connection over which so much passed.
pub(crate) fn counted(id: ConnectionId, counts: EndCounts) -> ConnectionReport {
    ConnectionReport {
        id,
        connectivity: Connectivity::Connected,
        path: None,
        rtt_ms: None,
        last_message_at: None,
        bytes_sent: 0,
        bytes_received: 0,
        streams: 1,
        problem: None,
        counts: Some(counts),
        details: None,
    }
}

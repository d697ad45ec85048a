//! One gateway of the two, with the policy that its terms come from.

use std::{net::SocketAddr, sync::Arc};

use gateway_net::time::unix_secs;
use gateway_proto::{
    admin::opening::{ActingUser, KnownBy},
    id::{ConnectionId, OrganizationId, ServerId},
    identity::{GatewayKey, GatewayPublicKey, NoiseBinding},
    limits::ChannelLimits,
    policy::{
        Activation, AdminPerson, AdminScope, ConnectionEntry, ConnectionKind, ConnectionSecret, LocalEnd, PeerEntry,
        Policy, Secret, ServerName,
    },
};
use gatewayd::{
    authority::Authority,
    credentials::AllowedPeers,
    path_actor::SessionIndex,
    routes::{Route, Routes},
    socket::TunnelSocket,
    store::{Enrollment, StateDir},
    tunnel::TunnelEndpoint,
};
use quinn::Connection;
use tokio::time::timeout;

use crate::world::LIMIT;

pub(crate) struct Site {
    pub(crate) authority: Authority,
    routes: Arc<Routes>,
    socket: Arc<TunnelSocket>,
    endpoint: TunnelEndpoint,
    allowed: AllowedPeers,
    pub(crate) directory: tempfile::TempDir,
    /// What its policies say of the secrets of the connection.
    pub(crate) secrets: Vec<ConnectionSecret>,
    revision: u64,
}

fn control() -> GatewayKey {
    GatewayKey::from_seed(&[1; 32])
}

pub(crate) fn connection() -> ConnectionId {
    ConnectionId::new(1, [5; 10])
}

/// Another connection to the same engine, with the same terms.
pub(crate) fn other_connection() -> ConnectionId {
    ConnectionId::new(1, [9; 10])
}

/// A secret, and until when it counts, Unix seconds.
pub(crate) fn secret(number: u8, until: Option<u64>) -> ConnectionSecret {
    ConnectionSecret { secret: Secret::from_bytes([number; 32]), until }
}

pub(crate) fn server(name: &str) -> ServerName {
    ServerName {
        id: ServerId::new(1, [1; 10]),
        name: name.into(),
        organization: OrganizationId::new(1, [1; 10]),
        organization_name: format!("{name} clinic"),
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&directory.path().join("state")).unwrap());
        let authority = Authority::open(state, unix_secs()).unwrap();
        let routes = Arc::new(Routes::default());
        let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
        let (socket, _) = TunnelSocket::bind(bind.into_iter(), routes.clone(), SessionIndex::default()).unwrap();
        let allowed = AllowedPeers::default();
        let endpoint = TunnelEndpoint::new(socket.clone(), authority.gateway_key(), allowed.clone(), 64).unwrap();
        let secrets = vec![secret(6, None)];
        Self { authority, routes, socket, endpoint, allowed, directory, secrets, revision: 0 }
    }

    /// Whom to allow is known only when the other site is there.
    pub(crate) fn allow(&self, keys: &[GatewayPublicKey]) {
        self.allowed.replace(keys.to_vec());
    }

    pub(crate) fn key(&self) -> GatewayPublicKey {
        self.authority.gateway_key().public()
    }

    pub(crate) fn policy(&mut self, own: &str, other: (&str, &Self), local: LocalEnd, terms: Terms) {
        self.revision += 1;
        let (other_name, other) = other;
        let peer = PeerEntry {
            key: other.key(),
            noise: NoiseBinding::new(other.authority.gateway_key(), other.authority.noise_key()),
            server: server(other_name),
            home_relay: None,
            pair_secret: Secret::from_bytes([4; 32]),
        };
        let entry = ConnectionEntry {
            id: connection(),
            kind: terms.kind,
            activation: terms.activation,
            peer: other.key(),
            local,
            endpoint: "admin".into(),
            behavior: "admin".into(),
            admin: terms.scope,
            people: terms.person.map(|person| named(person, terms.person_until)).into_iter().collect(),
            secrets: self.secrets.clone(),
            expires_at: None,
            staleness_secs: 900,
            max_streams: 16,
            limits: ChannelLimits::default(),
            require_post_quantum: false,
        };
        let secrets = vec![secret(5, None)];
        let other = ConnectionEntry { id: other_connection(), secrets, ..entry.clone() };
        let policy = Policy {
            gateway: self.key(),
            revision: self.revision,
            issued_at: unix_secs(),
            server: server(own),
            control_keys: vec![control().public()],
            relays: vec![],
            peers: vec![peer],
            connections: vec![entry.into(), other.into()],
        };
        let envelope = policy.sign(&control()).unwrap();
        if self.revision > 1 {
            self.authority.accept(envelope, unix_secs()).unwrap();
            return;
        }
        let enrollment = Enrollment {
            control: "https://control.example".into(),
            pin: None,
            policy_key: control().public(),
            trusted_keys: vec![],
            server_id: "srv".into(),
            server_name: own.into(),
            organization_name: own.into(),
            enrolled_at: unix_secs(),
        };
        self.authority.enroll(enrollment, envelope, "token".into(), unix_secs()).unwrap();
    }
}

/// What the owner grants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) kind: ConnectionKind,
    pub(crate) activation: Activation,
    pub(crate) scope: AdminScope,
    /// Who is behind the account that runs the tests, and until when.
    pub(crate) person: Option<&'static str>,
    pub(crate) person_until: u64,
}

fn named(person: &str, until: u64) -> AdminPerson {
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap();
    let name = account.map_or_else(|| format!("uid-{}", nix::unistd::Uid::current()), |account| account.name);
    AdminPerson { person: person.into(), acting: ActingUser::new(&name, KnownBy::LocalAccount), until }
}

impl Terms {
    pub(crate) const READ_ONLY: Self = Self {
        kind: ConnectionKind::AdminReadOnly,
        activation: Activation::Active,
        scope: AdminScope { patient_data: false, probes: false, extension_upload: false, named_people: false },
        person: None,
        person_until: u64::MAX,
    };
}

pub(crate) async fn tunnel(from: &Site, to: &Site) -> (Connection, Connection) {
    for (a, b) in [(from, to), (to, from)] {
        let address = SocketAddr::from(([127, 0, 0, 1], b.socket.local_port()));
        a.routes.meet(b.key(), a.key() < b.key());
        a.routes.set(b.key(), Route { direct: Some(address), ..Route::NONE });
        a.routes.admit(address, b.key());
    }
    let dialled = from.endpoint.dial(to.key(), &Arc::default()).unwrap();
    let accepted = async { to.endpoint.accept().await.unwrap().accept().unwrap().await.unwrap() };
    let (dialled, accepted) = timeout(LIMIT, async { tokio::join!(dialled, accepted) }).await.unwrap();
    (dialled.unwrap(), accepted)
}

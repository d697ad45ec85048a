//! Whose a local port is as the policy changes, with real sockets.

use std::path::Path;

use gateway_net::{time::unix_secs, tls::ServerIdentity};
use gateway_proto::{
    id::{OrganizationId, ServerId},
    identity::{GatewayKey, NoiseBinding, NoiseKey},
    limits::ChannelLimits,
    policy::{
        Activation, AdminScope, ConnectionEntry, ConnectionKind, ConnectionSecret, LocalEnd, PeerEntry, Policy, Secret,
        ServerName,
    },
};
use tokio::time::timeout;

use super::*;
use crate::{
    config::AuditConfig,
    store::{Enrollment, StateDir},
};

const LIMIT: Duration = Duration::from_secs(20);

struct Gateway {
    context: SenderContext,
    peer: Arc<Peer>,
    tasks: JoinSet<()>,
    _files: tempfile::TempDir,
}

impl Gateway {
    fn start(state: &Path) -> Self {
        let authority = Authority::open(Arc::new(StateDir::open(state).unwrap()), unix_secs()).unwrap();
        let files = tempfile::tempdir().unwrap();
        let (audit, _) = AuditLog::open(files.path(), &AuditConfig::default()).unwrap();
        let identity = ServerIdentity::load_or_generate(files.path(), &["localhost".into()]).unwrap();
        let (gate, mut tasks) = (Gate::new(authority.clone()), JoinSet::new());
        tasks.spawn(gate.clone().run(CancellationToken::new()));
        let context = SenderContext {
            gate,
            ports: LocalPorts::open(authority.clone()).unwrap(),
            authority,
            audit,
            traffic: TrafficTable::default(),
            unobserved: Unobserved::default(),
            admin: UserEnd::new(&identity, [127, 0, 0, 1].into(), LIMIT),
            bind: [127, 0, 0, 1].into(),
            hold: LIMIT,
            keepalive: LIMIT,
            closing: CancellationToken::new(),
        };
        let (peer, _) = Peer::new(peer().public(), false, server("south"), Arc::default(), Arc::default());
        Self { context, peer, tasks, _files: files }
    }

    /// Everything ends, and the state directory is free.
    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    fn sender(&mut self, id: ConnectionId) -> SenderHandle {
        let (sender, handle) = Sender::new(id, self.peer.clone(), self.context.clone());
        self.tasks.spawn(sender.run(CancellationToken::new()));
        handle
    }

    fn problem(&self, id: ConnectionId) -> Option<String> {
        self.context.traffic.of(id, Role::Sender).problem()
    }

    /// The next policy: these senders, the ports asked for, and their states.
    fn policy(&self, senders: &[(ConnectionId, u16, Activation)]) {
        let authority = &self.context.authority;
        let revision = authority.view().revision() + 1;
        let entry = |(id, port, activation): &(ConnectionId, u16, Activation)| {
            let entry = ConnectionEntry {
                id: *id,
                kind: ConnectionKind::P2p,
                activation: *activation,
                peer: peer().public(),
                local: LocalEnd::Sender { port: *port },
                endpoint: "ADT".into(),
                behavior: "hl7v2-mllp".into(),
                admin: AdminScope::default(),
                people: vec![],
                secrets: vec![ConnectionSecret { secret: Secret::from_bytes([6; 32]), until: None }],
                expires_at: None,
                staleness_secs: 900,
                max_streams: 16,
                limits: ChannelLimits::default(),
                require_post_quantum: false,
            };
            Arc::new(entry)
        };
        let policy = Policy {
            gateway: authority.gateway_key().public(),
            revision,
            issued_at: unix_secs(),
            server: server("north"),
            control_keys: vec![control().public()],
            relays: vec![],
            peers: vec![PeerEntry {
                key: peer().public(),
                noise: NoiseBinding::new(&peer(), &NoiseKey::from_bytes([3; 32])),
                server: server("south"),
                home_relay: None,
                pair_secret: Secret::from_bytes([4; 32]),
            }],
            connections: senders.iter().map(entry).collect(),
        };
        let envelope = policy.sign(&control()).unwrap();
        if revision > 1 {
            authority.accept(envelope, unix_secs()).unwrap();
            return;
        }
        let enrollment = Enrollment {
            control: "https://control.example".into(),
            pin: None,
            policy_key: control().public(),
            trusted_keys: vec![],
            server_id: "srv".into(),
            server_name: "north".into(),
            organization_name: "north".into(),
            enrolled_at: unix_secs(),
        };
        authority.enroll(enrollment, envelope, "token".into(), unix_secs()).unwrap();
    }
}

fn control() -> GatewayKey {
    GatewayKey::from_seed(&[1; 32])
}

fn peer() -> GatewayKey {
    GatewayKey::from_seed(&[3; 32])
}

fn server(name: &str) -> ServerName {
    ServerName {
        id: ServerId::new(1, [1; 10]),
        name: name.into(),
        organization: OrganizationId::new(1, [1; 10]),
        organization_name: name.into(),
    }
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look() {
                Some(found) => return found,
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(LIMIT, looking).await.expect("it comes in time")
}

#[tokio::test]
async fn a_picked_port_is_opened_for_no_other_connection_while_its_own_one_is_paused_nor_after_a_restart() {
    let (active, paused) = (Activation::Active, Activation::Paused);
    let (lab, other) = (ConnectionId::new(2, [5; 10]), ConnectionId::new(1, [9; 10]));
    let directory = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(directory.path());
    gateway.policy(&[(lab, 0, active)]);
    let to_lab = gateway.sender(lab);
    let address = until(|| to_lab.local_address()).await;
    let port = address.port();

    gateway.policy(&[(other, port, active), (lab, 0, paused)]);
    let to_other = gateway.sender(other);
    let problem = until(|| gateway.problem(other)).await;
    assert!(problem.contains(&port.to_string()) && problem.contains(&lab.to_string()), "{problem}");
    until(|| to_lab.local_address().is_none().then_some(())).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    assert_eq!((to_lab.kept_port(), to_other.kept_port()), (Some(port), None));
    assert_eq!((to_lab.kept_address(), to_other.kept_address()), (Some(address), None));

    gateway.policy(&[(other, port, active), (lab, 0, active)]);
    assert_eq!(until(|| to_lab.local_address()).await, address);
    gateway.policy(&[(other, port, active), (lab, 0, paused)]);
    drop((to_lab, to_other));
    gateway.stop().await;

    let mut gateway = Gateway::start(directory.path());
    let to_other = gateway.sender(other);
    let problem = until(|| gateway.problem(other)).await;
    assert!(problem.contains(&lab.to_string()), "{problem}");
    let to_lab = gateway.sender(lab);
    gateway.policy(&[(other, port, active), (lab, 0, active)]);
    assert_eq!(until(|| to_lab.local_address()).await, address);
    assert_eq!(to_other.local_address(), None);

    // The first one ended for good: the port is free.
    gateway.policy(&[(other, port, active)]);
    assert_eq!(until(|| to_other.local_address()).await, address);
    assert_eq!((to_lab.kept_port(), to_other.kept_port()), (None, Some(port)));
    assert_eq!(gateway.problem(other), None);
}

#[tokio::test]
async fn a_port_is_picked_where_none_was_asked_for_and_not_one_that_a_paused_connection_asks_for() {
    let (asking, picking) = (ConnectionId::new(2, [5; 10]), ConnectionId::new(1, [9; 10]));
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    gateway.policy(&[(asking, 7001, Activation::Paused), (picking, 0, Activation::Active)]);
    let ports = &gateway.context.ports;
    assert_eq!((ports.of(asking), ports.of(picking)), (PortOf::Own(7001), PortOf::Any));
    assert!(!ports.choose(picking, 7001).unwrap());
    assert!(!ports.choose(asking, 7002).unwrap(), "it has the one it asked for");
    assert!(ports.choose(picking, 7002).unwrap());
    assert!(!ports.choose(picking, 7003).unwrap(), "it has one");
    assert_eq!(ports.of(picking), PortOf::Own(7002));
    assert_eq!(ports.of(ConnectionId::new(3, [1; 10])), PortOf::NotListed);
    // Somebody asks for a port that was picked: later ones come second, and what they would pick is nothing.
    gateway.policy(&[(asking, 7002, Activation::Active), (picking, 0, Activation::Paused)]);
    assert_eq!(ports.of(asking), PortOf::TakenBy { port: 7002, owner: picking });
    assert!(!ports.choose(asking, 7004).unwrap());
    gateway.stop().await;
}

#[tokio::test]
async fn after_an_update_a_port_stays_with_the_connection_that_has_it_open_and_the_next_start_decides_nothing_anew() {
    let (asking, picking) = (ConnectionId::new(2, [5; 10]), ConnectionId::new(1, [9; 10]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ports.json");
    let picked = format!(r#"{{"ports":{{"{picking}":7001}}}}"#);
    gateway_net::secret_file::write(&file, picked.as_bytes()).unwrap();
    let gateway = Gateway::start(directory.path());
    gateway.policy(&[(asking, 7001, Activation::Active), (picking, 0, Activation::Paused)]);
    gateway.context.ports.settle();
    assert!(std::fs::read_to_string(&file).unwrap().contains("with_asked"), "written anew at once");
    gateway.policy(&[(asking, 7001, Activation::Paused), (picking, 0, Activation::Active)]);
    assert_eq!(gateway.context.ports.of(asking), PortOf::Own(7001));
    assert_eq!(gateway.context.ports.of(picking), PortOf::Any);
    assert!(!gateway.context.ports.choose(picking, 7001).unwrap());
    assert!(gateway.context.ports.choose(picking, 7002).unwrap());
    gateway.policy(&[(asking, 7002, Activation::Active), (picking, 0, Activation::Paused)]);
    gateway.stop().await;

    // In the form of today the one that picked it keeps it.
    let gateway = Gateway::start(directory.path());
    let owned = PortOf::TakenBy { port: 7002, owner: picking };
    assert_eq!((gateway.context.ports.of(asking), gateway.context.ports.of(picking)), (owned, PortOf::Own(7002)));
    gateway.stop().await;
}

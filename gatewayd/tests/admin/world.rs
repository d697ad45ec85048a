//! Two gateways with an admin connection between them: an engine behind the one, a client before the other.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gateway_net::{
    time::unix_secs,
    tls::{ServerIdentity, engine_client_config},
};
use gateway_proto::{
    admin::{
        call::AdminCall,
        opening::{ActingUser, KnownBy},
    },
    audit::record::Event,
    id::{ConnectionId, OrganizationId, ServerId},
    identity::{GatewayKey, GatewayPublicKey, NoiseBinding},
    policy::{
        Activation, AdminPerson, AdminScope, ConnectionEntry, ConnectionKind, ConnectionSecret, LocalEnd, PeerEntry,
        Policy, Secret, ServerName,
    },
};
use gatewayd::{
    admin::{engine::EngineApi, owner::OwnerEnd, user::UserEnd},
    audit::{AuditLog, Names},
    authority::Authority,
    config::{AuditConfig, EngineConfig},
    credentials::AllowedPeers,
    gate::Gate,
    listener::{ListenerContext, serve},
    observer::Unobserved,
    path_actor::SessionIndex,
    peer::Peer,
    places::EnginePlaces,
    ports::LocalPorts,
    routes::{Route, Routes},
    sender::{Sender, SenderContext, SenderHandle},
    socket::TunnelSocket,
    store::{Enrollment, StateDir},
    traffic::TrafficTable,
    tunnel::{Tunnel, TunnelEndpoint},
};
use quinn::Connection;
use rustls_pki_types::ServerName as TlsName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) engine: Engine,
    owner: Site,
    user: Site,
    log: AuditLog,
    local: SenderHandle,
    sender: SenderContext,
    at_user: Arc<Peer>,
    at_owner: Arc<Peer>,
    listener: ListenerContext,
    tunnel: Connection,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct Site {
    authority: Authority,
    routes: Arc<Routes>,
    socket: Arc<TunnelSocket>,
    endpoint: TunnelEndpoint,
    directory: tempfile::TempDir,
    revision: u64,
}

fn control() -> GatewayKey {
    GatewayKey::from_seed(&[1; 32])
}

pub(crate) fn connection() -> ConnectionId {
    ConnectionId::new(1, [5; 10])
}

/// Another connection to the same engine, with the same terms.
fn other_connection() -> ConnectionId {
    ConnectionId::new(1, [9; 10])
}

fn server(name: &str) -> ServerName {
    ServerName {
        id: ServerId::new(1, [1; 10]),
        name: name.into(),
        organization: OrganizationId::new(1, [1; 10]),
        organization_name: format!("{name} clinic"),
    }
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&directory.path().join("state")).unwrap());
        let authority = Authority::open(state, unix_secs()).unwrap();
        let routes = Arc::new(Routes::default());
        let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
        let (socket, _) = TunnelSocket::bind(bind.into_iter(), routes.clone(), SessionIndex::default()).unwrap();
        let allowed = AllowedPeers::default();
        let endpoint = TunnelEndpoint::new(socket.clone(), authority.gateway_key(), allowed.clone(), 64).unwrap();
        // Whom to allow is known only when the other site is there.
        ALLOWED.with_borrow_mut(|all| all.push(allowed));
        Self { authority, routes, socket, endpoint, directory, revision: 0 }
    }

    fn key(&self) -> GatewayPublicKey {
        self.authority.gateway_key().public()
    }

    fn policy(&mut self, own: &str, other: (&str, &Self), local: LocalEnd, terms: Terms) {
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
            secrets: vec![ConnectionSecret { secret: Secret::from_bytes([6; 32]), until: None }],
            expires_at: None,
            staleness_secs: 900,
            max_streams: 16,
            require_post_quantum: false,
        };
        let secrets = vec![ConnectionSecret { secret: Secret::from_bytes([7; 32]), until: None }];
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

thread_local! {
    static ALLOWED: std::cell::RefCell<Vec<AllowedPeers>> = const { std::cell::RefCell::new(Vec::new()) };
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

impl World {
    pub(crate) async fn new(terms: Terms) -> Self {
        let (mut owner, mut user) = (Site::new(), Site::new());
        let keys = [owner.key(), user.key()];
        ALLOWED.with_borrow_mut(|all| all.drain(..).for_each(|allowed| allowed.replace(keys.to_vec())));
        owner.policy("south", ("north", &user), LocalEnd::AdminOwner, terms);
        user.policy("north", ("south", &owner), LocalEnd::AdminUser { port: 0 }, terms);
        let engine = Engine::start(owner.directory.path()).await;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());

        let gate = Gate::new(owner.authority.clone());
        let (log, writer) = AuditLog::open(owner.directory.path(), &AuditConfig::default()).unwrap();
        tasks.spawn(writer.run(Names::of(&owner.authority)));
        let (users_log, writer) = AuditLog::open(user.directory.path(), &AuditConfig::default()).unwrap();
        tasks.spawn(writer.run(Names::of(&user.authority)));
        tasks.spawn(gate.clone().run(stop.clone()));
        let api = EngineConfig::new(&format!("https://{}", engine.address), None).unwrap();
        let listener = ListenerContext {
            engine: gatewayd::engine::EngineWatch::none(),
            gate: gate.clone(),
            authority: owner.authority.clone(),
            admin: Some(OwnerEnd::new(EngineApi::new(api), log.clone(), gate)),
            audit: log.clone(),
            traffic: TrafficTable::default(),
            unobserved: Unobserved::default(),
            places: EnginePlaces::new(10, gatewayd::engine::EngineWatch::none()),
            max_streams: 64,
            hold: LIMIT,
            dial_timeout: LIMIT,
            keepalive: LIMIT,
            closing: CancellationToken::new(),
        };
        let gate = Gate::new(user.authority.clone());
        tasks.spawn(gate.clone().run(stop.clone()));
        let identity = ServerIdentity::load_or_generate(user.directory.path(), &["localhost".into()]).unwrap();
        let context = SenderContext {
            gate,
            authority: user.authority.clone(),
            ports: LocalPorts::open(user.authority.clone()).unwrap(),
            audit: users_log,
            traffic: TrafficTable::default(),
            unobserved: Unobserved::default(),
            admin: UserEnd::new(&identity, [127, 0, 0, 1].into(), LIMIT),
            bind: [127, 0, 0, 1].into(),
            hold: LIMIT,
            keepalive: LIMIT,
            closing: CancellationToken::new(),
        };
        let (at_user, _) = Peer::new(owner.key(), false, server("south"), Arc::default(), Arc::default());
        let (sender, local) = Sender::new(connection(), at_user.clone(), context.clone());
        tasks.spawn(sender.run(stop.clone()));

        let (tunnel, far) = tunnel(&user, &owner).await;
        let (at_owner, _) = Peer::new(user.key(), false, server("north"), Arc::default(), Arc::default());
        let mut world =
            Self { engine, owner, user, log, local, sender: context, at_user, at_owner, listener, tunnel, stop, tasks };
        world.serve(far);
        world.connect_tunnel(true);
        world
    }

    fn serve(&mut self, far: Connection) {
        let (peer, listener) = (self.at_owner.clone(), self.listener.clone());
        self.tasks.spawn(async move { serve(&Tunnel::new(far), &peer, &listener).await });
    }

    /// The tunnel breaks, and the user's gateway takes it for whole still.
    pub(crate) fn break_tunnel(&self) {
        self.tunnel.close(quinn::VarInt::from_u32(0), b"broken");
    }

    /// Another tunnel takes the place of the broken one.
    pub(crate) async fn mend_tunnel(&mut self) {
        let (near, far) = tunnel(&self.user, &self.owner).await;
        self.tunnel = near;
        self.serve(far);
        self.connect_tunnel(true);
    }

    /// The tunnel is there for new streams, or is not.
    pub(crate) fn connect_tunnel(&self, up: bool) {
        self.at_user.tunnel.send_replace(up.then(|| Tunnel::new(self.tunnel.clone())));
    }

    /// The owner's policy changes.
    pub(crate) fn change(&mut self, terms: Terms) {
        self.owner.policy("south", ("north", &self.user), LocalEnd::AdminOwner, terms);
    }

    pub(crate) async fn client(&self) -> Client {
        Self::client_at(&self.local).await
    }

    /// A client of another admin connection to the same engine.
    pub(crate) async fn client_of_other_connection(&mut self) -> Client {
        let (sender, local) = Sender::new(other_connection(), self.at_user.clone(), self.sender.clone());
        self.tasks.spawn(sender.run(self.stop.clone()));
        Self::client_at(&local).await
    }

    async fn client_at(local: &SenderHandle) -> Client {
        let address = timeout(LIMIT, async {
            loop {
                if let Some(address) = local.local_address() {
                    return address;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        let socket = TcpStream::connect(address.await.expect("the port opens")).await.unwrap();
        let connector = TlsConnector::from(Arc::new(engine_client_config(None)));
        let stream = timeout(LIMIT, connector.connect(TlsName::try_from("localhost").unwrap(), socket));
        Client { stream: stream.await.expect("TLS").unwrap(), buffer: Vec::new() }
    }

    /// The admin calls of the audit log, once it has this many.
    pub(crate) async fn calls(&self, count: usize) -> Vec<AdminCall> {
        timeout(LIMIT, async {
            loop {
                let newest = self.log.newest(1000, "admin").unwrap();
                assert!(newest.whole);
                if newest.lines.len() >= count {
                    let calls = newest.lines.into_iter().filter_map(|line| {
                        let Event::AdminCall(call) = line.record.event else { return None };
                        Some(call)
                    });
                    return calls.collect();
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("calls are recorded")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn tunnel(from: &Site, to: &Site) -> (Connection, Connection) {
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

/// An HTTP client that sends bytes as they are.
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer: status line, fields in lower case, body without chunks.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) line: String,
    pub(crate) fields: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A gateway that has answered and closed already is an answer too.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Reply {
        self.send(request.as_bytes()).await;
        self.reply().await.expect("an answer")
    }

    pub(crate) async fn get(&mut self, path: &str, cookie: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: gw:1\r\nX-Requested-With: t\r\nCookie: {cookie}\r\n\r\n")).await
    }

    pub(crate) async fn post(&mut self, path: &str, cookie: &str, media: &str, body: &str) -> Reply {
        let fields = format!("Host: gw:1\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {media}\r\n");
        self.ask(&format!("POST {path} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())).await
    }

    pub(crate) async fn sign_in(&mut self) -> String {
        let form = "application/x-www-form-urlencoded";
        let reply = self.post("/api/users/_login", "", form, "username=admin&password=good").await;
        assert_eq!(reply.status(), 200, "{reply:?}");
        let cookie = reply.fields.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        cookie.split(';').next().unwrap().replace("jsessionid", "JSESSIONID")
    }

    /// The next answer; none: the connection ended before a whole one.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        timeout(LIMIT, self.read_reply()).await.expect("an answer or an end in time")
    }

    /// The next answer, which has no body whatever its fields say, because it was asked for with HEAD.
    pub(crate) async fn reply_to_head(&mut self) -> Option<Reply> {
        timeout(LIMIT, self.read_head()).await.expect("an answer or an end in time")
    }

    async fn read_head(&mut self) -> Option<Reply> {
        let end = self.until(|buffer| buffer.windows(4).position(|part| part == b"\r\n\r\n")).await?;
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let (line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        Some(Reply { line: line.to_owned(), fields: fields.to_ascii_lowercase(), body: String::new() })
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let Reply { line, fields, .. } = self.read_head().await?;
        let mut body = Vec::new();
        if fields.contains("transfer-encoding: chunked") {
            loop {
                let line = self.until(|buffer| buffer.windows(2).position(|part| part == b"\r\n")).await?;
                let size = usize::from_str_radix(&String::from_utf8_lossy(&self.buffer[..line]), 16).unwrap();
                self.until(|buffer| (buffer.len() >= line + size + 4).then_some(0)).await?;
                body.extend_from_slice(&self.buffer[line + 2..line + 2 + size]);
                self.buffer.drain(..line + size + 4);
                if size == 0 {
                    break;
                }
            }
        } else {
            let length =
                fields.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            self.until(|buffer| (buffer.len() >= length).then_some(0)).await?;
            body.extend(self.buffer.drain(..length));
        }
        Some(Reply { line, fields, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
        loop {
            if let Some(at) = found(&self.buffer) {
                return Some(at);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

//! Two gateways with an admin connection between them: an engine behind the one, a client before the other.

use std::{sync::Arc, time::Duration};

use gateway_net::tls::{ServerIdentity, engine_client_config};
use gateway_proto::{
    admin::call::AdminCall,
    audit::record::Event,
    policy::{ConnectionSecret, LocalEnd},
};
use gatewayd::{
    admin::{engine::EngineApi, owner::OwnerEnd, user::UserEnd},
    audit::{AuditLog, Names},
    config::{AuditConfig, EngineConfig},
    gate::Gate,
    listener::{ListenerContext, serve},
    observer::Unobserved,
    peer::Peer,
    places::EnginePlaces,
    ports::LocalPorts,
    sender::{Sender, SenderContext, SenderHandle},
    traffic::TrafficTable,
    tunnel::Tunnel,
};
use quinn::Connection;
use rustls_pki_types::ServerName as TlsName;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    engine::Engine,
    site::{Site, Terms, connection, other_connection, server, tunnel},
};

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

impl World {
    pub(crate) async fn new(terms: Terms) -> Self {
        let (mut owner, mut user) = (Site::new(), Site::new());
        let keys = [owner.key(), user.key()];
        for site in [&owner, &user] {
            site.allow(&keys);
        }
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
            places: EnginePlaces::new(10, gatewayd::engine::EngineWatch::none(), owner.authority.subscribe()),
            max_streams: 64,
            hold: LIMIT,
            dial_timeout: LIMIT,
            keepalive: LIMIT,
            moments: gatewayd::timer::Moments::default(),
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

    /// Both policies change: the secrets of the owner's, and of the user's.
    pub(crate) fn rotate(&mut self, owner: Vec<ConnectionSecret>, user: Vec<ConnectionSecret>) {
        (self.owner.secrets, self.user.secrets) = (owner, user);
        self.owner.policy("south", ("north", &self.user), LocalEnd::AdminOwner, Terms::READ_ONLY);
        self.user.policy("north", ("south", &self.owner), LocalEnd::AdminUser { port: 0 }, Terms::READ_ONLY);
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
        Client::new(stream.await.expect("TLS").unwrap())
    }

    /// The admin calls of the audit log, once it has this many.
    pub(crate) async fn calls(&self, count: usize) -> Vec<AdminCall> {
        let call = |event: Event| if let Event::AdminCall(call) = event { Some(call) } else { None };
        self.recorded("admin.call", count, call).await
    }

    /// The traces of the streams that have ended, once there are this many.
    pub(crate) async fn ended_streams(&self, count: usize) -> Vec<String> {
        let trace = |event: Event| if let Event::StreamEnded(end) = event { Some(end.trace) } else { None };
        self.recorded("stream.end", count, trace).await
    }

    async fn recorded<T>(&self, act: &str, count: usize, wanted: impl Fn(Event) -> Option<T>) -> Vec<T> {
        timeout(LIMIT, async {
            loop {
                let newest = self.log.newest(1000, act).unwrap();
                assert!(newest.whole);
                if newest.lines.len() >= count {
                    return newest.lines.into_iter().filter_map(|line| wanted(line.record.event)).collect();
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("they are recorded")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

//! The life of the daemon: build everything in order, run, and take it down in reverse.

use std::{io::Write, num::NonZeroU16, sync::Arc, time::Duration};

use anyhow::Context as _;
use gateway_net::{
    causes::with_causes, proxy::Proxy, secret_file, shutdown::Shutdown, time::unix_ms, tls::ServerIdentity,
};
use gateway_proto::{id::RelayId, netcheck::PortMapping};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    admin::{engine::EngineApi, owner::OwnerEnd, user::UserEnd},
    audit::{AuditLog, Names},
    authority::Authority,
    candidates::{Gatherer, Punching},
    config::Config,
    control_client::{ControlClient, LinkTimes, ReportSource},
    credentials::AllowedPeers,
    engine::{EngineClient, EngineWatch},
    gate::Gate,
    generations::Generations,
    guesses::Guesses,
    listener::ListenerContext,
    local_api::{DaemonControl, LocalApi, serve_metrics},
    mesh::{Mesh, MeshContext, MeshQueues, STUN_QUEUE},
    nat64,
    net_watch::watch_network,
    netcheck::Netcheck,
    path_actor::{PathContext, SessionIndex},
    peer::LocalCandidates,
    places::EnginePlaces,
    port_mapping::PortMapper,
    ports::LocalPorts,
    registry::Registry,
    relay_inbound::RelayInbox,
    relay_link::LinkContext,
    relay_probe,
    resolver::Resolver,
    routes::Routes,
    schedules,
    sender::SenderContext,
    side_socket::RUNS_AT_A_TIME,
    socket::TunnelSocket,
    status::{Connections, StatusSource},
    store::StateDir,
    timer::Moments,
    traffic::TrafficTable,
    tunnel::TunnelEndpoint,
};

/// At a shutdown, streams get this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(2);
/// For the last bytes of streams that ended, on their way to the peers.
const LAST_BYTES: Duration = Duration::from_millis(100);
/// How often the drain looks whether they did.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Runs the daemon until a signal tells it to stop.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    raise_file_limit();
    let proxy = config.network.proxy()?;
    if proxy.is_some() {
        info!(source = %config.network.proxy, "connections to the control plane and to relays go through an HTTP proxy");
    }
    let state = Arc::new(StateDir::open(&config.state_dir)?);
    let authority = Authority::open(state, gateway_net::time::unix_secs())?;
    // A copy of this machine must not carry what is the original's, not even for the moment until it is told so.
    if authority.enrollment().borrow().is_some() {
        authority.ask_first();
    }
    let mut daemon = Daemon::build(&config, &authority, proxy.clone())?;
    daemon.start_edge(&config, &authority, proxy).await?;
    daemon.announce(&config, &authority)?;
    let result = tokio::select! {
        () = shutdown.requested() => Ok(()),
        name = daemon.first_end() => Err(anyhow::anyhow!("the task '{name}' ended unexpectedly")),
    };
    daemon.stop().await;
    result
}

/// What runs, and what ends it.
struct Daemon {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
    closing: CancellationToken,
    endpoint: TunnelEndpoint,
    socket: Arc<TunnelSocket>,
    registry: Registry,
    traffic: TrafficTable,
    changed: Arc<Notify>,
    home: watch::Receiver<Option<RelayId>>,
    audit: AuditLog,
    engine: EngineWatch,
    places: EnginePlaces,
    mapped: watch::Receiver<Option<PortMapping>>,
    candidates: watch::Receiver<LocalCandidates>,
}

impl Daemon {
    /// Everything between the engine and the partners.
    fn build(config: &Config, authority: &Authority, proxy: Option<Proxy>) -> anyhow::Result<Self> {
        let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
        let traffic = TrafficTable::new(config.late_after);
        let (registry, gate) = (Registry::default(), Gate::new(authority.clone()));
        let (routes, sessions) = (Arc::new(Routes::default()), SessionIndex::default());
        let (socket, path_packets) =
            TunnelSocket::bind(config.tunnel.bind_order(), routes.clone(), sessions.clone())
                .with_context(|| format!("cannot open the tunnel socket {} ([tunnel] listen)", config.tunnel.listen))?;
        let allowed = AllowedPeers::default();
        let endpoint =
            TunnelEndpoint::new(socket.clone(), authority.gateway_key(), allowed.clone(), config.limits.streams)?;

        let (inbox, relay_inbound) = RelayInbox::new(socket.counters().clone());
        let (stun_packets, stun_packets_rx) = mpsc::channel(STUN_QUEUE);
        let (link_changes_tx, link_changes) = watch::channel(0);
        let (links, links_rx) = watch::channel(Arc::default());
        let changed = Arc::new(Notify::new());
        let (home_tx, home) = watch::channel(None);
        let asking = config.engine.as_ref().map(|engine| EngineClient::new(engine, changed.clone())).transpose()?;
        let (asking, engine) =
            asking.flatten().map_or((None, EngineWatch::none()), |(client, watch)| (Some(client), watch));
        let places = EnginePlaces::new(config.listener.max_connections, engine.clone(), authority.subscribe());
        let (relay_targets, relay_targets_rx) = watch::channel(Vec::new());
        let (measured, latencies) = mpsc::channel(relay_probe::QUEUE);
        let (stun_servers, stun_servers_rx) = watch::channel(Vec::new());
        let (network_tx, network) = watch::channel(0);
        let (mapped_tx, mapped) = watch::channel(None);
        let (candidates_tx, candidates) = watch::channel(LocalCandidates::default());
        let (translators, translators_rx) = mpsc::channel(nat64::QUEUE);

        let (audit, audit_writer) = AuditLog::open(authority.state().path(), &config.audit)?;
        let owner =
            config.engine.clone().map(|engine| OwnerEnd::new(EngineApi::new(engine), audit.clone(), gate.clone()));
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let identity = ServerIdentity::load_or_generate(authority.state().path(), &names)?;
        let generations = Generations::open(authority.clone());
        let guesses = Guesses::open(authority.clone());
        let punching = Punching::default();
        let moments = Moments::default();
        let context = MeshContext {
            authority: authority.clone(),
            endpoint: endpoint.clone(),
            allowed,
            routes: routes.clone(),
            path: PathContext {
                socket: socket.clone(),
                routes,
                sessions,
                candidates: candidates.clone(),
                links: links_rx.clone(),
                link_changes: link_changes.clone(),
                network: network.clone(),
                generations: generations.clone(),
                guesses: guesses.clone(),
                homes_moved: Arc::default(),
                allow_loopback: config.tunnel.allow_loopback,
                direct: config.tunnel.direct,
                guessing: config.tunnel.port_guessing,
                punching: punching.clone(),
                guess_runs: Arc::new(Semaphore::new(RUNS_AT_A_TIME)),
                local: authority.gateway_key().public(),
                noise: authority.noise_key().clone(),
            },
            link: LinkContext {
                authority: authority.clone(),
                proxy,
                socket: socket.clone(),
                injector: socket.injector(),
                inbound: inbox,
                changes: link_changes_tx,
                links: links_rx,
                network: network.clone(),
            },
            listener: ListenerContext {
                gate: gate.clone(),
                authority: authority.clone(),
                admin: owner,
                audit: audit.clone(),
                traffic: traffic.clone(),
                unobserved: config.unobserved.clone(),
                engine: engine.clone(),
                places: places.clone(),
                max_streams: config.limits.streams,
                hold: config.listener.hold,
                dial_timeout: config.listener.dial_timeout,
                keepalive: config.listener.keepalive,
                moments: moments.clone(),
                closing: closing.clone(),
            },
            sender: SenderContext {
                gate: gate.clone(),
                authority: authority.clone(),
                ports: LocalPorts::open(authority.clone())?,
                audit: audit.clone(),
                traffic: traffic.clone(),
                unobserved: config.unobserved.clone(),
                admin: UserEnd::new(&identity, config.admin.bind, config.admin.hold),
                bind: config.sender.bind,
                hold: config.sender.hold,
                keepalive: config.listener.keepalive,
                closing: closing.clone(),
            },
            stun_servers,
            stun_packets,
            links,
            changed: changed.clone(),
            home: home_tx,
            relay_targets,
        };
        let resolver = Resolver::new(network.clone(), socket.counters().clone());
        let gatherer = Gatherer {
            socket: socket.clone(),
            servers: stun_servers_rx,
            resolver: resolver.clone(),
            network: network.clone(),
            mapped: mapped.clone(),
            punching: punching.subscribe(),
            packets: stun_packets_rx,
            candidates: candidates_tx,
            translators,
            configured: config.tunnel.addresses.clone(),
            allow_loopback: config.tunnel.allow_loopback,
            fixed_port: config.tunnel.listen.port() != 0,
        };
        let translation = nat64::find(network.clone(), translators_rx, stop.clone());
        let mesh = Mesh::new(context, registry.clone(), stop.child_token());
        let queues = MeshQueues { path_packets, relay_inbound, link_changes, latencies };
        let tasks = JoinSet::new();
        let mut daemon = Self {
            tasks,
            stop: stop.clone(),
            closing,
            endpoint,
            socket,
            registry,
            traffic,
            changed,
            home,
            audit,
            engine,
            places,
            mapped,
            candidates,
        };
        if config.tunnel.port_mapping {
            let port = NonZeroU16::new(daemon.socket.local_port()).context("the tunnel socket has no port")?;
            daemon.spawn("port mapping", PortMapper { port, network, mapped: mapped_tx }.run(stop.clone()));
        }
        schedules::restore(authority, &daemon.traffic);
        daemon.spawn("generations", generations.keep(stop.clone()));
        daemon.spawn("guesses", guesses.keep(stop.clone()));
        daemon.spawn("clock", authority.clone().keep_clock(stop.clone()));
        daemon.spawn("schedules", schedules::keep(authority.clone(), daemon.traffic.clone(), stop.clone()));
        daemon.spawn("places of the engine's listeners", daemon.places.clone().follow(stop.clone()));
        daemon.spawn("mesh", mesh.run(queues));
        daemon.spawn("gate", gate.run(stop.clone()));
        daemon.spawn("moments", moments.run(stop.clone()));
        daemon.spawn("relay probe", relay_probe::run(relay_targets_rx, resolver, measured, stop.clone()));
        daemon.spawn("network watch", watch_network(network_tx, daemon.socket.clone(), stop.clone()));
        daemon.spawn("NAT64 finder", translation);
        daemon.spawn("candidate gatherer", gatherer.run(stop.clone()));
        daemon.spawn("audit log", audit_writer.run(Names::of(authority)));
        if let Some(asking) = asking {
            daemon.spawn("engine client", asking.run(stop));
        }
        Ok(daemon)
    }

    /// The link to the control plane, the local API, metrics.
    async fn start_edge(&mut self, config: &Config, authority: &Authority, proxy: Option<Proxy>) -> anyhow::Result<()> {
        let connections = Connections {
            authority: authority.clone(),
            registry: self.registry.clone(),
            traffic: self.traffic.clone(),
            unobserved: config.unobserved.clone(),
            engine_api: config.engine.as_ref().map(|engine| engine.url().to_owned()),
            engine: self.engine.clone(),
            places: self.places.clone(),
        };
        let (reporter, engine) = (connections.clone(), connections.clone());
        let reports = ReportSource {
            connections: Arc::new(move || reporter.reports()),
            engine: Arc::new(move || engine.engine()),
            audit: Some(self.audit.clone()),
            changed: self.changed.clone(),
            home_relay: self.home.clone(),
        };
        let client = ControlClient::new(authority.clone(), reports, LinkTimes::default(), proxy.clone());
        let netcheck = Netcheck::new(
            authority.clone(),
            proxy.clone(),
            self.socket.clone(),
            self.mapped.clone(),
            client.status(),
            self.registry.clone(),
        );
        self.spawn("netcheck", netcheck.clone().run(self.stop.clone()));
        let status = StatusSource {
            connections,
            control: client.status(),
            home: self.home.clone(),
            socket: self.socket.clone(),
            mapped: self.mapped.clone(),
            candidates: self.candidates.clone(),
            netcheck,
            started_at: unix_ms(),
            audit: self.audit.clone(),
        };
        self.spawn("control client", client.run(self.stop.clone()));

        let daemon: Arc<dyn DaemonControl> = Arc::new(status);
        let api = LocalApi::bind(&config.socket, authority)?;
        let serving = api.serve(daemon.clone(), authority.clone(), proxy, self.stop.clone());
        self.spawn("local API", logged("local API", serving));
        if let Some(listen) = config.metrics_listen {
            let listener =
                TcpListener::bind(listen).await.with_context(|| format!("cannot open {listen} ([metrics] listen)"))?;
            let serving = serve_metrics(listener, daemon, self.stop.clone());
            self.spawn("metrics", logged("metrics", serving));
        }
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// One line on standard output, and the same in a file: ready, and where.
    fn announce(&self, config: &Config, authority: &Authority) -> anyhow::Result<()> {
        let ready = serde_json::json!({
            "event": "ready",
            "socket": config.socket,
            "key": authority.gateway_key().public(),
            "tunnel_port": self.socket.local_port(),
        });
        // Data passes on a full disk, and after a restart too.
        if let Err(error) =
            secret_file::write_public(&config.state_dir.join("ready.json"), ready.to_string().as_bytes())
        {
            warn!(error = with_causes(&error), "ready.json of the state directory is the one of an earlier start");
        }
        writeln!(std::io::stdout(), "{ready}").context("cannot write to standard output")?;
        info!(key = %authority.gateway_key().public(), "gatewayd is ready");
        Ok(())
    }

    /// Resolves when a task ends that should not.
    async fn first_end(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_)) => "one that panicked",
            None => "all",
        }
    }

    /// No new streams; those under way get a moment, then tunnels close, the peers know, and every task ends.
    async fn stop(mut self) {
        info!("stopping");
        self.closing.cancel();
        let deadline = Instant::now() + DRAIN;
        while self.traffic.open_streams() > 0 && Instant::now() < deadline {
            sleep(DRAIN_POLL).await;
        }
        // What the last streams sent is on its way, and closing the tunnels would stop it.
        sleep(LAST_BYTES).await;
        // The tunnels first, while paths and relay links still carry their last packets.
        self.endpoint.close().await;
        self.stop.cancel();
        // Its writer ends when the last stream has let go of it.
        drop(self.audit);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Every stream takes a file descriptor, and the usual soft limit of 1,024 is below the streams a gateway may carry.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(files) => info!(files, "open files at most"),
        Err(error) => warn!(%error, "the limit of open files could not be raised"),
    }
}

/// A server that fails says why before its end stops the daemon.
async fn logged(name: &'static str, server: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = server.await {
        error!(%error, "the {name} server failed");
    }
}

//! The relay as a whole: bind, serve, drain, in this order and in one place.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use gateway_net::{
    http::HttpSetupError,
    proxy::{Proxy, ProxyConfigError},
    secret_file::SecretFileError,
    shutdown::Shutdown,
};
use gateway_proto::id::RelayId;
use hyper_util::rt::TokioTimer;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept::LimitAcceptor,
    acme::{Orders, OrdersError},
    budget::Organizations,
    certificate,
    clients::Clients,
    config::{Config, TlsSource, UdpListen},
    http,
    metrics::Metrics,
    policy_keys::PolicyKeys,
    prompt::PromptAcceptor,
    ready::{Identity, Ready, RelayIdentityError},
    stun::StunResponder,
    udp::{self, Sessions, UdpPorts},
};

/// For the last words of links that were still there after the grace period.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What every link shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) relay_id: RelayId,
    /// The policy keys that count.
    pub(crate) keys: PolicyKeys,
    pub(crate) clients: Clients,
    /// Quotas.
    pub(crate) organizations: Organizations,
    /// Who datagrams over UDP are from.
    pub(crate) sessions: Sessions,
    /// The UDP ports.
    pub(crate) udp: UdpPorts,
    pub(crate) metrics: Arc<Metrics>,
    /// Every link, from the upgrade on.
    pub(crate) links: TaskTracker,
    /// The relay is about to stop: tell the gateways, take no new ones.
    pub(crate) draining: CancellationToken,
    /// The relay stops now: close.
    pub(crate) close: CancellationToken,
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    ready: Ready,
    shared: Arc<Shared>,
    server: Handle<SocketAddr>,
    tasks: JoinSet<Task>,
}

/// A part of the relay that must not end by itself.
#[derive(Debug)]
enum Task {
    Relay(io::Result<()>),
    Metrics(io::Result<()>),
    Udp,
    Certificate,
    Keys,
}

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its id or its TLS key.
    #[error(transparent)]
    Identity(#[from] RelayIdentityError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key} of the configuration)")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates cannot be ordered.
    #[error(transparent)]
    Orders(#[from] OrdersError),
    /// The proxy on the way out.
    #[error(transparent)]
    Proxy(#[from] ProxyConfigError),
    /// The client for the control plane.
    #[error("cannot set up the client for the control plane ([control] of the configuration)")]
    Control(#[from] HttpSetupError),
    /// `ready.json` cannot be written, or the kept policy keys not read.
    #[error(transparent)]
    Ready(#[from] SecretFileError),
}

/// A part of the relay ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A server ended.
    #[error("the {part} server ended by itself")]
    Server {
        /// Which one.
        part: &'static str,
        /// Why, if it said so.
        source: Option<io::Error>,
    },
    /// A task panicked.
    #[error("a task of the relay failed")]
    Task(#[from] JoinError),
}

impl Relay {
    /// Binds everything and starts to serve. Nothing is bound if the identity is not usable.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let proxy = proxy(&config)?;
        let identity = Identity::load_or_create(&config)?;
        let bind_error = |key, address| move |source| StartError::Bind { key, address, source };
        let (listener, listen) = listen(config.listen).await.map_err(bind_error("listen", config.listen))?;
        let (metrics_listener, metrics_listen) =
            self::listen(config.metrics_listen).await.map_err(bind_error("metrics_listen", config.metrics_listen))?;
        let mut udp = UdpPorts::new();
        let [first, second] = config.stun_listen;
        let first = udp.bind(first).map_err(bind_error("stun_listen", first))?;
        let second = udp.bind(second).map_err(bind_error("stun_listen", second))?;
        let relayed = match config.udp_listen {
            UdpListen::Off => None,
            UdpListen::Stun => Some(first),
            UdpListen::Own(address) => Some(udp.bind(address).map_err(bind_error("udp_listen", address))?),
        };
        if let Some(relayed) = relayed {
            udp.offer(relayed.port());
        }

        let ready = Ready::new(listen, [first, second], relayed, metrics_listen, &identity);
        // A relay whose disk is full relays.
        if let Err(error) = ready.write(&config.data_dir) {
            tracing::warn!(%error, "ready.json of the data directory is the one of an earlier start");
        }
        let metrics = Arc::new(Metrics::new());
        let orders = match &config.tls {
            TlsSource::Acme(acme) => {
                let orders =
                    Orders::new(acme, &config.data_dir, &identity.tls, proxy.as_ref(), metrics.clone()).await?;
                Some(orders)
            }
            TlsSource::Files { .. } | TlsSource::Generated { .. } => None,
        };
        let responder = StunResponder::new(&config.limits, metrics.clone());
        let acceptor = LimitAcceptor::new(&config.limits, metrics.clone());
        let shared = Arc::new(Shared {
            relay_id: identity.relay_id,
            keys: PolicyKeys::open(&config, metrics.clone())?,
            clients: Clients::new(config.limits.max_clients),
            organizations: Organizations::default(),
            sessions: Sessions::default(),
            udp,
            metrics,
            links: TaskTracker::new(),
            draining: CancellationToken::new(),
            close: CancellationToken::new(),
            config,
        });

        let server = Handle::new();
        let mut tasks = JoinSet::new();
        let tls = match orders {
            Some(orders) => {
                let tls = orders.tls();
                let acceptor = acceptor.clone();
                tasks.spawn(async move {
                    orders.run(acceptor).await;
                    Task::Certificate
                });
                tls
            }
            None => {
                let tls = certificate::tls(&identity.tls);
                let (source, pin) = (shared.config.tls.clone(), identity.tls.pin());
                let watch = certificate::watch(source, tls.clone(), pin, shared.metrics.clone());
                tasks.spawn(async move {
                    watch.await;
                    Task::Certificate
                });
                tls
            }
        };
        tasks.spawn(serve_relay(listener, tls, acceptor, server.clone(), shared.clone()));
        if let Some(control) = shared.config.control.clone() {
            let asking = shared.keys.asking(&control, proxy.as_ref())?;
            tasks.spawn(async move {
                asking.run().await;
                Task::Keys
            });
        }
        let router = http::metrics(shared.clone());
        tasks.spawn(async move { Task::Metrics(axum::serve(metrics_listener, router).await) });
        for local in 0..u8::try_from(shared.udp.len()).unwrap_or(u8::MAX) {
            let (shared, responder) = (shared.clone(), responder.clone());
            tasks.spawn(async move {
                udp::serve(shared, local, responder).await;
                Task::Udp
            });
        }
        tracing::info!(relay = %ready.relay_id, "relay is up");
        Ok(Self { ready, shared, server, tasks })
    }

    /// Where the relay listens and who it is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `shutdown` is requested, then drains. A part that ends by itself is an error.
    pub async fn run(mut self, shutdown: &Shutdown) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown.requested() => {}
            Some(ended) = self.tasks.join_next() => return Err(ended?.into()),
        }
        self.drain().await;
        Ok(())
    }

    /// Tell the gateways, stop accepting, wait for them to leave, close the rest.
    async fn drain(mut self) {
        let grace = self.shared.config.timing.drain_grace;
        tracing::info!(clients = self.shared.clients.len(), ?grace, "draining");
        self.shared.draining.cancel();
        self.server.graceful_shutdown(Some(grace + CLOSE_TIMEOUT));
        self.shared.links.close();
        if timeout(grace, self.shared.links.wait()).await.is_err() {
            tracing::info!(clients = self.shared.clients.len(), "closing the links that stayed");
            self.shared.close.cancel();
            // A link that does not even take its last words is cut by the end of the process.
            let _ = timeout(CLOSE_TIMEOUT, self.shared.links.wait()).await;
        }
        self.tasks.shutdown().await;
        tracing::info!("relay is down");
    }
}

async fn serve_relay(
    listener: TcpListener,
    tls: RustlsConfig,
    acceptor: LimitAcceptor,
    handle: Handle<SocketAddr>,
    shared: Arc<Shared>,
) -> Task {
    let within = shared.config.timing.admission;
    let acceptor = PromptAcceptor::new(RustlsAcceptor::new(tls).acceptor(acceptor), within);
    let mut server = axum_server::Server::from_listener(listener).acceptor(acceptor).handle(handle);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(within);
    let router = http::relay(shared).into_make_service_with_connect_info::<SocketAddr>();
    Task::Relay(server.serve(router).await)
}

/// The proxy to the certificate authority and the control plane. What is named is not looked at by a relay that asks neither.
fn proxy(config: &Config) -> Result<Option<Proxy>, ProxyConfigError> {
    let goes_out = config.control.is_some() || matches!(config.tls, TlsSource::Acme(_));
    let proxy = if goes_out { config.network.proxy()? } else { None };
    if proxy.is_some() {
        tracing::info!(source = %config.network.proxy, "connections to the certificate authority and to the control plane go through an HTTP proxy");
    }
    Ok(proxy)
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

impl From<Task> for RunError {
    fn from(task: Task) -> Self {
        match task {
            Task::Relay(result) => Self::Server { part: "relay", source: result.err() },
            Task::Metrics(result) => Self::Server { part: "metrics", source: result.err() },
            Task::Certificate => Self::Server { part: "certificate", source: None },
            Task::Keys => Self::Server { part: "policy keys", source: None },
            Task::Udp => Self::Server { part: "UDP", source: None },
        }
    }
}

//! The life of the control plane: opens the data directory, binds, becomes ready; on the end, stops in reverse.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gateway_net::{
    secret_file,
    shutdown::Shutdown,
    tls::{ALPN_HTTP1, server_config},
};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use crate::{
    bootstrap::{self, BootstrapError, DataDir, Known},
    clock::Clock,
    config::Config,
    http::{App, Rates, ServeOptions, metrics_router, serve},
    metrics::Metrics,
    oidc::{OidcSetupError, Providers},
    reconcile, replica,
    service::{DeliverySettings, POLICY_KEY_FACT, Passwords, Service, ServiceError, Settings},
    storage::{Location, SqlStorage, Storage, StorageError},
};

/// At the end of the process, for watches to say goodbye and to write down what they know: longer than any of that takes while
/// the database answers.
const FAREWELLS: Duration = Duration::from_secs(20);
/// Connections to the metrics listener: a scraper or two.
const METRICS_CONNECTIONS: usize = 16;

/// Why the control plane did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A provider of OpenID Connect.
    #[error("a provider of OpenID Connect cannot be set up")]
    Oidc(#[from] OidcSetupError),
    /// The database.
    #[error("cannot open the database {location}")]
    Storage {
        /// Where it is.
        location: Location,
        /// What went wrong.
        source: StorageError,
    },
    /// An address.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The service.
    #[error("cannot set the service up")]
    Service(#[from] ServiceError),
    /// A newer version has changed the schema of the database.
    #[error(transparent)]
    Outdated(StorageError),
    /// A task ended that should not have.
    #[error("the task '{0}' ended unexpectedly")]
    TaskEnded(&'static str),
}

/// What is printed, and written to `ready.json`, when the control plane is ready.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: &'static str,
    /// The bound address.
    pub listen: SocketAddr,
    /// Base URL.
    pub url: String,
    /// Pin of the TLS key; none: the web PKI vouches for it.
    pub tls_pin: Option<String>,
    /// The key that signs policies now.
    pub policy_key: String,
    /// Where the operator token is.
    pub operator_token_file: PathBuf,
    /// Where the registration token is.
    pub registration_token_file: PathBuf,
    /// The bound address of the metrics.
    pub metrics_listen: Option<SocketAddr>,
}

/// A running control plane.
#[derive(Debug)]
pub struct Running {
    ready: Ready,
    service: Service,
    shutdown: Shutdown,
    watches: tokio_util::task::TaskTracker,
    /// Each ends when the end is asked for, or says why the others have to.
    tasks: JoinSet<StartError>,
    /// Holds the locks of the data directory and the database until the storage is closed.
    _data: DataDir,
}

/// Starts the control plane.
pub async fn start(config: Config, clock: Clock, shutdown: Shutdown) -> Result<Running, StartError> {
    start_on(config, clock, shutdown, |storage| -> Arc<dyn Storage> { Arc::new(storage) }).await
}

/// The same on what `wrap` makes of the storage, for tests of a storage that fails.
pub async fn start_on(
    config: Config,
    clock: Clock,
    shutdown: Shutdown,
    wrap: impl FnOnce(SqlStorage) -> Arc<dyn Storage>,
) -> Result<Running, StartError> {
    let oidc = Providers::open(&config.oidc)?;
    let opened = bootstrap::open(&config)?;
    let database = opened.database.clone();
    let failed = |source| StartError::Storage { location: database.clone(), source };
    let storage = SqlStorage::open(&database).await.map_err(failed)?;
    let known = known(&storage).await.map_err(failed)?;
    let data = opened.keys(&config, known)?;
    if known.is_new && data.ready_file.exists() {
        tracing::warn!(
            %database,
            "the database is new, although a control plane has run in this data directory before: if that is not meant, the \
             database is another one than it was; gateways that were enrolled are unknown here"
        );
    }
    let (listener, listen) = bind(config.listen).await?;
    let url = config.public_url.clone().unwrap_or_else(|| format!("https://{listen}"));
    let settings = Settings {
        signer: data.signer.clone(),
        vault: data.vault.clone(),
        operator_token: data.operator_token.clone(),
        registration_token: data.registration_token.clone(),
        registration: config.registration,
        public_url: url.clone(),
        tls_pin: data.tls_pin.clone(),
        relay_token_secs: config.relay_token_secs,
        delivery: DeliverySettings { interval_secs: config.delivery_interval_secs },
        audit_retention_days: config.audit_retention_days,
        oidc,
    };
    let service = Service::new(wrap(storage), settings, Passwords::new()?, clock);
    service.claim_storage().await?;
    service.look_at_token_files().await?;
    let mut metrics = Metrics::default();
    metrics.show_turns(service.turn_counts());
    metrics.show_notes_dropped(service.notes_dropped());
    let metrics = Arc::new(metrics);
    let rates = Rates {
        requests_per_second: config.limits.requests_per_second,
        logins_per_minute: config.limits.logins_per_minute,
    };
    let app = App::new(service.clone(), rates, metrics.clone(), shutdown.clone());

    let mut tasks = JoinSet::new();
    let mut metrics_listen = None;
    if let Some(address) = config.metrics_listen {
        let (listener, bound) = bind(address).await?;
        metrics_listen = Some(bound);
        let options = ServeOptions { tls: None, max_connections: METRICS_CONNECTIONS };
        let serving = serve(listener, metrics_router(metrics), options, shutdown.clone());
        tasks.spawn(async move {
            serving.await;
            StartError::TaskEnded("metrics")
        });
    }
    let tls = Some(Arc::new(server_config(&data.identity, &[ALPN_HTTP1])));
    let options = ServeOptions { tls, max_connections: config.limits.max_connections };
    let serving = serve(listener, app.router(), options, shutdown.clone());
    tasks.spawn(async move {
        serving.await;
        StartError::TaskEnded("api")
    });
    let reconciling = reconcile::run(service.clone(), shutdown.clone());
    tasks.spawn(async move {
        reconciling.await;
        StartError::TaskEnded("reconciler")
    });
    let proving = reconcile::prove(service.clone(), shutdown.clone());
    tasks.spawn(async move {
        proving.await;
        StartError::TaskEnded("delivery proof")
    });
    let replicating = replica::run(service.clone(), shutdown.clone());
    tasks.spawn(async move {
        let outdated = replicating.await.err();
        outdated.map_or(StartError::TaskEnded("replica"), StartError::Outdated)
    });

    let ready = Ready {
        event: "ready",
        listen,
        url,
        tls_pin: data.tls_pin.clone(),
        policy_key: service.policy_key().await?.to_string(),
        operator_token_file: absolute(&data.operator_token_file),
        registration_token_file: absolute(&data.registration_token_file),
        metrics_listen,
    };
    let text = serde_json::to_vec(&ready).unwrap_or_default();
    // A full disk is no reason to be away: what is there can be read.
    if let Err(error) = secret_file::write_public(&data.ready_file, &text) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "ready.json of the data directory is the one of an earlier start"
        );
    }
    tracing::info!(%listen, "control plane is ready");
    Ok(Running { ready, service, shutdown, watches: app.watches().clone(), tasks, _data: data })
}

/// What the database knows, before anything is made that it should know.
async fn known(storage: &SqlStorage) -> Result<Known, StorageError> {
    let mut tx = storage.read().await?;
    let is_new = tx.known_fact(POLICY_KEY_FACT).await?.is_none();
    Ok(Known { is_new, has_gateways: tx.has_gateways().await? })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    gateway_net::mss::limit(&listener);
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Running {
    /// What was printed.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The service, for tests.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Runs until the end is asked for, then stops: no new connections, requests finish, watches are told, the
    /// reconciler ends, commits finish, the storage closes. Nothing of it waits for a database that does not answer: it is over
    /// within 45 s.
    pub async fn run(mut self) -> Result<(), StartError> {
        let mut failure = None;
        while let Some(ended) = self.tasks.join_next().await {
            if !self.shutdown.is_requested() {
                failure = Some(ended.unwrap_or(StartError::TaskEnded("panicked")));
                self.shutdown.request();
            }
        }
        self.watches.close();
        let farewells = async {
            self.watches.wait().await;
            // What a round that was given up had taken away while the watch ended.
            self.service.enter_heads().await
        };
        match timeout(FAREWELLS, farewells).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "heads of audit logs that gateways reported last are not written down");
            }
            Err(_) => tracing::warn!(
                left = self.watches.len(),
                "the database does not answer: when some gateways were last heard is not written down"
            ),
        }
        self.service.close().await;
        tracing::info!("control plane has stopped");
        failure.map_or(Ok(()), Err)
    }
}

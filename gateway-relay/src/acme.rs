//! Certificates by ACME (RFC 8555): ordered, renewed when the authority suggests it (RFC 9773) or after two thirds of their
//! life, shown without a restart.
//!
//! The relay's key is made once and stays, over renewals too, so that pins in the relay map stay valid. Until the first
//! certificate is there the relay shows a self-signed one of the same key: gateways that pin the key attach, those that trust
//! the public web PKI wait. An order that fails changes nothing but the log and the metrics, and is made again later: soon
//! when the authority was not reached, slowly when it refused, because authorities count refusals.

mod challenge;
mod order;
mod renewal;
mod suggestion;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum_server::tls_rustls::RustlsConfig;
use challenge::Tokens;
use gateway_net::{
    causes::with_causes,
    entropy::random_u32,
    http::{ForeignSetupError, foreign_client},
    proxy::Proxy,
    secret_file,
    tls::{AcmeCertificates, IdentityError, ServerIdentity, acme_server_config, certificate_name, is_for, validity},
};
use gateway_proto::backoff::Backoff;
use instant_acme::CertificateIdentifier;
use order::{OrderError, place};
use renewal::Renewal;
use suggestion::Questions;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::{
    accept::LimitAcceptor,
    config::Acme,
    metrics::{Metrics, OrderOutcome},
};

/// File name of the certificate in the data directory.
const CERTIFICATE_FILE: &str = "acme-certificate.pem";
/// Holds room on the disk for what an order leaves.
const ROOM_FILE: &str = "acme-certificate.room";
/// Enough for a chain, an account and what replaces them.
const ROOM: usize = 64 << 10;
/// Nothing is awaited longer than this at once: the clock may be set meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// Assumed of an issued certificate whose dates cannot be read: it is not ordered again and again.
const UNREAD_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A whole order, with the authority's look at the challenge.
const ORDER_LIMIT: Duration = Duration::from_secs(180);
/// Between two attempts to reach an authority, at first and at most.
const UNREACHED: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(300)];
/// Between two refused orders: Let's Encrypt takes five failures of a name an hour.
const REFUSED: [Duration; 2] = [Duration::from_secs(240), Duration::from_secs(6 * 3600)];

/// Orders certificates.
#[derive(Debug)]
pub(crate) struct Orders {
    acme: Acme,
    data_dir: PathBuf,
    http: reqwest::Client,
    tokens: Tokens,
    listener: Option<TcpListener>,
    certificates: Arc<AcmeCertificates>,
    metrics: Arc<Metrics>,
    /// Of the certificate that is shown; none: another is ordered at once.
    renewal: Option<Renewal>,
    questions: Questions,
    /// What the authority calls the certificate that was ordered before; none: there is none, or it names no authority.
    ordered: Option<CertificateIdentifier<'static>>,
}

/// Why certificates cannot be ordered.
#[derive(Debug, thiserror::Error)]
pub enum OrdersError {
    /// The client, or the file of `acme.root`.
    #[error("cannot set up the client for the certificate authority (acme.root of the configuration)")]
    Client(#[from] ForeignSetupError),
    /// The address for HTTP-01.
    #[error("cannot listen on {address} (acme.http_listen of the configuration)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The certificate that was ordered before, or a self-signed one, of the key in the data directory.
pub(crate) fn identity(data_dir: &Path, domains: &[String]) -> Result<ServerIdentity, IdentityError> {
    let own = ServerIdentity::load_or_generate(data_dir, domains)?;
    let path = data_dir.join(CERTIFICATE_FILE);
    if !path.exists() {
        return Ok(own);
    }
    Ok(ServerIdentity::load_for_key_in(data_dir, &path).unwrap_or_else(|error| {
        tracing::warn!(problem = %with_causes(&error), "the certificate ordered before is not usable: another is ordered");
        own
    }))
}

impl Orders {
    /// Goes on with the certificate that the relay shows.
    pub(crate) async fn new(
        acme: &Acme,
        data_dir: &Path,
        shown: &ServerIdentity,
        proxy: Option<&Proxy>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OrdersError> {
        let listener = match acme.http_listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| OrdersError::Listen { address, source })?)
            }
            None => None,
        };
        let kept = ServerIdentity::load_for_key_in(data_dir, &data_dir.join(CERTIFICATE_FILE));
        let ordered = kept.is_ok_and(|kept| kept.chain() == shown.chain());
        let mut orders = Self {
            acme: acme.clone(),
            data_dir: data_dir.to_owned(),
            http: foreign_client(acme.root.as_deref(), proxy)?,
            tokens: Tokens::default(),
            listener,
            certificates: AcmeCertificates::new(shown),
            metrics,
            renewal: None,
            questions: Questions::new(),
            ordered: None,
        };
        if ordered {
            orders.plan(shown, None);
            if !shown.chain().first().is_some_and(|certificate| is_for(certificate, &acme.domains)) {
                tracing::info!("the certificate is for other domains than the configuration: another is ordered");
                orders.renewal = None;
            }
        } else {
            tracing::warn!(
                directory = acme.directory,
                "no certificate yet: until one is issued, only gateways that pin this relay's key can attach"
            );
        }
        Ok(orders)
    }

    /// The TLS configuration that newcomers get.
    pub(crate) fn tls(&self) -> RustlsConfig {
        RustlsConfig::from_config(Arc::new(acme_server_config(self.certificates.clone())))
    }

    /// Orders whenever it is time; ends only with the task.
    pub(crate) async fn run(mut self, acceptor: LimitAcceptor) {
        let (tokens, listener) = (self.tokens.clone(), self.listener.take());
        tokio::select! {
            () = self.order_for_ever() => {}
            () = challenge::serve(listener, acceptor, tokens) => {}
        }
    }

    async fn order_for_ever(&mut self) {
        let mut unreached = Backoff::new(UNREACHED[0], UNREACHED[1]);
        let mut refused = Backoff::new(REFUSED[0], REFUSED[1]);
        loop {
            self.renewal_time().await;
            let taken = self.order().await;
            give_room_back(&self.data_dir);
            self.certificates.forget_challenges();
            self.tokens.clear();
            let Err(error) = taken else {
                (unreached, refused) = (Backoff::new(UNREACHED[0], UNREACHED[1]), Backoff::new(REFUSED[0], REFUSED[1]));
                continue;
            };
            self.metrics.ordered(OrderOutcome::Failed);
            let backoff = if error.is_refusal() { &mut refused } else { &mut unreached };
            let pause = backoff.next_delay(random_u32());
            tracing::error!(
                problem = %with_causes(&error),
                remedy = error.remedy(),
                again_in = ?pause,
                "no certificate was issued: the one in use stays"
            );
            sleep(pause).await;
        }
    }

    /// Waits for it; asks the authority meanwhile when it wants it to be.
    async fn renewal_time(&mut self) {
        while let Some(renewal) = &mut self.renewal {
            let Ok(left) = renewal.at().duration_since(SystemTime::now()) else { return };
            let pause = match &self.ordered {
                Some(name) if self.questions.left().is_zero() => {
                    self.questions.ask(&self.http, &self.acme.directory, name, renewal).await;
                    continue;
                }
                Some(_) => left.min(self.questions.left()),
                None => left,
            };
            sleep(pause.clamp(Duration::from_millis(10), MAX_WAIT)).await;
        }
    }

    /// Authorities count what they issue: nothing is asked for that could not be kept.
    async fn order(&mut self) -> Result<(), OrderError> {
        secret_file::write_public(&self.data_dir.join(ROOM_FILE), &[0; ROOM]).map_err(OrderError::Room)?;
        let (replaced, certificates) = (self.ordered.as_ref(), &self.certificates);
        let placed = place(&self.acme, &self.data_dir, &self.http, replaced, &self.tokens, certificates);
        let chain = timeout(ORDER_LIMIT, placed).await.unwrap_or(Err(OrderError::TooLong))?;
        give_room_back(&self.data_dir);
        self.take(&chain)
    }

    /// Keeps what was issued, and shows it.
    fn take(&mut self, chain: &str) -> Result<(), OrderError> {
        let path = self.data_dir.join(CERTIFICATE_FILE);
        let fresh = self.data_dir.join(format!("{CERTIFICATE_FILE}.new"));
        secret_file::write_public(&fresh, chain.as_bytes()).map_err(OrderError::Keep)?;
        // One that does not fit the key never takes the place of one that does.
        let identity = ServerIdentity::load_for_key_in(&self.data_dir, &fresh).map_err(OrderError::Unusable)?;
        std::fs::rename(&fresh, &path).map_err(OrderError::Rename)?;
        self.certificates.replace(&identity);
        self.plan(&identity, Some(SystemTime::now()));
        self.metrics.ordered(OrderOutcome::Issued);
        tracing::info!(pin = %identity.pin(), domains = ?self.acme.domains, "a certificate was issued and is shown");
        Ok(())
    }

    /// Plans the renewal of a certificate that was ordered, a moment ago or by an earlier run.
    fn plan(&mut self, identity: &ServerIdentity, issued_at: Option<SystemTime>) {
        let certificate = identity.chain().first();
        let (dates, point) = (certificate.and_then(validity), random_u32());
        self.renewal = match (dates, issued_at) {
            (Some(dates), Some(now)) => Some(Renewal::issued(dates, point, now)),
            (None, Some(now)) => Some(Renewal::issued((now, now + UNREAD_LIFE), point, now)),
            (dates, None) => dates.map(|dates| Renewal::new(dates, point)),
        };
        self.questions = Questions::new();
        let name = certificate.and_then(certificate_name);
        self.ordered = name.map(|name| CertificateIdentifier::new(name.authority_key.into(), name.serial.into()));
        let expires = dates.and_then(|(_, to)| to.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(expires) = expires {
            self.metrics.certificate_expires.set(i64::try_from(expires.as_secs()).unwrap_or(i64::MAX));
        }
    }
}

/// A file that is not there gives nothing back.
fn give_room_back(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join(ROOM_FILE));
}

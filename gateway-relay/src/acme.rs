//! Certificates by ACME (RFC 8555): ordered, renewed after two thirds of their life, shown without a restart.
//!
//! The relay's key is made once and stays, over renewals too, so that pins in the relay map stay valid. Until the first
//! certificate is there the relay shows a self-signed one of the same key: gateways that pin the key attach, those that trust
//! the public web PKI wait. An order that fails changes nothing but the log and the metrics, and is made again later: soon
//! when the authority was not reached, slowly when it refused, because authorities count refusals.

mod challenge;
mod order;

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
    entropy::random,
    http::{ForeignSetupError, foreign_client},
    secret_file,
    tls::{AcmeCertificates, IdentityError, ServerIdentity, acme_server_config, is_for, validity},
};
use gateway_proto::backoff::Backoff;
use order::{OrderError, place};
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
    renew_at: SystemTime,
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
            http: foreign_client(acme.root.as_deref(), None)?,
            tokens: Tokens::default(),
            listener,
            certificates: AcmeCertificates::new(shown),
            metrics,
            renew_at: SystemTime::UNIX_EPOCH,
        };
        if ordered {
            orders.plan(shown);
            if !shown.chain().first().is_some_and(|certificate| is_for(certificate, &acme.domains)) {
                tracing::info!("the certificate is for other domains than the configuration: another is ordered");
                orders.renew_at = SystemTime::UNIX_EPOCH;
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
            while let Ok(left) = self.renew_at.duration_since(SystemTime::now()) {
                sleep(left.clamp(Duration::from_millis(10), MAX_WAIT)).await;
            }
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
            let pause = backoff.next_delay(u32::from_be_bytes(random()));
            tracing::error!(
                problem = %with_causes(&error),
                remedy = error.remedy(),
                again_in = ?pause,
                "no certificate was issued: the one in use stays"
            );
            sleep(pause).await;
        }
    }

    /// Authorities count what they issue: nothing is asked for that could not be kept.
    async fn order(&mut self) -> Result<(), OrderError> {
        secret_file::write_public(&self.data_dir.join(ROOM_FILE), &[0; ROOM]).map_err(OrderError::Room)?;
        let ordered = place(&self.acme, &self.data_dir, &self.http, &self.tokens, &self.certificates);
        let chain = timeout(ORDER_LIMIT, ordered).await.unwrap_or(Err(OrderError::TooLong))?;
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
        self.plan(&identity);
        // With a clock that is ahead, a fresh certificate seems old: it is not ordered again and again.
        if let Some((from, to)) = identity.chain().first().and_then(validity) {
            self.renew_at = self.renew_at.max(SystemTime::now() + to.duration_since(from).unwrap_or_default() / 2);
        }
        self.metrics.ordered(OrderOutcome::Issued);
        tracing::info!(pin = %identity.pin(), domains = ?self.acme.domains, "a certificate was issued and is shown");
        Ok(())
    }

    fn plan(&mut self, identity: &ServerIdentity) {
        let Some((from, to)) = identity.chain().first().and_then(validity) else { return };
        self.renew_at = renewal(from, to);
        let expires = to.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.metrics.certificate_expires.set(i64::try_from(expires).unwrap_or(i64::MAX));
    }
}

/// A file that is not there gives nothing back.
fn give_room_back(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join(ROOM_FILE));
}

/// After two thirds of its life, so that a third is left for whatever goes wrong.
fn renewal(from: SystemTime, to: SystemTime) -> SystemTime {
    from + to.duration_since(from).unwrap_or_default() * 2 / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_life_is_left_at_the_renewal() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        assert_eq!(renewal(from, from + days(90)), from + days(60));
        assert_eq!(renewal(from, from - days(1)), from, "nonsense is renewed at once");
    }
}

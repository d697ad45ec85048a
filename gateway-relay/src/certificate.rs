//! The TLS certificate while the relay runs: files that change are taken over without a restart.
//!
//! They are looked at on SIGHUP and every few seconds, so that a renewal needs no hook. A pair that is broken, or half written, changes nothing:
//! the old one stays and the log says why; the next look tries again. Attached gateways notice nothing, newcomers see the
//! new certificate.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum_server::tls_rustls::RustlsConfig;
use gateway_net::{
    causes::with_causes,
    tls::{ALPN_HTTP1, ServerIdentity, TlsPin, server_config},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use crate::{
    config::TlsSource,
    metrics::{Metrics, ReloadOutcome},
};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);

/// What tells one state of the files from another, without reading the key.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([(u64, u64, i64, i64); 2]);

impl Stamp {
    fn of(certificate: &Path, key: &Path) -> io::Result<Self> {
        let one =
            |path: &Path| fs::metadata(path).map(|data| (data.ino(), data.size(), data.mtime(), data.mtime_nsec()));
        Ok(Self([one(certificate)?, one(key)?]))
    }
}

/// The TLS configuration that newcomers get.
pub(crate) fn tls(identity: &ServerIdentity) -> RustlsConfig {
    RustlsConfig::from_config(Arc::new(server_config(identity, &[ALPN_HTTP1])))
}

/// Watches the files of the configuration, if it names any; ends only with the task.
pub(crate) async fn watch(source: TlsSource, tls: RustlsConfig, shown: TlsPin, metrics: Arc<Metrics>) {
    let TlsSource::Files { certificate, key } = source else { return std::future::pending().await };
    let mut files = Files { seen: Stamp::of(&certificate, &key).ok(), certificate, key, shown, refused: None };
    let mut looks = interval(LOOK);
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "cannot watch for SIGHUP: certificates are reloaded when their files change");
            loop {
                looks.tick().await;
                files.look(false, &tls, &metrics);
            }
        }
    };
    loop {
        let forced = tokio::select! {
            _ = looks.tick() => false,
            _ = hangups.recv() => true,
        };
        files.look(forced, &tls, &metrics);
    }
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    seen: Option<Stamp>,
    shown: TlsPin,
    /// Why the present state of the files is refused; said once.
    refused: Option<String>,
}

impl Files {
    fn look(&mut self, forced: bool, tls: &RustlsConfig, metrics: &Metrics) {
        let stamp = Stamp::of(&self.certificate, &self.key).ok();
        if !forced && stamp == self.seen && self.refused.is_none() {
            return;
        }
        self.seen = stamp;
        match ServerIdentity::load(&self.certificate, &self.key) {
            Ok(identity) => {
                tls.reload_from_config(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
                metrics.reloaded(ReloadOutcome::Taken);
                tracing::info!(pin = %identity.pin(), "the TLS certificate was reloaded");
                if identity.pin() != self.shown {
                    tracing::warn!(
                        old = %self.shown,
                        new = %identity.pin(),
                        "the TLS key is another one: gateways whose relay map pins the old one refuse this relay until the map is changed"
                    );
                    self.shown = identity.pin();
                }
                self.refused = None;
            }
            Err(error) => {
                let problem = with_causes(&error);
                if forced || self.refused.as_ref() != Some(&problem) {
                    metrics.reloaded(ReloadOutcome::Refused);
                    tracing::error!(%problem, "the new TLS certificate is not usable: the old one stays in use");
                }
                self.refused = Some(problem);
            }
        }
    }
}

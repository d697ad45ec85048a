//! The policy keys whose tokens count: those of the configuration, and what the control plane says of them
//! (rules: [`gateway_proto::relay::keys`]).
//!
//! With `[control]` the relay asks now and then, and soon when a gateway shows a token of a key that it does not know: so a new key
//! counts before it signs, and one that was put in at once counts within seconds. What was believed is kept in the data directory,
//! written before it counts. While there is no answer, everything stays as it is.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use gateway_net::{
    causes::with_causes,
    http::{HttpSetupError, client},
    proxy::Proxy,
    secret_file::{self, SecretFileError},
    time,
    tls::ServerTrust,
};
use gateway_proto::{
    backoff::Backoff,
    identity::GatewayPublicKey,
    relay::keys::{KeptKeys, KeyBook, KeysError, MAX_ANSWER_LEN, PATH, RelayKeys},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    config::{Config, ControlPlane},
    metrics::{KeysOutcome, Metrics},
};

/// File name in the data directory.
const FILE: &str = "policy-keys.json";
/// A question that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(20);
/// Strangers with tokens of no key make us ask no more often than this.
const DOUBT_GAP: Duration = Duration::from_secs(5);
/// Delay after a question without a good answer, at first; at most it is the interval.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// The keys, shared by all links. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PolicyKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: RwLock<KeyBook>,
    path: PathBuf,
    doubts: Notify,
    metrics: Arc<Metrics>,
}

/// Asks the control plane.
#[derive(Debug)]
pub(crate) struct Asking {
    keys: PolicyKeys,
    http: reqwest::Client,
    url: String,
    interval: Duration,
}

/// Why a question brought nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the control plane does not answer")]
    Http(#[from] reqwest::Error),
    #[error("the answer is longer than {MAX_ANSWER_LEN} bytes")]
    TooLong,
    #[error("the answer is not what a control plane says")]
    Form(#[from] serde_json::Error),
    #[error("the answer is not believed")]
    Refused(#[from] KeysError),
    #[error("the answer is believed, and cannot be kept")]
    Keep(#[from] SecretFileError),
    #[error("a task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl PolicyKeys {
    /// The keys of the configuration and what was kept of the control plane's word. A damaged file is told, and asked for anew.
    pub(crate) fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, SecretFileError> {
        let path = config.data_dir.join(FILE);
        // Without a control plane to ask, the configuration is all there is.
        let kept = if config.control.is_some() { kept(&path)? } else { None };
        let book = RwLock::new(KeyBook::new(config.control_keys.clone(), kept));
        let keys = Self(Arc::new(Inner { book, path, doubts: Notify::new(), metrics }));
        keys.count();
        Ok(keys)
    }

    /// The keys whose tokens count at `now`, Unix seconds.
    pub(crate) fn current(&self, now: u64) -> Vec<GatewayPublicKey> {
        self.0.book.read().unwrap_or_else(PoisonError::into_inner).keys(now)
    }

    /// Somebody showed a token of a key that does not count.
    pub(crate) fn doubt(&self) {
        self.0.doubts.notify_one();
    }

    /// Who asks this control plane.
    pub(crate) fn asking(&self, control: &ControlPlane, proxy: Option<&Proxy>) -> Result<Asking, HttpSetupError> {
        let trust = control.pin.map_or(ServerTrust::WebPki, ServerTrust::Pin);
        let (http, url) = (client(trust, proxy)?, format!("{}{PATH}", control.url));
        Ok(Asking { keys: self.clone(), http, url, interval: control.interval })
    }

    /// Takes an answer, once it is kept; whether other keys count now.
    fn take(&self, answer: &RelayKeys, now: u64) -> Result<bool, AskError> {
        let mut book = self.0.book.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_news = book.take(answer, now)?;
        if let Some(kept) = book.kept().filter(|_| is_news) {
            secret_file::write_public(&self.0.path, &serde_json::to_vec(kept)?)?;
        }
        *self.0.book.write().unwrap_or_else(PoisonError::into_inner) = book;
        Ok(is_news)
    }

    fn count(&self) {
        let count = self.current(time::unix_secs()).len();
        self.0.metrics.policy_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl Asking {
    /// Asks until the relay ends.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(FIRST_RETRY.min(self.interval), self.interval);
        let mut problem = String::new();
        loop {
            let asked_at = Instant::now();
            let outcome = self.ask().await;
            self.keys.count();
            let next = match &outcome {
                Ok(_) => {
                    backoff.reset();
                    problem.clear();
                    self.interval
                }
                Err(error) => {
                    let words = with_causes(error);
                    // Once a reason, not once a question.
                    if words != problem {
                        tracing::warn!(url = self.url, problem = words, "the policy keys stay as they are");
                        problem = words;
                    }
                    backoff.next_delay(u32::from_ne_bytes(gateway_net::random()))
                }
            };
            self.note(&outcome);
            tokio::select! {
                () = sleep(next) => {}
                () = self.keys.0.doubts.notified() => sleep_until(asked_at + DOUBT_GAP).await,
            }
        }
    }

    fn note(&self, outcome: &Result<bool, AskError>) {
        let metrics = &self.keys.0.metrics;
        metrics.keys_asked(match outcome {
            Ok(true) => KeysOutcome::Taken,
            Ok(false) => KeysOutcome::Unchanged,
            Err(AskError::Refused(_) | AskError::Form(_) | AskError::TooLong | AskError::Keep(_)) => {
                KeysOutcome::Refused
            }
            Err(AskError::Http(_) | AskError::Task(_)) => KeysOutcome::Failed,
        });
        if outcome.is_ok() {
            metrics.policy_keys_confirmed.set(i64::try_from(time::unix_secs()).unwrap_or(i64::MAX));
        }
        if let Ok(true) = outcome {
            let keys: Vec<_> = self.keys.current(time::unix_secs()).iter().map(|key| key.short()).collect();
            tracing::info!(?keys, "these policy keys count from now on");
        }
    }

    async fn ask(&self) -> Result<bool, AskError> {
        let mut answer = self.http.get(&self.url).timeout(LIMIT).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if bytes.len() + chunk.len() > MAX_ANSWER_LEN {
                return Err(AskError::TooLong);
            }
            bytes.extend_from_slice(&chunk);
        }
        let (keys, answer) = (self.keys.clone(), serde_json::from_slice::<RelayKeys>(&bytes)?);
        // It waits for the disk.
        tokio::task::spawn_blocking(move || keys.take(&answer, time::unix_secs())).await?
    }
}

fn kept(path: &Path) -> Result<Option<KeptKeys>, SecretFileError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SecretFileError::Read { path: path.to_owned(), source }),
    };
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the kept policy keys are damaged: they are asked for anew");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::{identity::GatewayKey, relay::keys::KeyStatement, succession::Succession};

    use super::*;

    fn key(n: u8) -> GatewayKey {
        GatewayKey::from_seed(&[n; 32])
    }

    fn open(dir: &Path, configured: u8) -> PolicyKeys {
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstun_listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\ndata_dir = {dir:?}\ncontrol_keys = [\"{}\"]\n\
             [control]\nurl = \"https://control.example\"\n",
            key(configured).public()
        );
        let config = Config::parse(&text, Path::new("relay.toml")).unwrap();
        PolicyKeys::open(&config, Arc::new(Metrics::new())).unwrap()
    }

    fn answer(signer: u8, link: (u8, u8), now: u64) -> RelayKeys {
        let statement = KeyStatement { keys: vec![key(signer).public()], retired: Vec::new(), at: now };
        let succession = Succession { from: key(link.0).public(), to: key(link.1).public(), at: now };
        RelayKeys {
            statement: statement.sign(&key(signer)).unwrap(),
            links: vec![succession.sign(&key(link.0)).unwrap()],
        }
    }

    #[test]
    fn what_was_believed_counts_after_a_restart_and_a_strangers_word_never() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, now) = (directory.path(), time::unix_secs());
        let keys = open(dir, 1);
        assert!(keys.take(&answer(9, (9, 9), now), now).is_err());
        assert_eq!(keys.current(now), [key(1).public()]);
        assert!(keys.take(&answer(2, (1, 2), now), now).unwrap());
        assert_eq!(keys.current(now), [key(2).public()]);
        assert_eq!(open(dir, 1).current(now), [key(2).public()]);
        assert_eq!(open(dir, 7).current(now), [key(7).public()], "another control plane");
        std::fs::write(dir.join(FILE), "{").unwrap();
        assert_eq!(open(dir, 1).current(now), [key(1).public()]);
    }

    #[test]
    fn what_cannot_be_kept_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, now) = (directory.path().join("data"), time::unix_secs());
        let keys = open(&dir, 1);
        assert!(matches!(keys.take(&answer(2, (1, 2), now), now), Err(AskError::Keep(_))));
        assert_eq!(keys.current(now), [key(1).public()]);
    }
}

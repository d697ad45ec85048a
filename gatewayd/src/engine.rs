//! The engine beside this gateway: its channels, found through its own REST API, and what they explain.
//!
//! Life-cycle: [`EngineClient::run`] logs in once with a form login, keeps the cookie, and asks three cheap questions each
//! interval; details of channels only when something changed ([`gateway_proto::engine::discovery`]). A session that
//! ended (the engine was restarted) is renewed once; an engine that does not answer is asked again with a growing pause.
//! A login that was refused is not tried again until the password file changes, or an hour has passed: guessing is what a
//! thief does, and an engine with a retry limit would lock the user out.
//!
//! Everything else in the daemon sees [`EngineWatch`]: who listens on a port and in which state, how many connections it
//! takes, and whether it is the channel that was granted. Without an `[engine]` section it knows nothing, and nobody needs
//! it to.

mod port_owner;
mod session;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use gateway_net::{causes::with_causes, entropy::random_u32};
use gateway_proto::{
    backoff::Backoff,
    engine::{
        EngineChannel, EngineChannelState, EngineState,
        answers::AnswerError,
        discovery::{DETAILS_AT_ONCE, Discovery},
        port_owner::PortBook,
    },
    stream::RefusalCode,
};
use session::{AskError, Session};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::EngineConfig;

/// Requests for details in one round: 200 channels; the others have their turn in the next one.
const MAX_DETAIL_REQUESTS: usize = 200 / DETAILS_AT_ONCE;
/// First pause after an engine did not answer.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Pause at most; a restart takes about ten seconds, and its end should not go unseen for long.
const MAX_RETRY: Duration = Duration::from_secs(10);
/// A refused login is tried again after this time at the earliest, unless the password file changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(3600);
/// How often the password file is looked at meanwhile.
const PASSWORD_LOOK: Duration = Duration::from_secs(2);
/// What a logout may take at a shutdown.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(1);
/// A nudge makes the next look no sooner than this after the one before.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The engine as known now.
#[derive(Debug, Clone)]
pub struct EngineView {
    /// How we get on with it.
    pub state: EngineState,
    /// Its version.
    pub version: Option<String>,
    /// Why its state is not `up`, in words.
    pub problem: Option<String>,
    /// Its channels; those of the last time it answered.
    pub channels: Arc<Vec<EngineChannel>>,
    /// Channels beyond the limit, of which nothing is known.
    pub left_out: usize,
    /// When the look began that this is from; none: there was none yet.
    looked_at: Option<Instant>,
    /// When the look began that the channels are from; none: they are not known.
    seen_at: Option<Instant>,
    by_address: Arc<BTreeMap<SocketAddr, usize>>,
    ports: Arc<PortBook>,
}

impl Default for EngineView {
    fn default() -> Self {
        Self {
            state: EngineState::Unknown,
            version: None,
            problem: None,
            channels: Arc::default(),
            left_out: 0,
            looked_at: None,
            seen_at: None,
            by_address: Arc::default(),
            ports: Arc::default(),
        }
    }
}

impl EngineView {
    /// The channel that listens, or would listen, on an address.
    pub fn at(&self, engine: SocketAddr) -> Option<&EngineChannel> {
        self.channels.get(*self.by_address.get(&engine)?)
    }
}

/// What the rest of the daemon sees of the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineWatch {
    view: Option<watch::Receiver<Arc<EngineView>>>,
    nudge: Arc<Notify>,
}

impl EngineWatch {
    /// Without an `[engine]` section: nothing is known.
    pub fn none() -> Self {
        Self { view: None, nudge: Arc::default() }
    }

    /// The engine as known now; none: it is not configured.
    pub fn view(&self) -> Option<Arc<EngineView>> {
        self.view.as_ref().map(|view| view.borrow().clone())
    }

    /// Connections the listener at `engine` serves at once, 0 for no limit; none: the engine does not say.
    pub fn max_connections(&self, engine: SocketAddr) -> Option<u32> {
        self.view()?.at(engine)?.listener.as_ref()?.max_connections
    }

    /// Resolves with the next news since the last call; never, where nobody asks the engine.
    pub async fn changed(&mut self) {
        let ended = match &mut self.view {
            Some(view) => view.changed().await.is_err(),
            None => true,
        };
        if ended {
            std::future::pending().await
        }
    }

    /// The engine did otherwise than it says: it is looked at again soon.
    pub fn look_again(&self) {
        self.nudge.notify_one();
    }

    /// Why `engine` refused a connection, as far as its own API tells: the code for the peer, and words for our side. Has
    /// the engine looked at again soon, because it may just have changed.
    pub fn explain_refusal(&self, engine: SocketAddr) -> Option<(RefusalCode, String)> {
        let view = self.view()?;
        self.look_again();
        let channel = view.at(engine);
        if view.state == EngineState::Down {
            let problem = "our engine does not run, or the channel is stopped: neither its port nor its API answers";
            return Some((RefusalCode::EngineDown, problem.to_owned()));
        }
        let channel = channel.filter(|_| view.state == EngineState::Up)?;
        let name = &channel.name;
        match channel.state {
            EngineChannelState::Stopped | EngineChannelState::Paused | EngineChannelState::Undeployed => {
                Some((RefusalCode::ChannelStopped, format!("our channel '{name}' is {} in the engine", channel.state)))
            }
            EngineChannelState::Started | EngineChannelState::Changing => None,
        }
    }
}

/// The actor that asks. [`run`](Self::run) it in a task of its own.
#[derive(Debug)]
pub struct EngineClient {
    session: Session,
    address: IpAddr,
    discovery: Discovery,
    interval: Duration,
    view: watch::Sender<Arc<EngineView>>,
    nudge: Arc<Notify>,
    changed: Arc<Notify>,
    logged: Option<EngineState>,
}

impl EngineClient {
    /// An actor that is not running yet; none: the configuration has no user to log in with. `changed` is notified when
    /// there is news to report.
    pub fn new(
        config: &EngineConfig,
        changed: Arc<Notify>,
    ) -> Result<Option<(Self, EngineWatch)>, gateway_net::http::HttpSetupError> {
        let Some(login) = config.login.clone() else { return Ok(None) };
        let (view, receiver) = watch::channel(Arc::default());
        let nudge = Arc::new(Notify::new());
        let client = Self {
            session: Session::new(config, login)?,
            address: config.ip(),
            discovery: Discovery::new(config.ip()),
            interval: config.interval,
            view,
            nudge: nudge.clone(),
            changed,
            logged: None,
        };
        Ok(Some((client, EngineWatch { view: Some(receiver), nudge })))
    }

    /// Asks until `stop`, then logs out.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_asking()).await;
        // Whoever waits for this at a shutdown waits no longer than this.
        let _ = timeout(LOGOUT_TIMEOUT, self.session.logout()).await;
    }

    async fn keep_asking(&mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            self.take_nudges();
            let begun = Instant::now();
            let pause = match self.round(begun).await {
                Ok(()) => {
                    backoff.reset();
                    // A fifth more or less: engines of one site are not asked all at once.
                    self.interval.mul_f64(0.8 + 0.4 * f64::from(random_u32()) / f64::from(u32::MAX))
                }
                Err(error) => {
                    self.failed(&error, begun);
                    if error.is_refusal() {
                        self.wait_for_another_password().await;
                        continue;
                    }
                    backoff.next_delay(random_u32())
                }
            };
            let next = Instant::now() + MIN_PAUSE.min(pause);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.nudge.notified() => sleep_until(next).await,
            }
        }
    }

    /// The look that begins now is for all who asked for one so far.
    fn take_nudges(&self) {
        let mut nudged = pin!(self.nudge.notified());
        nudged.as_mut().enable();
    }

    async fn round(&mut self, begun: Instant) -> Result<(), AskError> {
        if self.session.version().is_none() {
            self.session.ask_version().await?;
        }
        let names = self.session.get("/channels/idsAndNames", &[]).await?;
        let ports = self.session.get("/channels/portsInUse", &[]).await?;
        let statuses = self.session.get("/channels/statuses", &[]).await?;
        let wanted = self.discover(move |discovery| discovery.overview(&names, &ports, &statuses)).await?;
        for ids in wanted.iter().take(MAX_DETAIL_REQUESTS) {
            let answer = self.session.get("/channels", ids).await?;
            self.discover(move |discovery| discovery.details(&answer)).await?;
        }
        let channels = self.discover(|discovery| Ok(index(discovery.channels()))).await?;
        self.publish(EngineView {
            state: EngineState::Up,
            version: self.session.version().map(str::to_owned),
            problem: None,
            left_out: self.discovery.left_out(),
            looked_at: Some(begun),
            seen_at: Some(begun),
            ..channels
        });
        Ok(())
    }

    /// Reads answers in a thread that may block: they are up to 16 MiB of JSON, and the daemon's own one carries all data.
    async fn discover<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&mut Discovery) -> Result<T, AnswerError> + Send + 'static,
    ) -> Result<T, AskError> {
        let mut discovery = std::mem::replace(&mut self.discovery, Discovery::new(self.address));
        let reading = spawn_blocking(move || {
            let result = read(&mut discovery);
            (discovery, result)
        });
        let (discovery, result) = reading.await?;
        self.discovery = discovery;
        Ok(result?)
    }

    /// The channels stay as they were last seen.
    fn failed(&mut self, error: &AskError, begun: Instant) {
        let (state, problem) = (error.state(), with_causes(error));
        if state == EngineState::Down {
            // It comes back as another version, perhaps.
            self.session.forget_version();
        }
        if self.view.borrow().problem.as_deref() != Some(&problem) {
            // Once a reason, not once an attempt.
            warn!(problem, "the engine's channels cannot be read");
        }
        let before = EngineView::clone(&self.view.borrow());
        let view = EngineView { state, problem: Some(problem), looked_at: Some(begun), ..before };
        self.publish(view);
    }

    fn publish(&mut self, view: EngineView) {
        if self.logged != Some(view.state) && view.state == EngineState::Up {
            let started = view.channels.iter().filter(|channel| channel.exposed().is_some()).count();
            info!(channels = view.channels.len(), listening = started, version = view.version, "the engine answers");
        }
        self.logged = Some(view.state);
        let view = Arc::new(view);
        let is_news = self.view.send_replace(view.clone());
        if is_news.state != view.state || is_news.channels != view.channels {
            self.changed.notify_one();
        }
    }

    async fn wait_for_another_password(&self) {
        let refused_at = Instant::now();
        while refused_at.elapsed() < REFUSED_PAUSE {
            sleep(PASSWORD_LOOK).await;
            if self.session.has_another_password() {
                debug!("the password file of the engine's user changed");
                return;
            }
        }
    }
}

fn index(mut channels: Vec<EngineChannel>) -> EngineView {
    // They come in this order already; whoever looks one up relies on it.
    channels.sort_by(|one, other| one.id.cmp(&other.id));
    let mut by_address = BTreeMap::new();
    for (position, channel) in channels.iter().enumerate() {
        let Some(address) = channel.listening().and_then(|listener| listener.address) else { continue };
        // Of several channels with one port, the one that really listens there.
        if channel.exposed().is_some() || !by_address.contains_key(&address) {
            by_address.insert(address, position);
        }
    }
    let ports = Arc::new(PortBook::new(&channels));
    EngineView { channels: Arc::new(channels), by_address: Arc::new(by_address), ports, ..EngineView::default() }
}

#[cfg(test)]
pub(crate) mod tests;

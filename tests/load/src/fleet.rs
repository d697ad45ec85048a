//! The fleet: each gateway a task with its key, its watch, its newest policy and its backoff, as in gatewayd, without
//! tunnels.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use data_encoding::HEXLOWER;
use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    random_u32,
    tls::ServerTrust,
    ws::{self, HeaderMap, HeaderName, HeaderValue, Message, WsOptions, WsStream},
};
use gateway_proto::{
    api::gateway::{
        ConnectionReport, Connectivity, HEARTBEAT_SECS, MAX_REPORT_CONNECTIONS, PathKind, Report, SILENCE_SECS,
        WATCH_PATH, WATCH_PROTOCOL, WatchEvent, WatchRequest,
    },
    backoff::Backoff,
    id::{ConnectionId, RelayId},
    identity::{Context as Signed, GatewayKey, GatewayPublicKey},
    policy::{Activation, Policy},
    signed::Assertion,
};
use gateway_tests::platform::Platform;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{measure::Spread, seed::Seeded};

/// As in gatewayd.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// As in gatewayd.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Handshakes of this process at the same time: it stands for ten thousand machines, but has the processors of one.
const HANDSHAKES: usize = 256;
/// No policy for so long: what was under way is over.
const QUIET: Duration = Duration::from_secs(2 * HEARTBEAT_SECS);

/// The fleet.
#[derive(Debug)]
pub(crate) struct Fleet {
    states: Vec<watch::Receiver<State>>,
    policies: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// What is known of one gateway.
#[derive(Debug, Clone, Default)]
struct State {
    revision: u64,
    connections: Arc<BTreeMap<ConnectionId, Activation>>,
    /// How long the link that is up was waited for.
    waited: Option<Duration>,
    /// Links that came up so far.
    links: u64,
    /// Attempts for the link that is up, or for the next one.
    attempts: u64,
    most_attempts: u64,
}

impl Fleet {
    /// Starts all, each after a random part of `jitter`.
    pub(crate) fn start(platform: &Platform, seeded: &Seeded, jitter: Duration) -> anyhow::Result<Self> {
        let control = &platform.control;
        let trusted: GatewayPublicKey = control.ready("policy_key")?.parse().ok().context("no policy key")?;
        let options = WsOptions {
            url: format!("{}{WATCH_PATH}", control.ready("url")?.replace("https", "wss")).parse()?,
            trust: trust(platform)?,
            proxy: None,
            protocol: WATCH_PROTOCOL,
            headers: HeaderMap::new(),
            max_message: 16 << 20,
        };
        let (policies, places) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(HANDSHAKES)));
        let mut tasks = JoinSet::new();
        let mut states = Vec::with_capacity(seeded.gateways.len());
        for enrolled in &seeded.gateways {
            let (state, changes) = watch::channel(State::default());
            let gateway = Gateway {
                key: enrolled.key.clone(),
                trusted,
                home: seeded.home,
                options: options.clone(),
                state,
                policies: policies.clone(),
                places: places.clone(),
            };
            let wait = jitter.mul_f64(f64::from(random_u32()) / f64::from(u32::MAX));
            tasks.spawn(async move {
                sleep(wait).await;
                gateway.run().await;
            });
            states.push(changes);
        }
        Ok(Self { states, policies, _tasks: tasks })
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Waits until everybody has a policy; how long each waited from its first attempt.
    pub(crate) async fn all_have_policies(&self, limit: Duration) -> anyhow::Result<Spread> {
        self.all(limit, |_, state| state.revision > 0 && state.waited.is_some()).await
    }

    /// Waits until nobody has a link.
    pub(crate) async fn all_away(&self, limit: Duration) -> anyhow::Result<()> {
        self.all(limit, |_, state| state.waited.is_none()).await?;
        Ok(())
    }

    /// Waits until everybody has a newer link than at `links`; how long each was away.
    pub(crate) async fn all_back(&self, links: &[u64], limit: Duration) -> anyhow::Result<Spread> {
        self.all(limit, |n, state| state.links > links[n] && state.waited.is_some()).await
    }

    async fn all(&self, limit: Duration, is: impl Fn(usize, &State) -> bool) -> anyhow::Result<Spread> {
        let wait = async {
            let mut waited = Vec::with_capacity(self.states.len());
            for (n, state) in self.states.iter().enumerate() {
                let mut state = state.clone();
                let state = state.wait_for(|state| is(n, state)).await.context("a gateway ended")?;
                waited.extend(state.waited);
            }
            anyhow::Ok(waited.into_iter().collect())
        };
        timeout(limit, wait).await.with_context(|| format!("not within {limit:?}"))?
    }

    /// How many links each had so far.
    pub(crate) fn links(&self) -> Vec<u64> {
        self.states.iter().map(|state| state.borrow().links).collect()
    }

    /// The most attempts that a link of any gateway needed.
    pub(crate) fn most_attempts(&self) -> u64 {
        self.states.iter().map(|state| state.borrow().most_attempts).max().unwrap_or_default()
    }

    /// Policies received by all together.
    pub(crate) fn policies(&self) -> u64 {
        self.policies.load(Ordering::Relaxed)
    }

    /// Waits until no policy has come for a while.
    pub(crate) async fn quiet(&self) {
        let mut before = u64::MAX;
        while before != self.policies() {
            before = self.policies();
            sleep(QUIET).await;
        }
    }

    /// Waits until the policy of a gateway says this about a connection.
    pub(crate) async fn says(
        &self,
        gateway: usize,
        connection: ConnectionId,
        is: impl Fn(Option<Activation>) -> bool,
    ) -> anyhow::Result<()> {
        let mut state = self.states[gateway].clone();
        state.wait_for(|state| is(state.connections.get(&connection).copied())).await.context("a gateway ended")?;
        Ok(())
    }
}

/// How the control plane's TLS key is known.
pub(crate) fn trust(platform: &Platform) -> anyhow::Result<ServerTrust> {
    Ok(ServerTrust::Pin(platform.control.ready("tls_pin")?.parse().ok().context("no pin")?))
}

struct Gateway {
    key: GatewayKey,
    trusted: GatewayPublicKey,
    home: Option<RelayId>,
    options: WsOptions,
    state: watch::Sender<State>,
    policies: Arc<AtomicU64>,
    places: Arc<Semaphore>,
}

impl Gateway {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let mut away_since = Instant::now();
        loop {
            // Whatever ended it, the next attempt is the answer.
            let Err(_) = self.link(away_since, &mut backoff).await;
            if self.state.borrow().waited.is_some() {
                away_since = Instant::now();
                self.state.send_modify(|state| state.waited = None);
            }
            sleep(backoff.next_delay(random_u32())).await;
        }
    }

    /// One link, until it ends; the error tells why.
    async fn link(&mut self, since: Instant, backoff: &mut Backoff) -> anyhow::Result<Infallible> {
        self.state.send_modify(|state| {
            state.attempts += 1;
            state.most_attempts = state.most_attempts.max(state.attempts);
        });
        let mut stream = {
            let _place = self.places.acquire().await?;
            let proof = self.proof()?;
            self.options.headers.insert(HeaderName::from_static("authorization"), proof);
            ws::connect(&self.options).await?
        };
        let revision = self.state.borrow().revision;
        send(&mut stream, &WatchRequest::Hello { revision, version: "load".to_owned(), instance: None, deltas: false })
            .await?;
        let mut heartbeat = interval(Duration::from_secs(HEARTBEAT_SECS));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut heard = Instant::now();
        let mut reported = false;
        loop {
            let message = tokio::select! {
                _ = heartbeat.tick() => None,
                message = stream.next() => Some(message.context("closed")??),
            };
            match message {
                None => {
                    ensure!(heard.elapsed() < Duration::from_secs(SILENCE_SECS), "silent");
                    send(&mut stream, &WatchRequest::Heartbeat).await?;
                }
                Some(Message::Text(text)) => {
                    heard = Instant::now();
                    self.event(&mut stream, &text, since, backoff).await?;
                    if !reported && self.state.borrow().revision > 0 {
                        reported = true;
                        self.report(&mut stream).await?;
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// The first report of a link, as gatewayd makes it: where it is reached, and every connection.
    async fn report(&self, stream: &mut WsStream) -> anyhow::Result<()> {
        let known = self.state.borrow().connections.clone();
        let connections = known.keys().take(MAX_REPORT_CONNECTIONS).map(|id| ConnectionReport {
            id: *id,
            connectivity: Connectivity::Connected,
            path: Some(PathKind::Direct),
            rtt_ms: Some(12.5),
            last_message_at: None,
            bytes_sent: 0,
            bytes_received: 0,
            streams: 0,
            problem: None,
            counts: None,
            details: None,
        });
        let report = Report { home_relay: self.home, connections: connections.collect(), ..Report::default() };
        send(stream, &WatchRequest::Report(report)).await
    }

    async fn event(
        &mut self,
        stream: &mut WsStream,
        text: &str,
        since: Instant,
        backoff: &mut Backoff,
    ) -> anyhow::Result<()> {
        match serde_json::from_str(text)? {
            WatchEvent::Policy { policy } => {
                let policy: Policy = policy.open(Signed::Policy, &[self.trusted])?;
                ensure!(policy.gateway == self.key.public(), "a policy for somebody else");
                ensure!(policy.revision > self.state.borrow().revision, "an older policy");
                send(stream, &WatchRequest::Applied { revision: policy.revision }).await?;
                let connections = policy.connections.iter().map(|entry| (entry.id, entry.activation)).collect();
                self.policies.fetch_add(1, Ordering::Relaxed);
                self.state.send_modify(|state| {
                    state.revision = policy.revision;
                    state.connections = Arc::new(connections);
                });
            }
            WatchEvent::Heartbeat { .. } => backoff.reset(),
            WatchEvent::RelayToken { .. }
            | WatchEvent::Succession { .. }
            | WatchEvent::AuditHead { .. }
            | WatchEvent::RunsTwice(_) => {}
            // Ten thousand whole policies beside the fleet would be what is measured, so it says that it takes no changes.
            WatchEvent::Delta { .. } => anyhow::bail!("a change of a policy, though whole ones were asked for"),
            WatchEvent::Removed => anyhow::bail!("removed"),
        }
        self.state.send_if_modified(|state| {
            let fresh = state.waited.is_none();
            if fresh {
                state.waited = Some(since.elapsed());
                state.links += 1;
                state.attempts = 0;
            }
            fresh
        });
        Ok(())
    }

    fn proof(&self) -> anyhow::Result<HeaderValue> {
        let assertion = Assertion {
            key: self.key.public(),
            aud: self.trusted,
            method: "GET".to_owned(),
            path: WATCH_PATH.to_owned(),
            iat: gateway_net::time::unix_secs(),
            nonce: HEXLOWER.encode(&gateway_net::random::<16>()),
        };
        Ok(HeaderValue::from_str(&format!("Gateway {}", assertion.sign(&self.key)?))?)
    }
}

async fn send(stream: &mut WsStream, request: &WatchRequest) -> anyhow::Result<()> {
    Ok(stream.send(Message::Text(serde_json::to_string(request)?.into())).await?)
}

//! Gateways: they enrol, and watch their policy.

use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    tls::ServerTrust,
    ws::{self, HeaderMap, HeaderName, HeaderValue, Message, WsOptions, WsStream},
};
use gateway_proto::{
    api::{
        Problem,
        gateway::{EnrollAnswer, EnrollRequest, HEARTBEAT_SECS, WATCH_PATH, WATCH_PROTOCOL, WatchEvent, WatchRequest},
    },
    identity::{GatewayKey, GatewayPublicKey, NoiseBinding, NoiseKey},
    policy::{Policy, PolicyDelta, PolicyStore},
    signed::{Assertion, Envelope},
    twice::Instance,
};

use super::{Control, LIMIT};

pub(crate) struct Gateway {
    pub(crate) key: GatewayKey,
    pub(crate) noise: NoiseBinding,
}

impl Gateway {
    pub(crate) fn new(n: u8) -> Self {
        Self::of(GatewayKey::from_seed(&[n; 32]))
    }

    pub(crate) fn of(key: GatewayKey) -> Self {
        let noise = NoiseBinding::new(&key, &NoiseKey::from_bytes(*key.public().as_bytes()));
        Self { key, noise }
    }

    pub(crate) async fn enroll(&self, control: &Control, secret: &str) -> Result<EnrollAnswer, Problem> {
        let request = EnrollRequest::new(secret.to_owned(), &self.key, self.noise, "1.2.3".to_owned());
        let answer = control.request("POST", "/api/v1/gateway/enroll").json(&request).send().await.unwrap();
        if answer.status().is_success() { Ok(answer.json().await.unwrap()) } else { Err(answer.json().await.unwrap()) }
    }

    pub(crate) fn assertion(&self, control: &Control) -> Assertion {
        Assertion {
            key: self.key.public(),
            aud: control.ready.policy_key.parse().unwrap(),
            method: "GET".to_owned(),
            path: WATCH_PATH.to_owned(),
            iat: control.clock.unix_secs(),
            nonce: HEXLOWER.encode(&gateway_net::random::<16>()),
        }
    }

    pub(crate) async fn watch(&self, control: &Control) -> Watch {
        self.watch_from(control, 0).await
    }

    pub(crate) async fn watch_from(&self, control: &Control, revision: u64) -> Watch {
        let token = self.assertion(control).sign(&self.key).unwrap();
        self.open(control, &token, revision).await
    }

    /// A watch that begins with a given assertion.
    pub(crate) async fn watch_with(&self, control: &Control, token: &str) -> Watch {
        self.open(control, token, 0).await
    }

    /// The watch of one process of the gateway.
    pub(crate) async fn watch_as(&self, control: &Control, instance: Instance) -> Watch {
        let token = self.assertion(control).sign(&self.key).unwrap();
        self.open_as(control, &token, 0, Some(instance), false).await
    }

    /// A watch that takes what changes of a policy, beginning with what one of before has left in force.
    pub(crate) async fn watch_for_deltas(&self, control: &Control, left: Option<(PolicyStore, Envelope)>) -> Watch {
        let token = self.assertion(control).sign(&self.key).unwrap();
        let revision = left.as_ref().map_or(0, |(store, _)| store.revision());
        let mut watch = self.open_as(control, &token, revision, None, true).await;
        if let Some((store, base)) = left {
            (watch.store, watch.base) = (store, Some(base));
        }
        watch
    }

    async fn open(&self, control: &Control, token: &str, revision: u64) -> Watch {
        self.open_as(control, token, revision, None, false).await
    }

    async fn open_as(
        &self,
        control: &Control,
        token: &str,
        revision: u64,
        instance: Option<Instance>,
        deltas: bool,
    ) -> Watch {
        let stream = open_watch(control, token).await.unwrap();
        let trusted: GatewayPublicKey = control.ready.policy_key.parse().unwrap();
        let mut watch = Watch {
            stream,
            store: PolicyStore::new(self.key.public(), trusted),
            base: None,
            deltas: 0,
            tokens: Vec::new(),
        };
        watch.send(&WatchRequest::Hello { revision, version: "1.2.3".to_owned(), instance, deltas }).await;
        watch
    }
}

pub(crate) async fn open_watch(control: &Control, token: &str) -> Result<WsStream, ws::WsError> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Gateway {token}")).unwrap();
    headers.insert(HeaderName::from_static("authorization"), value);
    let url = format!("{}{WATCH_PATH}", control.ready.url.replace("https", "wss"));
    ws::connect(&WsOptions {
        url: url.parse().unwrap(),
        trust: ServerTrust::Pin(control.ready.tls_pin.as_ref().unwrap().parse().unwrap()),
        proxy: None,
        protocol: WATCH_PROTOCOL,
        headers,
        max_message: 64 << 20,
    })
    .await
}

pub(crate) struct Watch {
    pub(crate) stream: WsStream,
    pub(crate) store: PolicyStore,
    /// The envelope of the policy in force.
    pub(crate) base: Option<Envelope>,
    /// How many policies came as what changes.
    pub(crate) deltas: u32,
    pub(crate) tokens: Vec<String>,
}

impl Watch {
    pub(crate) async fn send(&mut self, request: &WatchRequest) {
        self.stream.send(Message::Text(serde_json::to_string(request).unwrap().into())).await.unwrap();
    }

    /// Says that it lives while something else is waited for: however long that takes, it is not given up as silent.
    pub(crate) async fn living<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECS)) => {}
            }
            self.send(&WatchRequest::Heartbeat).await;
        }
    }

    /// The next event; none: the watch was closed.
    pub(crate) async fn event(&mut self) -> Option<WatchEvent> {
        loop {
            match tokio::time::timeout(LIMIT, self.stream.next()).await.expect("the watch is silent") {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    }

    /// The same, after the first answer to its hello.
    pub(crate) async fn greeted(mut self) -> Self {
        assert!(self.event().await.is_some(), "the hello was not answered");
        self
    }

    /// The next policy, accepted as a gateway would, and confirmed.
    pub(crate) async fn policy(&mut self) -> Policy {
        // Heartbeats come for ever: the limit is on the policy.
        tokio::time::timeout(LIMIT, self.next_policy()).await.expect("no policy came")
    }

    async fn next_policy(&mut self) -> Policy {
        loop {
            match self.event().await.expect("the watch was closed") {
                WatchEvent::Policy { policy } => return self.accept(policy).await,
                WatchEvent::Delta { delta } => {
                    let policy = self.changed_by(&delta);
                    return self.accept(policy).await;
                }
                WatchEvent::Succession { links } => {
                    self.store.follow(&links);
                }
                WatchEvent::RelayToken { token } => self.tokens.push(token),
                WatchEvent::AuditHead { .. } | WatchEvent::RunsTwice(_) => {}
                WatchEvent::Heartbeat { .. } => self.send(&WatchRequest::Heartbeat).await,
                WatchEvent::Removed => panic!("removed"),
            }
        }
    }

    /// Closes it; what stays in force.
    pub(crate) fn leave(self) -> (PolicyStore, Envelope) {
        (self.store, self.base.unwrap())
    }

    /// What a change makes of the policy in force.
    pub(crate) fn changed_by(&mut self, delta: &PolicyDelta) -> Envelope {
        assert_eq!(delta.from, self.store.revision());
        self.deltas += 1;
        delta.apply(self.base.as_ref().unwrap()).unwrap()
    }

    pub(crate) async fn accept(&mut self, envelope: Envelope) -> Policy {
        assert!(self.store.accept(&envelope).unwrap());
        self.base = Some(envelope);
        let policy = self.store.current().unwrap().clone();
        self.send(&WatchRequest::Applied { revision: policy.revision }).await;
        policy
    }

    /// Policies until one is as told.
    pub(crate) async fn policy_until(&mut self, is: impl Fn(&Policy) -> bool) -> Policy {
        loop {
            let policy = self.policy().await;
            if is(&policy) {
                return policy;
            }
        }
    }

    /// Waits for a heartbeat that confirms the revision in force: no policy was sent in between.
    pub(crate) async fn stays_at(&mut self, revision: u64) {
        loop {
            match self.event().await.expect("the watch was closed") {
                WatchEvent::Heartbeat { revision: newest, .. } => {
                    assert_eq!(newest, revision);
                    return;
                }
                WatchEvent::RelayToken { token } => self.tokens.push(token),
                WatchEvent::AuditHead { .. } | WatchEvent::RunsTwice(_) => {}
                WatchEvent::Succession { .. } | WatchEvent::Policy { .. } | WatchEvent::Delta { .. } => {
                    panic!("a policy came")
                }
                WatchEvent::Removed => panic!("removed"),
            }
        }
    }
}

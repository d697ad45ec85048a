//! A stand-in for the control plane, in this process: real TLS, real WebSocket, and it says what the test wants.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_server::tls_rustls::RustlsConfig;
use gateway_net::tls::{ALPN_HTTP1, ServerIdentity, server_config};
use gateway_proto::{
    api::{
        Problem,
        gateway::{
            ENROLL_PATH, EnrollAnswer, EnrollRequest, EnrollmentCode, WATCH_PATH, WATCH_PROTOCOL, WatchEvent,
            WatchRequest,
        },
        refusal::GatewayRefusal,
    },
    id::{ConnectionId, OrganizationId, RelayId, ServerId},
    identity::{GatewayKey, GatewayPublicKey},
    limits::ChannelLimits,
    policy::{
        Activation, AdminScope, ConnectionEntry, ConnectionKind, ConnectionSecret, LocalEnd, Policy, PolicyDelta,
        Secret, ServerName,
    },
    signed::{Assertion, RelayToken},
};
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
};

/// How the stand-in answers an enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enrolling {
    /// As a control plane does: the first key that comes gets the code.
    Honest,
    /// The code is too old.
    Expired,
    /// With another policy key than the code names.
    OtherPolicyKey,
    /// With a policy that somebody else signed.
    ForgedPolicy,
}

pub(crate) struct StandIn {
    pub(crate) code: EnrollmentCode,
    shared: Arc<Shared>,
    heard: mpsc::Receiver<WatchRequest>,
    _server: JoinSet<()>,
    _directory: tempfile::TempDir,
}

struct Shared {
    key: GatewayKey,
    secret: String,
    state: Mutex<Settings>,
    events: broadcast::Sender<WatchEvent>,
    heard: mpsc::Sender<WatchRequest>,
}

struct Settings {
    enrolling: Enrolling,
    enrolled: Option<GatewayPublicKey>,
    heartbeat_revision: Option<u64>,
    /// Seconds that its clock is ahead.
    ahead: u64,
    /// Nobody is let in.
    refusal: Option<GatewayRefusal>,
    /// Whoever is linked is sent away with these words.
    goodbye: Option<&'static str>,
    links: u32,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &["localhost".to_owned()]).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let key = GatewayKey::from_seed(&[11; 32]);
        let code = EnrollmentCode {
            control: format!("https://{}", listener.local_addr().unwrap()),
            pin: Some(identity.pin().to_string()),
            policy_key: key.public(),
            secret: "5e".repeat(16),
        };
        let (heard_sender, heard) = mpsc::channel(10_000);
        let shared = Arc::new(Shared {
            key,
            secret: code.secret.clone(),
            state: Mutex::new(Settings {
                enrolling: Enrolling::Honest,
                enrolled: None,
                heartbeat_revision: Some(1),
                ahead: 0,
                refusal: None,
                goodbye: None,
                links: 0,
            }),
            events: broadcast::Sender::new(100),
            heard: heard_sender,
        });
        let router =
            Router::new().route(ENROLL_PATH, post(enroll)).route(WATCH_PATH, get(watch)).with_state(shared.clone());
        let tls = RustlsConfig::from_config(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum_server::from_tcp_rustls(listener, tls).unwrap().serve(router.into_make_service()).await.unwrap();
        });
        Self { code, shared, heard, _server: server, _directory: directory }
    }

    pub(crate) fn enrolls(&self, enrolling: Enrolling) {
        self.shared.state.lock().unwrap().enrolling = enrolling;
    }

    /// The revision named in heartbeats; none: silence.
    pub(crate) fn beats(&self, revision: Option<u64>) {
        self.shared.state.lock().unwrap().heartbeat_revision = revision;
    }

    /// Its clock is so many seconds ahead of this machine's.
    pub(crate) fn ahead(&self, secs: u64) {
        self.shared.state.lock().unwrap().ahead = secs;
    }

    pub(crate) fn refuses(&self, refusal: Option<GatewayRefusal>) {
        self.shared.state.lock().unwrap().refusal = refusal;
    }

    /// Ends the next link, or this one, with these words.
    pub(crate) fn sends_away(&self, words: &'static str) {
        self.shared.state.lock().unwrap().goodbye = Some(words);
    }

    pub(crate) fn links(&self) -> u32 {
        self.shared.state.lock().unwrap().links
    }

    pub(crate) fn send(&self, event: WatchEvent) {
        self.shared.events.send(event).unwrap();
    }

    pub(crate) fn send_policy(&self, policy: &Policy) {
        self.send_policy_signed_by(policy, &self.shared.key.clone());
    }

    pub(crate) fn send_policy_signed_by(&self, policy: &Policy, key: &GatewayKey) {
        self.send(WatchEvent::Policy { policy: policy.sign(key).unwrap() });
    }

    /// What changes from one revision to another of the same policy.
    pub(crate) fn delta(&self, gateway: GatewayPublicKey, from: u64, to: u64) -> PolicyDelta {
        let signed = |revision| self.policy(gateway, revision).sign(&self.shared.key).unwrap();
        PolicyDelta::between(from, &signed(from), &signed(to)).expect("a change as large as the policy")
    }

    pub(crate) fn policy(&self, gateway: GatewayPublicKey, revision: u64) -> Policy {
        policy(gateway, self.shared.key.public(), revision)
    }

    pub(crate) fn relay_token(&self, gateway: GatewayPublicKey, iat: u64) -> String {
        relay_token(&self.shared.key, gateway, iat)
    }

    /// The next message of the gateway that `wanted` picks, within a limit.
    pub(crate) async fn heard<T>(&mut self, mut wanted: impl FnMut(WatchRequest) -> Option<T>) -> T {
        let search = async {
            loop {
                let request = self.heard.recv().await.unwrap();
                if let Some(found) = wanted(request) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), search).await.expect("the gateway did not say it within 10 s")
    }

    pub(crate) async fn heard_hello(&mut self) -> u64 {
        self.heard(|request| if let WatchRequest::Hello { revision, .. } = request { Some(revision) } else { None })
            .await
    }

    /// Whether the next hello says that deltas are taken, and the revision in it.
    pub(crate) async fn heard_deltas(&mut self) -> (u64, bool) {
        self.heard(|request| match request {
            WatchRequest::Hello { revision, deltas, .. } => Some((revision, deltas)),
            WatchRequest::Rejected { reason, .. } => panic!("rejected: {reason}"),
            WatchRequest::Applied { .. } | WatchRequest::Heartbeat | WatchRequest::Report(_) => None,
        })
        .await
    }

    pub(crate) async fn heard_applied(&mut self) -> u64 {
        self.heard(|request| match request {
            WatchRequest::Applied { revision } => Some(revision),
            WatchRequest::Rejected { reason, .. } => panic!("rejected: {reason}"),
            WatchRequest::Hello { .. } | WatchRequest::Heartbeat | WatchRequest::Report(_) => None,
        })
        .await
    }

    pub(crate) async fn heard_rejected(&mut self) -> (u64, String) {
        self.heard(|request| match request {
            WatchRequest::Rejected { revision, reason, .. } => Some((revision, reason)),
            WatchRequest::Applied { revision } => panic!("applied {revision}"),
            WatchRequest::Hello { .. } | WatchRequest::Heartbeat | WatchRequest::Report(_) => None,
        })
        .await
    }
}

async fn enroll(State(shared): State<Arc<Shared>>, Json(request): Json<EnrollRequest>) -> Response {
    let problem = |detail: &str| {
        let status = StatusCode::FORBIDDEN;
        let code = "enrollment_code".to_owned();
        let problem = Problem { code, status: status.as_u16(), detail: detail.to_owned(), request_id: None };
        (status, Json(problem)).into_response()
    };
    if request.verify().is_err() || request.secret != shared.secret {
        return problem("no such code");
    }
    let mut state = shared.state.lock().unwrap();
    if state.enrolling == Enrolling::Expired {
        return problem("it expired a while ago");
    }
    if state.enrolled.is_some_and(|key| key != request.key) {
        return problem("it was used");
    }
    state.enrolled = Some(request.key);
    let stranger = GatewayKey::from_seed(&[99; 32]);
    let is_forged = state.enrolling == Enrolling::ForgedPolicy;
    let signer = if is_forged { &stranger } else { &shared.key };
    let lies = state.enrolling == Enrolling::OtherPolicyKey;
    Json(EnrollAnswer {
        server_id: ServerId::new(1, [1; 10]).to_string(),
        server_name: "Engine 1".into(),
        organization_name: "Clinic".into(),
        succession: Vec::new(),
        policy_key: if lies { stranger.public() } else { shared.key.public() },
        policy: policy(request.key, shared.key.public(), 1).sign(signer).unwrap(),
        relay_token: relay_token(&shared.key, request.key, gateway_net::time::unix_secs()),
    })
    .into_response()
}

async fn watch(State(shared): State<Arc<Shared>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let text = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = text.strip_prefix("Gateway ").unwrap_or_default();
    let (enrolled, refusal, ahead) = {
        let state = shared.state.lock().unwrap();
        (state.enrolled, state.refusal, state.ahead)
    };
    let now = gateway_net::time::unix_secs() + ahead;
    let assertion = Assertion::verify(text, &[shared.key.public()], "GET", WATCH_PATH, now);
    if let Some(refusal) = refusal {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", refusal.to_string())]).into_response();
    }
    if !assertion.is_ok_and(|assertion| Some(assertion.key) == enrolled) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    upgrade.protocols([WATCH_PROTOCOL]).on_upgrade(move |socket| link(shared, socket))
}

async fn link(shared: Arc<Shared>, mut socket: WebSocket) {
    shared.state.lock().unwrap().links += 1;
    let mut events = shared.events.subscribe();
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    loop {
        let event = tokio::select! {
            message = socket.recv() => {
                let Some(Ok(message)) = message else { return };
                if let Message::Text(text) = message {
                    shared.heard.send(serde_json::from_str(&text).unwrap()).await.unwrap();
                }
                continue;
            }
            event = events.recv() => event.unwrap(),
            _ = beat.tick() => {
                let goodbye = shared.state.lock().unwrap().goodbye.take();
                if let Some(words) = goodbye {
                    let frame = CloseFrame { code: 1011, reason: words.into() };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    return;
                }
                let Some(revision) = shared.state.lock().unwrap().heartbeat_revision else { continue };
                let ahead = shared.state.lock().unwrap().ahead;
                WatchEvent::Heartbeat { revision, now_ms: gateway_net::time::unix_ms() + ahead * 1000 }
            }
        };
        let text = serde_json::to_string(&event).unwrap();
        if socket.send(Message::Text(text.into())).await.is_err() {
            return;
        }
    }
}

fn relay_token(key: &GatewayKey, gateway: GatewayPublicKey, iat: u64) -> String {
    let token = RelayToken {
        key: gateway,
        org: OrganizationId::new(1, [1; 10]),
        relays: vec![RelayId::new(1, [1; 10])],
        iat,
        exp: iat + 3600,
    };
    token.sign(key).unwrap()
}

fn policy(gateway: GatewayPublicKey, control: GatewayPublicKey, revision: u64) -> Policy {
    Policy {
        gateway,
        revision,
        issued_at: gateway_net::time::unix_secs(),
        server: ServerName {
            id: ServerId::new(1, [1; 10]),
            name: "Engine 1".into(),
            organization: OrganizationId::new(1, [1; 10]),
            organization_name: "Clinic".into(),
        },
        control_keys: vec![control],
        relays: vec![],
        peers: vec![],
        connections: vec![Arc::new(ConnectionEntry {
            id: connection(),
            kind: ConnectionKind::P2p,
            activation: Activation::Active,
            peer: gateway,
            local: LocalEnd::Sender { port: 0 },
            endpoint: "ADT".into(),
            behavior: "hl7v2-mllp".into(),
            admin: AdminScope::default(),
            people: vec![],
            secrets: vec![ConnectionSecret { secret: Secret::from_bytes([6; 32]), until: None }],
            expires_at: None,
            staleness_secs: 3600,
            max_streams: 8,
            limits: ChannelLimits::default(),
            require_post_quantum: false,
        })],
    }
}

pub(crate) fn connection() -> ConnectionId {
    ConnectionId::new(1, [5; 10])
}

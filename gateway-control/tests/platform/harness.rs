//! A control plane on a free port, organizations that ask it, gateways that watch it.

use std::{sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use futures_util::{SinkExt, StreamExt};
use gateway_control::{
    app,
    clock::Clock,
    config::Config,
    service::Service,
    storage::{SqlStorage, Storage},
};
use gateway_net::{
    http,
    shutdown::Shutdown,
    tls::ServerTrust,
    ws::{self, HeaderMap, HeaderName, HeaderValue, Message, WsOptions, WsStream},
};
use gateway_proto::{
    api::{
        Page, Problem,
        gateway::{EnrollAnswer, EnrollRequest, EnrollmentCode, WATCH_PATH, WATCH_PROTOCOL, WatchEvent, WatchRequest},
        platform::{Agreement, Channel, Connection, CreatedEnrollmentCode, Grant, PeeringRequest, Server, Session},
    },
    identity::{GatewayKey, GatewayPublicKey, NoiseBinding, NoiseKey},
    policy::{Policy, PolicyStore},
    signed::Assertion,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::database::{share, storage_section};

/// Longer than anything takes, shorter than anybody's patience.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) clock: Clock,
    pub(crate) ready: app::Ready,
    client: reqwest::Client,
    pub(crate) operator: String,
    /// What the edge calls, for what time alone does.
    pub(crate) service: Service,
    shutdown: Shutdown,
    task: tokio::task::JoinSet<Result<(), app::StartError>>,
    pub(crate) directory: tempfile::TempDir,
}

impl Control {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    pub(crate) async fn start_with(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more).await
    }

    pub(crate) async fn start_in(directory: tempfile::TempDir, more: &str) -> Self {
        Self::try_start(directory, more).await.unwrap()
    }

    /// Starts it with a clock that may be ahead.
    pub(crate) async fn start_at(directory: tempfile::TempDir, more: &str, clock: Clock) -> Self {
        Self::try_start_at(directory, more, clock).await.unwrap()
    }

    pub(crate) async fn try_start(directory: tempfile::TempDir, more: &str) -> Result<Self, app::StartError> {
        Self::try_start_at(directory, more, Clock::system()).await
    }

    async fn try_start_at(directory: tempfile::TempDir, more: &str, clock: Clock) -> Result<Self, app::StartError> {
        Self::try_start_on(directory, more, clock, |storage| -> Arc<dyn Storage> { Arc::new(storage) }).await
    }

    /// Starts it on what `wrap` makes of its storage.
    pub(crate) async fn start_on(wrap: impl FnOnce(SqlStorage) -> Arc<dyn Storage>) -> Self {
        Self::try_start_on(tempfile::tempdir().unwrap(), "", Clock::system(), wrap).await.unwrap()
    }

    async fn try_start_on(
        directory: tempfile::TempDir,
        more: &str,
        clock: Clock,
        wrap: impl FnOnce(SqlStorage) -> Arc<dyn Storage>,
    ) -> Result<Self, app::StartError> {
        let (data, storage) = (directory.path().join("data"), storage_section(directory.path()));
        let text = format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n{more}\n{storage}", data.display());
        let config = Config::parse(&text).unwrap();
        let shutdown = Shutdown::manual();
        let running = app::start_on(config, clock.clone(), shutdown.clone(), wrap).await?;
        let (ready, service) = (running.ready().clone(), running.service().clone());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(running.run());
        let trust = ServerTrust::Pin(ready.tls_pin.as_ref().unwrap().parse().unwrap());
        let operator = std::fs::read_to_string(&ready.operator_token_file).unwrap().trim().to_owned();
        let client = http::client(trust, None).unwrap();
        Ok(Self { clock, ready, client, operator, service, shutdown, task, directory })
    }

    /// Another process on the same database, with the same keys; none: this database serves one process only.
    pub(crate) async fn replica(&self) -> Option<Self> {
        self.replica_with("").await
    }

    /// The same with more lines in its configuration.
    pub(crate) async fn replica_with(&self, more: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        if !share(self.directory.path(), directory.path()) {
            return None;
        }
        Some(Self::start_in(directory, more).await)
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stop_within(LIMIT).await
    }

    pub(crate) async fn stop_within(mut self, limit: Duration) -> tempfile::TempDir {
        self.shutdown.request();
        tokio::time::timeout(limit, self.task.join_next()).await.unwrap().unwrap().unwrap().unwrap();
        self.directory
    }

    /// Waits until it has stopped by itself, and why.
    pub(crate) async fn stopped(mut self) -> app::StartError {
        tokio::time::timeout(LIMIT, self.task.join_next()).await.unwrap().unwrap().unwrap().unwrap_err()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.ready.url);
        self.client.request(method.parse().unwrap(), url).timeout(LIMIT)
    }

    pub(crate) async fn organization(&self, name: &str) -> Org<'_> {
        let body = json!({
            "name": name, "description": format!("{name} of the test"), "discoverable": true,
            "owner_email": format!("owner@{}.example", name.to_lowercase().replace(' ', "-")),
            "owner_name": "Owner", "owner_password": "correct horse battery",
            "registration_token": self.operator,
        });
        let answer = self.request("POST", "/api/v1/organizations").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{:?}", answer.text().await);
        let session: Session = answer.json().await.unwrap();
        Org { control: self, token: session.token.0.clone(), id: session.organization.id.to_string(), session }
    }

    /// Two organizations with an enrolled server each and an agreement.
    pub(crate) async fn pair(&self) -> Pair<'_> {
        let (hospital, lab) = (self.organization("Hospital").await, self.organization("Lab").await);
        let (hospital_server, lab_server) = (hospital.server("main").await, lab.server("lis").await);
        let (hospital_gateway, lab_gateway) = (Gateway::new(1), Gateway::new(2));
        hospital.enroll(&hospital_server, &hospital_gateway).await;
        lab.enroll(&lab_server, &lab_gateway).await;
        let agreement = hospital.agree_with(&lab).await;
        Pair { hospital, lab, hospital_server, lab_server, hospital_gateway, lab_gateway, agreement }
    }
}

pub(crate) struct Pair<'a> {
    pub(crate) hospital: Org<'a>,
    pub(crate) lab: Org<'a>,
    pub(crate) hospital_server: Server,
    pub(crate) lab_server: Server,
    pub(crate) hospital_gateway: Gateway,
    pub(crate) lab_gateway: Gateway,
    pub(crate) agreement: String,
}

impl Pair<'_> {
    /// The watches of both gateways: the hospital's, the lab's.
    pub(crate) async fn watches(&self) -> (Watch, Watch) {
        let control = self.hospital.control;
        (self.hospital_gateway.watch(control).await, self.lab_gateway.watch(control).await)
    }

    /// The lab's channel granted to the hospital: messages go from hospital to lab.
    pub(crate) async fn connection(&self, name: &str) -> String {
        let channel = self.lab.channel(&self.lab_server, name).await;
        let offer = json!({"agreement_id": self.agreement, "channel_id": channel.id});
        let grant: Grant = self.lab.post("/grants", offer).await;
        let grant: Grant = self.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
        grant.connection_id.unwrap().to_string()
    }
}

pub(crate) struct Org<'a> {
    pub(crate) control: &'a Control,
    pub(crate) token: String,
    pub(crate) id: String,
    pub(crate) session: Session,
}

impl Org<'_> {
    /// The owner signed in again: sessions end when the clock is moved by days.
    pub(crate) async fn sign_in(&self) -> Org<'_> {
        let login = json!({"email": self.session.user.email, "password": "correct horse battery"});
        let answer = self.control.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap();
        let session: Session = answer.json().await.unwrap();
        Org { control: self.control, token: session.token.0.clone(), id: self.id.clone(), session }
    }

    /// The same user once more, who does not depend on whoever made it.
    pub(crate) fn detached<'c>(&self, control: &'c Control) -> Org<'c> {
        Org { control, token: self.token.clone(), id: self.id.clone(), session: self.session.clone() }
    }

    /// The same user once more.
    pub(crate) fn again(&self) -> Org<'_> {
        Org { control: self.control, token: self.token.clone(), id: self.id.clone(), session: self.session.clone() }
    }

    /// The same user, asking another replica.
    pub(crate) fn at<'b>(&self, control: &'b Control) -> Org<'b> {
        Org { control, token: self.token.clone(), id: self.id.clone(), session: self.session.clone() }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> reqwest::Response {
        let mut request = self.control.request(method, &format!("/api/v1{path}")).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.send("GET", path, None).await;
        assert_eq!(answer.status(), 200, "GET {path}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    }

    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Vec<T> {
        self.get::<Page<T>>(path).await.items
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> T {
        let answer = self.send("POST", path, Some(body)).await;
        assert!(answer.status().is_success(), "POST {path}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    }

    /// A request that must be refused.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Option<Value>) -> Problem {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        assert!(status.is_client_error(), "{method} {path} was answered with {status}");
        answer.json().await.unwrap()
    }

    /// Another user of the organization, signed in.
    pub(crate) async fn user(&self, role: &str) -> Org<'_> {
        self.person(role, role).await
    }

    /// Another user of the organization with a name of its own, signed in.
    pub(crate) async fn person(&self, role: &str, name: &str) -> Org<'_> {
        let at = |text: &str| text.to_lowercase().replace(' ', "-");
        let email = format!("{}@{}.example", at(name), at(&self.session.organization.name));
        let password = "another long password";
        let body = json!({"email": email, "name": name, "role": role, "password": password});
        let _: Value = self.post("/users", body).await;
        let login = json!({"email": email, "password": password});
        let answer = self.control.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap();
        let session: Session = answer.json().await.unwrap();
        Org { control: self.control, token: session.token.0.clone(), id: self.id.clone(), session }
    }

    pub(crate) async fn server(&self, name: &str) -> Server {
        self.post("/servers", json!({"name": name})).await
    }

    pub(crate) async fn code(&self, server: &Server) -> EnrollmentCode {
        let path = format!("/servers/{}/enrollment-codes", server.id);
        let created: CreatedEnrollmentCode = self.post(&path, json!({})).await;
        created.code.0.parse().unwrap()
    }

    pub(crate) async fn enroll(&self, server: &Server, gateway: &Gateway) -> EnrollAnswer {
        let code = self.code(server).await;
        gateway.enroll(self.control, &code.secret).await.unwrap()
    }

    pub(crate) async fn channel(&self, server: &Server, name: &str) -> Channel {
        let body = json!({
            "server_id": server.id, "name": format!("internal {name}"), "engine": "127.0.0.1:6661",
            "public_name": name, "public_description": "for partners",
        });
        self.post("/channels", body).await
    }

    pub(crate) async fn agree_with(&self, other: &Org<'_>) -> String {
        let request: PeeringRequest = self.post("/peering-requests", json!({"organization_id": other.id})).await;
        let request: PeeringRequest = other.post(&format!("/peering-requests/{}/accept", request.id), json!({})).await;
        request.agreement_id.unwrap().to_string()
    }

    pub(crate) async fn connection(&self, id: &str) -> Connection {
        self.get(&format!("/connections/{id}")).await
    }

    pub(crate) async fn agreement(&self, id: &str) -> Agreement {
        self.get(&format!("/agreements/{id}")).await
    }

    /// Waits until a connection is as told.
    pub(crate) async fn until(&self, id: &str, what: &str, is: impl Fn(&Connection) -> bool) -> Connection {
        let wait = async {
            loop {
                let connection = self.connection(id).await;
                if is(&connection) {
                    return connection;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("the connection never became {what}"))
    }
}

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

    async fn open(&self, control: &Control, token: &str, revision: u64) -> Watch {
        let stream = open_watch(control, token).await.unwrap();
        let trusted: GatewayPublicKey = control.ready.policy_key.parse().unwrap();
        let mut watch = Watch { stream, store: PolicyStore::new(self.key.public(), trusted), tokens: Vec::new() };
        watch.send(&WatchRequest::Hello { revision, version: "1.2.3".to_owned() }).await;
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
    pub(crate) tokens: Vec<String>,
}

impl Watch {
    pub(crate) async fn send(&mut self, request: &WatchRequest) {
        self.stream.send(Message::Text(serde_json::to_string(request).unwrap().into())).await.unwrap();
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
                WatchEvent::Policy { policy } => {
                    assert!(self.store.accept(&policy).unwrap());
                    let policy = self.store.current().unwrap().clone();
                    self.send(&WatchRequest::Applied { revision: policy.revision }).await;
                    return policy;
                }
                WatchEvent::Succession { links } => {
                    self.store.follow(&links);
                }
                WatchEvent::RelayToken { token } => self.tokens.push(token),
                WatchEvent::AuditHead { .. } => {}
                WatchEvent::Heartbeat { .. } => self.send(&WatchRequest::Heartbeat).await,
                WatchEvent::Removed => panic!("removed"),
            }
        }
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
                WatchEvent::AuditHead { .. } => {}
                WatchEvent::Succession { .. } | WatchEvent::Policy { .. } => panic!("a policy came"),
                WatchEvent::Removed => panic!("removed"),
            }
        }
    }
}

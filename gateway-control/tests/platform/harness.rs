//! A control plane on a free port, organizations that ask it, gateways that watch it.

mod gateway;
mod org;
mod wait;

use std::{sync::Arc, time::Duration};

use gateway_control::{
    app,
    clock::Clock,
    config::Config,
    service::Service,
    storage::{SqlStorage, Storage},
};
use gateway_net::{http, shutdown::Shutdown, tls::ServerTrust};
use serde_json::{Value, json};

pub(crate) use self::{
    gateway::{Gateway, Watch, open_watch},
    org::{Org, PASSWORD, Pair},
    wait::until,
};
use super::database::{share, storage_section};

/// Longer than anything takes, shorter than anybody's patience.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// The password of the owner of each organization.
const OWNER_PASSWORD: &str = "correct horse battery";

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

    /// What the operator of the platform asks for.
    pub(crate) async fn as_operator(&self, method: &str, path: &str, body: Value) -> reqwest::Response {
        let request = self.request(method, &format!("/api/v1{path}")).json(&body);
        request.header("authorization", format!("Operator {}", self.operator)).send().await.unwrap()
    }

    pub(crate) async fn organization(&self, name: &str) -> Org<'_> {
        let body = json!({
            "name": name, "description": format!("{name} of the test"), "discoverable": true,
            "owner_email": format!("owner@{}.example", name.to_lowercase().replace(' ', "-")),
            "owner_name": "Owner", "owner_password": OWNER_PASSWORD,
            "registration_token": self.operator,
        });
        let answer = self.request("POST", "/api/v1/organizations").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{:?}", answer.text().await);
        Org::of(self, answer.json().await.unwrap())
    }

    /// A user signed in.
    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Org<'_> {
        let login = json!({"email": email, "password": password});
        let answer = self.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap();
        Org::of(self, answer.json().await.unwrap())
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

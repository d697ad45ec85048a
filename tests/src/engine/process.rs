//! The engine as a process of its own, and whoever works with it: over its API like an administrator, and through the
//! back door.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use data_encoding::BASE64;
use gateway_net::tls::engine_client_config;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    access::Executed,
    back_door::ReceivedMessage,
    channels::choose_ports,
    definition::{ChannelDefinition, EngineDefinition},
};
use crate::{
    held_port::HeldPort,
    process::{Launch, Process, Program},
};

/// It is ready within this time, the time to boot included.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running engine; killed on drop.
#[derive(Debug)]
pub struct EngineProcess {
    /// The process.
    pub process: Process,
    client: reqwest::Client,
    file: PathBuf,
    /// While the process is gone nobody else gets its ports.
    _ports: Vec<HeldPort>,
}

impl EngineProcess {
    /// Starts an engine that keeps itself in `dir`, where its logs go too.
    pub async fn start(dir: &Path, name: &str, definition: &EngineDefinition) -> anyhow::Result<Self> {
        let (first, file) = (dir.join(format!("{name}.json")), dir.join(format!("{name}-kept.json")));
        let mut definition = definition.clone();
        let mut ports = choose_ports(&mut definition)?;
        for port in [&mut definition.https_port, &mut definition.http_port] {
            let held = HeldPort::loopback(*port)?;
            *port = held.port();
            ports.push(held);
        }
        std::fs::write(&first, serde_json::to_vec(&definition)?)?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("path");
        let launch = Launch {
            program: Program::Engine,
            name: name.into(),
            args: vec![text(&first)?, text(&file)?],
            log_dir: dir.join("logs"),
            namespace: None,
            log_filter: String::new(),
            wrapper: Vec::new(),
        };
        let client =
            reqwest::Client::builder().tls_backend_preconfigured(engine_client_config(None)).no_proxy().build()?;
        Ok(Self { process: Process::start(launch, START_LIMIT).await?, client, file, _ports: ports })
    }

    /// Kills it and starts it again: sessions are gone, ports and API come back after the time to boot.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.restart(START_LIMIT).await
    }

    /// Base URL of its HTTPS, without `/api`.
    pub fn https(&self) -> anyhow::Result<&str> {
        self.process.ready("https")
    }

    /// What it is made of now.
    pub fn definition(&self) -> anyhow::Result<EngineDefinition> {
        Ok(serde_json::from_slice(&std::fs::read(&self.file)?)?)
    }

    /// The port of a channel's listener.
    pub fn port(&self, channel: &str) -> anyhow::Result<u16> {
        let definition = self.definition()?;
        let stored = definition.channel(channel).with_context(|| format!("no channel {channel}"))?;
        definition.resolve(&stored.source.port).context("the channel has no port")
    }

    /// Does what an administrator does: `POST /api{path}` by Basic auth as `admin`.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<()> {
        self.administer(reqwest::Method::POST, path, body).await
    }

    /// The same with `DELETE`.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.administer(reqwest::Method::DELETE, path, "").await
    }

    /// Stores a channel; it takes effect when it is deployed.
    pub async fn store(&self, channel: &ChannelDefinition) -> anyhow::Result<()> {
        self.back_door(reqwest::Method::PUT, "/channel", serde_json::to_vec(channel)?).await.map(|_: Value| ())
    }

    /// Stores a channel and deploys it.
    pub async fn deploy(&self, channel: &ChannelDefinition) -> anyhow::Result<()> {
        self.back_door(reqwest::Method::PUT, "/channel?deploy", serde_json::to_vec(channel)?).await.map(|_: Value| ())
    }

    /// Restarts the engine inside its process.
    pub async fn restart_inside(&self) -> anyhow::Result<()> {
        self.back_door(reqwest::Method::POST, "/restart", Vec::new()).await.map(|_: Value| ())
    }

    /// Sets a user's password.
    pub async fn set_password(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let body = serde_json::to_vec(&(user, password))?;
        self.back_door(reqwest::Method::PUT, "/password", body).await.map(|_: Value| ())
    }

    /// Every request that reached an operation.
    pub async fn executed(&self) -> anyhow::Result<Vec<Executed>> {
        self.back_door(reqwest::Method::GET, "/executed", Vec::new()).await
    }

    /// Logins that went well, and those that did not.
    pub async fn logins(&self) -> anyhow::Result<[u64; 2]> {
        self.back_door(reqwest::Method::GET, "/logins", Vec::new()).await
    }

    /// The messages a channel received, as bytes by control id.
    pub async fn received(&self, channel: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let path = format!("/received/{channel}");
        let messages: Vec<ReceivedMessage> = self.back_door(reqwest::Method::GET, &path, Vec::new()).await?;
        let decode = |message: ReceivedMessage| Ok((message.control_id, BASE64.decode(message.bytes.as_bytes())?));
        messages.into_iter().map(decode).collect()
    }

    /// What became of the messages a channel was given to send.
    pub async fn messages(&self, channel: &str) -> anyhow::Result<Vec<Value>> {
        self.back_door(reqwest::Method::GET, &format!("/messages/{channel}"), Vec::new()).await
    }

    /// Gives a channel a message to send, as its source does; gives the engine's number of it.
    pub async fn give(&self, channel: &str, message: &[u8]) -> anyhow::Result<u64> {
        self.back_door(reqwest::Method::POST, &format!("/messages/{channel}"), message.to_vec()).await
    }

    async fn administer(
        &self,
        method: reqwest::Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<()> {
        let password = self.definition()?.users.get("admin").cloned().unwrap_or_default();
        let request = self.client.request(method, format!("{}/api{path}", self.https()?));
        let request = request.basic_auth("admin", Some(password)).header("X-Requested-With", "test");
        let response = request.body(body).send().await?;
        ensure!(response.status().is_success(), "{path}: {}", response.status());
        Ok(())
    }

    async fn back_door<T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.process.ready("back_door")?);
        let response = self.client.request(method, url).body(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

//! A server of an organization with its gateway.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use gateway_proto::{
    api::{
        gateway::{Connectivity, PathKind},
        local,
    },
    policy::Activation,
};
use serde_json::Value;

use super::{
    GatewayOptions, POLICY_LIMIT, Placement, Platform, START_LIMIT,
    programs::{self, GatewayFiles},
};
use crate::{ctl::Ctl, process::Process, wait};

/// Every second key is of the wanted half.
const MOST_DRAWS: u32 = 40;

/// A gateway and whom it belongs to.
#[derive(Debug)]
pub struct Site {
    /// Name of the server.
    pub name: String,
    /// Profile of `gateway-ctl` that owns it.
    pub profile: String,
    /// Its id on the platform, once known.
    pub server_id: String,
    /// The daemon.
    pub gateway: Process,
    files: GatewayFiles,
    placement: Placement,
}

impl Site {
    /// Starts a gateway that belongs to nobody yet.
    pub async fn start(platform: &Platform, profile: &str, name: &str, placement: Placement) -> anyhow::Result<Self> {
        Self::start_with(platform, profile, name, placement, &GatewayOptions::default()).await
    }

    /// The same with a configuration of its own.
    pub async fn start_with(
        platform: &Platform,
        profile: &str,
        name: &str,
        placement: Placement,
        options: &GatewayOptions,
    ) -> anyhow::Result<Self> {
        if let Some(dials) = options.dials {
            draw_key(platform, name, dials).await?;
        }
        let files = GatewayFiles::write(platform.dir(), name, placement.ip, options)?;
        let gateway = programs::start_gateway(platform.dir(), name, &files, &placement, &platform.options).await?;
        Ok(Self { name: name.into(), profile: profile.into(), server_id: String::new(), gateway, files, placement })
    }

    /// Starts a copy of this gateway as it is on its disk now, as from a snapshot of its machine. The original runs on.
    pub async fn copy(&self, platform: &Platform, name: &str) -> anyhow::Result<Self> {
        let (files, placement) = (self.files.copy(platform.dir(), name)?, self.placement.clone());
        let gateway = programs::start_gateway(platform.dir(), name, &files, &placement, &platform.options).await?;
        let (profile, server_id) = (self.profile.clone(), self.server_id.clone());
        Ok(Self { name: name.into(), profile, server_id, gateway, files, placement })
    }

    /// The Unix socket of the local API.
    pub fn socket(&self) -> &str {
        self.files.socket.to_str().unwrap_or_default()
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.files.state_dir
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.files.config
    }

    /// Where it runs.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Enrols the gateway with a code.
    pub async fn enroll(&self, ctl: &Ctl, code: &str) -> anyhow::Result<Value> {
        ctl.json(&["gateway", "enroll", code, "--socket", self.socket()]).await
    }

    /// Starts the daemon again after it was killed.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.gateway.restart(START_LIMIT).await
    }

    /// Starts the daemon again with a clock that is off, for example by `+2h`.
    pub async fn restart_with_clock(&mut self, offset: &str) -> anyhow::Result<()> {
        // Timers go on; only the time of day is off. Not by the program `faketime`: it would stay between us and the
        // daemon, which would outlive it when we end it.
        let (offset, library) = (format!("FAKETIME={offset}"), "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1");
        self.gateway.wrap(&["env", "DONT_FAKE_MONOTONIC=1", &offset, library]);
        self.restart().await
    }

    /// What `gateway-ctl status` says.
    pub async fn status(&self, ctl: &Ctl) -> anyhow::Result<local::Status> {
        let answer = ctl.status(self.socket()).await?;
        serde_json::from_value(answer.clone()).with_context(|| format!("status is not what the API says: {answer}"))
    }

    /// The same, asked at the daemon's socket without a process in between: for what is asked often.
    pub async fn look(&self) -> anyhow::Result<local::Status> {
        let answer = gateway_net::http::unix_client(&self.files.socket)?.get("http://localhost/v1/status").send().await;
        Ok(answer.with_context(|| format!("{} does not answer", self.name))?.json().await?)
    }

    /// A connection as the daemon sees it now, asked as by [`look`](Self::look); none once its policy no longer has it.
    pub async fn seen(&self, id: &str) -> anyhow::Result<Option<local::ConnectionStatus>> {
        Ok(self.look().await?.connections.into_iter().find(|entry| entry.id.to_string() == id))
    }

    /// Waits until this gateway's own policy lets data of the connection pass.
    pub async fn live(&self, id: &str) -> anyhow::Result<()> {
        wait::until_true(POLICY_LIMIT, format!("{} lets data of {id} pass", self.name), async || {
            let seen = self.seen(id).await?;
            Ok(seen.is_some_and(|entry| entry.activation == Activation::Active && entry.authorized))
        })
        .await
    }

    /// What `gateway-ctl status` says about one connection.
    pub async fn connection(&self, ctl: &Ctl, id: &str) -> anyhow::Result<local::ConnectionStatus> {
        let status = self.status(ctl).await?;
        let found = status.connections.into_iter().find(|entry| entry.id.to_string() == id);
        found.with_context(|| format!("{} does not know connection {id}", self.name))
    }

    /// Waits until a connection shows this connectivity and, if one is given, this path.
    pub async fn wait_for(
        &self,
        id: &str,
        connectivity: Connectivity,
        path: Option<PathKind>,
        limit: std::time::Duration,
    ) -> anyhow::Result<local::ConnectionStatus> {
        let mut last = None;
        let waited = wait::until(limit, format!("{} shows {connectivity:?} {path:?}", self.name), async || {
            last = self.seen(id).await?;
            Ok(last
                .clone()
                .filter(|entry| entry.connectivity == connectivity && (path.is_none() || entry.path == path)))
        })
        .await;
        waited.with_context(|| format!("last status: {last:?}\nlog of {}:\n{}", self.name, self.gateway.log_tail(15)))
    }
}

/// Starts the gateway with an empty state directory, and anew, until it has a key of the half that dials or does not; what it
/// has drawn stays. On loopback: nothing of these starts is seen in the network where it will run.
async fn draw_key(platform: &Platform, name: &str, dials: bool) -> anyhow::Result<()> {
    let loopback = Placement::loopback();
    for _ in 0..MOST_DRAWS {
        let files = GatewayFiles::write(platform.dir(), name, loopback.ip, &GatewayOptions::default())?;
        let gateway = programs::start_gateway(platform.dir(), name, &files, &loopback, &platform.options).await?;
        let is_smaller = gateway.ready("key")?.starts_with(|digit: char| digit < '8');
        drop(gateway);
        if is_smaller == dials {
            return Ok(());
        }
        fs::remove_dir_all(&files.state_dir)?;
    }
    bail!("{name} drew {MOST_DRAWS} keys, none of the wanted half")
}

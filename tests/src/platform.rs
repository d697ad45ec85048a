//! Control plane, relay and gateways put together over the five steps of the mission, by public interfaces only.
//!
//! [`Platform::start`] gives a control plane and a relay in its map; [`Platform::site`] an organization with an enrolled
//! gateway; [`Platform::peer`] and [`Platform::link`] the rest up to an open local port. Every step is also there by
//! itself, for the demo that explains it and for the scenarios that break it.

mod linking;
mod programs;
mod site;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;

pub use linking::Link;
pub use programs::{GatewayOptions, Placement};
pub use site::Site;

use crate::{
    ctl::{Ctl, text},
    process::Process,
};

/// A program is ready within this time, on a machine that also compiles.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// A change of policy has arrived and acted at both gateways within this time; scenarios measure the real one.
pub const POLICY_LIMIT: Duration = Duration::from_secs(30);

/// Where the programs run and how much they say.
#[derive(Debug, Clone)]
pub struct PlatformOptions {
    /// The control plane's place.
    pub control: Placement,
    /// The relay's place.
    pub relay: Placement,
    /// Places of further relays.
    pub more_relays: Vec<Placement>,
    /// Log filter of every program.
    pub log_filter: String,
    /// Seconds between two rounds of the delivery proof.
    pub delivery_interval_secs: u64,
    /// Further lines of the control plane's configuration, sections of their own.
    pub more_control: String,
}

impl Default for PlatformOptions {
    fn default() -> Self {
        Self {
            control: Placement::loopback(),
            relay: Placement::loopback(),
            more_relays: Vec::new(),
            log_filter: "info,gatewayd=debug,gateway_relay=debug,gateway_control=debug".into(),
            delivery_interval_secs: 60,
            more_control: String::new(),
        }
    }
}

/// A running control plane with a relay.
#[derive(Debug)]
pub struct Platform {
    /// The control plane.
    pub control: Process,
    /// The relay.
    pub relay: Process,
    /// Further relays.
    pub more_relays: Vec<Process>,
    /// The command line with this platform's home directory.
    pub ctl: Ctl,
    /// How it was started.
    pub options: PlatformOptions,
    /// After the processes: they must be gone before their files go.
    dir: TempDir,
}

impl Platform {
    /// Control plane and relay on loopback.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(PlatformOptions::default()).await
    }

    /// Control plane and relay at chosen places, the relay in the map.
    pub async fn start_with(options: PlatformOptions) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("gateway-").tempdir()?;
        let control = programs::start_control(dir.path(), &options).await?;
        let relay = programs::start_relay(dir.path(), "relay", &options.relay, &options, &control).await?;
        let mut more_relays = Vec::new();
        for (place, index) in options.more_relays.iter().zip(2..) {
            let name = format!("relay-{index}");
            more_relays.push(programs::start_relay(dir.path(), &name, place, &options, &control).await?);
        }
        let ctl = Ctl::new(&dir.path().join("ctl")).in_namespace(options.control.namespace.as_deref());
        Ok(Self { control, relay, more_relays, ctl, options, dir })
    }

    /// The directory everything lives in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Prints each changing command before it runs, with the temporary directory as `$D`.
    pub fn show_commands(&mut self, print: fn(&str)) {
        self.ctl.show(self.dir.path(), print);
    }

    /// The directory with the logs.
    pub fn log_dir(&self) -> PathBuf {
        programs::log_dir(self.dir.path())
    }

    /// Restarts the control plane where it was.
    pub async fn restart_control(&mut self) -> anyhow::Result<()> {
        programs::pin_listen(&programs::control_config(self.dir.path()), &[("listen", self.control.ready("listen")?)])?;
        self.control.restart(START_LIMIT).await
    }

    /// Restarts the relay where it was.
    pub async fn restart_relay(&mut self) -> anyhow::Result<()> {
        programs::pin_listen(
            &programs::relay_config(self.dir.path(), "relay"),
            &[("listen", self.relay.ready("listen")?)],
        )?;
        self.relay.restart(START_LIMIT).await
    }

    /// Puts the relay into the map.
    pub async fn add_relay(&self) -> anyhow::Result<Value> {
        self.map_relay("relay", &self.options.relay).await
    }

    /// Puts every relay into the map.
    pub async fn add_relays(&self) -> anyhow::Result<()> {
        self.add_relay().await?;
        for (place, index) in self.options.more_relays.iter().zip(2..) {
            self.map_relay(&format!("relay-{index}"), place).await?;
        }
        Ok(())
    }

    async fn map_relay(&self, name: &str, place: &Placement) -> anyhow::Result<Value> {
        let ready = self.dir.path().join(name).join("ready.json");
        let token = self.operator_token_file()?;
        let control = self.control_ready_file();
        let shown = if name == "relay" { "relay-1" } else { name };
        let mut args = vec!["relay", "add", "--control-ready-file", utf8(&control)?, "--operator-token-file", &token];
        args.extend(["--from-ready-file", utf8(&ready)?, "--name", shown]);
        if let Some(host) = &place.host {
            args.extend(["--host", host]);
        }
        self.ctl.json(&args).await
    }

    /// Step 1a: an organization and its owner; leaves a signed-in profile called `profile`.
    pub async fn create_organization(&self, profile: &str, name: &str) -> anyhow::Result<Value> {
        let password = self.dir.path().join(format!("{profile}.password"));
        fs::write(&password, format!("password of {profile} in a test"))?;
        fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let control = self.control_ready_file();
        let email = format!("owner@{profile}.example");
        let token = self.operator_token_file()?;
        self.ctl
            .json(&[
                "organization",
                "create",
                "--profile",
                profile,
                "--control-ready-file",
                utf8(&control)?,
                "--operator-token-file",
                &token,
                "--name",
                name,
                "--owner-email",
                &email,
                "--owner-name",
                "Owner",
                "--password-file",
                utf8(&password)?,
                "--discoverable",
            ])
            .await
    }

    /// Step 1b: a server.
    pub async fn create_server(&self, profile: &str, name: &str) -> anyhow::Result<Value> {
        self.ctl.json(&["server", "create", name, "--profile", profile]).await
    }

    /// Step 1c: a one-time enrolment code.
    pub async fn enrollment_code(&self, profile: &str, server: &str) -> anyhow::Result<String> {
        let answer = self.ctl.json(&["server", "enrollment-code", server, "--profile", profile]).await?;
        Ok(text(&answer, "code")?.into())
    }

    /// Step 1 as a whole: organization, server, a gateway on loopback, enrolled. `name` names all of them.
    pub async fn site(&self, name: &str) -> anyhow::Result<Site> {
        self.site_at(name, Placement::loopback()).await
    }

    /// Like [`site`](Self::site) at a chosen place.
    pub async fn site_at(&self, name: &str, placement: Placement) -> anyhow::Result<Site> {
        self.site_with(name, placement, &GatewayOptions::default()).await
    }

    /// The same with a configuration of its own.
    pub async fn site_with(&self, name: &str, placement: Placement, options: &GatewayOptions) -> anyhow::Result<Site> {
        self.create_organization(name, &format!("Organization {name}")).await?;
        self.server_with(name, name, placement, options).await
    }

    /// A further server of the organization of `profile`, with its gateway, enrolled.
    pub async fn server(&self, profile: &str, name: &str, placement: Placement) -> anyhow::Result<Site> {
        self.server_with(profile, name, placement, &GatewayOptions::default()).await
    }

    /// The same with a configuration of its own.
    pub async fn server_with(
        &self,
        profile: &str,
        name: &str,
        placement: Placement,
        options: &GatewayOptions,
    ) -> anyhow::Result<Site> {
        let server = self.create_server(profile, name).await?;
        let mut site = Site::start_with(self, profile, name, placement, options).await?;
        site.server_id = text(&server, "id")?.into();
        let code = self.enrollment_code(profile, name).await?;
        site.enroll(&self.ctl, &code).await?;
        Ok(site)
    }

    /// What `gateway-ctl` says about a connection on the control plane.
    pub async fn connection(&self, profile: &str, id: &str) -> anyhow::Result<Value> {
        self.ctl.look(&["connection", "show", id, "--profile", profile]).await
    }

    /// The tails of the logs of control plane and relay, for a failure report.
    pub fn log_tails(&self) -> String {
        [&self.control, &self.relay]
            .iter()
            .map(|process| format!("log of {}:\n{}", process.name(), process.log_tail(15)))
            .collect()
    }

    fn control_ready_file(&self) -> PathBuf {
        self.dir.path().join("control/ready.json")
    }

    /// The file with the operator's token.
    pub fn operator_token_file(&self) -> anyhow::Result<String> {
        Ok(self.control.ready("operator_token_file")?.into())
    }
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

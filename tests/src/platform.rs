//! Control plane, relay and gateways put together over the five steps of the mission, by public interfaces only.
//!
//! [`Platform::start`] gives a control plane and a relay in its map; [`Platform::site`] an organization with an enrolled
//! gateway; [`Platform::peer`] and [`Platform::link`] the rest up to an open local port. Every step is also there by
//! itself, for the demo that explains it and for the scenarios that break it.

mod programs;
mod site;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use gateway_proto::policy::{Activation, HL7V2_MLLP};
use serde_json::Value;
use tempfile::TempDir;

pub use programs::{GatewayOptions, Placement};
pub use site::Site;

use crate::{
    ctl::{Ctl, items, text},
    process::Process,
    wait,
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

/// A connection whose sender's local port is open.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its id.
    pub connection: String,
    /// Its grant.
    pub grant: String,
    /// Its agreement.
    pub agreement: String,
    /// Where the sending engine connects to.
    pub sender: SocketAddr,
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

    /// Steps 2 and 3: the organization of `from` finds the one of `to` and asks; that one accepts. Gives the agreement.
    pub async fn peer(&self, from: &Site, to: &Site) -> anyhow::Result<String> {
        let organization = self.find(&from.profile, &format!("Organization {}", to.profile)).await?;
        self.ctl.json(&["peering", "request", &organization, "--profile", &from.profile]).await?;
        let request = self.incoming_request(&to.profile).await?;
        let accepted = self.ctl.json(&["peering", "accept", &request, "--profile", &to.profile]).await?;
        Ok(text(&accepted, "agreement_id")?.into())
    }

    /// Step 2a: the id of an organization in the directory.
    pub async fn find(&self, profile: &str, name: &str) -> anyhow::Result<String> {
        let found = self.ctl.json(&["directory", "search", name, "--profile", profile]).await?;
        let entry = items(&found)?.iter().find(|entry| entry["name"] == name);
        Ok(text(entry.with_context(|| format!("'{name}' is not in the directory: {found}"))?, "id")?.into())
    }

    /// Step 3a: the id of the request that waits for this organization.
    pub async fn incoming_request(&self, profile: &str) -> anyhow::Result<String> {
        let requests = self.ctl.json(&["peering", "list", "--profile", profile]).await?;
        let waiting = |request: &&Value| request["direction"] == "incoming" && request["status"] == "pending";
        let request = items(&requests)?.iter().find(waiting);
        Ok(text(request.with_context(|| format!("no request waits: {requests}"))?, "id")?.into())
    }

    /// Steps 4 and 5: `listener` publishes its engine, grants it, `sender` approves; waits until the listener lets data in
    /// and the local port is open. Each gateway has its own policy, and neither waits for the other's.
    pub async fn link(
        &self,
        agreement: &str,
        listener: &Site,
        sender: &Site,
        engine: SocketAddr,
    ) -> anyhow::Result<Link> {
        let name = format!("adt-{}", engine.port());
        let grant = self.offer(agreement, listener, &name, engine).await?;
        let connection = self.approve(&grant, sender).await?;
        listener.live(&connection).await?;
        let sender = self.opened(&connection, sender).await?;
        Ok(Link { connection, grant, agreement: agreement.into(), sender })
    }

    /// The same for another behavior than HL7 v2 over MLLP.
    pub async fn link_as(
        &self,
        agreement: &str,
        listener: &Site,
        sender: &Site,
        engine: SocketAddr,
        behavior: &str,
    ) -> anyhow::Result<Link> {
        let channel = self.publish_as(listener, &format!("{behavior}-{}", engine.port()), engine, behavior).await?;
        let grant = self.grant(agreement, listener, &channel, None).await?;
        let connection = self.approve(&grant, sender).await?;
        listener.live(&connection).await?;
        let sender = self.opened(&connection, sender).await?;
        Ok(Link { connection, grant, agreement: agreement.into(), sender })
    }

    /// Steps 4 and 5 inside one organization: the sending server is picked with the offer, and approved if that is needed.
    pub async fn link_within(
        &self,
        agreement: &str,
        listener: &Site,
        sender: &Site,
        engine: SocketAddr,
    ) -> anyhow::Result<Link> {
        let name = format!("adt-{}", engine.port());
        let channel = self.publish(listener, &name, engine).await?;
        let args = ["grant", "offer", "--profile", &listener.profile, "--channel", &channel, "--to", agreement];
        let args: Vec<&str> = args.into_iter().chain(["--server", &sender.name]).collect();
        let grant = self.ctl.json(&args).await?;
        let id = text(&grant, "id")?.to_owned();
        let connection = match grant["connection_id"].as_str() {
            Some(connection) => connection.into(),
            None => self.approve(&id, sender).await?,
        };
        listener.live(&connection).await?;
        let sender = self.opened(&connection, sender).await?;
        Ok(Link { connection, grant: id, agreement: agreement.into(), sender })
    }

    /// Step 4a: publishes the engine's port as `name` and offers it. Gives the grant.
    pub async fn offer(
        &self,
        agreement: &str,
        listener: &Site,
        name: &str,
        engine: SocketAddr,
    ) -> anyhow::Result<String> {
        let channel = self.publish(listener, name, engine).await?;
        self.grant(agreement, listener, &channel, None).await
    }

    /// Step 4a with an end: publishes and offers for a time such as `90d`. Gives the grant.
    pub async fn offer_until(
        &self,
        agreement: &str,
        listener: &Site,
        engine: SocketAddr,
        expires: Option<&str>,
    ) -> anyhow::Result<String> {
        let channel = self.publish(listener, &format!("adt-{}", engine.port()), engine).await?;
        self.grant(agreement, listener, &channel, expires).await
    }

    async fn grant(
        &self,
        agreement: &str,
        listener: &Site,
        channel: &str,
        expires: Option<&str>,
    ) -> anyhow::Result<String> {
        let args = ["grant", "offer", "--profile", &listener.profile, "--channel", channel, "--to", agreement];
        let end = expires.map(|expires| ["--expires", expires]);
        let args: Vec<&str> = args.into_iter().chain(end.into_iter().flatten()).collect();
        Ok(text(&self.ctl.json(&args).await?, "id")?.into())
    }

    async fn publish(&self, listener: &Site, name: &str, engine: SocketAddr) -> anyhow::Result<String> {
        self.publish_as(listener, name, engine, HL7V2_MLLP).await
    }

    async fn publish_as(
        &self,
        listener: &Site,
        name: &str,
        engine: SocketAddr,
        behavior: &str,
    ) -> anyhow::Result<String> {
        let engine = engine.to_string();
        let public_name = format!("{name} of {}", listener.name);
        let mut args =
            vec!["channel", "create", "--profile", &listener.profile, "--server", &listener.name, "--name", name];
        args.extend(["--engine", &engine, "--publish", &public_name, "--behavior", behavior]);
        Ok(text(&self.ctl.json(&args).await?, "id")?.into())
    }

    /// Step 4b: the peer approves, its `sender` sends. Gives the connection.
    pub async fn approve(&self, grant: &str, sender: &Site) -> anyhow::Result<String> {
        let args = ["grant", "approve", grant, "--profile", &sender.profile, "--server", &sender.name];
        Ok(text(&self.ctl.json(&args).await?, "connection_id")?.into())
    }

    /// Step 5: waits until the sending gateway opened its local port. Data passes once the listener is
    /// [live](Site::live) too.
    pub async fn opened(&self, connection: &str, sender: &Site) -> anyhow::Result<SocketAddr> {
        wait::until(POLICY_LIMIT, format!("{} opens the local port of {connection}", sender.name), async || {
            let found = sender.seen(connection).await?;
            let open = found.as_ref().filter(|entry| entry.activation == Activation::Active && entry.role == "sender");
            let Some(address) = open.and_then(|entry| entry.local_address.as_deref()) else { return Ok(None) };
            Ok(Some(address.parse().with_context(|| format!("local address '{address}'"))?))
        })
        .await
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

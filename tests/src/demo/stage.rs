//! The steps of the demo and everything that is running meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gateway_proto::api::{
    gateway::{Connectivity, PathKind},
    local::ConnectionStatus,
};

use super::{
    say,
    traffic::{self, Direction},
};
use crate::{
    ctl::text,
    mllp::{Engine, Manners},
    platform::{Link, Placement, Platform, Site},
    process::{Process, Program},
};

/// The end-to-end proof is there and the direct path found within this time.
const PATH_LIMIT: Duration = Duration::from_secs(30);
const NORTH: &str = "north";
const SOUTH: &str = "south";

/// What is running. Dropping it stops and removes everything.
#[derive(Debug, Default)]
pub(super) struct Stage {
    step: &'static str,
    sites: Vec<Site>,
    engines: Vec<Engine>,
    links: Vec<Link>,
    /// After the gateways: its directory is theirs.
    platform: Option<Platform>,
}

impl Stage {
    /// The step under way.
    pub(super) fn step(&self) -> &'static str {
        self.step
    }

    /// All steps; gives the summary of the last line.
    pub(super) async fn play(&mut self) -> anyhow::Result<String> {
        self.begin("[0/6] start", "a control plane, a relay and two gateways start on loopback, on free ports");
        let mut platform = Platform::start().await?;
        say(&format!("      D={}   (removed at the end)", platform.dir().display()));
        platform.show_commands(|command| say(&format!("      $ {}", masked(command))));
        started(&platform.control, platform.control.ready("url")?);
        started(&platform.relay, platform.relay.ready("listen")?);
        let platform = self.platform.insert(platform);
        platform.add_relay().await?;
        for name in [NORTH, SOUTH] {
            let site = Site::start(platform, name, &format!("{name}-engine"), Placement::loopback()).await?;
            started(&site.gateway, "waits for its enrolment");
            self.sites.push(site);
        }
        self.register().await?;
        let agreement = self.agree().await?;
        self.grant(&agreement).await?;
        self.provision().await?;
        self.exchange().await
    }

    /// What one can do while the demo stays up.
    pub(super) fn look_further(&self) {
        let Some(platform) = &self.platform else { return };
        let bin = Program::Ctl.path().ok();
        let bin = bin.as_deref().and_then(std::path::Path::parent).map(|dir| dir.display().to_string());
        let (dir, connection) = (platform.dir().display(), self.links.first());
        say("\nEverything stays up until Ctrl-C. To look further, in another terminal:\n");
        say(&format!("  export GATEWAY_CTL_HOME={dir}/ctl PATH={}:$PATH", bin.unwrap_or_default()));
        for site in &self.sites {
            say(&format!("  gateway-ctl status --socket {}", site.socket()));
        }
        say(&format!("  gateway-ctl connection list --profile {NORTH}"));
        if let Some(link) = connection {
            say(&format!("  gateway-ctl connection pause {} --profile {SOUTH}", link.connection));
            say(&format!("  gateway-ctl connection resume {} --profile {SOUTH}", link.connection));
            say("  # a message of your own, and its acknowledgement:");
            say(&format!("  exec 3<>/dev/tcp/{}/{}", link.sender.ip(), link.sender.port()));
            say("  printf '\\x0bMSH|^~\\\\&|A|B|C|D|20250301||ADT^A01|HELLO1|T|2.5.1\\rEVN|A01\\r\\x1c\\r' >&3");
            say("  timeout 1 cat <&3 | tr '\\r' '\\n'");
        }
        say(&format!("  tail -f {dir}/logs/*.log\n"));
    }

    /// The last lines of every log.
    pub(super) fn log_tails(&self) -> String {
        let gateways = self.sites.iter().map(|site| &site.gateway);
        let others = self.platform.iter().flat_map(|platform| [&platform.control, &platform.relay]);
        others
            .chain(gateways)
            .map(|process| format!("last lines of {}:\n{}", process.name(), process.log_tail(15)))
            .collect()
    }

    async fn register(&mut self) -> anyhow::Result<()> {
        self.begin("[1/6] register", "each organization registers, adds its server, and enrols the gateway beside it");
        for index in 0..self.sites.len() {
            let (platform, site) = (self.platform()?, &self.sites[index]);
            platform.create_organization(&site.profile, &organization(&site.profile)).await?;
            let server = platform.create_server(&site.profile, &site.name).await?;
            let code = platform.enrollment_code(&site.profile, &site.name).await?;
            let enrolled = site.enroll(&platform.ctl, &code).await?;
            say(&format!(
                "      {} has the key {}…, made on its own machine",
                site.name,
                short(text(&enrolled, "key")?)
            ));
            self.sites[index].server_id = text(&server, "id")?.into();
        }
        Ok(())
    }

    async fn agree(&mut self) -> anyhow::Result<String> {
        self.begin("[2/6] find", "north finds south in the directory and sends a peering request");
        let platform = self.platform()?;
        let south = platform.find(NORTH, &organization(SOUTH)).await?;
        platform.ctl.json(&["peering", "request", &south, "--profile", NORTH]).await?;
        self.begin("[3/6] accept", "south accepts: an agreement exists");
        let platform = self.platform()?;
        let request = platform.incoming_request(SOUTH).await?;
        let accepted = platform.ctl.json(&["peering", "accept", &request, "--profile", SOUTH]).await?;
        Ok(text(&accepted, "agreement_id")?.into())
    }

    async fn grant(&mut self, agreement: &str) -> anyhow::Result<()> {
        self.begin("[4/6] grant", "each side publishes a port of its engine and grants it; the other side approves");
        for (listener, sender, name) in [(1, 0, "orders"), (0, 1, "results")] {
            let engine = Engine::start(Manners::Polite)?;
            let platform = self.platform()?;
            let grant = platform.offer(agreement, &self.sites[listener], name, engine.address()).await?;
            let connection = platform.approve(&grant, &self.sites[sender]).await?;
            let sender = engine.address();
            self.engines.push(engine);
            self.links.push(Link { connection, grant, agreement: agreement.into(), sender });
        }
        Ok(())
    }

    async fn provision(&mut self) -> anyhow::Result<()> {
        self.begin("[5/6] connect", "both gateways pull the signed policy; the sending one opens its local port");
        let platform = self.platform.as_ref().context("the platform runs")?;
        for (index, link) in self.links.iter_mut().enumerate() {
            let (sender, listener) = (&self.sites[index], &self.sites[1 - index]);
            listener.live(&link.connection).await?;
            link.sender = platform.opened(&link.connection, sender).await?;
            let engine = self.engines[index].address();
            say(&format!(
                "      {}: engine → {} → {} ⇒ {} → {engine}",
                link.connection, link.sender, sender.name, listener.name
            ));
            let status = sender.wait_for(&link.connection, Connectivity::Connected, None, PATH_LIMIT).await?;
            say(&format!("      proved end to end; {}", path_line(&status)));
        }
        Ok(())
    }

    async fn exchange(&mut self) -> anyhow::Result<String> {
        self.begin("[6/6] exchange", "HL7 v2 over MLLP both ways at once, several connections through one tunnel");
        let directions: Vec<Direction> = self
            .links
            .iter()
            .zip([(NORTH, SOUTH, "N"), (SOUTH, NORTH, "S")])
            .map(|(link, (from, to, prefix))| Direction {
                title: format!("{from} → {to}"),
                prefix,
                sender: link.sender,
            })
            .collect();
        let first = Instant::now();
        traffic::first_messages(&directions, &self.engines).await?;
        say(&format!("      first message each way acknowledged after {:.0} ms", first.elapsed().as_secs_f64() * 1e3));
        for (site, link) in self.pairs() {
            let direct = Some(PathKind::Direct);
            let status = site.wait_for(&link.connection, Connectivity::Connected, direct, PATH_LIMIT).await?;
            say(&format!("      {}: {}", site.name, path_line(&status)));
        }
        let report = traffic::corpus(&directions, &self.engines).await?;
        report.lines().iter().for_each(|line| say(line));
        let rtt = self.check_status().await?;
        Ok(format!(
            "{} messages, path direct, {:.0} messages/s, {:.1} MB/s, rtt {rtt:.1} ms",
            report.messages(),
            report.message_rate(),
            report.byte_rate() / 1e6,
        ))
    }

    /// Both ends of both connections, asked again after the traffic: the status must be true.
    async fn check_status(&self) -> anyhow::Result<f64> {
        let platform = self.platform()?;
        let mut slowest: f64 = 0.0;
        for (site, link) in self.pairs() {
            let status = site.connection(&platform.ctl, &link.connection).await?;
            ensure!(status.connectivity == Connectivity::Connected, "{} shows {:?}", site.name, status.connectivity);
            ensure!(status.path == Some(PathKind::Direct), "{} shows the path {:?}", site.name, status.path);
            ensure!(status.bytes_sent > 0 && status.bytes_received > 0, "{} counts no bytes", site.name);
            ensure!(status.streams_reset == 0, "{} counts {} resets", site.name, status.streams_reset);
            let rtt = status.rtt_ms.with_context(|| format!("{} shows no round-trip time", site.name))?;
            slowest = slowest.max(rtt);
            say(&format!(
                "      {} as {}: connected, {}, {} finished streams, {} B out, {} B in",
                site.name,
                status.role,
                path_line(&status),
                status.streams_finished,
                status.bytes_sent,
                status.bytes_received
            ));
        }
        Ok(slowest)
    }

    /// Every site with every link: both ends of both connections.
    fn pairs(&self) -> impl Iterator<Item = (&Site, &Link)> {
        self.sites.iter().flat_map(|site| self.links.iter().map(move |link| (site, link)))
    }

    fn platform(&self) -> anyhow::Result<&Platform> {
        self.platform.as_ref().context("the platform runs")
    }

    fn begin(&mut self, step: &'static str, what: &str) {
        self.step = step;
        say(&format!("\n{step}: {what}"));
    }
}

fn organization(profile: &str) -> String {
    format!("Organization {profile}")
}

fn started(process: &Process, what: &str) {
    say(&format!(
        "      {:<24} {what:<26} pid {:<8} ready in {:.2} s",
        process.name(),
        process.pid(),
        process.started_in().as_secs_f64()
    ));
}

fn path_line(status: &ConnectionStatus) -> String {
    let path = match status.path {
        Some(PathKind::Direct) => "direct",
        Some(PathKind::Relayed) => "relayed",
        Some(PathKind::Local) => "local",
        None => "none yet",
    };
    let rtt = status.rtt_ms.map_or_else(|| "unknown".into(), |rtt| format!("{rtt:.1} ms"));
    format!("path {path} ({}), rtt {rtt}", status.path_reason)
}

/// A one-time code is spent when it shows up here, but nobody should learn to print one.
fn masked(command: &str) -> String {
    command
        .split(' ')
        .map(|word| if word.starts_with("gwe1_") { "gwe1_(the one-time code)" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

fn short(key: &str) -> &str {
    key.get(..10).unwrap_or(key)
}

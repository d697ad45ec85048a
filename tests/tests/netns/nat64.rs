//! A site that has IPv6 only, in a network that translates to IPv4 (Debian's tayga): it meets a partner that has IPv4 only.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use gateway_proto::{
    api::gateway::PathKind,
    nat64::Nat64Prefix,
    netcheck::{HostCheck, Report},
};
use gateway_tests::{
    natlab::{
        NatLab,
        RouterKind::{PortFilter, PreservedPort},
    },
    platform::{Placement, PlatformOptions},
    scene::{Scene, play_between, play_between_at},
    wait,
};
use tempfile::TempDir;

use crate::{LIMIT, exchange, roaming::ip};

/// The prefix into which the network translates.
const PREFIX: &str = "2001:db8:6464::";

/// What the name servers of the site say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dns64 {
    /// As RFC 7050 wants it.
    Whole,
    /// Both addresses of every name, and nothing of the well-known one.
    WithoutWellKnownName,
    /// Translated addresses alone.
    OnlyTranslated,
}

/// A running tayga in the router of site 0; it ends on drop.
struct Translator {
    child: Child,
    _dir: TempDir,
}

impl Translator {
    /// Takes IPv4 from site 0 and lets its router translate.
    fn start(lab: &NatLab, dns: Dns64) -> anyhow::Result<Self> {
        let (router, site) = (lab.name("r0"), lab.name("s0"));
        ip(&["-n", &site, "-4", "addr", "flush", "dev", "eth0"])?;
        ip(&["-n", &router, "addr", "add", "2001:db8:2::1/64", "dev", "lan", "nodad"])?;
        ip(&["-n", &site, "addr", "add", "2001:db8:2::2/64", "dev", "eth0", "nodad"])?;
        ip(&["-n", &site, "-6", "route", "add", "default", "via", "2001:db8:2::1"])?;
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("tayga.conf");
        fs::write(
            &config,
            format!(
                "tun-device nat64\nipv4-addr 192.168.255.1\nipv6-addr 2001:db8:64::1\nprefix {PREFIX}/96\n\
                 dynamic-pool 192.168.255.0/24\ndata-dir {}\n",
                dir.path().display()
            ),
        )?;
        let tayga = |arguments: &[&str]| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &router, "tayga", "-c"]).arg(&config).args(arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let made = tayga(&["--mktun"]).status().context("cannot start tayga")?;
        ensure!(made.success(), "tayga --mktun: {made}");
        ip(&["-n", &router, "link", "set", "nat64", "up"])?;
        ip(&["-n", &router, "route", "add", "192.168.255.0/24", "dev", "nat64"])?;
        ip(&["-n", &router, "-6", "route", "add", &format!("{PREFIX}/96"), "dev", "nat64"])?;
        let child = tayga(&["-d"]).spawn().context("cannot start tayga")?;
        let translator = Self { child, _dir: dir };
        fs::write(Path::new("/etc/netns").join(&site).join("hosts"), hosts(lab, dns)?)?;
        Ok(translator)
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The names that site 0 knows.
fn hosts(lab: &NatLab, dns: Dns64) -> anyhow::Result<String> {
    let prefix = Nat64Prefix::new(PREFIX.parse()?, 96).context("a prefix")?;
    let [relay, second] = lab.relays();
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for place in [lab.control(), relay, second] {
        let (IpAddr::V4(address), Some(name)) = (place.ip, place.host) else { continue };
        writeln!(hosts, "{} {name}", prefix.embed(address))?;
        if dns != Dns64::OnlyTranslated {
            writeln!(hosts, "{address} {name}")?;
        }
    }
    if dns == Dns64::Whole {
        for known in [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)] {
            writeln!(hosts, "{} ipv4only.arpa.", prefix.embed(known))?;
        }
    }
    Ok(hosts)
}

async fn meets(dns: Dns64) -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    lab.add_site(PreservedPort)?;
    lab.add_site(PortFilter)?;
    let _translator = Translator::start(&lab, dns)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, 20).await?;
        let told = reason(scene, true).await?;
        ensure!(told.ends_with("(IPv6 through NAT64)"), "{told}");
        let outcome = scene.platform.ctl.run(&["netcheck", "--json", "--socket", scene.north.socket()]).await?;
        let report: Report = serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))?;
        ensure!(report.problems.is_empty() && report.nat64 == Some(format!("{PREFIX}/96")), "{report:?}");
        ensure!(report.nat_text.starts_with("IPv4 only through NAT64 (2001:db8:6464::/96); a NAT that"), "{report:?}");
        Ok(())
    })
    .await
}

/// Why the path in use is in use, as the northern or southern gateway says.
async fn reason(scene: &Scene, north: bool) -> anyhow::Result<String> {
    let site = if north { &scene.north } else { &scene.south };
    Ok(site.connection(&scene.platform.ctl, &scene.link.connection).await?.path_reason)
}

#[tokio::test]
async fn a_site_with_ipv6_only_behind_a_nat64_meets_one_with_ipv4_only_directly() -> anyhow::Result<()> {
    meets(Dns64::Whole).await
}

#[tokio::test]
async fn where_the_well_known_name_is_unknown_the_stun_servers_show_the_prefix() -> anyhow::Result<()> {
    meets(Dns64::WithoutWellKnownName).await
}

#[tokio::test]
async fn a_control_plane_and_relays_that_are_given_as_ipv4_addresses_are_reached_from_a_site_with_ipv6_only()
-> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    lab.add_site(PreservedPort)?;
    lab.add_site(PortFilter)?;
    let _translator = Translator::start(&lab, Dns64::Whole)?;
    let nameless = |place: Placement| Placement { host: None, ..place };
    let [relay, second] = lab.relays().map(nameless);
    let control = nameless(lab.control());
    let options = PlatformOptions { control, relay, more_relays: vec![second], ..PlatformOptions::default() };
    play_between_at(&lab, options, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, 20).await?;
        let outcome = scene.platform.ctl.run(&["netcheck", "--json", "--socket", scene.north.socket()]).await?;
        let report: Report = serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))?;
        let is_reached = |host: &HostCheck| host.host.starts_with("198.51.100.") && host.outcome.is_reached();
        ensure!(report.hosts.len() == 3 && report.hosts.iter().all(is_reached), "{report:?}");
        ensure!(report.problems.is_empty() && report.latencies.len() == 4, "{report:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn where_nobody_shows_the_prefix_both_sides_say_that_they_have_no_family_in_common() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    lab.add_site(PreservedPort)?;
    lab.add_site(PortFilter)?;
    let _translator = Translator::start(&lab, Dns64::OnlyTranslated)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        for (north, words) in [(true, "IPv6 only here, IPv4 only there"), (false, "IPv4 only here, IPv6 only there")] {
            wait::until_true(LIMIT, "the obstacle is told", async || Ok(reason(scene, north).await?.contains(words)))
                .await?;
        }
        exchange(scene, 5).await
    })
    .await
}

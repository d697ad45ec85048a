//! A router that forwards a port when it is asked: two NATs with random ports meet directly all the same.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use gateway_proto::{
    api::gateway::PathKind,
    netcheck::{MappingProtocol, Report},
};
use gateway_tests::{
    measured,
    natlab::{NatLab, RouterKind::RandomPort},
    platform::Site,
    scene::play_between_with,
    wait,
};

use crate::{LIMIT, exchange};

/// The router's outer address; miniupnpd forwards nothing at the addresses of documentation that the lab has otherwise.
const OUTER: &str = "11.22.33.44";

/// Where the administrator forwards a port from.
const STATIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2)), 9000);

/// A running miniupnpd; it ends on drop.
struct Router(Child);

impl Router {
    fn start(lab: &NatLab, dir: &Path, protocols: &str) -> anyhow::Result<Self> {
        let (core, router) = (lab.name("core"), lab.name("r0"));
        run(&["ip", "-n", &router, "addr", "add", &format!("{OUTER}/32"), "dev", "wan"])?;
        run(&["ip", "-n", &core, "route", "add", &format!("{OUTER}/32"), "via", "203.0.113.2"])?;
        lab.nft(
            "r0",
            "table inet filter {
               chain miniupnpd { }
               chain forward { type filter hook forward priority 0; jump miniupnpd; }
               chain prerouting_miniupnpd { }
               chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
               chain postrouting_miniupnpd { }
               chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
             }
             insert rule inet lab through ct status dnat accept",
        )?;
        let config = dir.join("miniupnpd.conf");
        fs::write(
            &config,
            format!(
                "ext_ifname=wan\next_ip={OUTER}\nlistening_ip=lan\nipv6_disable=yes\nsecure_mode=yes\n{protocols}\n\
                 uuid=6b473c46-13e1-4e76-80e5-2d37cd495526\nallow 1024-65535 10.0.0.0/8 1024-65535\n"
            ),
        )?;
        let log = File::create(dir.join("miniupnpd.log"))?;
        let child = Command::new("ip")
            .args(["netns", "exec", &router, "miniupnpd", "-d", "-f"])
            .arg(&config)
            .arg("-P")
            .arg(dir.join("miniupnpd.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start miniupnpd")?;
        Ok(Self(child))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether the router forwards a port to somebody.
fn forwards(lab: &NatLab) -> anyhow::Result<bool> {
    let list = ["netns", "exec", &lab.name("r0"), "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"];
    let output = Command::new("ip").args(list).output()?;
    Ok(String::from_utf8(output.stdout)?.contains("dnat"))
}

async fn meets(protocols: &str, expected: MappingProtocol) -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(RandomPort)?;
    }
    let dir = tempfile::tempdir()?;
    let _router = Router::start(&lab, dir.path(), protocols)?;
    let told = play_between_with(
        &lab,
        |site, options| options.port_mapping = site == 0,
        async |scene| {
            scene.on_path(PathKind::Direct).await?;
            exchange(scene, 10).await?;
            let outcome = scene.platform.ctl.run(&["netcheck", "--json", "--socket", scene.north.socket()]).await?;
            let report: Report = serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))?;
            let mapping = report.port_mapping.context("no port mapping in the report")?;
            let outer = mapping.outer.with_context(|| format!("{mapping:?}"))?;
            ensure!(mapping.protocol == Some(expected) && outer.ip().to_string() == OUTER, "{mapping:?}");
            ensure!(forwards(&lab)?, "the router forwards nothing");
            measured!("two NATs with random ports, one with a mapping by {expected}: direct");
            scene.north.gateway.terminate(LIMIT).await?;
            wait::until_true(Duration::from_secs(5), "the port is given back", async || Ok(!forwards(&lab)?)).await
        },
    )
    .await;
    told.map_err(|error| {
        let log = fs::read_to_string(dir.path().join("miniupnpd.log")).unwrap_or_default();
        anyhow::anyhow!("{error:#}\nlog of miniupnpd:\n{log}")
    })
}

#[tokio::test]
async fn a_port_mapped_by_pcp_makes_a_hard_nat_reachable_and_is_given_back() -> anyhow::Result<()> {
    meets("enable_natpmp=yes\nenable_upnp=no", MappingProtocol::Pcp).await
}

#[tokio::test]
async fn a_port_mapped_by_upnp_makes_a_hard_nat_reachable_and_is_given_back() -> anyhow::Result<()> {
    meets("enable_natpmp=no\nenable_upnp=yes", MappingProtocol::Upnp).await
}

#[tokio::test]
async fn an_address_that_the_administrator_names_makes_a_hard_nat_reachable() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(RandomPort)?;
    }
    let inner = lab.site(0).ip;
    let listen: SocketAddr = lab.options(0).listen.context("a port of its own")?.parse()?;
    let port = listen.port();
    lab.nft(
        "r0",
        &format!(
            "table ip static {{
               chain prerouting {{ type nat hook prerouting priority -100; iifname \"wan\" udp dport {} dnat to {inner}:{port}; }}
             }}
             insert rule inet lab through ct status dnat accept",
            STATIC.port(),
        ),
    )?;
    play_between_with(
        &lab,
        |site, options| options.addresses = if site == 0 { vec![STATIC] } else { Vec::new() },
        async |scene| {
            scene.on_path(PathKind::Direct).await?;
            let status = scene.south.status(&scene.platform.ctl).await?;
            ensure!(status.peers[0].remote_address == Some(STATIC.to_string()), "{:?}", status.peers[0]);
            exchange(scene, 10).await
        },
    )
    .await
}

#[tokio::test]
async fn nobody_is_asked_unless_configured_and_a_router_that_gives_none_is_named() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(RandomPort)?;
    }
    let dir = tempfile::tempdir()?;
    let _router = Router::start(&lab, dir.path(), "enable_natpmp=yes\nenable_upnp=yes")?;
    play_between_with(
        &lab,
        |site, options| options.port_mapping = site == 1,
        async |scene| {
            scene.on_path(PathKind::Relayed).await?;
            let report = async |site: &Site| -> anyhow::Result<Report> {
                let outcome = scene.platform.ctl.run(&["netcheck", "--json", "--socket", site.socket()]).await?;
                serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))
            };
            let silent = report(&scene.north).await?;
            ensure!(silent.port_mapping.is_none() && !forwards(&lab)?, "{:?}", silent.port_mapping);
            wait::until_true(LIMIT, "the missing mapping is named", async || {
                Ok(report(&scene.south).await?.problems.iter().any(|problem| problem.code == "port_mapping"))
            })
            .await?;
            exchange(scene, 5).await
        },
    )
    .await
}

fn run(command: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(command[0]).args(&command[1..]).status()?;
    ensure!(status.success(), "{command:?}");
    Ok(())
}

//! A router that forwards a port when it is asked: two NATs with random ports meet directly all the same.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use gateway_proto::{
    api::gateway::PathKind,
    netcheck::{MappingProtocol, Report},
};
use gateway_tests::{
    measured,
    natlab::{Mapper, NatLab, RouterKind::RandomPort},
    platform::Site,
    scene::play_between_with,
    wait,
};

use crate::{LIMIT, exchange};

/// Where the administrator forwards a port from.
const STATIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2)), 9000);

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
    let router = lab.mapper(0, protocols)?;
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
            ensure!(mapping.protocol == Some(expected) && outer.ip() == Mapper::outer(0), "{mapping:?}");
            let told = scene.north.look().await?.port_mapping;
            ensure!(told.as_ref() == Some(&mapping), "status: {told:?}, netcheck: {mapping:?}");
            ensure!(forwards(&lab)?, "the router forwards nothing");
            measured!("two NATs with random ports, one with a mapping by {expected}: direct");
            scene.north.gateway.terminate(LIMIT).await?;
            wait::until_true(Duration::from_secs(5), "the port is given back", async || Ok(!forwards(&lab)?)).await
        },
    )
    .await;
    told.map_err(|error| anyhow::anyhow!("{error:#}\nlog of miniupnpd:\n{}", router.log()))
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
    let _router = lab.mapper(0, Mapper::EVERYTHING)?;
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

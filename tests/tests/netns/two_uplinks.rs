//! A site with two uplinks at once and source routing: what comes to an address leaves by it.

use std::process::Command;

use anyhow::ensure;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{netns::Lab, scene::play_in};

use crate::{
    exchange,
    roaming::{ip, wire},
};

const SECOND: &str = "198.18.0.2";

#[tokio::test]
async fn a_site_whose_second_uplink_alone_is_reachable_is_direct_and_is_relayed_when_that_goes() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    let (public, site) = (lab.namespaces()[0].clone(), lab.namespaces()[3].clone());
    wire(&public, "to-a2", &site, "eth1")?;
    ip(&["-n", &public, "addr", "add", "198.18.0.1/24", "dev", "to-a2"])?;
    ip(&["-n", &site, "addr", "add", "198.18.0.2/24", "dev", "eth1"])?;
    // The default route stays that of the first uplink.
    ip(&["-n", &site, "route", "add", "default", "via", "198.18.0.1", "table", "100"])?;
    ip(&["-n", &site, "rule", "add", "from", SECOND, "table", "100"])?;
    let others = format!("add rule inet lab forward meta l4proto udp ip saddr != {SECOND} ip daddr != {SECOND} drop");
    let dropped = Command::new("ip").args(["netns", "exec", &public, "nft", &others]).status()?;
    ensure!(dropped.success(), "nft: {dropped}");
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, 20).await?;
        let status = scene.south.look().await?;
        let remote = status.peers.first().and_then(|peer| peer.remote_address.clone()).unwrap_or_default();
        ensure!(remote.starts_with(&format!("{SECOND}:")), "the partner reaches it at {remote}");
        ip(&["-n", &site, "addr", "del", "198.18.0.2/24", "dev", "eth1"])?;
        exchange(scene, 20).await?;
        scene.on_path(PathKind::Relayed).await?;
        // The counter, as the reason in use may be another by now.
        let status = scene.north.look().await?;
        let changes = format!("{:?}", status.peers.first().map(|peer| &peer.path_counts));
        ensure!(changes.contains("LocalAddressGone"), "{changes}");
        Ok(())
    })
    .await
}

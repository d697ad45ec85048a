//! A site with two uplinks at once and source routing: what comes to an address leaves by it.

use std::{process::Command, time::Instant};

use anyhow::ensure;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{measured, netns::Lab, scene::play_in};

use crate::{
    STALL_LIMIT, exchange,
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
        let gone = Instant::now();
        exchange(scene, 1).await?;
        let stall = gone.elapsed();
        measured!("stall when the address of the second uplink goes: {:.2} s", stall.as_secs_f64());
        // Usually the look at the network is first; on a machine that pauses it may be the silence.
        ensure!(stall <= STALL_LIMIT, "the stall took {stall:?}");
        exchange(scene, 20).await?;
        scene.on_path(PathKind::Relayed).await
    })
    .await
}

//! A gateway whose tunnel socket is bound to one address (`[tunnel] listen`), and that address goes and comes back: with its
//! uplink, by itself, or with the whole interface. The socket is opened anew, and no byte is lost.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_proto::api::{gateway::PathKind, local::SocketStatus};
use gateway_tests::{
    netns::{Lab, SITES},
    platform::GatewayOptions,
    scene::{Scene, play_in_with},
    wait,
};

use crate::{
    LIMIT, STALL_LIMIT, exchange, limit_rate,
    roaming::{ip, roam, wire},
};

/// How long the address is away: well below the 8 s after which QUIC gives a tunnel up.
const AWAY: Duration = Duration::from_secs(2);

/// Plays with `north` bound to its one address.
async fn play_pinned(lab: &Lab, scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let listen = |site: usize| if site == 0 { format!("{}:0", SITES[0]) } else { "[::]:0".to_owned() };
    let options = |site| GatewayOptions { listen: Some(listen(site)), ..GatewayOptions::default() };
    play_in_with(lab, options, scenario).await
}

async fn socket(scene: &Scene) -> anyhow::Result<SocketStatus> {
    scene.north.look().await?.socket.context("no word of the socket")
}

/// Waits until the socket is open again, and insists that it was opened anew, at the same port.
async fn opened_anew(scene: &mut Scene, before: &SocketStatus) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "the socket is open again", async || Ok(socket(scene).await?.problem.is_none())).await?;
    let now = socket(scene).await?;
    ensure!(now.reopened > before.reopened && now.address == before.address, "{now:?} after {before:?}");
    scene.on_path(PathKind::Direct).await?;
    exchange(scene, 10).await
}

#[tokio::test]
async fn a_pinned_address_that_is_away_with_its_uplink_is_taken_up_again_and_relays_carry_meanwhile()
-> anyhow::Result<()> {
    let lab = Lab::start()?;
    let (public, site) = (lab.namespaces()[0].clone(), lab.namespaces()[3].clone());
    wire(&public, "to-a2", &site, "eth1")?;
    ip(&["-n", &public, "addr", "add", "198.18.0.1/24", "dev", "to-a2"])?;
    ip(&["-n", &site, "addr", "add", "198.18.0.2/24", "dev", "eth1"])?;
    limit_rate(&site, "eth0")?;
    limit_rate(&site, "eth1")?;
    play_pinned(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let before = socket(scene).await?;
        roam(scene, "a pinned address goes with its uplink", STALL_LIMIT, async || {
            ip(&["-n", &site, "link", "set", "eth0", "down"])?;
            ip(&["-n", &site, "route", "replace", "default", "via", "198.18.0.1"])
        })
        .await?;
        scene.on_path(PathKind::Relayed).await?;
        let problem = socket(scene).await?.problem.context("no problem is told")?;
        ensure!(problem.contains("10.1.0.2") && problem.contains("[tunnel] listen"), "{problem}");
        exchange(scene, 10).await?;
        roam(scene, "a pinned address comes back with its uplink", STALL_LIMIT, async || {
            ip(&["-n", &site, "link", "set", "eth0", "up"])?;
            ip(&["-n", &site, "route", "replace", "default", "via", "10.1.0.1"])
        })
        .await?;
        opened_anew(scene, &before).await
    })
    .await
}

#[tokio::test]
async fn a_pinned_address_that_is_removed_and_added_in_mid_traffic_loses_no_byte() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    let site = lab.namespaces()[3].clone();
    limit_rate(&site, "eth0")?;
    play_pinned(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let before = socket(scene).await?;
        roam(scene, "a pinned address is removed and added 2 s later", AWAY + STALL_LIMIT, async || {
            ip(&["-n", &site, "addr", "flush", "dev", "eth0", "scope", "global"])?;
            // How long it is away is what is tested.
            tokio::time::sleep(AWAY).await;
            address_is_back(&site)
        })
        .await?;
        opened_anew(scene, &before).await?;
        let before = socket(scene).await?;
        roam(scene, "a pinned address is removed and added at once", STALL_LIMIT, async || {
            ip(&["-n", &site, "addr", "flush", "dev", "eth0", "scope", "global"])?;
            address_is_back(&site)
        })
        .await?;
        // Seen or not: where it was not, the socket shows whether the kernel refused anything.
        let now = socket(scene).await?;
        ensure!(now.problem.is_none() && now.address == before.address, "{now:?}");
        scene.on_path(PathKind::Direct).await
    })
    .await
}

#[tokio::test]
async fn a_pinned_address_whose_interface_is_made_anew_loses_no_byte() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    let (router, site) = (lab.namespaces()[1].clone(), lab.namespaces()[3].clone());
    play_pinned(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let before = socket(scene).await?;
        let mut sender = scene.keeping_sender().with_response_timeout(LIMIT);
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
        // As when the network of a container is restarted: the interface goes with everything on it.
        ip(&["-n", &site, "link", "del", "eth0"])?;
        let gone = async || Ok(socket(scene).await?.problem.is_some());
        wait::until_true(AWAY, "the loss is noticed", gone).await?;
        wire(&router, "lan", &site, "eth0")?;
        ip(&["-n", &router, "addr", "add", "10.1.0.1/24", "dev", "lan"])?;
        address_is_back(&site)?;
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
        opened_anew(scene, &before).await?;
        let status = scene.north.connection(&scene.platform.ctl, &scene.link.connection).await?;
        ensure!(status.streams_reset == 0, "a stream was reset");
        Ok(())
    })
    .await
}

fn address_is_back(site: &str) -> anyhow::Result<()> {
    ip(&["-n", site, "addr", "add", "10.1.0.2/24", "dev", "eth0"])?;
    ip(&["-n", site, "route", "replace", "default", "via", "10.1.0.1"])
}

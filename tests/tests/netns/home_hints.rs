//! A home relay that moves while the control plane is away: the partner hears of it inside the tunnel.

use std::time::Instant;

use anyhow::{Context, ensure};
use gateway_proto::api::{gateway::PathKind, local::RelayStatus};
use gateway_tests::{
    measured,
    natlab::{NatLab, RouterKind::PortFilter},
    platform::{Placement, PlatformOptions, Site},
    scene::{Scene, play_between_at},
    wait,
};

use crate::{LIMIT, exchange};

/// The relays that a gateway wants to be attached to.
async fn relays(site: &Site) -> anyhow::Result<Vec<RelayStatus>> {
    Ok(site.look().await?.relays)
}

/// Waits until both gateways are attached to what they want, and each has a second relay.
async fn settled(scene: &Scene) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "both gateways are attached to their relays", async || {
        let [north, south] = [relays(&scene.north).await?, relays(&scene.south).await?];
        Ok([north, south].iter().all(|relays| relays.len() > 1 && relays.iter().all(|relay| relay.attached)))
    })
    .await
}

/// Nothing passes between the receiver's site and this relay any more, and nobody is told.
fn cut_off(lab: &NatLab, url: &str) -> anyhow::Result<()> {
    let site = lab.outer(1);
    let (part, table, [to_it, from_it]) = match ["relay-1", "relay-2"].into_iter().find(|part| url.contains(part)) {
        Some(part) => (part, "off".to_owned(), ["drop", "drop"].map(str::to_owned)),
        None => {
            let place = url.strip_prefix("wss://").and_then(|rest| rest.split('/').next());
            let port = place.and_then(|place| place.rsplit_once(':')).context("a relay without a port")?.1;
            // A relay beside it loses its UDP as well, and has TLS.
            let udp = "meta l4proto udp drop";
            let to_it = format!("tcp dport {port} drop; ip saddr {site} {udp}");
            ("control", format!("off_{port}"), [to_it, format!("tcp sport {port} drop; ip daddr {site} {udp}")])
        }
    };
    lab.nft(
        part,
        &format!(
            "table inet {table} {{
               chain input {{ type filter hook input priority 0; ip saddr {site} {to_it}; }}
               chain output {{ type filter hook output priority 0; ip daddr {site} {from_it}; }}
             }}"
        ),
    )
}

/// No UDP passes between the two sites any more, and nobody is told.
fn cut_the_direct_path(lab: &NatLab) -> anyhow::Result<()> {
    let [north, south] = [lab.outer(0), lab.outer(1)];
    lab.nft(
        "core",
        &format!(
            "table inet cut {{
               chain through {{
                 type filter hook forward priority -10;
                 ip saddr {north} ip daddr {south} meta l4proto udp drop;
                 ip saddr {south} ip daddr {north} meta l4proto udp drop;
               }}
             }}"
        ),
    )
}

#[tokio::test]
async fn a_partner_whose_home_moves_while_the_control_plane_is_away_is_reached_there_when_the_direct_path_dies()
-> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(PortFilter)?;
    }
    let [relay, second] = lab.relays();
    // Two more, beside the control plane: the sender is attached to three at most, and one is to be left for the receiver.
    let further = Placement { host: None, ..lab.control() };
    let more_relays = vec![second, further.clone(), further];
    let options = PlatformOptions { control: lab.control(), relay, more_relays, ..PlatformOptions::default() };
    play_between_at(&lab, options, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        settled(scene).await?;
        scene.platform.control.kill_and_reap();
        let known: Vec<_> = relays(&scene.north).await?.into_iter().map(|relay| relay.url).collect();
        ensure!(known.len() < 4, "the sender is attached to every relay, so that nothing can be shown: {known:?}");
        for url in &known {
            cut_off(&lab, url)?;
        }
        let begun = Instant::now();
        let home = wait::until(LIMIT, "the receiver has its home where the sender never was", async || {
            let home = relays(&scene.south).await?.into_iter().find(|relay| relay.home && relay.attached);
            Ok(home.map(|home| home.url).filter(|home| !known.contains(home)))
        })
        .await?;
        let moved = Instant::now();
        wait::until_true(LIMIT, "the sender is attached there too", async || {
            Ok(relays(&scene.north).await?.iter().any(|relay| relay.attached && relay.url == home))
        })
        .await?;
        measured!(
            "home moved {:.1} s after its relays fell silent; the partner came {:.1} s later, without control plane",
            (moved - begun).as_secs_f64(),
            moved.elapsed().as_secs_f64()
        );
        scene.on_path(PathKind::Direct).await?;

        let mut sender = scene.keeping_sender().with_response_timeout(LIMIT);
        let messages = [scene.message(), scene.message()];
        scene.deliver(&mut sender, &messages[0]).await?;
        cut_the_direct_path(&lab)?;
        let begun = Instant::now();
        scene.deliver(&mut sender, &messages[1]).await?;
        measured!("the direct path dies, the common relay takes over after {:.2} s", begun.elapsed().as_secs_f64());
        scene.on_path(PathKind::Relayed).await?;
        exchange(scene, 10).await
    })
    .await
}

//! `gateway-ctl reconnect`: an administrator who has opened his firewall does not wait for the next attempt.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::api::gateway::{Connectivity, PathKind};
use gateway_tests::{measured, netns::Lab, scene::play_in};

/// The first three attempts are over by then; the next look at the partner's addresses is half a minute after the tunnel came up.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(12);
/// An offer, an answer and a round of probes: far from what is left until the next look.
const FOUND_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn reconnect_finds_a_direct_path_at_once_although_the_next_attempt_is_far_away() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    lab.drop_udp_between_sites()?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        // That nothing is tried now is what is tested.
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        let socket = ["--socket", scene.north.socket()];
        let nobody = scene.platform.ctl.run(&[&["reconnect", "nobody"][..], &socket[..]].concat()).await?;
        ensure!(nobody.code != Some(0) && nobody.stderr.contains("'south'"), "the peers are not named: {nobody:?}");
        lab.heal()?;
        let healed = Instant::now();
        scene.ctl(&[&["reconnect", "south"][..], &socket[..]].concat()).await?;
        for site in [&scene.north, &scene.south] {
            let left = FOUND_LIMIT.saturating_sub(healed.elapsed());
            site.wait_for(&scene.link.connection, Connectivity::Connected, Some(PathKind::Direct), left).await?;
        }
        measured!("direct {:.2} s after `gateway-ctl reconnect`", healed.elapsed().as_secs_f64());
        // It is the path of the data, and no matter of the status alone.
        scene.on_path(PathKind::Direct).await
    })
    .await
}

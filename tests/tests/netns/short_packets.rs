//! Something between two sites drops short UDP packets, as filters against floods do: large ones, and their answers, pass.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    netns::Lab,
    scene::{Scene, play_in},
    wait,
};

use crate::{LIMIT, STALL_LIMIT, exchange};

/// Acknowledgements and small probes are shorter, messages of the corpus and probes of full size are not.
const SHORT: usize = 200;
/// A path that dropped them rests for 30 s, is looked at every 30 s, and is shown when both ends use it.
const BACK: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_direct_path_that_comes_to_drop_short_packets_is_left_for_the_relay_and_used_again_when_they_pass()
-> anyhow::Result<()> {
    let lab = Lab::start()?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, 20).await?;
        lab.drop_short_udp_between_sites(SHORT)?;
        let begun = Instant::now();
        exchange(scene, 1).await?;
        let stall = begun.elapsed();
        measured!("stall when the direct path drops short packets: {:.2} s", stall.as_secs_f64());
        ensure!(stall <= STALL_LIMIT, "the stall took {stall:?}");
        exchange(scene, 20).await?;
        scene.on_path(PathKind::Relayed).await?;
        wait::until_true(LIMIT, "both ends say that short packets do not pass", async || {
            Ok(reasons(scene).await?.iter().all(|reason| reason.contains("small packets")))
        })
        .await?;
        exchange(scene, 20).await?;
        lab.heal()?;
        let healed = Instant::now();
        wait::until_true(BACK, "both ends are on a direct path", async || {
            exchange(scene, 1).await?;
            both_direct(scene).await
        })
        .await?;
        measured!("direct again {:.1} s after short packets pass", healed.elapsed().as_secs_f64());
        exchange(scene, 20).await
    })
    .await
}

/// Why each end uses the path that it uses.
async fn reasons(scene: &Scene) -> anyhow::Result<[String; 2]> {
    let mut reasons = [String::new(), String::new()];
    for (reason, site) in reasons.iter_mut().zip([&scene.north, &scene.south]) {
        *reason = site.connection(&scene.platform.ctl, &scene.link.connection).await?.path_reason;
    }
    Ok(reasons)
}

async fn both_direct(scene: &Scene) -> anyhow::Result<bool> {
    for site in [&scene.north, &scene.south] {
        if site.connection(&scene.platform.ctl, &scene.link.connection).await?.path != Some(PathKind::Direct) {
            return Ok(false);
        }
    }
    Ok(true)
}

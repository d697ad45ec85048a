//! The relay's two carriers: UDP, and TLS behind it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    netns::Lab,
    scene::{Scene, play_in},
    wait,
};

use crate::{LIMIT, STALL_LIMIT, exchange, limit_rate};

/// The carrier of the home relay at both sites.
async fn carriers(scene: &Scene) -> anyhow::Result<[Option<String>; 2]> {
    let mut carriers = [None, None];
    for (carrier, site) in carriers.iter_mut().zip([&scene.north, &scene.south]) {
        let status = site.status(&scene.platform.ctl).await?;
        *carrier = status.relays.into_iter().find_map(|relay| relay.carrier);
    }
    Ok(carriers)
}

async fn until_carried(scene: &Scene, code: &str) -> anyhow::Result<()> {
    wait::until_true(LIMIT, code, async || {
        Ok(carriers(scene).await?.iter().all(|carrier| carrier.as_deref() == Some(code)))
    })
    .await
}

#[tokio::test]
async fn what_must_be_relayed_travels_over_udp() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    lab.drop_udp_between_sites()?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        until_carried(scene, "passes").await?;
        exchange(scene, 20).await?;
        let begun = Instant::now();
        let big = scene.document(20 << 20);
        scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &big).await?;
        measured!("20 MiB relayed over UDP: {:.2} s", begun.elapsed().as_secs_f64());
        ensure!(carriers(scene).await?.iter().all(|carrier| carrier.as_deref() == Some("passes")));
        Ok(())
    })
    .await
}

/// Takes UDP to the relay away by `cut` with a message under way, insists on every byte, the longest wait and the reason that is told, and
/// on UDP when it passes again.
async fn udp_fails_under_way(what: &str, code: &str, cut: impl Fn(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let lab = Lab::start()?;
    limit_rate(&lab.namespaces()[3], "eth0")?;
    lab.drop_udp_between_sites()?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        until_carried(scene, "passes").await?;
        exchange(scene, 10).await?;
        let big = scene.document(20 << 20);
        let mut bulk = scene.keeping_sender().with_response_timeout(LIMIT);
        let mut small = scene.keeping_sender().with_response_timeout(LIMIT);
        let messages: Vec<_> = (0..40).map(|_| scene.message()).collect();
        let before = scene.engine.bytes();
        let cutting = async {
            scene.engine.wait_for_bytes(before + (1 << 20), LIMIT).await?;
            cut(&lab)?;
            let mut stall = Duration::ZERO;
            for message in &messages {
                let begun = Instant::now();
                scene.deliver(&mut small, message).await?;
                stall = stall.max(begun.elapsed());
            }
            anyhow::Ok(stall)
        };
        let (verdict, stall) = tokio::join!(bulk.send(&big.bytes), cutting);
        let stall = stall?;
        ensure!(verdict == gateway_tests::mllp::Verdict::Acknowledged, "the message in flight was {verdict}");
        scene.arrived_once(&big)?;
        measured!("{what}: longest wait {:.2} s", stall.as_secs_f64());
        ensure!(stall <= STALL_LIMIT, "the stall took {stall:?}");
        ensure!(carriers(scene).await?.iter().all(|carrier| carrier.as_deref() == Some(code)));
        lab.heal_the_relay()?;
        let healed = Instant::now();
        until_carried(scene, "passes").await?;
        measured!("over UDP again {:.1} s after the fault is gone", healed.elapsed().as_secs_f64());
        exchange(scene, 10).await
    })
    .await
}

#[tokio::test]
async fn udp_to_the_relay_that_stops_passing_is_left_before_an_engine_gives_up_and_taken_up_again() -> anyhow::Result<()>
{
    udp_fails_under_way("UDP to the relay dies silently", "stopped_passing", Lab::drop_udp_at_the_relay).await
}

#[tokio::test]
async fn udp_to_the_relay_that_carries_only_small_packets_any_more_is_left_as_well() -> anyhow::Result<()> {
    let cut = |lab: &Lab| lab.drop_large_udp_at_the_relay(1_100);
    udp_fails_under_way("UDP to the relay carries only small packets", "only_small_packets", cut).await
}

#[tokio::test]
async fn udp_to_the_relay_that_drops_short_packets_is_left_as_well() -> anyhow::Result<()> {
    let cut = |lab: &Lab| lab.drop_short_udp_at_the_relay(200);
    udp_fails_under_way("UDP to the relay carries only large packets", "only_large_packets", cut).await
}

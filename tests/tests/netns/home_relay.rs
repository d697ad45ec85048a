//! Which relay is home: the nearest, calmly.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gateway_proto::api::{gateway::PathKind, local::RelayStatus};
use gateway_tests::{
    measured,
    natlab::{NatLab, RouterKind::RandomPort},
    platform::Site,
    scene::{Scene, play_between},
    wait,
};

use crate::{LIMIT, exchange};

/// Two rounds of measurements and some more.
const WATCHED: Duration = Duration::from_secs(50);
/// A home that became much farther is left within this: three measurements of it, 25 s apart at most, and some more.
const MOVE_LIMIT: Duration = Duration::from_secs(150);

async fn home(scene: &Scene, site: &Site) -> anyhow::Result<RelayStatus> {
    let status = site.status(&scene.platform.ctl).await?;
    status.relays.into_iter().find(|relay| relay.home).context("no home relay")
}

async fn both_homes(scene: &Scene) -> anyhow::Result<[RelayStatus; 2]> {
    Ok([home(scene, &scene.north).await?, home(scene, &scene.south).await?])
}

async fn until_both_are(scene: &Scene, name: &str, limit: Duration) -> anyhow::Result<[RelayStatus; 2]> {
    wait::until_true(limit, &format!("{name} is home"), async || {
        Ok(both_homes(scene).await?.iter().all(|home| home.url.contains(name)))
    })
    .await?;
    both_homes(scene).await
}

/// How often the gateways changed their home.
fn changes(scene: &Scene) -> usize {
    [&scene.north, &scene.south].iter().map(|site| site.gateway.log().matches("home relay: ").count()).sum()
}

#[tokio::test]
async fn the_nearest_relay_is_home_under_jitter_and_is_left_when_it_becomes_much_farther() -> anyhow::Result<()> {
    // The first of the map is the farther one.
    let mut lab = NatLab::start_with_relays_behind(["delay=25ms jitter=10ms", "delay=5ms jitter=5ms"])?;
    for _ in 0..2 {
        lab.add_site(RandomPort)?;
    }
    let mut wires = lab.take_relay_wires()?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        until_both_are(scene, "relay-2", LIMIT).await?;
        let before = changes(scene);
        let begun = Instant::now();
        while begun.elapsed() < WATCHED {
            exchange(scene, 1).await?;
            // An engine's pace.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        ensure!(changes(scene) == before, "home moved although nothing but jitter was there");
        // By now a first guess, made before anything was measured, is a choice.
        for home in both_homes(scene).await? {
            let reason = home.home_reason.as_deref();
            ensure!(matches!(reason, Some("nearest" | "nearer")), "{home:?}");
            let latency = home.latency_ms.context("no latency is told")?;
            ensure!((10.0..100.0).contains(&latency), "{latency} ms away");
        }
        wires[1].change("delay=200ms jitter=10ms")?;
        let changed = Instant::now();
        for home in until_both_are(scene, "relay-1", MOVE_LIMIT).await? {
            ensure!(home.home_reason.as_deref() == Some("much_nearer"), "{home:?}");
            ensure!(home.home_reason_text.is_some_and(|text| text.contains("three times")), "no words");
        }
        measured!("a home relay that became 400 ms away is left after {:.0} s", changed.elapsed().as_secs_f64());
        ensure!(changes(scene) == before + 2, "home moved more than once");
        exchange(scene, 10).await
    })
    .await
}

//! A machine that was copied, and both run.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_tests::{
    scene::{PATH_LIMIT, Scene, play},
    wait,
};

/// The second is told so with its first word to the control plane.
const TOLD_LIMIT: Duration = Duration::from_secs(20);
/// A place must be empty for 15 s before one that stands by gets it, and it asks every 15 to 45 s.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(120);
/// Messages sent while the copy starts and runs.
const MESSAGES: usize = 60;

#[tokio::test]
async fn a_copy_of_a_machine_carries_nothing_says_why_and_takes_over_when_the_original_stops() -> anyhow::Result<()> {
    play(async |scene| {
        deliver(scene, 5).await?;
        let copy = scene.south.copy(&scene.platform, "copy").await?;
        deliver(scene, MESSAGES).await?;
        wait::until_true(TOLD_LIMIT, "the copy says that it runs twice", async || {
            Ok(copy.look().await?.runs_twice.is_some_and(|told| told.is_second && told.address.is_some()))
        })
        .await?;
        deliver(scene, MESSAGES).await?;

        let status = copy.status(&scene.platform.ctl).await?;
        let connection = status.connections.iter().find(|entry| entry.id.to_string() == scene.link.connection);
        let connection = connection.context("the copy does not know its connection")?;
        ensure!(!connection.authorized && connection.bytes_received == 0, "the copy carried data: {connection:?}");
        ensure!(status.relays.iter().all(|relay| !relay.attached), "the copy is attached: {:?}", status.relays);
        wait::until_true(TOLD_LIMIT, "the original knows of the copy", async || {
            Ok(scene.south.look().await?.runs_twice.is_some_and(|told| !told.is_second))
        })
        .await?;
        let shown = scene.ctl(&["server", "show", &scene.south.name, "--profile", "south"]).await?;
        ensure!(shown["runs_twice"]["other_address"].is_string(), "the platform does not say it: {shown}");
        ensure!(shown["audit_alarm"] == false, "the original is accused: {shown}");

        scene.south.gateway.kill_and_reap();
        wait::until_true(TAKEOVER_LIMIT, "the copy is let in", async || {
            Ok(copy.look().await?.runs_twice.is_none() && copy.look().await?.control.connected)
        })
        .await?;
        let id = scene.link.connection.clone();
        scene.north.wait_for(&id, gateway_proto::api::gateway::Connectivity::Connected, None, PATH_LIMIT).await?;
        deliver(scene, 1).await?;
        let carried = copy.seen(&id).await?.is_some_and(|entry| entry.bytes_received > 0);
        ensure!(carried, "the copy did not carry it");
        Ok(())
    })
    .await
}

/// Each is acknowledged and at the engine once.
async fn deliver(scene: &mut Scene, count: usize) -> anyhow::Result<()> {
    let mut sender = scene.sender();
    for _ in 0..count {
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
    }
    Ok(())
}

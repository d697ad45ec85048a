//! Delivery proof: what both gateways counted is compared by the control plane.

use std::time::Duration;

use anyhow::ensure;
use gateway_tests::{
    mllp::{Broken, Verdict},
    platform::{Placement, PlatformOptions},
    scene::{Scene, play_with},
    wait,
};
use serde_json::Value;

/// Rounds of the comparison come this often here, and everything that is a multiple of them.
const INTERVAL_SECS: u64 = 2;
const LIMIT: Duration = Duration::from_secs(60);

fn options() -> PlatformOptions {
    PlatformOptions { delivery_interval_secs: INTERVAL_SECS, ..PlatformOptions::default() }
}

#[tokio::test]
async fn after_traffic_both_ends_have_counted_the_same_and_it_stays_so_over_a_restart() -> anyhow::Result<()> {
    play_with(options(), [Placement::loopback(), Placement::loopback()], async |scene| {
        scene.connected().await?;
        for _ in 0..5 {
            let message = scene.message();
            scene.deliver(&mut scene.sender(), &message).await?;
        }
        counted(scene, 5).await?;
        scene.south.gateway.kill_and_reap();
        scene.south.restart().await?;
        scene.connected().await?;
        let message = scene.message();
        scene.deliver(&mut scene.sender(), &message).await?;
        let delivery = counted(scene, 6).await?;
        ensure!(delivery["sender_answers"] == 6 && delivery["listener_answers"] == 6, "{delivery}");
        ensure!(delivery["alarm"].is_null(), "{delivery}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_orderly_stop_reports_what_was_counted_last() -> anyhow::Result<()> {
    play_with(options(), [Placement::loopback(), Placement::loopback()], async |scene| {
        scene.connected().await?;
        let mut messages = 0;
        for is_north in [true, false] {
            for _ in 0..3 {
                let message = scene.message();
                scene.deliver(&mut scene.sender(), &message).await?;
                messages += 1;
            }
            // At once: no report of these messages has gone out by itself.
            let site = if is_north { &mut scene.north } else { &mut scene.south };
            let status = site.gateway.terminate(LIMIT).await?;
            ensure!(status.success(), "the gateway ended with {status}");
            site.restart().await?;
            scene.connected().await?;
            let delivery = counted(scene, messages).await?;
            ensure!(delivery["alarm"].is_null(), "{delivery}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_message_that_dies_with_a_gateway_is_a_difference_at_both_organizations_until_it_is_written_off()
-> anyhow::Result<()> {
    play_with(options(), [Placement::loopback(), Placement::loopback()], async |scene| {
        scene.connected().await?;
        let mut sender = scene.keeping_sender().with_response_timeout(Duration::from_secs(2));
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
        counted(scene, 1).await?;
        // The message is on its way when the partner's gateway dies.
        scene.south.gateway.freeze()?;
        let message = scene.message();
        let verdict = sender.send(&message.bytes).await;
        ensure!(verdict == Verdict::Broken(Broken::NoAnswer), "{verdict}");
        drop(sender);
        scene.south.gateway.kill_and_reap();
        scene.south.restart().await?;
        scene.connected().await?;
        for profile in ["north", "south"] {
            wait::until_true(LIMIT, format!("{profile} sees the difference"), async || {
                Ok(delivery(scene, profile).await?["alarm"]["difference"]["messages"] == 1)
            })
            .await?;
        }
        let shown =
            scene.platform.ctl.run(&["connection", "show", &scene.link.connection, "--profile", "north"]).await?;
        ensure!(shown.stdout.contains("DELIVERY DIFFERS") && shown.stdout.contains("not handed over"), "{shown:?}");
        wait::until_true(LIMIT * 2, "it is written off", async || {
            let delivery = delivery(scene, "north").await?;
            Ok(delivery["alarm"].is_null() && delivery["written_off"]["messages"] == 1)
        })
        .await
    })
    .await
}

async fn counted(scene: &Scene, messages: u64) -> anyhow::Result<Value> {
    wait::until(LIMIT, format!("both ends have counted {messages} messages"), async || {
        let delivery = delivery(scene, "north").await?;
        let is = ["sender_messages", "listener_messages", "sender_answers", "listener_answers"]
            .iter()
            .all(|count| delivery[count] == messages);
        Ok(is.then_some(delivery))
    })
    .await
}

async fn delivery(scene: &Scene, profile: &str) -> anyhow::Result<Value> {
    Ok(scene.platform.connection(profile, &scene.link.connection).await?["delivery"].clone())
}

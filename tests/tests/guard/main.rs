//! What the data path costs in instructions, counted by callgrind: a guard that a busy machine does not disturb.
//!
//! Not in the default layers, because only optimised programs say anything: `tests/run guard`. One program at a time runs under callgrind, everything else at full speed; what is counted is
//! the work between two looks, divided by what was done in it. `baseline.toml` holds what is expected.

mod callgrind;

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, ensure};
use callgrind::Callgrind;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    platform::GatewayOptions,
    scene::{Scene, play_as},
};

/// A program under callgrind is about fifty times slower.
const LIMIT: Duration = Duration::from_secs(120);
/// Sent before anything is counted, so that windows and buffers have grown.
const WARM_UP: usize = 50;
const MESSAGES: usize = 400;
const CONNECTIONS: usize = 200;
const DOCUMENTS: usize = 4;
const DOCUMENT: usize = 4 << 20;

/// How much more than expected is a failure, and how much less asks for a new baseline, in percent.
const TOLERANCE: f64 = 20.0;

#[tokio::test]
async fn a_message_costs_the_sending_gateway_what_it_did() -> anyhow::Result<()> {
    play_as(&GatewayOptions::default(), async |scene| {
        let callgrind = Callgrind::wrap(&mut scene.north.gateway)?;
        scene.north.gateway.restart(LIMIT).await?;
        scene.connected().await?;
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, WARM_UP, true).await?;
        callgrind.reset(&scene.north.gateway).await?;
        exchange(scene, MESSAGES, true).await?;
        compare("message, sending gateway", callgrind.look(&scene.north.gateway).await?, MESSAGES)
    })
    .await
}

#[tokio::test]
async fn a_connection_with_one_message_costs_the_receiving_gateway_what_it_did() -> anyhow::Result<()> {
    play_as(&GatewayOptions::default(), async |scene| {
        let callgrind = Callgrind::wrap(&mut scene.south.gateway)?;
        scene.south.gateway.restart(LIMIT).await?;
        scene.connected().await?;
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, WARM_UP, false).await?;
        callgrind.reset(&scene.south.gateway).await?;
        exchange(scene, CONNECTIONS, false).await?;
        compare(
            "connection with a message, receiving gateway",
            callgrind.look(&scene.south.gateway).await?,
            CONNECTIONS,
        )
    })
    .await
}

#[tokio::test]
async fn a_mebibyte_costs_the_sending_gateway_what_it_did() -> anyhow::Result<()> {
    play_as(&GatewayOptions::default(), async |scene| {
        let callgrind = Callgrind::wrap(&mut scene.north.gateway)?;
        scene.north.gateway.restart(LIMIT).await?;
        scene.connected().await?;
        scene.on_path(PathKind::Direct).await?;
        documents(scene, 1).await?;
        callgrind.reset(&scene.north.gateway).await?;
        documents(scene, DOCUMENTS).await?;
        compare("MiB, sending gateway", callgrind.look(&scene.north.gateway).await?, (DOCUMENTS * DOCUMENT) >> 20)
    })
    .await
}

#[tokio::test]
async fn a_relayed_message_costs_the_relay_what_it_did() -> anyhow::Result<()> {
    play_as(&GatewayOptions { relayed: true, ..GatewayOptions::default() }, async |scene| {
        let callgrind = Callgrind::wrap(&mut scene.platform.relay)?;
        scene.platform.restart_relay().await?;
        scene.connected().await?;
        exchange(scene, WARM_UP, true).await?;
        callgrind.reset(&scene.platform.relay).await?;
        exchange(scene, MESSAGES, true).await?;
        compare("message, relay", callgrind.look(&scene.platform.relay).await?, MESSAGES)
    })
    .await
}

/// Messages one after the other, on one connection or each on its own.
async fn exchange(scene: &mut Scene, count: usize, keep: bool) -> anyhow::Result<()> {
    let sender = if keep { scene.keeping_sender() } else { scene.sender() };
    let mut sender = sender.with_response_timeout(LIMIT);
    for _ in 0..count {
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
    }
    Ok(())
}

async fn documents(scene: &mut Scene, count: usize) -> anyhow::Result<()> {
    let mut sender = scene.keeping_sender().with_response_timeout(LIMIT);
    for _ in 0..count {
        // Three bytes of a document make four of the message.
        let message = scene.document(DOCUMENT / 4 * 3);
        scene.deliver(&mut sender, &message).await?;
    }
    Ok(())
}

/// Compares with the baseline.
fn compare(what: &str, instructions: u64, count: usize) -> anyhow::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guard/baseline.toml");
    let baseline: BTreeMap<String, f64> = toml::from_str(&fs::read_to_string(path)?)?;
    let each = instructions as f64 / count as f64;
    let expected = baseline.get(what).with_context(|| format!("'{what}' ({each:.0}) is not in {path}"))?;
    let change = (each / expected - 1.0) * 100.0;
    measured!("{each:.0} instructions a {what} ({change:+.1} %)");
    if change < -TOLERANCE {
        measured!("{what}: so much less that {path} should be written anew");
    }
    ensure!(
        change <= TOLERANCE,
        "a {what} costs {each:.0} instructions, {change:.1} % more than the {expected:.0} of {path}: find out why, or \
         write there what it may cost from now on"
    );
    Ok(())
}

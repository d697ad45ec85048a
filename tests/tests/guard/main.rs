//! What the data path costs in instructions, counted by callgrind: a guard that a busy machine does not disturb.
//!
//! Not in the default layers, because it needs optimised programs: `tests/run guard`, which CI runs after the demo has built them.
//! One program at a time runs under callgrind, everything else at full speed; what is counted is the work between two looks,
//! divided by what was done in it. A busy machine makes smaller trains of packets and more wake-ups of the same work, never
//! fewer: the least of some rounds counts. `baseline.toml` holds what is expected.

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
/// Rounds at most until one is as cheap as expected.
const ROUNDS: usize = 4;

#[tokio::test]
async fn a_message_costs_the_sending_gateway_what_it_did() -> anyhow::Result<()> {
    play_as(&GatewayOptions::default(), async |scene| {
        let callgrind = Callgrind::wrap(&mut scene.north.gateway)?;
        scene.north.gateway.restart(LIMIT).await?;
        scene.connected().await?;
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, WARM_UP, true).await?;
        let mut least = Least::of("message, sending gateway", MESSAGES)?;
        while least.may_be_less() {
            callgrind.reset(&scene.north.gateway).await?;
            exchange(scene, MESSAGES, true).await?;
            least.counted(callgrind.look(&scene.north.gateway).await?);
        }
        least.compare()
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
        let mut least = Least::of("connection with a message, receiving gateway", CONNECTIONS)?;
        while least.may_be_less() {
            callgrind.reset(&scene.south.gateway).await?;
            exchange(scene, CONNECTIONS, false).await?;
            least.counted(callgrind.look(&scene.south.gateway).await?);
        }
        least.compare()
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
        let mut least = Least::of("MiB, sending gateway", (DOCUMENTS * DOCUMENT) >> 20)?;
        while least.may_be_less() {
            callgrind.reset(&scene.north.gateway).await?;
            documents(scene, DOCUMENTS).await?;
            least.counted(callgrind.look(&scene.north.gateway).await?);
        }
        least.compare()
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
        let mut least = Least::of("message, relay", MESSAGES)?;
        while least.may_be_less() {
            callgrind.reset(&scene.platform.relay).await?;
            exchange(scene, MESSAGES, true).await?;
            least.counted(callgrind.look(&scene.platform.relay).await?);
        }
        least.compare()
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

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guard/baseline.toml");

/// The least that something cost in the rounds so far, beside what is expected.
#[derive(Debug)]
struct Least {
    what: &'static str,
    /// How many of them each round makes.
    count: usize,
    expected: f64,
    /// Of each round: how much more than expected one of them cost, in percent.
    changes: Vec<f64>,
}

impl Least {
    fn of(what: &'static str, count: usize) -> anyhow::Result<Self> {
        let baseline: BTreeMap<String, f64> = toml::from_str(&fs::read_to_string(BASELINE)?)?;
        let expected = *baseline.get(what).with_context(|| format!("'{what}' is not in {BASELINE}"))?;
        Ok(Self { what, count, expected, changes: Vec::new() })
    }

    fn may_be_less(&self) -> bool {
        self.changes.len() < ROUNDS && self.change() > TOLERANCE
    }

    fn counted(&mut self, instructions: u64) {
        let each = instructions as f64 / self.count as f64;
        self.changes.push((each / self.expected - 1.0) * 100.0);
    }

    fn change(&self) -> f64 {
        self.changes.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Compares with the baseline.
    fn compare(&self) -> anyhow::Result<()> {
        let (what, change, rounds) = (self.what, self.change(), self.changes.len());
        let each = self.expected * (1.0 + change / 100.0);
        measured!("{each:.0} instructions a {what} ({change:+.1} %, least of {rounds})");
        if change < -TOLERANCE {
            measured!("{what}: so much less that {BASELINE} should be written anew");
        }
        ensure!(
            change <= TOLERANCE,
            "a {what} costs {each:.0} instructions, {change:.1} % more than the {:.0} of {BASELINE}: find out why, or \
             write there what it may cost from now on",
            self.expected,
        );
        Ok(())
    }
}

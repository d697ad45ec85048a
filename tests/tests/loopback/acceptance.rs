//! The engine with its worst settings: Validate Response off, and everything between it and the partner killed in turn.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::{Connectivity, PathKind};
use gateway_tests::{
    corpus::Corpus,
    engine::{
        definition::{ChannelDefinition, DestinationDefinition},
        process::EngineProcess,
    },
    measured,
    mllp::{Ending, Engine, Manners, MessageStatus},
    platform::GatewayOptions,
    scene::{Scene, play, play_as},
    wait,
};

use super::engine::{Beside, PASSWORD};

const LIMIT: Duration = Duration::from_secs(90);
/// Channels of the sending engine, one with a connection for each message, one that keeps its own.
const CHANNELS: [(&str, bool); 2] =
    [("a0000000-0000-4000-8000-00000000000a", false), ("a0000000-0000-4000-8000-00000000000b", true)];
/// Messages of each channel between two kills.
const ROUND: usize = 12;

/// A message in the sending engine's eyes.
#[derive(serde::Deserialize)]
struct Shown {
    status: Option<MessageStatus>,
    attempts: usize,
    problem: String,
}

/// Who is killed and started again.
#[derive(Debug, Clone, Copy)]
enum Victim {
    ReceivingGateway,
    SendingGateway,
    Relay,
    Control,
    Partner,
    PartnerAndReceivingGateway,
}

const VICTIMS: [Victim; 9] = [
    Victim::ReceivingGateway,
    Victim::Partner,
    Victim::SendingGateway,
    Victim::Relay,
    Victim::PartnerAndReceivingGateway,
    Victim::Control,
    Victim::Partner,
    Victim::SendingGateway,
    Victim::ReceivingGateway,
];

#[tokio::test]
async fn with_validate_response_off_no_kill_loses_a_message_or_has_one_acknowledged_twice() -> anyhow::Result<()> {
    everything_is_killed_in_turn(&GatewayOptions::default()).await
}

#[tokio::test]
async fn nor_does_one_where_every_message_goes_through_the_relay_that_is_killed_too() -> anyhow::Result<()> {
    everything_is_killed_in_turn(&GatewayOptions { relayed: true, ..GatewayOptions::default() }).await
}

async fn everything_is_killed_in_turn(gateways: &GatewayOptions) -> anyhow::Result<()> {
    play_as(gateways, async |scene| {
        let agreement = scene.link.agreement.clone();
        let mut second = Engine::start(Manners::Polite)?;
        let link = scene.platform.link(&agreement, &scene.south, &scene.north, second.address()).await?;
        let ports = [scene.link.sender.port(), link.sender.port()];
        let channel = |((id, keep), port): ((&str, bool), u16)| {
            let destination = DestinationDefinition {
                queue: true,
                validate_response: false,
                keep_connection_open: keep,
                retry_interval_ms: 100,
                ..DestinationDefinition::tcp("partner", "127.0.0.1", port)
            };
            ChannelDefinition::sender(id, &format!("out {keep}"), destination)
        };
        let channels = CHANNELS.into_iter().zip(ports).map(channel).collect();
        let beside = Beside::start(&scene.platform, &mut scene.north, PASSWORD, channels).await?;
        scene.connected().await?;
        if gateways.relayed {
            let relayed = Some(PathKind::Relayed);
            scene.north.wait_for(&scene.link.connection, Connectivity::Connected, relayed, LIMIT).await?;
        }

        let mut corpus = Corpus::new("VR", 21);
        let mut given: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let begun = Instant::now();
        for victim in VICTIMS {
            for _ in 0..ROUND {
                for (id, _) in CHANNELS {
                    let message = corpus.oru(3);
                    beside.engine.give(id, &message.bytes).await?;
                    given.entry(id).or_default().push(message.control_id);
                }
            }
            // In the middle of the queue, which the kill must not notice.
            let before = sent(&beside.engine).await?;
            wait::until_true(LIMIT, format!("messages flow before {victim:?} is killed"), async || {
                Ok(sent(&beside.engine).await? >= before + ROUND / 2)
            })
            .await?;
            strike(scene, &mut second, victim).await?;
        }
        wait::until_true(LIMIT, "every message is sent, in the engine's eyes", async || {
            Ok(sent(&beside.engine).await? == VICTIMS.len() * ROUND * CHANNELS.len())
        })
        .await?;

        let mut again = 0;
        for ((id, _), partner) in CHANNELS.into_iter().zip([&scene.engine, &second]) {
            let shown = shown(&beside.engine, id).await?;
            let control_ids = given.get(id).context("messages")?;
            ensure!(shown.len() == control_ids.len(), "{} of {}", shown.len(), control_ids.len());
            for (shown, control_id) in shown.iter().zip(control_ids) {
                let arrived = partner.count_of(control_id);
                // A message that failed visibly is sent again, and may arrive once for each attempt.
                let fits = (1..=shown.attempts).contains(&arrived);
                ensure!(fits, "{control_id}: {} attempts, arrived {arrived} times", shown.attempts);
                // Sent is what was acknowledged, once: with Validate Response off the engine itself would not know.
                ensure!(shown.problem == "acknowledged", "{control_id} counts as sent, and was {}", shown.problem);
                again += shown.attempts - 1;
            }
            let known: usize = control_ids.iter().map(|control_id| partner.count_of(control_id)).sum();
            ensure!(partner.count() == known, "the partner received what was not sent");
        }
        measured!(
            "Validate Response off{}, {} kills in {:.0} s: {} messages sent and received, {again} visible failures",
            if gateways.relayed { ", relayed" } else { "" },
            VICTIMS.len(),
            begun.elapsed().as_secs_f64(),
            VICTIMS.len() * ROUND * CHANNELS.len(),
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sender_that_closes_its_idle_connection_ends_it_in_order_and_its_next_message_goes_on_a_new_one()
-> anyhow::Result<()> {
    play(async |scene| {
        let [(id, _), _] = CHANNELS;
        let destination = DestinationDefinition {
            queue: true,
            validate_response: false,
            keep_connection_open: true,
            send_timeout_ms: 300,
            ..DestinationDefinition::tcp("partner", "127.0.0.1", scene.link.sender.port())
        };
        let channels = vec![ChannelDefinition::sender(id, "out", destination)];
        let beside = Beside::start(&scene.platform, &mut scene.north, PASSWORD, channels).await?;
        scene.connected().await?;
        let before = scene.engine.accepted();
        for connections in 1..4 {
            let message = scene.message();
            beside.engine.give(id, &message.bytes).await?;
            let (ending, _) = scene.engine.wait_for_end(LIMIT).await?;
            ensure!(ending == Ending::Fin, "the partner's connection ended with {ending:?}");
            scene.arrived_once(&message)?;
            ensure!(scene.engine.accepted() == before + connections, "one connection for each");
        }
        let shown = shown(&beside.engine, id).await?;
        let at_once = shown.iter().filter(|shown| shown.problem == "acknowledged" && shown.attempts == 1).count();
        ensure!(at_once == 3 && shown.len() == 3, "{at_once} of {} acknowledged at the first attempt", shown.len());
        Ok(())
    })
    .await
}

async fn strike(scene: &mut Scene, second: &mut Engine, victim: Victim) -> anyhow::Result<()> {
    match victim {
        Victim::ReceivingGateway => {
            scene.south.gateway.kill_and_reap();
            scene.south.restart().await
        }
        Victim::SendingGateway => {
            scene.north.gateway.kill_and_reap();
            scene.north.restart().await
        }
        Victim::Relay => {
            scene.platform.relay.kill_and_reap();
            scene.platform.restart_relay().await
        }
        Victim::Control => {
            scene.platform.control.kill_and_reap();
            scene.platform.restart_control().await
        }
        Victim::Partner => {
            scene.engine.stop().await;
            second.stop().await;
            scene.engine.resume()?;
            second.resume()
        }
        Victim::PartnerAndReceivingGateway => {
            scene.engine.stop().await;
            second.stop().await;
            scene.south.gateway.kill_and_reap();
            scene.south.restart().await?;
            scene.engine.resume()?;
            second.resume()
        }
    }
}

async fn shown(engine: &EngineProcess, channel: &str) -> anyhow::Result<Vec<Shown>> {
    let shown = engine.messages(channel).await?;
    shown.into_iter().map(|shown| Ok(serde_json::from_value(shown)?)).collect()
}

async fn sent(engine: &EngineProcess) -> anyhow::Result<usize> {
    let mut sent = 0;
    for (id, _) in CHANNELS {
        let shown = shown(engine, id).await?;
        ensure!(shown.iter().all(|shown| shown.status != Some(MessageStatus::Error)), "a message failed for good");
        sent += shown.iter().filter(|shown| shown.status == Some(MessageStatus::Sent)).count();
    }
    Ok(sent)
}

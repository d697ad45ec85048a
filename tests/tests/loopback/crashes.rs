//! kill -9 of each process in turn, in mid-traffic: what was acknowledged was delivered, what was not failed visibly.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::{Connectivity, PathKind};
use gateway_tests::{
    corpus::{Corpus, Message},
    measured,
    mllp::{Broken, Connection, Engine, Manners, Sender, Verdict},
    scene::{PATH_LIMIT, Scene, play},
    wait,
};

/// Messages each sending engine gets through in one scenario.
const MESSAGES: usize = 300;
const LIMIT: Duration = Duration::from_secs(60);
/// A gateway that ends in order lets running messages finish for some seconds and then tells its peers.
const TOLD_LIMIT: Duration = Duration::from_secs(10);
/// A message under way whose far gateway died is given up within this time: the tunnel ends after 8 s without a packet.
const DEAD_PEER_LIMIT: Duration = Duration::from_secs(15);
/// A new message that cannot be delivered is reset by then, on a machine that also compiles ...
const RESET_LIMIT: Duration = Duration::from_secs(8);
/// ... and as a rule before the engine's own response timeout.
const USUAL_RESET_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn killing_the_control_plane_in_mid_traffic_disturbs_no_message() -> anyhow::Result<()> {
    play(async |scene| {
        let kill = async |scene: &mut Scene| {
            scene.platform.control.kill_and_reap();
            scene.platform.restart_control().await
        };
        ensure!(in_mid_traffic(scene, kill).await? == 0, "messages failed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn killing_the_relay_in_mid_traffic_on_a_direct_path_disturbs_no_message() -> anyhow::Result<()> {
    play(async |scene| {
        let kill = async |scene: &mut Scene| {
            scene.platform.relay.kill_and_reap();
            scene.platform.restart_relay().await
        };
        ensure!(in_mid_traffic(scene, kill).await? == 0, "messages failed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn killing_the_sending_gateway_in_mid_traffic_loses_and_fakes_nothing() -> anyhow::Result<()> {
    play(async |scene| {
        let kill = async |scene: &mut Scene| {
            scene.north.gateway.kill_and_reap();
            scene.north.restart().await
        };
        in_mid_traffic(scene, kill).await.map(|_| ())
    })
    .await
}

#[tokio::test]
async fn killing_the_receiving_gateway_in_mid_traffic_loses_and_fakes_nothing() -> anyhow::Result<()> {
    play(async |scene| {
        let kill = async |scene: &mut Scene| {
            scene.south.gateway.kill_and_reap();
            scene.south.restart().await
        };
        in_mid_traffic(scene, kill).await.map(|_| ())
    })
    .await
}

#[tokio::test]
async fn an_unacknowledged_message_ends_with_a_reset_whichever_gateway_is_killed() -> anyhow::Result<()> {
    for victim in ["north", "south"] {
        play(async |scene| {
            scene.on_path(PathKind::Direct).await?;
            scene.engine.behave(Manners::Silent);
            let message = scene.message();
            let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            let exchange = async { connection.exchange(&message.bytes, LIMIT).await };
            let engine = &scene.engine;
            let gateway = if victim == "north" { &mut scene.north.gateway } else { &mut scene.south.gateway };
            let killing = async {
                let arrived = wait::until_true(LIMIT, "the message is at the engine", async || {
                    Ok(engine.count_of(&message.control_id) == 1)
                });
                arrived.await?;
                gateway.kill_and_reap();
                anyhow::Ok(Instant::now())
            };
            let (verdict, killed) = tokio::join!(exchange, killing);
            let took = killed?.elapsed();
            measured!("{victim} killed, its open message was reset after {:.1} s", took.as_secs_f64());
            ensure!(took < DEAD_PEER_LIMIT, "{victim} killed: reset after {took:?}");
            ensure!(verdict == Verdict::Broken(Broken::Reset), "{victim} killed: the message was {verdict}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_every_program_in_order_and_an_open_message_with_a_reset() -> anyhow::Result<()> {
    play(async |scene| {
        scene.on_path(PathKind::Direct).await?;
        scene.engine.behave(Manners::Silent);
        let message = scene.message();
        let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let exchange = async { connection.exchange(&message.bytes, LIMIT).await };
        let engine = &scene.engine;
        let gateway = &mut scene.south.gateway;
        let ending = async {
            wait::until_true(LIMIT, "the message is at the engine", async || {
                Ok(engine.count_of(&message.control_id) == 1)
            })
            .await?;
            let begun = Instant::now();
            let status = gateway.terminate(LIMIT).await?;
            anyhow::Ok((begun, status))
        };
        let ((verdict, reset_at), ended) =
            tokio::join!(async { (exchange.await, Instant::now()) }, async { (ending.await, Instant::now()) });
        let (begun, status) = ended.0?;
        measured!(
            "receiving gateway ended {:.1} s after SIGTERM, its open message was reset after {:.1} s",
            ended.1.duration_since(begun).as_secs_f64(),
            reset_at.duration_since(begun).as_secs_f64()
        );
        ensure!(verdict == Verdict::Broken(Broken::Reset), "the message was {verdict}");
        ensure!(status.success(), "the receiving gateway ended with {status}");
        let told = reset_at.duration_since(begun);
        ensure!(told < TOLD_LIMIT, "the sending engine heard of it {told:?} after SIGTERM");
        for process in [&mut scene.north.gateway, &mut scene.platform.relay, &mut scene.platform.control] {
            let begun = Instant::now();
            let status = process.terminate(LIMIT).await?;
            ensure!(status.success(), "{} ended with {status}", process.name());
            measured!("{} ended {:.1} s after SIGTERM", process.name(), begun.elapsed().as_secs_f64());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn gateways_that_restart_without_a_control_plane_go_on_from_the_signed_policy() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.platform.control.kill_and_reap();
        for site in [&mut scene.north, &mut scene.south] {
            site.gateway.kill_and_reap();
            site.restart().await?;
        }
        scene.connected().await?;
        let (message, big) = (scene.message(), scene.document(1 << 20));
        scene.deliver(&mut scene.sender(), &message).await?;
        scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &big).await?;
        let status = scene.north.status(&scene.platform.ctl).await?;
        ensure!(!status.control.connected && status.control.problem.is_some(), "{:?}", status.control);
        ensure!(status.policy.revision > 0 && status.policy.age_secs.is_some(), "{:?}", status.policy);
        scene.platform.restart_control().await?;
        wait::until_true(LIMIT, "the control plane is heard again", async || {
            Ok(scene.north.status(&scene.platform.ctl).await?.control.connected)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_policy_on_disk_that_was_tampered_with_opens_nothing() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.platform.control.kill_and_reap();
        scene.north.gateway.kill_and_reap();
        scene.expected_errors.push("the policy on disk was refused");
        let file = policy_file(scene.north.state_dir())?;
        let mut bytes = std::fs::read(&file)?;
        let middle = bytes.len() / 2;
        bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
        std::fs::write(&file, bytes)?;
        let Err(refused) = scene.north.restart().await else {
            let status = scene.north.status(&scene.platform.ctl).await?;
            ensure!(status.connections.is_empty() && status.policy.problem.is_some(), "{status:?}");
            return Ok(());
        };
        ensure!(format!("{refused:#}").to_lowercase().contains("policy"), "the error names the policy: {refused:#}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_engine_that_is_down_costs_a_reset_within_the_hold_time_and_never_an_orderly_end() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.engine.stop().await;
        let mut times = Vec::new();
        for _ in 0..10 {
            let message = scene.message();
            let begun = Instant::now();
            let verdict = scene.sender().with_response_timeout(LIMIT).send(&message.bytes).await;
            times.push(begun.elapsed());
            ensure!(verdict == Verdict::Broken(Broken::Reset), "with the engine down: {verdict}");
        }
        in_time(times)?;
        let status = scene.north.connection(&scene.platform.ctl, &scene.link.connection).await?;
        ensure!(status.problem.is_some(), "the status does not say why: {status:?}");
        scene.engine.resume()?;
        let message = scene.message();
        scene.deliver(&mut scene.sender(), &message).await
    })
    .await
}

#[tokio::test]
async fn a_peer_that_is_gone_costs_a_reset_before_the_engines_own_time_is_over() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.south.gateway.kill_and_reap();
        let id = scene.link.connection.clone();
        let mut times = Vec::new();
        for _ in 0..8 {
            let message = scene.message();
            let begun = Instant::now();
            let verdict = scene.sender().with_response_timeout(LIMIT).send(&message.bytes).await;
            times.push(begun.elapsed());
            ensure!(matches!(verdict, Verdict::Broken(Broken::Reset | Broken::Refused)), "{verdict} after {times:?}");
        }
        in_time(times)?;
        scene.north.wait_for(&id, Connectivity::Disconnected, None, PATH_LIMIT).await?;
        Ok(())
    })
    .await
}

/// No reset came late, and half of them within the engine's own time.
fn in_time(mut times: Vec<Duration>) -> anyhow::Result<()> {
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    measured!("reset after {:.1} s, {:.1} s at most", median.as_secs_f64(), slowest.as_secs_f64());
    ensure!(median < USUAL_RESET_LIMIT && slowest < RESET_LIMIT, "reset after {times:?}");
    Ok(())
}

/// Three sending engines push their queues while `strike` happens; gives how many attempts failed.
async fn in_mid_traffic(
    scene: &mut Scene,
    strike: impl AsyncFn(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    scene.on_path(PathKind::Direct).await?;
    let address = scene.link.sender;
    let queues = [("K1", true), ("K2", true), ("K3", false)].map(|(prefix, keep_open)| {
        let mut corpus = Corpus::new(prefix, 5);
        let messages: Vec<Message> = (0..MESSAGES).map(|_| corpus.oru(3)).collect();
        (Sender::new(address, keep_open), messages)
    });
    let before = scene.engine.count();
    let mut running = tokio::task::JoinSet::new();
    for (sender, messages) in queues {
        running.spawn(push(sender, messages));
    }
    scene.engine.wait_for(before + 3 * MESSAGES / 4, LIMIT).await?;
    strike(scene).await?;
    let mut failed = 0;
    while let Some(queue) = running.join_next().await {
        let attempts = queue.context("a queue ended")??;
        failed += attempts.values().sum::<usize>() - attempts.len();
        check(&scene.engine, &attempts)?;
    }
    measured!("{failed} attempts failed visibly out of {}", 3 * MESSAGES + failed);
    Ok(failed)
}

/// An engine's queue: the next message only after this one was acknowledged; gives the attempts each one took.
async fn push(mut sender: Sender, messages: Vec<Message>) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut attempts = BTreeMap::new();
    for message in messages {
        let started = Instant::now();
        loop {
            *attempts.entry(message.control_id.clone()).or_default() += 1;
            let verdict = sender.send(&message.bytes).await;
            if verdict == Verdict::Acknowledged {
                break;
            }
            ensure!(
                !verdict.marked_sent_without_validation(),
                "{} would be marked as sent without an acknowledgement: {verdict}",
                message.control_id
            );
            ensure!(started.elapsed() < LIMIT, "{} does not get through: {verdict}", message.control_id);
            // The engine's own retry interval, shortened.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(attempts)
}

/// Acknowledged at the first attempt: delivered exactly once. Otherwise at least once and not more often than tried.
fn check(engine: &Engine, attempts: &BTreeMap<String, usize>) -> anyhow::Result<()> {
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for received in engine.received() {
        *arrived.entry(received.control_id).or_default() += 1;
    }
    for (id, tried) in attempts {
        let times = arrived.get(id).copied().unwrap_or_default();
        ensure!((1..=*tried).contains(&times), "{id} was tried {tried} times and arrived {times} times");
    }
    Ok(())
}

fn policy_file(state_dir: &std::path::Path) -> anyhow::Result<std::path::PathBuf> {
    let entries = std::fs::read_dir(state_dir)?.collect::<Result<Vec<_>, _>>()?;
    let found = entries.into_iter().find(|entry| entry.file_name().to_string_lossy().starts_with("policy"));
    Ok(found.context("there is no policy file in the state directory")?.path())
}

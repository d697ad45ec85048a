//! What the gateways see of the messages that pass, and what they do about a listener that is full.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::api::local::{ConnectionStatus, DicomStatus, ExchangeStatus, HttpStatus, MllpStatus};
use gateway_tests::{
    corpus::Message,
    held_port::HeldPort,
    mllp::{Broken, Connection, Ending, Manners, Verdict},
    platform::{GatewayOptions, Site},
    scene::{Scene, play, play_as},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(20);
/// Places of an engine's listener by default.
const PLACES: usize = 10;

#[tokio::test]
async fn both_ends_count_messages_and_answers_and_time_them() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let delay = Duration::from_millis(300);
        scene.engine.behave(Manners::Slow(delay));
        let mut sender = scene.sender();
        for _ in 0..3 {
            let message = scene.message();
            scene.deliver(&mut sender, &message).await?;
        }
        scene.engine.behave(Manners::Refuse);
        let message = scene.message();
        sender.send(&message.bytes).await;
        for site in [&scene.north, &scene.south] {
            let seen = wait_for_mllp(scene, site, |mllp| mllp.errors == 1).await?;
            ensure!((seen.messages, seen.accepted, seen.outstanding, seen.unacknowledged) == (4, 3, 0, 0), "{seen:?}");
            ensure!(
                seen.last_type.as_deref() == Some("ADT^A01") && seen.last_code.as_deref() == Some("AE"),
                "{seen:?}"
            );
            ensure!(seen.types.get("ADT^A01") == Some(&4) && seen.framing_faults.is_empty(), "{seen:?}");
            let times = seen.answer_times.context("answers were timed")?;
            ensure!(times.p50_ms >= 300.0 && times.p99_ms < 3000.0, "{times:?}");
            let metrics = scene.metrics_of(site).await?;
            ensure!(metrics.contains("gatewayd_answers_total{") && metrics.contains("le=\"0.25\""), "{metrics}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_partner_that_acknowledges_too_late_is_shown_as_the_cause_of_duplicates() -> anyhow::Result<()> {
    let more = "\n[observer]\nlate_after = \"1s\"\n".to_owned();
    play_as(&GatewayOptions { more, ..GatewayOptions::default() }, async |scene| {
        scene.connected().await?;
        scene.engine.behave(Manners::Slow(Duration::from_millis(1600)));
        let message = scene.message();
        // The engine's five seconds against a partner's eight, five times as fast.
        let mut sender = scene.sender().with_response_timeout(Duration::from_secs(1));
        for _ in 0..3 {
            let verdict = sender.send(&message.bytes).await;
            ensure!(verdict == Verdict::Broken(Broken::NoAnswer), "{verdict}");
        }
        for site in [&scene.north, &scene.south] {
            // Those of the connections that the engine has closed already pass too.
            let seen = wait_for_mllp(scene, site, |mllp| mllp.duplicates == 2 && mllp.late_answers == 3).await?;
            ensure!(seen.retries == 0, "{seen:?}");
            let status = connection(scene, site).await?;
            for sort in ["duplicate:", "late:"] {
                ensure!(status.warnings.iter().any(|warning| warning.starts_with(sort)), "{status:?}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_eleventh_connection_waits_for_a_place_and_then_works() -> anyhow::Result<()> {
    // As long as possible: what is waited for must be seen in this time.
    let options = GatewayOptions { listener_hold: Some("4s"), ..GatewayOptions::default() };
    play_as(&options, async |scene| {
        scene.connected().await?;
        let mut held = fill(scene).await?;
        let message = scene.message();
        let mut sender = scene.sender().with_response_timeout(LIMIT);
        let eleventh = sender.send(&message.bytes);
        let leaves = async {
            let status = wait::until(LIMIT, "the receiving gateway says what is waited for", async || {
                Ok(Some(connection(scene, &scene.south).await?).filter(|status| status.waiting.is_some()))
            })
            .await?;
            let waiting = status.waiting.unwrap_or_default();
            ensure!(waiting.contains("10 of 10 taken"), "{waiting}");
            ensure!(scene.engine.accepted() == PLACES as u64, "the engine was not asked for an eleventh");
            held.pop();
            anyhow::Ok(())
        };
        let (verdict, left) = tokio::join!(eleventh, leaves);
        left?;
        ensure!(verdict == Verdict::Acknowledged, "{verdict}");
        ensure!(scene.engine.accepted() == PLACES as u64 + 1, "one connection more, and none closed silently");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_listener_that_stays_full_is_a_reset_within_the_engines_patience_and_both_ends_say_why() -> anyhow::Result<()>
{
    play(async |scene| {
        scene.connected().await?;
        let held = fill(scene).await?;
        let message = scene.message();
        is_reset(scene, &message, Duration::from_secs(2)..Duration::from_secs(5)).await?;
        for (site, words) in [(&scene.north, "the partner's listener is full: 10 of 10"), (&scene.south, "10 of 10")] {
            let problem = connection(scene, site).await?.problem.unwrap_or_default();
            ensure!(problem.contains(words), "{}: {problem}", site.name);
        }
        ensure!(scene.engine.count_of(&message.control_id) == 0 && scene.engine.accepted() == PLACES as u64);
        // What was never delivered is not counted as sent.
        let seen = wait_for_mllp(scene, &scene.north, |mllp| mllp.outstanding == 0).await?;
        ensure!(seen.messages == PLACES as u64 && seen.unacknowledged == 0, "{seen:?}");
        drop(held);
        wait::until_true(LIMIT, "the engine's places are free", async || Ok(scene.engine.open() == 0)).await?;
        scene.deliver(&mut scene.sender(), &message).await
    })
    .await
}

#[tokio::test]
async fn a_sender_with_less_patience_than_the_full_listener_is_told_that_it_is_full_all_the_same() -> anyhow::Result<()>
{
    let options = GatewayOptions { sender_hold: Some("1s"), listener_hold: Some("4s"), ..GatewayOptions::default() };
    play_as(&options, async |scene| {
        scene.connected().await?;
        let held = fill(scene).await?;
        let message = scene.message();
        is_reset(scene, &message, Duration::from_secs(1)..Duration::from_millis(3500)).await?;
        for (site, words) in [(&scene.north, "the partner's listener is full: 10 of 10"), (&scene.south, "10 of 10")] {
            wait::until_true(LIMIT, format!("{} says why", site.name), async || {
                Ok(connection(scene, site).await?.problem.is_some_and(|problem| problem.contains(words)))
            })
            .await?;
        }
        ensure!(scene.engine.count_of(&message.control_id) == 0 && scene.engine.accepted() == PLACES as u64);
        drop(held);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_message_cut_by_a_killed_gateway_is_unacknowledged_at_the_sender_and_its_repetition_is_no_duplicate()
-> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.engine.behave(Manners::Silent);
        let message = scene.message();
        let mut sender = scene.sender().with_response_timeout(LIMIT);
        let sending = sender.send(&message.bytes);
        let killing = async {
            scene.engine.wait_for(1, LIMIT).await?;
            scene.south.gateway.kill_and_reap();
            anyhow::Ok(())
        };
        let (verdict, killed) = tokio::join!(sending, killing);
        killed?;
        ensure!(verdict == Verdict::Broken(Broken::Reset), "{verdict}");
        let seen = wait_for_mllp(scene, &scene.north, |mllp| mllp.unacknowledged == 1).await?;
        ensure!((seen.messages, seen.outstanding) == (1, 0), "{seen:?}");
        scene.south.restart().await?;
        scene.engine.behave(Manners::Polite);
        scene.connected().await?;
        let verdict = scene.sender().send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "{verdict}");
        let seen = wait_for_mllp(scene, &scene.north, |mllp| mllp.accepted == 1).await?;
        ensure!((seen.duplicates, seen.retries) == (0, 1), "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_an_engine_that_is_down_was_asked_is_counted_at_neither_end_whatever_the_protocol() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let agreement = scene.link.agreement.clone();
        let asked: [(&str, &[u8], _); 2] = [
            ("http", b"GET /Patient HTTP/1.1\r\nHost: x\r\n\r\n", ExchangeStatus::Http(HttpStatus::default())),
            (
                "dicom",
                b"\x01\0\0\0\0\x44\0\x01\0\0OIE             MODALITY        \
                  \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                ExchangeStatus::Dicom(DicomStatus::default()),
            ),
        ];
        for (behavior, bytes, nothing) in asked {
            let port = HeldPort::loopback(0)?;
            let link = scene.platform.link_as(&agreement, &scene.south, &scene.north, port.address(), behavior).await?;
            let mut client = TcpStream::connect(link.sender).await?;
            // The reset may come before the client gets to its first byte.
            let asking = async {
                client.write_all(bytes).await?;
                client.read(&mut [0; 1]).await
            };
            let ended = tokio::time::timeout(LIMIT, asking).await?;
            ensure!(ended.is_err(), "{behavior}: a reset, and no end in order: {ended:?}");
            for site in [&scene.north, &scene.south] {
                let status =
                    wait::until(LIMIT, format!("{} says that {behavior} was refused", site.name), async || {
                        Ok(site.seen(&link.connection).await?.filter(|status| status.streams_refused > 0))
                    })
                    .await?;
                ensure!(status.exchange == Some(nothing.clone()), "{}: {:?}", site.name, status.exchange);
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_connection_that_is_not_observed_keeps_socket_truth_and_nothing_else() -> anyhow::Result<()> {
    play(async |scene| {
        let off = format!("\n[observer]\noff = [\"{}\"]\n", scene.link.connection);
        for site in [&mut scene.north, &mut scene.south] {
            let config = std::fs::read_to_string(site.config())?;
            std::fs::write(site.config(), config + &off)?;
            site.restart().await?;
        }
        scene.connected().await?;
        let message = scene.message();
        scene.deliver(&mut scene.sender(), &message).await?;
        // The partner takes a message, and ends in order without an answer.
        scene.engine.behave(Manners::EndAfterReading(Ending::Fin));
        for mut sender in [scene.sender(), scene.keeping_sender()] {
            let message = scene.message();
            let verdict = sender.send(&message.bytes).await;
            ensure!(verdict == Verdict::Broken(Broken::Reset), "{verdict}");
        }
        for site in [&scene.north, &scene.south] {
            let status = connection(scene, site).await?;
            ensure!(status.unobserved && status.exchange.is_none() && status.warnings.is_empty(), "{status:?}");
            ensure!(status.bytes_sent > 0 && status.bytes_received > 0, "{status:?}");
            let metrics = scene.metrics_of(site).await?;
            ensure!(!metrics.contains("gatewayd_messages_total{"), "{metrics}");
        }
        Ok(())
    })
    .await
}

/// Takes all places of the engine's listener, with a message each.
async fn fill(scene: &mut Scene) -> anyhow::Result<Vec<Connection>> {
    let mut held = Vec::new();
    for _ in 0..PLACES {
        let message = scene.message();
        let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let verdict = connection.exchange(&message.bytes, LIMIT).await;
        ensure!(verdict == Verdict::Acknowledged, "{verdict}");
        held.push(connection);
    }
    Ok(held)
}

/// The listener is full: a new connection's message comes back as a reset, after a time between the two bounds.
async fn is_reset(scene: &Scene, message: &Message, within: Range<Duration>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let verdict = scene.sender().send(&message.bytes).await;
    ensure!(verdict == Verdict::Broken(Broken::Reset), "{verdict}");
    let took = begun.elapsed();
    ensure!(took > within.start && took < within.end, "after {took:?}");
    Ok(())
}

async fn connection(scene: &Scene, site: &Site) -> anyhow::Result<ConnectionStatus> {
    site.seen(&scene.link.connection).await?.context("the connection")
}

async fn wait_for_mllp(scene: &Scene, site: &Site, is: impl Fn(&MllpStatus) -> bool) -> anyhow::Result<MllpStatus> {
    let mut last = None;
    let found = wait::until(LIMIT, format!("{} shows it", site.name), async || {
        let Some(ExchangeStatus::Mllp(mllp)) = connection(scene, site).await?.exchange else { return Ok(None) };
        last = Some(mllp.clone());
        Ok(Some(mllp).filter(|mllp| is(mllp)))
    })
    .await;
    found.with_context(|| format!("last: {last:?}"))
}

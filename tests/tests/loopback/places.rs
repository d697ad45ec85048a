//! The places of an engine's listener, as the engine itself counts them.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_proto::api::local::{PlacesStatus, PlacesToldBy};
use gateway_tests::{
    corpus::Corpus,
    engine::definition::{ChannelDefinition, SourceDefinition},
    mllp::{Broken, Connection, Sender, Verdict},
    platform::Link,
    scene::{Scene, play},
    wait,
};

use super::engine::{Beside, PASSWORD, discovered, publish_and_link};

const LIMIT: Duration = Duration::from_secs(20);
const ADT: &str = "a0000000-0000-4000-8000-000000000001";

fn listener(port: &str, max_connections: usize) -> ChannelDefinition {
    let source = SourceDefinition { max_connections, ..SourceDefinition::of("TCP Listener", port) };
    ChannelDefinition::with_source(ADT, "adt_in", source)
}

/// What the receiving gateway says of the listener's places, once it is so.
async fn places_are(scene: &Scene, link: &Link, most: u32, taken: u32) -> anyhow::Result<()> {
    let mut last = None;
    let wanted = PlacesStatus { most: Some(most), told_by: PlacesToldBy::Engine, taken, waiting: 0 };
    let waited = wait::until_true(LIMIT, format!("{taken} of {most} places are taken"), async || {
        last = scene.south.seen(&link.connection).await?.and_then(|entry| entry.places);
        Ok(last == Some(wanted))
    });
    waited.await.with_context(|| format!("last: {last:?}"))
}

async fn hold_open(link: &Link, corpus: &mut Corpus, count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::open(link.sender).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let verdict = connection.exchange(&corpus.adt("A01").bytes, LIMIT).await;
        ensure!(verdict == Verdict::Acknowledged, "connection {}: {verdict}", held.len() + 1);
        held.push(connection);
    }
    Ok(held)
}

#[tokio::test]
async fn a_listener_is_opened_as_often_as_its_engine_says_and_a_change_is_followed() -> anyhow::Result<()> {
    play(async |scene| {
        let beside = Beside::start(&scene.platform, &mut scene.south, PASSWORD, vec![listener("0", 3)]).await?;
        discovered(scene, "a proposal", |engine| engine["proposals"].as_array().is_some_and(|all| all.len() == 1))
            .await?;
        let (_, link) = publish_and_link(scene, "adt_in").await?;
        scene.connected().await?;
        let mut corpus = Corpus::new("PL", 3);

        // Three, and not the ten of the configuration: the fourth is told, and the engine never sees it.
        let held = hold_open(&link, &mut corpus, 3).await?;
        places_are(scene, &link, 3, 3).await?;
        let message = corpus.adt("A08");
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(verdict == Verdict::Broken(Broken::Reset), "{verdict}");
        for (site, words) in [(&scene.north, "the partner's listener is full: 3 of 3"), (&scene.south, "3 of 3")] {
            let problem = site.connection(&scene.platform.ctl, &link.connection).await?.problem.unwrap_or_default();
            ensure!(problem.contains(words), "{}: {problem}", site.name);
        }
        ensure!(beside.engine.received(ADT).await?.len() == 3, "it did not reach the engine");

        // More places are saved but not deployed: it is still three.
        let port = beside.engine.port(ADT)?.to_string();
        beside.engine.store(&listener(&port, 1000)).await?;
        wait::until_true(LIMIT, "the gateway saw that something was saved", async || {
            let engine = scene.south.look().await?.engine.context("an engine")?;
            Ok(engine.channels.iter().any(|channel| channel.undeployed_changes))
        })
        .await?;
        places_are(scene, &link, 3, 3).await?;

        // Deployed: a listener that never says no takes eleven, and as many as come.
        beside.engine.post(&format!("/channels/{ADT}/_deploy"), "").await?;
        drop(held);
        places_are(scene, &link, 1000, 0).await?;
        let held = hold_open(&link, &mut corpus, 11).await?;
        places_are(scene, &link, 1000, 11).await?;
        drop(held);

        // And fewer again.
        beside.engine.deploy(&listener(&port, 10)).await?;
        places_are(scene, &link, 10, 0).await?;
        let held = hold_open(&link, &mut corpus, 10).await?;
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(verdict == Verdict::Broken(Broken::Reset), "the eleventh: {verdict}");
        let shown = scene.platform.ctl.run(&["status", "--socket", scene.south.socket()]).await?;
        let words = "10 of 10 of the engine's listener taken; the number is from the engine";
        ensure!(format!("{shown:?}").contains(words), "{shown:?}");
        drop(held);
        Ok(())
    })
    .await
}

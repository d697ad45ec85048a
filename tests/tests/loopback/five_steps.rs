//! The five steps of the mission, and what they lead to.

use anyhow::ensure;
use gateway_proto::api::gateway::{Connectivity, PathKind};
use gateway_tests::{
    ctl::{items, text},
    mllp::{Engine, Manners, Sender, Verdict},
    platform::{Placement, Platform},
    scene::{PATH_LIMIT, play, play_cold},
};

#[tokio::test]
async fn five_steps_carry_messages_both_ways_over_one_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let back_engine = Engine::start(Manners::Polite)?;
        let back =
            scene.platform.link(&scene.link.agreement, &scene.north, &scene.south, back_engine.address()).await?;
        scene.connected().await?;
        let mut forth = [scene.keeping_sender(), scene.keeping_sender(), scene.sender()];
        let mut over_there = Sender::new(back.sender, true);
        for _ in 0..5 {
            for sender in &mut forth {
                let message = scene.message();
                scene.deliver(sender, &message).await?;
            }
            let message = scene.message();
            let verdict = over_there.send(&message.bytes).await;
            ensure!(verdict == Verdict::Acknowledged, "backwards {verdict}");
            ensure!(back_engine.count_of(&message.control_id) == 1, "backwards not once");
        }
        for site in [&scene.north, &scene.south] {
            let status = site.status(&scene.platform.ctl).await?;
            ensure!(status.peers.len() == 1, "one tunnel for both directions, not {}", status.peers.len());
            ensure!(status.connections.len() == 2, "two connections, not {}", status.connections.len());
            ensure!(status.control.connected && status.policy.problem.is_none(), "{:?}", status.policy);
            let exchange = status.peers[0].key_exchange.as_deref();
            ensure!(exchange == Some("X25519MLKEM768"), "key exchange {exchange:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn data_starts_on_whatever_path_there_is_and_moves_to_the_direct_one() -> anyhow::Result<()> {
    play_cold(async |scene| scene.on_path(PathKind::Direct).await).await
}

#[tokio::test]
async fn an_organization_peers_with_itself_between_two_servers_and_within_one() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    platform.add_relay().await?;
    let one = platform.site("alone").await?;
    let two = platform.server("alone", "alone-two", Placement::loopback()).await?;
    let request = platform.ctl.json(&["peering", "request", "self", "--profile", "alone"]).await?;
    ensure!(text(&request, "status")? == "accepted" && text(&request, "peer_name")? == "Self", "{request}");
    let agreement = text(&request, "agreement_id")?.to_owned();
    for (listener, sender, path) in [(&two, &one, PathKind::Direct), (&one, &one, PathKind::Local)] {
        let engine = Engine::start(Manners::Polite)?;
        let link = platform.link_within(&agreement, listener, sender, engine.address()).await?;
        let mut corpus = gateway_tests::corpus::Corpus::new("SELF", 1);
        let message = corpus.oru(20);
        sender.wait_for(&link.connection, Connectivity::Connected, None, PATH_LIMIT).await?;
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "{path:?}: {verdict}");
        ensure!(engine.received()[0].bytes == message.bytes, "{path:?}: other bytes");
        let status = sender.wait_for(&link.connection, Connectivity::Connected, Some(path), PATH_LIMIT).await?;
        ensure!(status.peer_organization == "Self", "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_directory_shows_only_who_wants_to_be_seen_and_peers_see_only_public_names() -> anyhow::Result<()> {
    play(async |scene| {
        let update = ["organization", "update", "--discoverable", "false", "--profile", "south"];
        scene.ctl(&update).await?;
        scene.platform.site("third").await?;
        let found = scene.ctl(&["directory", "search", "Organization", "--profile", "third"]).await?;
        let names: Vec<&str> = items(&found)?.iter().filter_map(|entry| entry["name"].as_str()).collect();
        ensure!(!names.contains(&"Organization south"), "the hidden one is found: {names:?}");
        ensure!(names.contains(&"Organization north"), "the open one is not found: {names:?}");
        let endpoints =
            scene.ctl(&["endpoint", "list", "--agreement", &scene.link.agreement, "--profile", "north"]).await?;
        let internal = format!("adt-{}", scene.engine.address().port());
        let listed = items(&endpoints)?;
        ensure!(listed.len() == 1 && listed[0]["name"] == format!("{internal} of south"), "{endpoints}");
        ensure!(!endpoints.to_string().contains("127.0.0.1"), "the engine's address is shown: {endpoints}");
        Ok(())
    })
    .await
}

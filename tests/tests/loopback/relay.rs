//! Strangers at the relay: each is refused with its code, and nobody else notices.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::{
    id::{OrganizationId, RelayId},
    relay::RefusalCode,
    signed::RelayToken,
};
use gateway_tests::{
    measured,
    mllp::Verdict,
    platform::{GatewayOptions, Platform},
    scene::{PATH_LIMIT, Scene, play, play_as},
    stranger::{Challenged, Knock, Stranger},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_relay_admits_only_the_owner_of_a_token_of_its_control_plane() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    platform.add_relay().await?;
    platform.create_organization("north", "Organization north").await?;
    platform.create_server("north", "engine").await?;
    let code = platform.enrollment_code("north", "engine").await?;
    let (member, stranger) = (Stranger::default(), Stranger::default());
    let answer = member.enroll(&code).await?.ok().context("the member enrols")?;

    let challenged = Challenged::by(&platform.relay).await?;
    let proof = stranger.proof(&challenged);
    let knock = challenged.admit(&answer.relay_token, proof).await?;
    ensure!(knock == Knock::Refused(RefusalCode::BadProof), "another gateway's token: {knock:?}");

    let challenged = Challenged::by(&platform.relay).await?;
    let proof = stranger.proof(&challenged);
    let knock = challenged.admit(&own_token(&stranger, challenged_relay(&platform)?)?, proof).await?;
    ensure!(knock == Knock::Refused(RefusalCode::BadToken), "a token of nobody: {knock:?}");

    let challenged = Challenged::by(&platform.relay).await?;
    let old = member.proof(&challenged);
    drop(challenged);
    let challenged = Challenged::by(&platform.relay).await?;
    let knock = challenged.admit(&answer.relay_token, old).await?;
    ensure!(knock == Knock::Refused(RefusalCode::BadProof), "a replayed proof: {knock:?}");

    let knock = Challenged::by(&platform.relay).await?.say(vec![0xff; 100]).await?;
    ensure!(knock == Knock::Refused(RefusalCode::Malformed), "garbage: {knock:?}");

    let challenged = Challenged::by(&platform.relay).await?;
    let proof = member.proof(&challenged);
    let knock = challenged.admit(&answer.relay_token, proof).await?;
    ensure!(knock == Knock::Admitted, "the member itself: {knock:?}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_within_the_admission_limit() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    let knock = Challenged::by(&platform.relay).await?.stay_silent().await?;
    ensure!(knock != Knock::Admitted, "{knock:?}");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_restarts_is_attached_again_and_messages_go_on() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let status = scene.platform.relay.terminate(Duration::from_secs(20)).await?;
        ensure!(status.success(), "the relay ended with {status}");
        let message = scene.message();
        let mut sender = scene.sender();
        scene.platform.restart_relay().await?;
        wait::until_true(PATH_LIMIT, "messages go on", async || {
            let verdict = sender.send(&message.bytes).await;
            ensure!(!matches!(verdict, Verdict::Refused { .. }), "{verdict}");
            Ok(verdict == Verdict::Acknowledged)
        })
        .await?;
        for site in [&scene.north, &scene.south] {
            wait::until_true(PATH_LIMIT, "the relay is attached again", async || {
                Ok(site.status(&scene.platform.ctl).await?.relays.iter().any(|relay| relay.attached))
            })
            .await?;
        }
        Ok(())
    })
    .await
}

/// A relay that is back within this time breaks no conversation.
const BACK: Duration = Duration::from_secs(3);
/// Data goes on so soon after it is back: a gateway tries again within a second, the rest is for a machine that does other things too.
const GOES_ON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn the_only_relay_that_is_killed_or_restarted_and_back_within_three_seconds_breaks_no_conversation()
-> anyhow::Result<()> {
    let relayed = GatewayOptions { relayed: true, ..GatewayOptions::default() };
    play_as(&relayed, async |scene| {
        for (in_order, pause) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let mut turns = 1;
            while !relay_goes_and_comes_back(scene, in_order, Duration::from_secs(pause)).await? {
                ensure!(turns < 3, "the relay never came back within {BACK:?}, so nothing was tried");
                turns += 1;
            }
        }
        Ok(())
    })
    .await
}

/// Ends the relay under a conversation that goes on all the time, starts it again after `pause`, and insists on every message.
/// `false`: this machine took so long to start it that nothing is promised.
async fn relay_goes_and_comes_back(scene: &mut Scene, in_order: bool, pause: Duration) -> anyhow::Result<bool> {
    attached(scene).await?;
    scene.connected().await?;
    let mut sender = scene.keeping_sender().with_response_timeout(LIMIT);
    let message = scene.message();
    scene.deliver(&mut sender, &message).await?;
    let messages: Vec<_> = (0..2_000).map(|_| scene.message()).collect();
    let (engine, platform, back) = (&scene.engine, &mut scene.platform, Cell::new(false));
    let going = async {
        if in_order {
            platform.relay.terminate(LIMIT).await?;
        } else {
            platform.relay.kill_and_reap();
        }
        let gone = Instant::now();
        // How long it is away is what is tested.
        tokio::time::sleep(pause).await;
        platform.restart_relay().await?;
        back.set(true);
        anyhow::Ok(gone.elapsed())
    };
    let talking = async {
        let mut longest = Duration::ZERO;
        for message in &messages {
            let (is_last, begun) = (back.get(), Instant::now());
            let verdict = sender.send(&message.bytes).await;
            ensure!(verdict == Verdict::Acknowledged, "{} was {verdict}", message.control_id);
            ensure!(engine.count_of(&message.control_id) == 1, "{} did not arrive once", message.control_id);
            longest = longest.max(begun.elapsed());
            if is_last {
                break;
            }
            // An engine's pace.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(longest)
    };
    let (away, longest) = tokio::join!(going, talking);
    let (away, how) = (away?, if in_order { "stopped in good order" } else { "killed" });
    if away > BACK {
        measured!("only relay {how}, back after {:.2} s: too late for a promise", away.as_secs_f64());
        return Ok(false);
    }
    let longest = longest?;
    measured!("only relay {how}, back after {:.2} s: longest wait {:.2} s", away.as_secs_f64(), longest.as_secs_f64());
    ensure!(longest <= away + GOES_ON, "{longest:?} for a relay that was {how} and away for {away:?}");
    Ok(true)
}

#[tokio::test]
async fn a_policy_key_that_is_replaced_at_once_counts_at_a_relay_that_is_never_told_by_hand() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let pid = scene.platform.relay.pid();
        let token = scene.platform.operator_token_file()?;
        let control = scene.platform.dir().join("control").join("ready.json");
        let place = ["--control-ready-file", control.to_str().context("a path")?];
        let rotate = ["policy-key", "rotate", "--at-once", "--yes", "--operator-token-file", &token];
        scene.ctl(&[&rotate[..], &place[..]].concat()).await?;
        // Whoever comes now shows a token that the new key signed: the relay asks who that is.
        scene.south.gateway.terminate(LIMIT).await?;
        scene.south.restart().await?;
        attached(scene).await?;
        ensure!(scene.platform.relay.pid() == pid, "the relay was not restarted");
        let metrics = relay_metrics(&scene.platform).await?;
        for line in ["gateway_relay_policy_keys 1", "gateway_relay_policy_key_questions_total{outcome=\"Taken\"}"] {
            ensure!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        // What it believed it believes after a restart, with nobody to ask and the old key in its configuration.
        scene.platform.control.kill_and_reap();
        scene.platform.relay.terminate(LIMIT).await?;
        scene.platform.restart_relay().await?;
        attached(scene).await?;
        let metrics = relay_metrics(&scene.platform).await?;
        ensure!(metrics.contains("gateway_relay_policy_keys 1"), "{metrics}");
        scene.platform.restart_control().await
    })
    .await
}

#[tokio::test]
async fn a_relay_that_moves_or_gets_a_new_key_keeps_its_place_in_the_map_and_what_goes_over_it() -> anyhow::Result<()> {
    let relayed = GatewayOptions { relayed: true, ..GatewayOptions::default() };
    play_as(&relayed, async |scene| {
        let id = scene.platform.relay.ready("relay_id")?.to_owned();
        let mut sender = scene.keeping_sender();
        let messages = [scene.message(), scene.message()];
        scene.deliver(&mut sender, &messages[0]).await?;
        // Another name of the same place: both gateways come there beside the links that they have.
        let before = admitted(&scene.platform).await?;
        let moved = update_relay(scene, &["--host", "localhost"]).await?;
        ensure!(moved["id"] == id.as_str(), "{moved}");
        attached_at(scene, "wss://localhost:", before + 2).await?;
        scene.deliver(&mut sender, &messages[1]).await?;

        scene.platform.relay.terminate(LIMIT).await?;
        for file in ["tls-key.pem", "tls-certificate.pem"] {
            std::fs::remove_file(scene.platform.dir().join("relay").join(file))?;
        }
        let old_key = moved["tls_pin"].clone();
        scene.platform.restart_relay().await?;
        let renewed = update_relay(scene, &[]).await?;
        ensure!(renewed["id"] == id.as_str() && renewed["tls_pin"] != old_key, "{renewed}");
        // One that was begun anew, and counts from nothing.
        attached_at(scene, "wss://localhost:", 2).await?;
        let (message, mut sender) = (scene.message(), scene.sender());
        wait::until_true(PATH_LIMIT, "messages go on", async || {
            Ok(sender.send(&message.bytes).await == Verdict::Acknowledged)
        })
        .await
    })
    .await
}

/// Changes the relay in the map to what its ready file says now.
async fn update_relay(scene: &Scene, more: &[&str]) -> anyhow::Result<serde_json::Value> {
    let (ready, control) =
        (scene.platform.dir().join("relay/ready.json"), scene.platform.dir().join("control/ready.json"));
    let token = scene.platform.operator_token_file()?;
    let update = ["relay", "update", "relay-1", "--from-ready-file", ready.to_str().context("a path")?];
    let place = ["--operator-token-file", &token, "--control-ready-file", control.to_str().context("a path")?];
    scene.ctl(&[&update[..], &place[..], more].concat()).await
}

/// Gateways that the relay admitted since its start.
async fn admitted(platform: &Platform) -> anyhow::Result<u64> {
    let metrics = relay_metrics(platform).await?;
    let count = metrics.lines().find_map(|line| line.strip_prefix("gateway_relay_attached_total "));
    Ok(count.context("no count of admitted gateways")?.parse()?)
}

/// Waits until both gateways are attached to the relay at this URL, which has admitted so many by then.
async fn attached_at(scene: &Scene, url: &str, least: u64) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "both gateways are attached where the relay is now", async || {
        for site in [&scene.north, &scene.south] {
            let relays = site.look().await?.relays;
            if !relays.iter().any(|relay| relay.attached && relay.problem.is_none() && relay.url.starts_with(url)) {
                return Ok(false);
            }
        }
        Ok(admitted(&scene.platform).await? >= least)
    })
    .await
}

async fn attached(scene: &Scene) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "the relay is attached", async || {
        Ok(scene.south.look().await?.relays.iter().any(|relay| relay.attached))
    })
    .await
}

async fn relay_metrics(platform: &Platform) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(platform.relay.ready("metrics")?).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

fn challenged_relay(platform: &Platform) -> anyhow::Result<RelayId> {
    platform.relay.ready("relay_id")?.parse().ok().context("relay id")
}

fn own_token(stranger: &Stranger, relay: RelayId) -> anyhow::Result<String> {
    let now = gateway_net::time::unix_secs();
    let token = RelayToken {
        key: stranger.key.public(),
        org: OrganizationId::from_bytes(gateway_net::random()),
        relays: vec![relay],
        iat: now,
        exp: now + 600,
    };
    Ok(token.sign(&stranger.key)?)
}

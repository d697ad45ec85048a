//! `gateway-ctl status` tells the truth at every moment.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::{api::gateway::Connectivity, policy::Activation};
use gateway_tests::{
    measured,
    mllp::{Broken, Connection},
    platform::GatewayOptions,
    scene::{PATH_LIMIT, Scene, play, play_as},
    wait,
};

/// A peer that died is noticed within this time.
const NOTICE_LIMIT: Duration = Duration::from_secs(15);

/// A peer that is back is connected again within this time.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_peer_that_is_killed_shows_as_disconnected_and_as_connected_when_it_is_back() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.south.gateway.kill_and_reap();
        let killed = Instant::now();
        disconnected(scene).await?;
        measured!("killed peer shown as disconnected after {:.1} s", killed.elapsed().as_secs_f64());
        scene.south.restart().await?;
        let back = Instant::now();
        scene.connected().await?;
        ensure!(back.elapsed() < RETURN_LIMIT, "connected {:?} after it is back", back.elapsed());
        measured!("shown as connected {:.1} s after it is back", back.elapsed().as_secs_f64());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_partner_that_is_gone_is_called_offline_and_neither_its_path_nor_its_round_trip_is_shown()
-> anyhow::Result<()> {
    play(async |scene| {
        scene.south.gateway.kill_and_reap();
        disconnected(scene).await?;
        let id = scene.link.connection.clone();
        let mut connection = Connection::open(scene.link.sender).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let (end, _) = connection.end(NOTICE_LIMIT).await;
        ensure!(end == Broken::Reset, "{end:?}");
        // Also after the refusal, the end of the tunnel and a failed dial, each of which has words of its own.
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            let status = scene.north.connection(&scene.platform.ctl, &id).await?;
            let problem = status.problem.clone().unwrap_or_default();
            ensure!(problem.contains("the partner is offline, or its policy does not have this gateway"), "{problem}");
            ensure!(status.path.is_none() && status.rtt_ms.is_none(), "{status:?}");
            ensure!(status.path_reason.contains("the partner is offline"), "{}", status.path_reason);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn while_a_connection_waits_for_the_tunnel_status_says_for_how_long_of_how_long() -> anyhow::Result<()> {
    play(async |scene| {
        scene.south.gateway.kill_and_reap();
        let id = scene.link.connection.clone();
        // Before the tunnel has ended, a connection waits for an answer that does not come.
        wait::until_true(NOTICE_LIMIT, "the tunnel has ended", async || {
            let peers = scene.north.look().await?.peers;
            Ok(peers.iter().all(|peer| peer.key_exchange.is_none()))
        })
        .await?;
        let mut connection = Connection::open(scene.link.sender).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let shown = wait::until(NOTICE_LIMIT, "status says what is waited for", async || {
            Ok(scene.north.seen(&id).await?.and_then(|entry| entry.waiting))
        });
        let waiting = shown.await?;
        ensure!(waiting.starts_with("waiting for the tunnel, ") && waiting.ends_with(" s of 3.0 s"), "{waiting}");
        let (end, _) = connection.end(NOTICE_LIMIT).await;
        ensure!(end == Broken::Reset, "{end:?}");
        ensure!(scene.north.seen(&id).await?.is_some_and(|entry| entry.waiting.is_none()), "nothing waits any more");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_connection_is_held_for_little_more_than_the_hold_also_while_the_partners_gateway_hangs() -> anyhow::Result<()>
{
    let options = GatewayOptions { sender_hold: Some("1s"), ..GatewayOptions::default() };
    play_as(&options, async |scene| {
        scene.south.gateway.freeze()?;
        let begun = Instant::now();
        let mut connection = Connection::open(scene.link.sender).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let (end, at) = connection.end(NOTICE_LIMIT).await;
        let held = at - begun;
        measured!("hold of 1 s, partner's gateway stopped: reset after {:.1} s", held.as_secs_f64());
        ensure!(end == Broken::Reset, "{end:?}");
        // The hold, 1.5 s for the answer, and what a busy machine adds.
        ensure!(held > Duration::from_secs(1) && held < Duration::from_millis(3500), "{held:?}");
        scene.south.gateway.thaw()?;
        scene.connected().await
    })
    .await
}

#[tokio::test]
async fn a_peer_that_hangs_shows_as_disconnected_although_its_sockets_are_open() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        scene.south.gateway.freeze()?;
        let frozen = Instant::now();
        disconnected(scene).await?;
        measured!("frozen peer shown as disconnected after {:.1} s", frozen.elapsed().as_secs_f64());
        scene.south.gateway.thaw()?;
        scene.connected().await
    })
    .await
}

#[tokio::test]
async fn a_connection_that_may_carry_no_data_never_shows_as_connected() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let id = scene.link.connection.clone();
        for (stop, go_on, activation) in [
            (["connection", "pause", &id], ["connection", "resume", &id], Activation::Paused),
            (
                ["agreement", "suspend", &scene.link.agreement],
                ["agreement", "resume", &scene.link.agreement],
                Activation::Suspended,
            ),
        ] {
            scene.ctl(&[&stop[..], &["--profile", "south"]].concat()).await?;
            for site in [&scene.north, &scene.south] {
                wait::until_true(NOTICE_LIMIT, format!("{} shows {activation:?}", site.name), async || {
                    Ok(site.seen(&id).await?.is_some_and(|entry| entry.activation == activation))
                })
                .await?;
            }
            let until = Instant::now() + Duration::from_secs(4);
            while Instant::now() < until {
                for site in [&scene.north, &scene.south] {
                    let status = site.connection(&scene.platform.ctl, &id).await?;
                    ensure!(status.activation == activation && !status.authorized, "{status:?}");
                    ensure!(status.connectivity != Connectivity::Connected, "{activation:?} but connected: {status:?}");
                }
                ensure!(scene.north.connection(&scene.platform.ctl, &id).await?.local_address.is_none());
            }
            scene.ctl(&[&go_on[..], &["--profile", "south"]].concat()).await?;
            scene.connected().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn exit_codes_of_status_tell_connected_from_not_connected_from_no_daemon() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let message = scene.message();
        scene.deliver(&mut scene.sender(), &message).await?;
        let north = scene.north.socket().to_owned();
        let look = ["status", "--socket", &north];
        let wait = [&look[..], &["--wait", "direct", "--timeout", "30s"]].concat();
        let outcome = scene.platform.ctl.run(&wait).await?;
        ensure!(outcome.code == Some(0), "{outcome:?}");
        ensure!(scene.platform.ctl.run(&look).await?.code == Some(0));
        scene.south.gateway.kill_and_reap();
        disconnected(scene).await?;
        ensure!(scene.platform.ctl.run(&look).await?.code == Some(1));
        let gone = ["status", "--socket", scene.south.socket()];
        let outcome = scene.platform.ctl.run(&gone).await?;
        ensure!(outcome.code == Some(2) && !outcome.stderr.is_empty(), "{outcome:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_control_plane_shows_what_both_ends_report() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let id = scene.link.connection.clone();
        wait::until_true(PATH_LIMIT, "both ends reported connected", async || {
            let shown = scene.platform.connection("north", &id).await?;
            Ok(["sender", "listener"].iter().all(|end| shown[end]["report"]["connectivity"] == "connected"))
        })
        .await?;
        let shown = scene.platform.connection("north", &id).await?;
        ensure!(shown["status"] == "active", "{shown}");
        ensure!(shown["sender"]["policy_in_force"] == true && shown["listener"]["policy_in_force"] == true, "{shown}");
        Ok(())
    })
    .await
}

async fn disconnected(scene: &Scene) -> anyhow::Result<()> {
    let id = &scene.link.connection;
    scene.north.wait_for(id, Connectivity::Disconnected, None, NOTICE_LIMIT).await?;
    Ok(())
}

//! `gateway-ctl status` tells the truth at every moment.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::{api::gateway::Connectivity, policy::Activation};
use gateway_tests::{
    measured,
    scene::{PATH_LIMIT, Scene, play},
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

//! Pause, suspend, revoke, terminate and end cut live streams: the far end sees RST, measured from the moment the
//! command is typed. Afterwards nothing listens on the local port.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::policy::Activation;
use gateway_tests::{
    measured,
    mllp::{Broken, Connection, Ending, Engine, Manners, Sender, Verdict},
    scene::{Scene, play},
    wait,
};

/// Generous for a machine that also compiles; the mission's bar is one second, and the time is printed.
const CUT_LIMIT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn revoke_resets_both_engines_while_bytes_flow() -> anyhow::Result<()> {
    play(async |scene| {
        let grant = scene.link.grant.clone();
        cut(scene, "revoke", &["grant", "revoke", &grant, "--yes", "--profile", "south"]).await
    })
    .await
}

#[tokio::test]
async fn surrender_resets_both_engines_while_bytes_flow() -> anyhow::Result<()> {
    play(async |scene| {
        let grant = scene.link.grant.clone();
        cut(scene, "surrender", &["grant", "surrender", &grant, "--yes", "--profile", "north"]).await
    })
    .await
}

#[tokio::test]
async fn terminate_resets_both_engines_while_bytes_flow() -> anyhow::Result<()> {
    play(async |scene| {
        let id = scene.link.connection.clone();
        cut(scene, "terminate", &["connection", "terminate", &id, "--yes", "--profile", "north"]).await
    })
    .await
}

#[tokio::test]
async fn ending_the_agreement_resets_both_engines_while_bytes_flow() -> anyhow::Result<()> {
    play(async |scene| {
        let id = scene.link.agreement.clone();
        cut(scene, "end", &["agreement", "end", &id, "--yes", "--profile", "south"]).await
    })
    .await
}

#[tokio::test]
async fn a_pause_of_either_side_resets_both_engines_and_a_resume_brings_the_same_port_back() -> anyhow::Result<()> {
    play(async |scene| {
        let id = scene.link.connection.clone();
        for profile in ["south", "north"] {
            cut(scene, "pause", &["connection", "pause", &id, "--profile", profile]).await?;
            scene.ctl(&["connection", "resume", &id, "--profile", profile]).await?;
            works_again(scene).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pause_of_both_sides_ends_only_when_both_resumed() -> anyhow::Result<()> {
    play(async |scene| {
        let id = scene.link.connection.clone();
        for profile in ["south", "north"] {
            scene.ctl(&["connection", "pause", &id, "--profile", profile]).await?;
        }
        // Until then a message may pass, and be acknowledged as it should.
        for site in [&scene.north, &scene.south] {
            wait::until_true(LIMIT, format!("{} knows of the pause", site.name), async || {
                Ok(site.seen(&id).await?.is_some_and(|entry| entry.activation == Activation::Paused))
            })
            .await?;
        }
        closed(scene).await?;
        scene.ctl(&["connection", "resume", &id, "--profile", "south"]).await?;
        let shown = scene.platform.connection("south", &id).await?;
        ensure!(shown["status"] == "paused", "north still holds its pause: {shown}");
        closed(scene).await?;
        scene.ctl(&["connection", "resume", &id, "--profile", "north"]).await?;
        works_again(scene).await
    })
    .await
}

#[tokio::test]
async fn suspending_the_agreement_resets_both_engines_and_resuming_it_opens_again() -> anyhow::Result<()> {
    play(async |scene| {
        let id = scene.link.agreement.clone();
        cut(scene, "suspend", &["agreement", "suspend", &id, "--profile", "north"]).await?;
        scene.ctl(&["agreement", "resume", &id, "--profile", "north"]).await?;
        works_again(scene).await
    })
    .await
}

#[tokio::test]
async fn removing_a_server_resets_both_engines_while_bytes_flow() -> anyhow::Result<()> {
    play(async |scene| {
        scene.expected_errors.push("the control plane removed this gateway");
        cut(scene, "remove", &["server", "delete", "south", "--yes", "--profile", "south"]).await
    })
    .await
}

#[tokio::test]
async fn a_grant_that_expires_resets_both_engines_at_its_second() -> anyhow::Result<()> {
    play(async |scene| {
        let engine = Engine::start(Manners::Polite)?;
        let expires = Duration::from_secs(15);
        let offered = Instant::now();
        let grant =
            scene.platform.offer_until(&scene.link.agreement, &scene.south, engine.address(), Some("15s")).await?;
        let connection = scene.platform.approve(&grant, &scene.north).await?;
        scene.south.live(&connection).await?;
        let address = scene.platform.opened(&connection, &scene.north).await?;
        let mut connection = Connection::open(address).await.map_err(|e| anyhow::anyhow!("connect: {e:?}"))?;
        connection.write(b"\x0bMSH|^~\\&|").await.map_err(|e| anyhow::anyhow!("write: {e:?}"))?;
        let (near, near_at) = connection.write_until_end(&vec![b'x'; 1 << 10], LIMIT + expires).await;
        let (far, _) = engine.wait_for_end(LIMIT).await?;
        ensure!(near == Broken::Reset && far == Ending::Reset, "near {near:?}, far {far:?}");
        let lived = near_at.duration_since(offered);
        ensure!(lived > expires - Duration::from_secs(3) && lived < expires + CUT_LIMIT, "it ended after {lived:?}");
        measured!("a grant of 15 s was cut after {:.2} s (commands before and after included)", lived.as_secs_f64());
        scene.link.sender = address;
        closed(scene).await
    })
    .await
}

/// Bytes flow without end, the command is typed, and both engines must see an RST.
async fn cut(scene: &mut Scene, what: &str, command: &[&str]) -> anyhow::Result<()> {
    let message = scene.message();
    scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &message).await?;
    let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("connect: {e:?}"))?;
    connection.write(b"\x0bMSH|^~\\&|").await.map_err(|e| anyhow::anyhow!("write: {e:?}"))?;
    let before = scene.engine.bytes();
    let chunk = vec![b'x'; 16 << 10];
    let engine = &scene.engine;
    let typing = async {
        engine.wait_for_bytes(before + (256 << 10), LIMIT).await?;
        engine.forget_ends();
        let typed = Instant::now();
        scene.ctl(command).await?;
        let (end, at) = engine.wait_for_end(LIMIT).await?;
        anyhow::Ok((typed, end, at))
    };
    let ((near, near_at), typed) = tokio::join!(connection.write_until_end(&chunk, LIMIT), typing);
    let (typed, far, far_at) = typed?;
    let (near_took, far_took) = (near_at.duration_since(typed), far_at.duration_since(typed));
    measured!(
        "{what}: sending engine reset after {:.0} ms, receiving engine after {:.0} ms (command included)",
        near_took.as_secs_f64() * 1e3,
        far_took.as_secs_f64() * 1e3
    );
    ensure!(far == Ending::Reset, "{what}: the receiving engine saw {far:?}");
    ensure!(near == Broken::Reset, "{what}: the sending engine saw {near:?}");
    ensure!(near_took < CUT_LIMIT && far_took < CUT_LIMIT, "{what}: {near_took:?}, {far_took:?}");
    closed(scene).await
}

/// Nothing listens, and nothing reaches the engine.
async fn closed(scene: &mut Scene) -> anyhow::Result<()> {
    let message = scene.message();
    let mut sender = scene.sender();
    wait::until_true(LIMIT, "the local port is closed", async || {
        let verdict = sender.send(&message.bytes).await;
        ensure!(!verdict.marked_sent_without_validation(), "a message into a cut connection was {verdict}");
        Ok(verdict == Verdict::Broken(Broken::Refused))
    })
    .await?;
    ensure!(scene.engine.count_of(&message.control_id) == 0, "a message passed a cut connection");
    Ok(())
}

async fn works_again(scene: &mut Scene) -> anyhow::Result<()> {
    let message = scene.message();
    let mut sender = Sender::new(scene.link.sender, false);
    wait::until_true(LIMIT, "the connection works again on the same port", async || {
        let verdict = sender.send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged || !verdict.marked_sent_without_validation(), "{verdict}");
        Ok(verdict == Verdict::Acknowledged)
    })
    .await
}

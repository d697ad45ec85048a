//! Partners that misbehave: whatever they do, the sending engine never takes a lost message for a sent one
//!, and the connection works for the next message.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_tests::{
    mllp::{
        Broken, Connection, Ending, Manners,
        Verdict::{self, Acknowledged},
    },
    scene::{Scene, play},
    wait,
};

const LIMIT: Duration = Duration::from_secs(20);
const RESET: Verdict = Verdict::Broken(Broken::Reset);
const NO_ANSWER: Verdict = Verdict::Broken(Broken::NoAnswer);

#[tokio::test]
async fn a_partner_that_closes_without_an_answer_is_an_rst_for_the_sender_however_it_closes() -> anyhow::Result<()> {
    play(async |scene| {
        for ending in [Ending::Fin, Ending::Reset] {
            for manners in [Manners::EndAfterReading(ending), Manners::EndBeforeReading(ending)] {
                for _ in 0..5 {
                    let verdict = meet(scene, manners).await;
                    ensure!(verdict == RESET, "{manners:?}: {verdict}");
                }
            }
        }
        still_works(scene).await
    })
    .await
}

#[tokio::test]
async fn half_an_acknowledgement_is_never_taken_for_a_whole_one() -> anyhow::Result<()> {
    play(async |scene| {
        for ending in [Ending::Fin, Ending::Reset] {
            let verdict = meet(scene, Manners::HalfAnswer(ending)).await;
            let visible = matches!(verdict, Verdict::Broken(Broken::Reset | Broken::Fin { partial: true }));
            ensure!(visible, "half an answer, then {ending:?}: {verdict}");
        }
        still_works(scene).await
    })
    .await
}

#[tokio::test]
async fn refusals_and_wrong_answers_pass_as_they_are() -> anyhow::Result<()> {
    play(async |scene| {
        let verdict = meet(scene, Manners::Refuse).await;
        ensure!(matches!(&verdict, Verdict::Refused { code, .. } if code == "AE"), "{verdict}");
        let verdict = meet(scene, Manners::WrongControlId).await;
        ensure!(matches!(&verdict, Verdict::Refused { control_id, .. } if control_id == "SOMEBODY-ELSE"), "{verdict}");
        still_works(scene).await
    })
    .await
}

#[tokio::test]
async fn silence_and_garbage_end_when_the_sender_gives_up_and_leave_nothing_behind() -> anyhow::Result<()> {
    play(async |scene| {
        for manners in [Manners::Silent, Manners::Garbage] {
            let verdict = meet(scene, manners).await;
            ensure!(verdict == NO_ANSWER, "{manners:?}: {verdict}");
        }
        no_streams_left(scene).await?;
        still_works(scene).await
    })
    .await
}

#[tokio::test]
async fn a_deaf_partner_holds_nothing_once_the_sender_resets() -> anyhow::Result<()> {
    play(async |scene| {
        scene.engine.behave(Manners::Deaf);
        for message in [scene.message(), scene.document(20 << 20)] {
            let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            let verdict = connection.exchange(&message.bytes, Duration::from_secs(2)).await;
            ensure!(verdict == NO_ANSWER, "{} bytes to a deaf partner: {verdict}", message.bytes.len());
            connection.reset();
            no_streams_left(scene).await?;
        }
        still_works(scene).await
    })
    .await
}

#[tokio::test]
async fn the_eleventh_connection_to_a_full_engine_is_an_rst_and_the_ten_go_on() -> anyhow::Result<()> {
    play(async |scene| {
        let mut ten: Vec<_> = (0..10).map(|_| scene.keeping_sender()).collect();
        for sender in &mut ten {
            let message = scene.message();
            scene.deliver(sender, &message).await?;
        }
        let message = scene.message();
        let verdict = scene.sender().send(&message.bytes).await;
        ensure!(verdict == RESET, "the eleventh: {verdict}");
        for sender in &mut ten {
            let message = scene.message();
            scene.deliver(sender, &message).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sender_that_vanishes_in_a_message_leaves_no_connection_at_the_engine() -> anyhow::Result<()> {
    play(async |scene| {
        for _ in 0..12 {
            let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            connection.write(b"\x0bMSH|^~\\&|half a message").await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            connection.reset();
        }
        no_streams_left(scene).await?;
        still_works(scene).await
    })
    .await
}

/// Sends a new message to an engine with these manners.
async fn meet(scene: &mut Scene, manners: Manners) -> Verdict {
    scene.engine.behave(manners);
    let message = scene.message();
    // Whoever gets no answer, or none that it understands, gives up after this time; for all others it must not count.
    let patience = if matches!(manners, Manners::Silent | Manners::Garbage) { Duration::from_secs(2) } else { LIMIT };
    scene.sender().with_response_timeout(patience).send(&message.bytes).await
}

async fn still_works(scene: &mut Scene) -> anyhow::Result<()> {
    scene.engine.behave(Manners::Polite);
    let message = scene.message();
    let verdict = scene.sender().send(&message.bytes).await;
    ensure!(verdict == Acknowledged, "afterwards: {verdict}");
    scene.arrived_once(&message)
}

/// Ten half-open leftovers would lock the engine's channel.
async fn no_streams_left(scene: &Scene) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "no stream is left", async || {
        let mut streams = 0;
        for site in [&scene.north, &scene.south] {
            streams += site.seen(&scene.link.connection).await?.context("the connection")?.streams;
        }
        Ok(streams == 0)
    })
    .await
}

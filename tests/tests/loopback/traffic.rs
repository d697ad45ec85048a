//! Messages of every kind through a connection that works.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    corpus::Corpus,
    measured,
    mllp::{Broken, Connection, Ending, Manners, Verdict, frame},
    scene::play,
};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_message_of_28_mb_arrives_byte_for_byte_and_is_acknowledged() -> anyhow::Result<()> {
    play(async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let message = scene.document(21 << 20);
        ensure!(message.bytes.len() > 28_000_000);
        let begun = std::time::Instant::now();
        scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &message).await?;
        measured!("28 MB acknowledged after {:.2} s", begun.elapsed().as_secs_f64());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn thirty_five_quiet_seconds_between_message_and_acknowledgement_change_nothing() -> anyhow::Result<()> {
    play(async |scene| {
        scene.engine.behave(Manners::Slow(Duration::from_secs(35)));
        let mut sender = scene.keeping_sender().with_response_timeout(LIMIT);
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
        scene.engine.behave(Manners::Polite);
        let message = scene.message();
        scene.deliver(&mut sender, &message).await?;
        ensure!(scene.engine.accepted() == 1, "the connection was kept");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn small_messages_do_not_wait_behind_a_big_one() -> anyhow::Result<()> {
    play(async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let big = scene.document(40 << 20);
        let mut bulk = scene.keeping_sender().with_response_timeout(LIMIT);
        let mut small = scene.keeping_sender();
        let messages: Vec<_> = (0..20).map(|_| scene.message()).collect();
        let before = scene.engine.bytes();
        let sending = async {
            let begun = std::time::Instant::now();
            (bulk.send(&big.bytes).await, begun.elapsed())
        };
        let meanwhile = async {
            scene.engine.wait_for_bytes(before + (1 << 20), LIMIT).await?;
            let mut worst = Duration::ZERO;
            for message in &messages {
                let begun = std::time::Instant::now();
                scene.deliver(&mut small, message).await?;
                worst = worst.max(begun.elapsed());
            }
            anyhow::Ok(worst)
        };
        let ((verdict, took), worst) = tokio::join!(sending, meanwhile);
        let worst = worst?;
        measured!("worst small message beside 56 MB in {took:.1?}: {:.1} ms", worst.as_secs_f64() * 1e3);
        ensure!(verdict == Verdict::Acknowledged, "the big one was {verdict}");
        ensure!(worst < Duration::from_secs(5) && worst < took / 2, "a small message took {worst:?}, all {took:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn odd_framing_passes_byte_by_byte_two_at_once_and_half_closed() -> anyhow::Result<()> {
    play(async |scene| {
        let mut corpus = Corpus::new("ODD", 3);
        let (one, two, three) = (corpus.adt("A01"), corpus.adt("A08"), corpus.adt("A03"));
        let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let mut bytes = b"\r\n junk".to_vec();
        bytes.extend([frame(&one.bytes), frame(&two.bytes)].concat());
        let answered = async |connection: &mut Connection| {
            connection.answer(LIMIT).await.map_err(|e| anyhow::anyhow!("no answer: {e:?}"))
        };
        connection.write(&bytes).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        for _ in 0..2 {
            answered(&mut connection).await?;
        }
        for byte in frame(&three.bytes) {
            connection.write(&[byte]).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        }
        connection.finish_writing().await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        answered(&mut connection).await.context("the answer after a half-close")?;
        let (end, _) = connection.end(LIMIT).await;
        ensure!(end == Broken::Fin { partial: false }, "an orderly end is mirrored as FIN, not {end:?}");
        for message in [one, two, three] {
            scene.arrived_once(&message)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_ends_of_the_sending_engine_are_mirrored_as_what_they_are() -> anyhow::Result<()> {
    play(async |scene| {
        let message = scene.message();
        let mut sender = scene.keeping_sender();
        scene.deliver(&mut sender, &message).await?;
        drop(sender);
        let (end, _) = scene.engine.wait_for_end(LIMIT).await?;
        ensure!(end == Ending::Fin, "an orderly end after the acknowledgement arrives as {end:?}");
        let mut connection = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let half = frame(&scene.message().bytes);
        let before = scene.engine.bytes();
        connection.write(&half[..half.len() / 2]).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        scene.engine.wait_for_bytes(before + (half.len() / 2) as u64, LIMIT).await?;
        connection.reset();
        let (end, _) = scene.engine.wait_for_end(LIMIT).await?;
        ensure!(end == Ending::Reset, "an RST arrives as {end:?}");
        Ok(())
    })
    .await
}

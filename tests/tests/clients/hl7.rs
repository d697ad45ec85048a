//! The client and the server of python-hl7 (PyPI `hl7`).

use std::{net::SocketAddr, path::Path, process::Stdio};

use anyhow::{Context, ensure};
use gateway_proto::api::local::ExchangeStatus;
use gateway_tests::{
    corpus::{Corpus, Message},
    measured,
    mllp::{Sender, Verdict},
    scene::{Scene, play},
    wait,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::timeout,
};

use crate::programs::{LIMIT, finish, script};

/// Bytes of the largest document; base64 makes a message of 28 MB of it.
const LARGEST: usize = 21 << 20;

#[tokio::test]
async fn the_client_of_python_hl7_sends_the_whole_corpus_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let (dir, messages) = corpus(|_| true)?;
        let port = scene.link.sender.port().to_string();
        let begun = std::time::Instant::now();
        let out = finish(script("client.py")?.args(["127.0.0.1", &port]).arg(dir.path())).await?;
        let megabytes = messages.iter().map(|message| message.bytes.len()).sum::<usize>() / 1_000_000;
        measured!("python-hl7: {} messages, {megabytes} MB in {:.1} s", messages.len(), begun.elapsed().as_secs_f64());
        ensure!(out.lines().filter(|line| line.ends_with(" AA")).count() == messages.len(), "{out}");
        for message in &messages {
            scene.arrived_once(message)?;
        }
        ensure!(scene.engine.count() == messages.len());
        counted_at_both_ends(scene, messages.len() as u64).await
    })
    .await
}

#[tokio::test]
async fn the_server_of_python_hl7_receives_and_acknowledges_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        // What python-hl7 can parse and write back unchanged: UTF-8, one message in a frame.
        let (_, messages) =
            corpus(|message| !message.name.contains("BATCH") && std::str::from_utf8(&message.bytes).is_ok())?;
        let received = tempfile::tempdir()?;
        let (_server, address) = server(received.path()).await?;
        let link = scene.platform.link(&scene.link.agreement, &scene.south, &scene.north, address).await?;
        for (keep_open, messages) in [(true, &messages[..]), (false, &messages[..3])] {
            let mut sender = Sender::new(link.sender, keep_open).with_response_timeout(LIMIT);
            for message in messages {
                let verdict = sender.send(&message.bytes).await;
                ensure!(verdict == Verdict::Acknowledged, "{} {}: {verdict}", message.name, message.control_id);
                let stored = std::fs::read(received.path().join(&message.control_id))?;
                ensure!(stored == message.bytes, "{} arrived with other bytes", message.name);
            }
        }
        Ok(())
    })
    .await
}

/// Both gateways saw the same number of messages, and an acknowledgement for each.
async fn counted_at_both_ends(scene: &Scene, messages: u64) -> anyhow::Result<()> {
    for site in [&scene.north, &scene.south] {
        let mut last = None;
        let counted = wait::until_true(LIMIT, format!("{} counts {messages} messages", site.name), async || {
            last = site.seen(&scene.link.connection).await?.and_then(|entry| entry.exchange);
            let Some(ExchangeStatus::Mllp(mllp)) = &last else { return Ok(false) };
            Ok((mllp.messages, mllp.accepted, mllp.outstanding) == (messages, messages, 0))
        });
        counted.await.with_context(|| format!("last: {last:?}"))?;
    }
    Ok(())
}

fn corpus(wanted: impl Fn(&Message) -> bool) -> anyhow::Result<(tempfile::TempDir, Vec<Message>)> {
    let mut corpus = Corpus::new("PY", 11);
    let mut messages = corpus.daily(4);
    messages.extend(corpus.big(&[100 << 10, 1 << 20, 5 << 20, LARGEST]));
    messages.retain(wanted);
    let dir = tempfile::tempdir()?;
    for (index, message) in messages.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{index:04}_{}.hl7", message.control_id)), &message.bytes)?;
    }
    Ok((dir, messages))
}

async fn server(dir: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    let mut server = script("server.py")?.arg(dir).stdout(Stdio::piped()).spawn()?;
    let stdout = server.stdout.take().context("stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(LIMIT, lines.next_line()).await??.context("server.py ended before it listened")?;
    Ok((server, line.trim().parse().with_context(|| format!("server.py printed '{line}'"))?))
}

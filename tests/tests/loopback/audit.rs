//! The gateways' own audit logs: streams, refusals and how they ended, at both ends, without a byte of payload.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use gateway_tests::{
    corpus::{Corpus, MARKER},
    ctl::items,
    platform::Site,
    scene::{Scene, play},
    wait,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn streams_and_refusals_of_a_tunnel_stand_in_both_logs_and_whoever_changes_a_line_is_found_out()
-> anyhow::Result<()> {
    play(async |scene| {
        let mut corpus = Corpus::new("AUD", 9);
        // One conversation that ends in order, one that lives until it is cut.
        let message = corpus.adt("A01");
        scene.deliver(&mut scene.sender(), &message).await?;
        let mut kept = scene.keeping_sender();
        let message = corpus.adt("A02");
        scene.deliver(&mut kept, &message).await?;
        for site in [&scene.north, &scene.south] {
            recorded(scene, site, |record| record["act"] == "stream.end" && record["ending"] == "clean").await?;
        }
        let id = scene.link.connection.clone();
        let open = recorded(scene, &scene.south, |record| record["act"] == "stream.open").await?;
        ensure!(open["connection"] == id.as_str() && open["role"] == "listener", "{open}");
        scene.ctl(&["connection", "pause", &id, "--profile", "south"]).await?;
        let trace = open["trace"].as_str().context("a trace")?.to_owned();
        let ended = |record: &Value| record["act"] == "stream.end" && record["trace"] == trace.as_str();
        let cut = recorded(scene, &scene.south, ended).await?;
        ensure!(cut["messages"] == 1 && cut["bytes_received"].as_u64() > Some(100), "{cut}");
        ensure!(cut["server"] == "north" && cut["endpoint"] == open["endpoint"], "{cut}");
        // The same stream, by the same number, at the other end.
        let there = recorded(scene, &scene.north, ended).await?;
        ensure!(there["role"] == "sender" && there["bytes_sent"] == cut["bytes_received"], "{there} {cut}");
        // The new policy reaches one of the two first, and that one's reset may be what ends the stream at the other.
        let endings = [&cut["ending"], &there["ending"]];
        ensure!(endings.iter().all(|ending| *ending == "revoked" || *ending == "revoked_there"), "{there} {cut}");
        ensure!(endings.iter().any(|ending| *ending == "revoked"), "{there} {cut}");
        scene.ctl(&["connection", "resume", &id, "--profile", "south"]).await?;
        scene.connected().await?;
        // The engine behind the far gateway goes: a refusal, told by both.
        scene.engine.stop().await;
        let message = corpus.adt("A03");
        scene.sender().send(&message.bytes).await;
        let refused = |record: &Value| record["act"] == "stream.refuse" && record["reason"] == "engine_refused";
        let (here, there) =
            (recorded(scene, &scene.south, refused).await?, recorded(scene, &scene.north, refused).await?);
        ensure!(here["by"] == "us" && there["by"] == "partner" && here["trace"] == there["trace"], "{here} {there}");
        verified(scene).await
    })
    .await
}

/// The newest record of a site that is wanted.
async fn recorded(scene: &Scene, site: &Site, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    wait::until(LIMIT, "a record of the audit log", async || {
        let args = ["gateway", "audit", "list", "--limit", "1000", "--socket", site.socket()];
        let answer = scene.platform.ctl.look(&args).await?;
        Ok(items(&answer)?.iter().rfind(|record| wanted(record)).cloned())
    })
    .await
}

async fn verified(scene: &Scene) -> anyhow::Result<()> {
    let ctl = &scene.platform.ctl;
    let socket = scene.south.socket();
    let verify = ctl.json(&["gateway", "audit", "verify", "--socket", socket]).await?;
    ensure!(verify["missing"] == 0 && verify["records"].as_u64() > Some(5), "{verify}");
    let mut exports = Vec::new();
    for format in ["jsonl", "fhir", "syslog"] {
        let export = ctl.run(&["gateway", "audit", "export", "--format", format, "--socket", socket]).await?;
        ensure!(export.code == Some(0) && export.stdout.contains("stream.refuse"), "{format}: {export:?}");
        for word in [MARKER, "MSH|", "PID|"] {
            ensure!(!export.stdout.contains(word), "{format} holds {word}");
        }
        exports.push(export.stdout);
    }
    ensure!(exports[1].lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", exports[1]);
    ensure!(exports[2].lines().all(|line| line.starts_with("<1") && line.contains(" gatewayd - ")), "{}", exports[2]);

    // A copy of the files, elsewhere.
    let copy = scene.platform.dir().join("copy");
    let older = scene.platform.dir().join("older.jsonl");
    std::fs::create_dir(&copy)?;
    let original = only_file(&scene.south.state_dir().join("audit"))?;
    let name = original.file_name().context("a name")?;
    let text = std::fs::read_to_string(&original)?;
    std::fs::write(&older, &exports[0])?;
    let check = async |changed: &str, more: &[&str]| {
        std::fs::write(copy.join(name), changed)?;
        let dir = copy.to_str().context("a path")?;
        let args = [&["gateway", "audit", "verify", "--dir", dir], more].concat();
        anyhow::Ok(ctl.run(&args).await?.code)
    };
    ensure!(check(&text, &[]).await? == Some(0));
    ensure!(check(&text.replacen("\"clean\"", "\"reset_here\"", 1), &[]).await? == Some(1), "a changed line");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let without = [&lines[..2], &lines[3..]].concat().concat();
    ensure!(check(&without, &[]).await? == Some(1), "a removed line");
    // Without its newest lines it looks whole, but not to who knows better.
    let shorter = lines[..lines.len() - 2].concat();
    ensure!(check(&shorter, &[]).await? == Some(0));
    let older = older.to_str().context("a path")?;
    ensure!(check(&text, &["--against", older]).await? == Some(0));
    ensure!(check(&shorter, &["--against", older]).await? == Some(1), "a tail that was cut off");
    let head = format!("{}:{}", verify["head"]["sequence"], verify["head"]["hash"].as_str().context("a hash")?);
    ensure!(check(&shorter, &["--head", &head]).await? == Some(1), "a tail that was cut off");
    // Under the running daemon's eyes.
    std::fs::write(&original, &shorter)?;
    let outcome = ctl.run(&["gateway", "audit", "verify", "--socket", socket]).await?;
    ensure!(outcome.code == Some(1) && outcome.stderr.contains("removed"), "{outcome:?}");
    Ok(())
}

fn only_file(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let mut entries = std::fs::read_dir(dir)?;
    Ok(entries.next().context("no file of the log")??.path())
}

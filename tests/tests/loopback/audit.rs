//! The gateways' own audit logs: streams, refusals and how they ended, at both ends, without a byte of payload.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use gateway_tests::{
    corpus::{Corpus, MARKER},
    ctl::{Outcome, items},
    platform::{Placement, PlatformOptions, Site},
    scene::{Scene, play, play_with},
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
        let clean = |record: &Value| record["act"] == "stream.end" && record["ending"] == "clean";
        recorded(scene, &scene.north, clean).await?;
        let clean = recorded(scene, &scene.south, clean).await?;
        let id = scene.link.connection.clone();
        let other = |record: &Value| record["act"] == "stream.open" && record["trace"] != clean["trace"];
        let open = recorded(scene, &scene.south, other).await?;
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

#[tokio::test]
async fn a_tail_that_is_cut_off_while_the_daemon_is_down_is_an_alarm_at_the_gateway_and_at_the_control_plane()
-> anyhow::Result<()> {
    let options = PlatformOptions { delivery_interval_secs: 2, ..PlatformOptions::default() };
    play_with(options, [Placement::loopback(), Placement::loopback()], async |scene| {
        let message = scene.message();
        scene.deliver(&mut scene.sender(), &message).await?;
        recorded(scene, &scene.south, |record| record["act"] == "stream.end").await?;
        // With a new link comes the head as it is.
        scene.south.gateway.terminate(LIMIT).await?;
        scene.south.restart().await?;
        let path = only_file(&scene.south.state_dir().join("audit"))?;
        let lines = || std::fs::read_to_string(&path);
        let begun = lines()?.lines().count() as u64 - 1;
        let known =
            until(scene, "a head that was reported", |audit| audit["newest"]["sequence"].as_u64() >= Some(begun));
        let known = known.await?;
        ensure!(known["alarm"].is_null(), "{known}");
        let verify = verify_with_control(scene).await?;
        ensure!(verify.code == Some(0) && verify.stdout.contains("reported to the control plane"), "{verify:?}");

        // Somebody cuts the call off that was not to be seen, and whatever came after it.
        scene.south.gateway.terminate(LIMIT).await?;
        let text = lines()?;
        let kept: Vec<_> = text.split_inclusive('\n').take(2).collect();
        std::fs::write(&path, kept.concat())?;
        scene.south.restart().await?;
        let audit = until(scene, "an alarm", |audit| !audit["alarm"].is_null()).await?;
        ensure!(audit["alarm"]["known"]["hash"] == known["newest"]["hash"], "{audit}");
        at_gateway(scene, true).await?;
        let metrics = scene.metrics_of(&scene.south).await?;
        ensure!(metrics.contains("gatewayd_audit_head_missing 1"), "{metrics}");
        let entries = scene.ctl(&["audit", "list", "--profile", "south"]).await?;
        let told = items(&entries)?.iter().filter(|entry| entry["act"] == "gateway.audit_differs").count();
        ensure!(told == 1, "{entries}");
        // The files themselves look whole.
        let dir = path.parent().and_then(Path::to_str).context("a folder")?;
        let ctl = &scene.platform.ctl;
        ensure!(ctl.run(&["gateway", "audit", "verify", "--dir", dir]).await?.code == Some(0));
        ensure!(verify_with_control(scene).await?.code == Some(1));
        let copied = ["gateway", "audit", "verify", "--dir", dir, "--server", &scene.south.name, "--profile", "south"];
        ensure!(ctl.run(&copied).await?.code == Some(1));

        let acknowledge =
            ["server", "acknowledge-audit", &scene.south.name, "--yes", "--note", "found", "--profile", "south"];
        ensure!(scene.ctl(&acknowledge).await?["alarm"].is_null());
        at_gateway(scene, false).await?;
        ensure!(verify_with_control(scene).await?.code == Some(0));
        scene.connected().await
    })
    .await
}

/// Waits until the gateway itself knows of an alarm, or of none.
async fn at_gateway(scene: &Scene, is_alarm: bool) -> anyhow::Result<()> {
    wait::until(Duration::from_secs(60), "what the gateway found", async || {
        let status = scene.south.look().await?;
        Ok(status.audit.filter(|audit| audit.held.is_alarm() == is_alarm).map(drop))
    })
    .await
}

/// What the control plane knows of the log of the south, once it is as wanted.
async fn until(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    wait::until(LIMIT, what, async || {
        let audit = scene.platform.ctl.look(&["server", "audit", &scene.south.name, "--profile", "south"]).await?;
        Ok(Some(audit).filter(|audit| wanted(audit)))
    })
    .await
}

async fn verify_with_control(scene: &Scene) -> anyhow::Result<Outcome> {
    let args = ["gateway", "audit", "verify", "--socket", scene.south.socket(), "--profile", "south"];
    scene.platform.ctl.run(&args).await
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

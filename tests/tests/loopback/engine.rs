//! The engine beside a gateway, as a process of its own: found, published, followed, explained, and restarted.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::{
    api::{
        gateway::{Connectivity, PathKind},
        local::EngineStatus,
    },
    engine::EngineState,
};
use gateway_tests::{
    corpus::Corpus,
    ctl::{items, text},
    engine::{
        definition::{ChannelDefinition, DestinationDefinition, EngineDefinition},
        process::EngineProcess,
    },
    measured,
    mllp::{Sender, Verdict},
    platform::{Link, Platform, Site},
    scene::{Scene, play},
    wait,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const ADT: &str = "a0000000-0000-4000-8000-000000000001";
const ORU: &str = "a0000000-0000-4000-8000-000000000002";
const OUT: &str = "a0000000-0000-4000-8000-000000000003";
const INTERNAL: &str = "a0000000-0000-4000-8000-000000000013";
pub(super) const PASSWORD: &str = "a-password-nobody-may-see";

/// An engine whose restart takes as long as a real one's, beside a site.
pub(super) struct Beside {
    pub(super) engine: EngineProcess,
    password_file: PathBuf,
}

impl Beside {
    pub(super) async fn start(
        platform: &Platform,
        site: &mut Site,
        password: &str,
        channels: Vec<ChannelDefinition>,
    ) -> anyhow::Result<Self> {
        let definition = EngineDefinition {
            users: [("admin".to_owned(), "admin".to_owned()), ("gateway".to_owned(), PASSWORD.to_owned())].into(),
            login_cost_ms: 50,
            retry_limit: 5,
            channels,
            ..EngineDefinition::default()
        };
        let name = format!("engine-{}", site.name);
        let engine = EngineProcess::start(platform.dir(), &name, &definition).await?;
        let password_file = platform.dir().join(format!("{}.engine-password", site.name));
        let beside = Self { engine, password_file };
        beside.write_password(password)?;
        let section = format!(
            "\n[engine]\napi = \"{}\"\nuser = \"gateway\"\npassword_file = {:?}\ninterval = \"1s\"\n",
            beside.engine.https()?,
            beside.password_file,
        );
        let config = fs::read_to_string(site.config())?;
        fs::write(site.config(), config + &section)?;
        site.restart().await?;
        Ok(beside)
    }

    fn write_password(&self, password: &str) -> anyhow::Result<()> {
        fs::write(&self.password_file, format!("{password}\n"))?;
        Ok(fs::set_permissions(&self.password_file, fs::Permissions::from_mode(0o600))?)
    }
}

/// What the gateway itself says of its engine, once it is in this state.
async fn engine_is(site: &Site, state: EngineState) -> anyhow::Result<EngineStatus> {
    wait::until(LIMIT, format!("the engine beside {} is {state}", site.name), async || {
        Ok(site.look().await?.engine.filter(|engine| engine.head.state == state))
    })
    .await
}

/// What `channel discover` says of south's engine, once it is as wanted.
pub(super) async fn discovered(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let found = wait::until(LIMIT, format!("the platform shows {what}"), async || {
        let engines =
            scene.platform.ctl.look(&["channel", "discover", "--server", "south", "--profile", "south"]).await?;
        last = items(&engines)?.first().context("one engine")?.clone();
        Ok(wanted(&last).then(|| last.clone()))
    })
    .await;
    found.with_context(|| format!("it shows {last}"))
}

fn link_state<'a>(engine: &'a Value, engine_channel: &str) -> &'a str {
    let links = engine["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    let link = links.iter().find(|link| link["engine_channel"] == engine_channel);
    link.and_then(|link| link["state"].as_str()).unwrap_or_default()
}

/// Publishes the proposal `name` of south's engine, grants it to north, and waits until both ends let data pass.
pub(super) async fn publish_and_link(scene: &Scene, name: &str) -> anyhow::Result<(String, Link)> {
    let args =
        ["channel", "publish", name, "--server", "south", "--public-name", "ADT feed", "--description", "visits"];
    let channel = scene.ctl(&[&args[..], &["--profile", "south"]].concat()).await?;
    let channel = text(&channel, "id")?.to_owned();
    let offer = ["grant", "offer", "--channel", &channel, "--to", &scene.link.agreement, "--profile", "south"];
    let grant = text(&scene.ctl(&offer).await?, "id")?.to_owned();
    let connection = scene.platform.approve(&grant, &scene.north).await?;
    scene.south.live(&connection).await?;
    let sender = scene.platform.opened(&connection, &scene.north).await?;
    Ok((channel, Link { connection, grant, agreement: scene.link.agreement.clone(), sender }))
}

#[tokio::test]
async fn a_channel_is_discovered_published_granted_and_followed_through_rename_move_stop_and_deletion()
-> anyhow::Result<()> {
    play(async |scene| {
        let channels =
            vec![ChannelDefinition::mllp_listener(ADT, "adt_in"), ChannelDefinition::mllp_listener(ORU, "oru_in")];
        let beside = Beside::start(&scene.platform, &mut scene.south, PASSWORD, channels).await?;
        let engine = &beside.engine;
        discovered(scene, "two proposals", |engine| engine["proposals"].as_array().is_some_and(|all| all.len() == 2))
            .await?;
        let (channel, link) = publish_and_link(scene, "adt_in").await?;
        let mut corpus = Corpus::new("EN", 5);
        let message = corpus.adt("A01");
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "{verdict}");
        let received = engine.received(ADT).await?;
        ensure!(received.len() == 1 && received[0].1 == message.bytes, "byte for byte at the engine");

        // Renamed and moved to another port.
        let renamed = ChannelDefinition { name: "adt_renamed".into(), ..ChannelDefinition::mllp_listener(ADT, "") };
        let old_port = engine.port(ADT)?;
        engine.deploy(&renamed).await?;
        let new_port = engine.port(ADT)?;
        ensure!(old_port != new_port, "another port");
        wait::until_true(LIMIT, "the registered channel follows", async || {
            let shown = scene.platform.ctl.look(&["channel", "show", &channel, "--profile", "south"]).await?;
            Ok(shown["name"] == "adt_renamed" && shown["engine"] == format!("127.0.0.1:{new_port}"))
        })
        .await?;
        let message = corpus.adt("A08");
        wait::until_true(LIMIT, "messages arrive at the new port", async || {
            Ok(Sender::new(link.sender, false).send(&message.bytes).await == Verdict::Acknowledged)
        })
        .await?;
        ensure!(engine.received(ADT).await?.iter().any(|(_, bytes)| *bytes == message.bytes));

        // Stopped: the owner sees it, partners see it, and a sender is told the truth.
        engine.post(&format!("/channels/{ADT}/_stop"), "").await?;
        discovered(scene, "the channel stopped", |engine| link_state(engine, ADT) == "stopped").await?;
        let listed = ["endpoint", "list", "--agreement", &scene.link.agreement, "--profile", "north"];
        let endpoints = scene.platform.ctl.look(&listed).await?;
        let feed = items(&endpoints)?.iter().find(|entry| entry["name"] == "ADT feed").context("the endpoint")?;
        ensure!(feed["stopped"] == true && !endpoints.to_string().contains("adt_renamed"), "{endpoints}");
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(!verdict.marked_sent_without_validation(), "{verdict}");
        let problem = scene.north.connection(&scene.platform.ctl, &link.connection).await?.problem;
        ensure!(problem.as_deref() == Some("the partner's channel is stopped"), "{problem:?}");
        let problem = scene.south.connection(&scene.platform.ctl, &link.connection).await?.problem;
        ensure!(problem.as_deref() == Some("our channel 'adt_renamed' is stopped in the engine"), "{problem:?}");

        // Started again, then deleted.
        engine.post(&format!("/channels/{ADT}/_start"), "").await?;
        discovered(scene, "the channel started", |engine| link_state(engine, ADT) == "started").await?;
        engine.delete(&format!("/channels/{ADT}")).await?;
        let shown = discovered(scene, "the channel missing", |engine| link_state(engine, ADT) == "missing").await?;
        ensure!(shown["proposals"].as_array().is_some_and(|all| *all == [ORU]), "nothing was published by itself");

        let asked = engine.executed().await?;
        let ours: Vec<_> = asked.iter().filter(|asked| asked.user.as_deref() == Some("gateway")).collect();
        ensure!(!ours.is_empty() && ours.iter().all(|asked| asked.class.starts_with('R')), "it only reads");
        ensure!(ours.iter().all(|asked| !asked.headers.contains_key("authorization")), "never Basic");
        ensure!(engine.logins().await?[0] == 1 + administered(&asked), "one login: {:?}", engine.logins().await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_channel_that_takes_the_port_of_the_granted_one_gets_nothing_until_a_person_binds_the_endpoint_to_it()
-> anyhow::Result<()> {
    play(async |scene| {
        let channels = vec![ChannelDefinition::mllp_listener(ADT, "adt_in")];
        let beside = Beside::start(&scene.platform, &mut scene.south, PASSWORD, channels).await?;
        let engine = &beside.engine;
        discovered(scene, "a proposal", |engine| engine["proposals"].as_array().is_some_and(|all| all.len() == 1))
            .await?;
        let (channel, link) = publish_and_link(scene, "adt_in").await?;
        let mut corpus = Corpus::new("PO", 11);
        let first = corpus.adt("A01");
        let verdict = Sender::new(link.sender, false).send(&first.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "{verdict}");

        // Stopped, and another channel that nobody published is started on its port.
        let mut internal = ChannelDefinition::mllp_listener(INTERNAL, "internal");
        internal.source.port = engine.port(ADT)?.to_string();
        engine.post(&format!("/channels/{ADT}/_stop"), "").await?;
        engine.deploy(&internal).await?;
        let is_taken = |engine: &Value| {
            link_state(engine, ADT) == "stopped" && engine["proposals"].as_array().is_some_and(|all| *all == [INTERNAL])
        };
        discovered(scene, "the port taken over", is_taken).await?;
        let message = corpus.adt("A08");
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(!verdict.marked_sent_without_validation(), "{verdict}");
        ensure!(engine.received(INTERNAL).await?.is_empty(), "nobody was granted that channel");
        let problem = scene.north.connection(&scene.platform.ctl, &link.connection).await?.problem;
        ensure!(problem.as_deref() == Some("the partner's channel is stopped"), "{problem:?}");
        let problem = scene.south.connection(&scene.platform.ctl, &link.connection).await?.problem.unwrap_or_default();
        ensure!(problem.contains("'adt_in' is stopped") && problem.contains("'internal'"), "{problem}");

        // The other way round again.
        engine.post(&format!("/channels/{INTERNAL}/_stop"), "").await?;
        engine.post(&format!("/channels/{ADT}/_start"), "").await?;
        wait::until_true(LIMIT, "messages arrive at the channel that was started again", async || {
            Ok(Sender::new(link.sender, false).send(&message.bytes).await == Verdict::Acknowledged)
        })
        .await?;
        ensure!(engine.received(ADT).await?.iter().any(|(_, bytes)| *bytes == message.bytes));

        // Deleted: its port is another channel's, until its owner says that this one is meant.
        engine.delete(&format!("/channels/{ADT}")).await?;
        engine.post(&format!("/channels/{INTERNAL}/_start"), "").await?;
        discovered(scene, "the channel missing", |engine| link_state(engine, ADT) == "missing").await?;
        let message = corpus.adt("A03");
        let verdict = Sender::new(link.sender, false).send(&message.bytes).await;
        ensure!(!verdict.marked_sent_without_validation(), "{verdict}");
        ensure!(engine.received(INTERNAL).await?.is_empty(), "nobody was granted that channel");
        let bind = ["channel", "update", &channel, "--engine-channel", "internal", "--profile", "south"];
        scene.ctl(&bind).await?;
        wait::until_true(LIMIT, "messages arrive at the channel it was bound to", async || {
            Ok(Sender::new(link.sender, false).send(&message.bytes).await == Verdict::Acknowledged)
        })
        .await?;
        ensure!(engine.received(INTERNAL).await?.iter().all(|(_, bytes)| *bytes == message.bytes));
        Ok(())
    })
    .await
}

/// Requests of the test's administrator, who comes by Basic auth.
fn administered(asked: &[gateway_tests::engine::access::Executed]) -> u64 {
    asked.iter().filter(|asked| asked.user.as_deref() == Some("admin")).count() as u64
}

#[tokio::test]
async fn a_wrong_password_is_told_once_locks_nobody_out_and_is_shown_nowhere() -> anyhow::Result<()> {
    play(async |scene| {
        let wrong = "not-the-password-either";
        let channels = vec![ChannelDefinition::mllp_listener(ADT, "adt_in")];
        let beside = Beside::start(&scene.platform, &mut scene.south, wrong, channels).await?;
        let engine = engine_is(&scene.south, EngineState::LoginRefused).await?;
        let problem = engine.head.problem.context("a problem")?;
        ensure!(problem.contains("refuses the login of user 'gateway'"), "{problem}");
        // Several intervals later it is still one try.
        let until = Instant::now() + Duration::from_secs(5);
        wait::until_true(LIMIT, "five seconds passed", async || Ok(Instant::now() > until)).await?;
        ensure!(beside.engine.logins().await? == [0, 1], "{:?}", beside.engine.logins().await?);
        beside.write_password(PASSWORD)?;
        let engine = engine_is(&scene.south, EngineState::Up).await?;
        ensure!(engine.channels.len() == 1 && engine.head.version.as_deref() == Some("4.5.2"), "{engine:?}");
        ensure!(beside.engine.logins().await? == [1, 1], "{:?}", beside.engine.logins().await?);
        let log = scene.south.gateway.log();
        ensure!(log.matches("refuses the login").count() == 1, "it is said once");
        let status = scene.platform.ctl.status(scene.south.socket()).await?.to_string();
        for text in [&log, &status, &scene.platform.control.log()] {
            ensure!(!text.contains(wrong) && !text.contains(PASSWORD), "the password is shown");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_engine_restart_leaves_the_tunnel_up_and_its_ports_and_session_come_back() -> anyhow::Result<()> {
    play(async |scene| {
        let channels = vec![ChannelDefinition::mllp_listener(ADT, "adt_in")];
        let mut beside = Beside::start(&scene.platform, &mut scene.south, PASSWORD, channels).await?;
        engine_is(&scene.south, EngineState::Up).await?;
        discovered(scene, "a proposal", |engine| engine["proposals"].as_array().is_some_and(|all| all.len() == 1))
            .await?;
        let (_, link) = publish_and_link(scene, "adt_in").await?;
        // Changes of path are counted below: the last one of the beginning must be over.
        scene.on_path(PathKind::Direct).await?;
        let mut corpus = Corpus::new("RS", 9);
        let mut deliver = async || Sender::new(link.sender, false).send(&corpus.adt("A01").bytes).await;
        ensure!(deliver().await == Verdict::Acknowledged);

        // The process is killed and started again; its ports are closed for ten seconds, as measured.
        let changes = peer_changes(scene).await?;
        let killed = Instant::now();
        beside.engine.process.kill_and_reap();
        let verdict = deliver().await;
        ensure!(!verdict.marked_sent_without_validation(), "{verdict}");
        engine_is(&scene.south, EngineState::Down).await?;
        ensure!(deliver().await != Verdict::Acknowledged);
        let problem = scene.north.connection(&scene.platform.ctl, &link.connection).await?.problem;
        let expected = "the partner's engine does not run, or the channel is stopped";
        ensure!(problem.as_deref() == Some(expected), "{problem:?}");
        let status = scene.north.connection(&scene.platform.ctl, &link.connection).await?;
        ensure!(status.connectivity == Connectivity::Connected, "the tunnel stays: {status:?}");
        beside.engine.restart().await?;
        let back = Instant::now();
        wait::until_true(LIMIT, "a message is acknowledged again", async || {
            Ok(deliver().await == Verdict::Acknowledged)
        })
        .await?;
        measured!(
            "engine killed: message acknowledged {:.1} s after its ports were back ({:.1} s after the kill)",
            back.elapsed().as_secs_f64(),
            killed.elapsed().as_secs_f64()
        );
        ensure!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
        engine_is(&scene.south, EngineState::Up).await?;
        ensure!(peer_changes(scene).await? == changes, "the path never changed");

        // Restarted inside: the same process, but sessions die.
        let before = beside.engine.logins().await?[0];
        beside.engine.restart_inside().await?;
        engine_is(&scene.south, EngineState::Down).await?;
        engine_is(&scene.south, EngineState::Up).await?;
        ensure!(beside.engine.logins().await? == [before + 1, 0], "one new session");
        Ok(())
    })
    .await
}

async fn peer_changes(scene: &Scene) -> anyhow::Result<Vec<u64>> {
    let status = scene.south.status(&scene.platform.ctl).await?;
    Ok(status.peers.iter().map(|peer| peer.path_changes).collect())
}

#[tokio::test]
async fn destinations_stand_beside_the_local_port_they_use_with_what_would_lose_messages() -> anyhow::Result<()> {
    play(async |scene| {
        let to_gateway = |name: &str, validate_response| DestinationDefinition {
            validate_response,
            ..DestinationDefinition::tcp(name, "127.0.0.1", scene.link.sender.port())
        };
        let mut channel = ChannelDefinition::sender(OUT, "orders_out", to_gateway("to lab", false));
        channel.destinations.push(to_gateway("to lab too", true));
        let beside = Beside::start(&scene.platform, &mut scene.north, PASSWORD, vec![channel]).await?;
        let head = wait::until(LIMIT, "both destinations are seen", async || {
            let engine = scene.north.look().await?.engine;
            let is_there = |engine: &EngineStatus| {
                engine
                    .head
                    .senders
                    .iter()
                    .any(|sender| sender.destinations == ["orders_out / to lab", "orders_out / to lab too"])
            };
            Ok(engine.filter(is_there).map(|engine| engine.head))
        })
        .await?;
        ensure!(head.senders[0].port == scene.link.sender.port(), "{head:?}");
        let said = head.advice.join("\n");
        for words in ["Validate Response is off", "the queue is off", "is used by 2 destinations"] {
            ensure!(said.contains(words), "{words}: {said}");
        }
        let shown = wait::until(LIMIT, "the platform shows the same", async || {
            let engines = ["channel", "discover", "--server", "north", "--profile", "north"];
            let engines = scene.platform.ctl.look(&engines).await?;
            Ok((engines[0]["head"]["advice"] == serde_json::to_value(&head.advice)?).then_some(engines))
        })
        .await?;
        ensure!(shown[0]["head"]["senders"][0]["port"] == scene.link.sender.port(), "{shown}");
        // And a message really goes that way.
        scene.connected().await?;
        let message = scene.message();
        beside.engine.post(&format!("/channels/{OUT}/messages"), message.bytes.clone()).await?;
        scene.engine.wait_for(2, LIMIT).await?;
        ensure!(scene.engine.count_of(&message.control_id) == 2, "once for each destination");
        Ok(())
    })
    .await
}

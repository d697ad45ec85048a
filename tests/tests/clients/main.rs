//! Third-party MLLP peers: the client and the server of python-hl7 (PyPI `hl7`), on both ends of a tunnel.
//!
//! `GATEWAY_TEST_PYTHON` names a Python with the packages of `tests/requirements.txt`; `tests/run clients` makes one.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use gateway_tests::{
    corpus::{Corpus, Message},
    mllp::{Sender, Verdict},
    scene::play,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_client_of_python_hl7_sends_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let (dir, messages) = corpus()?;
        let port = scene.link.sender.port().to_string();
        let output = timeout(LIMIT, python("client.py")?.args(["127.0.0.1", &port]).arg(dir.path()).output()).await??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "client.py: {out}{err}");
        ensure!(out.lines().filter(|line| line.ends_with(" AA")).count() == messages.len(), "{out}");
        for message in messages {
            scene.arrived_once(&message)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_server_of_python_hl7_receives_and_acknowledges_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let (_, messages) = corpus()?;
        let received = tempfile::tempdir()?;
        let (_server, address) = server(received.path()).await?;
        let link = scene.platform.link(&scene.link.agreement, &scene.south, &scene.north, address).await?;
        for (sender, messages) in [(true, &messages[..]), (false, &messages[..3])] {
            let mut sender = Sender::new(link.sender, sender).with_response_timeout(LIMIT);
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

/// What python-hl7 can parse and write back unchanged: UTF-8, one message in a frame.
fn corpus() -> anyhow::Result<(tempfile::TempDir, Vec<Message>)> {
    let mut corpus = Corpus::new("PY", 11);
    let mut messages = corpus.daily(4);
    messages.retain(|message| !message.name.contains("BATCH") && std::str::from_utf8(&message.bytes).is_ok());
    messages.extend(corpus.big(&[1 << 20]));
    let dir = tempfile::tempdir()?;
    for (index, message) in messages.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{index:04}.hl7")), &message.bytes)?;
    }
    Ok((dir, messages))
}

async fn server(dir: &std::path::Path) -> anyhow::Result<(Child, SocketAddr)> {
    let mut server = python("server.py")?.arg(dir).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let stdout = server.stdout.take().context("stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(LIMIT, lines.next_line()).await??.context("server.py ended before it listened")?;
    Ok((server, line.trim().parse().with_context(|| format!("server.py printed '{line}'"))?))
}

fn python(script: &str) -> anyhow::Result<Command> {
    let python = std::env::var_os("GATEWAY_TEST_PYTHON")
        .context("GATEWAY_TEST_PYTHON is not set: `tests/run clients` makes the environment and sets it")?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::null());
    Ok(command)
}

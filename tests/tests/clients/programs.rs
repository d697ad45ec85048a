//! Starting other people's programs, and waiting for them.

use std::{
    ffi::OsStr,
    fs::File,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use gateway_tests::{held_port::HeldPort, wait};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// What a program may take to start, and a client to finish.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A script of `tests/clients`.
pub(crate) fn script(name: &str) -> anyhow::Result<Command> {
    let mut command = python()?;
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(name));
    Ok(command)
}

/// The Python with the packages of `tests/requirements.txt`.
pub(crate) fn python() -> anyhow::Result<Command> {
    let python = std::env::var_os("GATEWAY_TEST_PYTHON")
        .context("GATEWAY_TEST_PYTHON is not set: `tests/run clients` makes the environment and sets it")?;
    Ok(command(python))
}

/// A program that is ended when its handle is dropped.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a client to its end; what it printed is the error when it failed.
pub(crate) async fn finish(command: &mut Command) -> anyhow::Result<String> {
    let output = timeout(LIMIT, command.output()).await.with_context(|| format!("{command:?} does not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{command:?} ended with {}:\n{out}{err}", output.status);
    Ok(out)
}

/// A server with a port that it cannot choose by itself.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _port: HeldPort,
    _child: Child,
}

/// Starts a server that is told its port, and waits until it listens. Its output goes to `log`.
pub(crate) async fn serve(log: &Path, start: impl Fn(u16) -> anyhow::Result<Command>) -> anyhow::Result<Server> {
    let port = HeldPort::loopback(0)?;
    let address = port.address();
    let mut command = start(address.port())?;
    let output = File::create(log)?;
    let mut child =
        command.stdout(output.try_clone()?).stderr(output).spawn().with_context(|| format!("{command:?}"))?;
    wait::until_true(LIMIT, format!("{command:?} listens"), async || {
        let ended = child.try_wait()?;
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        ensure!(ended.is_none(), "{command:?} ended with {ended:?}:\n{}", said());
        Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    })
    .await?;
    Ok(Server { address, _port: port, _child: child })
}

/// Deterministic bytes that nothing can compress or mistake.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

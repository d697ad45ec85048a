//! One program as a child process.
//!
//! Output goes to files, so that a program that talks a lot never blocks and a failed test can show the tails. A
//! program is ready when it printed its `{"event":"ready",…}` line. Only own children are ever signalled, by their pid;
//! dropping the handle kills and reaps.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{held_port::HeldPort, wait};

/// The programs of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The control plane.
    Control,
    /// The relay.
    Relay,
    /// The daemon beside the engine.
    Gateway,
    /// The command line.
    Ctl,
    /// The stand-in engine.
    Engine,
    /// The bad wire of the NAT lab.
    Hop,
}

impl Program {
    /// Name of the executable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "gateway-control",
            Self::Relay => "gateway-relay",
            Self::Gateway => "gatewayd",
            Self::Ctl => "gateway-ctl",
            Self::Engine => "gateway-test-engine",
            Self::Hop => "gateway-hop",
        }
    }

    /// Path of the executable: in `GATEWAY_BIN_DIR`, or beside (or one above) the running test executable.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        let dirs: Vec<PathBuf> = match std::env::var_os("GATEWAY_BIN_DIR") {
            Some(dir) => vec![dir.into()],
            None => std::env::current_exe()?.ancestors().skip(1).take(2).map(Path::to_path_buf).collect(),
        };
        dirs.iter().map(|dir| dir.join(self.name())).find(|path| path.is_file()).with_context(|| {
            format!(
                "there is no {} in {dirs:?}: build it first (`cargo build --bins`) or set GATEWAY_BIN_DIR",
                self.name()
            )
        })
    }
}

/// How to start a program.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Which program.
    pub program: Program,
    /// Name in messages and of the log files.
    pub name: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Where the log files go.
    pub log_dir: PathBuf,
    /// Network namespace to run in.
    pub namespace: Option<String>,
    /// Log filter.
    pub log_filter: String,
    /// A command that runs the program, with its own arguments; empty: none.
    pub wrapper: Vec<String>,
}

/// A running program; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Child,
    ready: Value,
    started_in: Duration,
    /// While a control plane or relay is gone nobody else gets its port.
    port: Option<HeldPort>,
}

impl Process {
    /// Starts the program and waits for its ready line.
    pub async fn start(launch: Launch, limit: Duration) -> anyhow::Result<Self> {
        fs::create_dir_all(&launch.log_dir)?;
        let (out, err) = (launch.log_path("out"), launch.log_path("log"));
        let offset = fs::metadata(&out).map_or(0, |meta| meta.len());
        let begun = Instant::now();
        let child = launch
            .command(&launch.program.path()?)
            .stdin(Stdio::null())
            .stdout(append(&out)?)
            .stderr(append(&err)?)
            .spawn()
            .with_context(|| format!("cannot start {}", launch.name))?;
        let mut process = Self { launch, child, ready: Value::Null, started_in: Duration::ZERO, port: None };
        let ready = wait::until(limit, format!("{} is ready", process.launch.name), async || {
            if let Some(ready) = ready_line(&out, offset)? {
                return Ok(Some(ready));
            }
            match process.child.try_wait()? {
                Some(status) => bail!("{} ended with {status} before it was ready", process.launch.name),
                None => Ok(None),
            }
        })
        .await;
        process.ready = ready.with_context(|| format!("log of {}:\n{}", process.launch.name, process.log_tail(20)))?;
        process.started_in = begun.elapsed();
        Ok(process)
    }

    /// Starts the program again after it ended, with the same arguments.
    pub async fn restart(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.kill_and_reap();
        *self = Self::start(self.launch.clone(), limit).await?;
        Ok(())
    }

    /// From the next start on, this command runs the program.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.launch.wrapper = wrapper.iter().map(|word| (*word).into()).collect();
    }

    /// Name in messages.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time from start to the ready line.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// A field of the ready line, as text.
    pub fn ready(&self, field: &str) -> anyhow::Result<&str> {
        self.ready[field]
            .as_str()
            .with_context(|| format!("the ready line of {} has no '{field}': {}", self.launch.name, self.ready))
    }

    /// SIGKILL, and the process is gone when this returns.
    pub fn kill_and_reap(&mut self) {
        self.end();
        self.hold_port();
    }

    fn end(&mut self) {
        // A child that ended by itself is fine here: what is wanted is that it is gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Until it is started again.
    fn hold_port(&mut self) {
        let listen = self.ready("listen").ok().and_then(|address| address.parse::<SocketAddrV4>().ok());
        let comes_back = matches!(self.launch.program, Program::Control | Program::Relay) && self.port.is_none();
        if let Some(address) = listen.filter(|_| comes_back) {
            // Who got it first in this moment keeps it, and the restart says so.
            self.port = HeldPort::take(self.launch.namespace.as_deref(), address.into()).ok();
        }
    }

    /// SIGTERM, then waits for the end.
    pub async fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let name = self.launch.name.clone();
        let ended =
            wait::until(limit, format!("{name} ends after SIGTERM"), async || Ok(self.child.try_wait()?)).await?;
        self.hold_port();
        Ok(ended)
    }

    /// Stops the process without ending it (SIGSTOP), as a machine that hangs.
    pub fn freeze(&self) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGSTOP)?)
    }

    /// Lets a frozen process run on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGCONT)?)
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Everything the process wrote so far, standard output included.
    pub fn log(&self) -> String {
        ["out", "log"]
            .iter()
            .filter_map(|kind| fs::read(self.launch.log_path(kind)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Launch {
    fn log_path(&self, kind: &str) -> PathBuf {
        self.log_dir.join(format!("{}.{kind}", self.name))
    }

    fn command(&self, program: &Path) -> Command {
        let inside = self.namespace.iter().flat_map(|namespace| ["ip", "netns", "exec", namespace]);
        // `ip netns exec` and the wrappers replace themselves by the program, so the pid we signal is the program's.
        let mut before = inside.chain(self.wrapper.iter().map(String::as_str));
        let mut command = match before.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(before).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(&self.args).env("RUST_LOG", &self.log_filter);
        command
    }
}

fn append(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn ready_line(path: &Path, offset: u64) -> anyhow::Result<Option<Value>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(complete
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|value| value["event"] == "ready"))
}

//! Configuration files of the programs, and starting them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{PlatformOptions, START_LIMIT};
use crate::process::{Launch, Process, Program};

/// Where a program runs.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Network namespace; none: the one of the tests.
    pub namespace: Option<String>,
    /// Address to listen on.
    pub ip: IpAddr,
}

impl Placement {
    /// Loopback, in the namespace of the tests.
    pub fn loopback() -> Self {
        Self { namespace: None, ip: Ipv4Addr::LOCALHOST.into() }
    }

    /// An address inside a namespace.
    pub fn inside(namespace: &str, ip: IpAddr) -> Self {
        Self { namespace: Some(namespace.into()), ip }
    }
}

pub(super) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("logs")
}

pub(super) fn control_config(dir: &Path) -> PathBuf {
    dir.join("control.toml")
}

pub(super) fn relay_config(dir: &Path) -> PathBuf {
    dir.join("relay.toml")
}

pub(super) async fn start_control(dir: &Path, options: &PlatformOptions) -> anyhow::Result<Process> {
    let config = control_config(dir);
    let data_dir = dir.join("control");
    fs::write(
        &config,
        format!("listen = \"{}:0\"\ndata_dir = {}\nregistration = \"token\"\n", options.control.ip, quoted(&data_dir)?,),
    )?;
    start(dir, Program::Control, "control", &["run", "--config"], &config, &options.control, options).await
}

pub(super) async fn start_relay(dir: &Path, options: &PlatformOptions, policy_key: &str) -> anyhow::Result<Process> {
    let config = relay_config(dir);
    let (ip, data_dir) = (options.relay.ip, dir.join("relay"));
    fs::write(
        &config,
        format!(
            "listen = \"{ip}:0\"\nstun_listen = [\"{ip}:0\", \"{ip}:0\"]\nmetrics_listen = \"127.0.0.1:0\"\n\
             data_dir = {}\ncontrol_keys = [\"{policy_key}\"]\n",
            quoted(&data_dir)?,
        ),
    )?;
    start(dir, Program::Relay, "relay", &["--config"], &config, &options.relay, options).await
}

/// The directories and the configuration of a gateway.
#[derive(Debug, Clone)]
pub(super) struct GatewayFiles {
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) socket: PathBuf,
}

impl GatewayFiles {
    pub(super) fn write(dir: &Path, name: &str, ip: IpAddr, direct: bool) -> anyhow::Result<Self> {
        let state_dir = dir.join(name);
        let files =
            Self { config: dir.join(format!("{name}.toml")), socket: state_dir.join("gatewayd.sock"), state_dir };
        fs::write(
            &files.config,
            format!(
                "state_dir = {}\nsocket = {}\n\n[tunnel]\nlisten = \"{ip}:0\"\nallow_loopback = {}\ndirect = {direct}\n\n\
                 [sender]\nbind = \"127.0.0.1\"\nhold = \"3s\"\n\n[listener]\ndial_timeout = \"2s\"\n",
                quoted(&files.state_dir)?,
                quoted(&files.socket)?,
                ip.is_loopback(),
            ),
        )?;
        Ok(files)
    }
}

pub(super) async fn start_gateway(
    dir: &Path,
    name: &str,
    files: &GatewayFiles,
    placement: &Placement,
    options: &PlatformOptions,
) -> anyhow::Result<Process> {
    let name = format!("gatewayd-{name}");
    start(dir, Program::Gateway, &name, &["run", "--config"], &files.config, placement, options).await
}

async fn start(
    dir: &Path,
    program: Program,
    name: &str,
    args: &[&str],
    config: &Path,
    placement: &Placement,
    options: &PlatformOptions,
) -> anyhow::Result<Process> {
    let mut args: Vec<String> = args.iter().map(|arg| (*arg).into()).collect();
    args.push(config.to_str().context("path")?.into());
    let launch = Launch {
        program,
        name: name.into(),
        args,
        log_dir: log_dir(dir),
        namespace: placement.namespace.clone(),
        log_filter: options.log_filter.clone(),
    };
    Process::start(launch, START_LIMIT).await
}

/// Writes the address a program really got into its configuration, so that a restart gets the same one.
pub(super) fn pin_listen(config: &Path, keys: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut text = fs::read_to_string(config)?;
    for (key, value) in keys {
        let lines = text.lines().map(|line| {
            let is_it = line.split('=').next().is_some_and(|name| name.trim() == *key);
            if is_it { format!("{key} = \"{value}\"\n") } else { format!("{line}\n") }
        });
        text = lines.collect();
    }
    Ok(fs::write(config, text)?)
}

fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("\"{text}\""))
}

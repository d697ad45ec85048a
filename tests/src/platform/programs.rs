//! Configuration files of the programs, and starting them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
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
    /// Host name under which control plane and relay are reached; they then listen on their usual ports.
    pub host: Option<String>,
}

/// What a test wants of a gateway's configuration.
#[derive(Debug, Clone, Default)]
pub struct GatewayOptions {
    /// The one UDP socket, `address:port`; none: the placement's address and a free port.
    pub listen: Option<String>,
    /// `http://user:password@host:port` of the HTTP proxy.
    pub proxy: Option<String>,
    /// Ports of the partner's NAT may be guessed.
    pub port_guessing: bool,
    /// Addresses that the administrator names.
    pub addresses: Vec<SocketAddr>,
    /// The router is asked for a port.
    pub port_mapping: bool,
    /// No direct paths: everything goes over the relay.
    pub relayed: bool,
    /// How long a connection of the engine is held without a path; none: 3 s.
    pub sender_hold: Option<&'static str>,
    /// How long a stream waits for a place in a full listener; none: as by default.
    pub listener_hold: Option<&'static str>,
    /// Which half of the keys it has: a gateway with `true` dials the tunnel with every one with `false`, because the smaller
    /// key dials. None: as the keys fall.
    pub dials: Option<bool>,
    /// Further lines of the configuration, sections of their own.
    pub more: String,
}

impl Placement {
    /// Loopback, in the namespace of the tests.
    pub fn loopback() -> Self {
        Self { namespace: None, ip: Ipv4Addr::LOCALHOST.into(), host: None }
    }

    /// An address inside a namespace.
    pub fn inside(namespace: &str, ip: IpAddr) -> Self {
        Self { namespace: Some(namespace.into()), ip, host: None }
    }

    /// The same, reached by a name and on the usual ports: 443, and 3478 and 3479 for STUN.
    pub fn named(self, host: &str) -> Self {
        Self { host: Some(host.into()), ..self }
    }
}

pub(super) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("logs")
}

pub(super) fn control_config(dir: &Path) -> PathBuf {
    dir.join("control.toml")
}

pub(super) fn relay_config(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.toml"))
}

pub(super) async fn start_control(dir: &Path, options: &PlatformOptions) -> anyhow::Result<Process> {
    let config = control_config(dir);
    let data_dir = dir.join("control");
    let listen = match &options.control.host {
        Some(host) => format!("listen = \"[::]:443\"\npublic_url = \"https://{host}\"\n"),
        None => format!("listen = \"{}:0\"\n", options.control.ip),
    };
    let interval = options.delivery_interval_secs;
    fs::write(
        &config,
        format!(
            "{listen}data_dir = {}\nregistration = \"token\"\ndelivery_interval_secs = {interval}\n{}",
            quoted(&data_dir)?,
            options.more_control,
        ),
    )?;
    start(dir, Program::Control, "control", &["run", "--config"], &config, &options.control, options).await
}

pub(super) async fn start_relay(
    dir: &Path,
    name: &str,
    placement: &Placement,
    options: &PlatformOptions,
    control: &Process,
) -> anyhow::Result<Process> {
    let config = relay_config(dir, name);
    let (ip, data_dir) = (placement.ip, dir.join(name));
    let listen = match placement.host {
        Some(_) => "listen = \"[::]:443\"\nstun_listen = [\"[::]:3478\", \"[::]:3479\"]\n".to_owned(),
        None => format!("listen = \"{ip}:0\"\nstun_listen = [\"{ip}:0\", \"{ip}:0\"]\n"),
    };
    let (policy_key, url, pin) = (control.ready("policy_key")?, control.ready("url")?, control.ready("tls_pin")?);
    fs::write(
        &config,
        format!(
            "{listen}metrics_listen = \"127.0.0.1:0\"\ndata_dir = {}\ncontrol_keys = [\"{policy_key}\"]\n\
             [control]\nurl = \"{url}\"\ntls_pin = \"{pin}\"\ninterval = \"1m\"\n",
            quoted(&data_dir)?,
        ),
    )?;
    start(dir, Program::Relay, name, &["--config"], &config, placement, options).await
}

/// The directories and the configuration of a gateway.
#[derive(Debug, Clone)]
pub(super) struct GatewayFiles {
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) socket: PathBuf,
}

impl GatewayFiles {
    pub(super) fn write(dir: &Path, name: &str, ip: IpAddr, options: &GatewayOptions) -> anyhow::Result<Self> {
        let state_dir = dir.join(name);
        let files =
            Self { config: dir.join(format!("{name}.toml")), socket: state_dir.join("gatewayd.sock"), state_dir };
        let listen = options.listen.clone().unwrap_or_else(|| SocketAddr::new(ip, 0).to_string());
        let network = match &options.proxy {
            Some(proxy) => {
                let file = dir.join(format!("{name}.proxy"));
                fs::write(&file, proxy)?;
                fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
                format!("[network]\nproxy_file = {}\n\n", quoted(&file)?)
            }
            None => String::new(),
        };
        let sender_hold = options.sender_hold.unwrap_or("3s");
        let listener_hold = options.listener_hold.map(|hold| format!("hold = \"{hold}\"\n")).unwrap_or_default();
        fs::write(
            &files.config,
            format!(
                "state_dir = {}\nsocket = {}\n\n[tunnel]\nlisten = \"{listen}\"\nallow_loopback = {}\nport_guessing = {}\nport_mapping = {}\naddresses = {:?}\ndirect = {}\n\n{network}\
                 [sender]\nbind = \"127.0.0.1\"\nhold = \"{sender_hold}\"\n\n[listener]\ndial_timeout = \"2s\"\n{listener_hold}\n{}",
                quoted(&files.state_dir)?,
                quoted(&files.socket)?,
                ip.is_loopback(),
                options.port_guessing,
                options.port_mapping,
                options.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                !options.relayed,
                options.more,
            ),
        )?;
        Ok(files)
    }
}

impl GatewayFiles {
    /// The same files under another name.
    pub(super) fn copy(&self, dir: &Path, name: &str) -> anyhow::Result<Self> {
        let state_dir = dir.join(name);
        copy_dir(&self.state_dir, &state_dir)?;
        let copy =
            Self { config: dir.join(format!("{name}.toml")), socket: state_dir.join("gatewayd.sock"), state_dir };
        let text = fs::read_to_string(&self.config)?;
        let text = text.replace(&quoted(&self.state_dir)?, &quoted(&copy.state_dir)?);
        fs::write(&copy.config, text.replace(&quoted(&self.socket)?, &quoted(&copy.socket)?))?;
        Ok(copy)
    }
}

/// Files and directories with their permissions, as whoever runs on them leaves them; sockets stay behind.
fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else if kind.is_file() {
            match fs::copy(entry.path(), to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
    }
    Ok(())
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
        wrapper: Vec::new(),
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

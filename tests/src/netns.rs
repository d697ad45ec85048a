//! Two sites behind a NAT each, and a public segment between them, in network namespaces.
//!
//! ```text
//!   site A ── router A ── public ── router B ── site B
//!  10.1.0.2   masquerade  control    masquerade  10.2.0.2
//!                         relay
//! ```
//!
//! The routers masquerade and drop what nobody inside asked for, as an office router does. The public namespace routes
//! between the two, so a rule there is a fault in the middle of the internet. Names carry our process id, so that labs
//! do not meet; everything goes on drop. Needs root.

use std::{
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, UdpSocket};

use crate::{platform::Placement, wait};

/// Where control plane and relay listen: what both sites reach.
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// Address of the gateway of each site, behind its NAT.
pub const SITES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 2, 0, 2))];

static LABS: AtomicU32 = AtomicU32::new(0);

/// A lab; gone on drop.
#[derive(Debug)]
pub struct Lab {
    public: String,
    routers: [String; 2],
    sites: [String; 2],
}

/// A running packet capture; stopped on drop.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
}

impl Lab {
    /// Makes the namespaces, links, routes and NATs.
    pub fn start() -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        let stem = format!("gw{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self {
            public: format!("{stem}p"),
            routers: [format!("{stem}ra"), format!("{stem}rb")],
            sites: [format!("{stem}a"), format!("{stem}b")],
        };
        lab.build()?;
        Ok(lab)
    }

    /// Where control plane and relay run.
    pub fn public(&self) -> Placement {
        Placement::inside(&self.public, PUBLIC)
    }

    /// Where the gateway of site 0 or 1 runs.
    pub fn site(&self, index: usize) -> Placement {
        Placement::inside(&self.sites[index], SITES[index])
    }

    /// The public segment loses every UDP packet between the two sites, silently; what goes to the relay passes.
    pub fn drop_udp_between_sites(&self) -> anyhow::Result<()> {
        nft(&self.public, "add rule inet lab forward meta l4proto udp counter drop")
    }

    /// The public segment loses UDP packets between the two sites that are shorter than this, silently; IPv4, with headers.
    pub fn drop_short_udp_between_sites(&self, length: usize) -> anyhow::Result<()> {
        nft(&self.public, &format!("add rule inet lab forward meta l4proto udp meta length < {length} drop"))
    }

    /// No UDP reaches the relay any more, nor leaves it, silently.
    pub fn drop_udp_at_the_relay(&self) -> anyhow::Result<()> {
        nft(&self.public, "add rule inet lab input meta l4proto udp drop")?;
        nft(&self.public, "add rule inet lab output meta l4proto udp drop")
    }

    /// UDP above `longest` bytes of payload reaches the relay no more, nor leaves it, silently; IPv4.
    pub fn drop_large_udp_at_the_relay(&self, longest: usize) -> anyhow::Result<()> {
        // Headers of IPv4 and UDP.
        let length = longest + 28;
        nft(&self.public, &format!("add rule inet lab input meta l4proto udp meta length > {length} drop"))?;
        nft(&self.public, &format!("add rule inet lab output meta l4proto udp meta length > {length} drop"))
    }

    /// UDP that is shorter than this reaches the relay no more, nor leaves it, silently; IPv4, with headers.
    pub fn drop_short_udp_at_the_relay(&self, length: usize) -> anyhow::Result<()> {
        nft(&self.public, &format!("add rule inet lab input meta l4proto udp meta length < {length} drop"))?;
        nft(&self.public, &format!("add rule inet lab output meta l4proto udp meta length < {length} drop"))
    }

    /// UDP reaches the relay again.
    pub fn heal_the_relay(&self) -> anyhow::Result<()> {
        nft(&self.public, "flush chain inet lab input; flush chain inet lab output")
    }

    /// Everything passes again.
    pub fn heal(&self) -> anyhow::Result<()> {
        nft(&self.public, "flush chain inet lab forward")
    }

    /// No UDP leaves site `index` at all, as behind a strict firewall.
    pub fn forbid_udp(&self, index: usize) -> anyhow::Result<()> {
        nft(&self.routers[index], "add rule inet nat forward meta l4proto udp drop")
    }

    /// Captures what matches `filter` in the public namespace.
    pub async fn capture(&self, file: &Path, filter: &str) -> anyhow::Result<Capture> {
        let log = file.with_extension("log");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.public, "tcpdump", "-i", "any", "-U", "-s", "0", "-w"])
            .arg(file)
            .arg(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start tcpdump")?;
        Capture { child, file: file.into() }.once_it_listens(&log).await
    }

    fn build(&self) -> anyhow::Result<()> {
        for namespace in self.all() {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let (router, site) = (&self.routers[index], &self.sites[index]);
            let (wide, local) = (["198.51.100", "203.0.113"][index], format!("10.{}.0", index + 1));
            link((&self.public, &format!("to-{name}")), (router, "wan"), wide)?;
            link((router, "lan"), (site, "eth0"), &local)?;
            ip(&["-n", router, "route", "add", "default", "via", &format!("{wide}.1")])?;
            ip(&["-n", site, "route", "add", "default", "via", &format!("{local}.1")])?;
            forward(router)?;
            nft(
                router,
                "table inet nat {
                   chain forward { type filter hook forward priority 0; ct state invalid drop; iifname \"wan\" ct state new drop; }
                   chain input { type filter hook input priority 0; iifname \"wan\" ct state new drop; }
                   chain postrouting { type nat hook postrouting priority 100; oifname \"wan\" masquerade; }
                 }",
            )?;
        }
        forward(&self.public)?;
        // Private addresses do not exist out here, as on the internet: only what the NATs send can be answered.
        nft(
            &self.public,
            "table inet lab {
               chain private { type filter hook prerouting priority -200; ip daddr 10.0.0.0/8 drop; }
               chain forward { type filter hook forward priority 0; }
               chain input { type filter hook input priority 0; }
               chain output { type filter hook output priority 0; }
             }",
        )
    }

    /// The names of its namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        self.all().cloned().collect()
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.public).chain(&self.routers).chain(&self.sites)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.all() {
            remove(namespace);
        }
    }
}

impl Capture {
    async fn once_it_listens(self, log: &Path) -> anyhow::Result<Self> {
        wait::until_true(Duration::from_secs(10), "tcpdump listens", async || {
            Ok(std::fs::read_to_string(log)?.contains("listening on"))
        })
        .await?;
        Ok(self)
    }

    /// Stops and gives the captured bytes.
    pub async fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        wait::until(Duration::from_secs(10), "tcpdump ends", async || Ok(self.child.try_wait()?)).await?;
        Ok(std::fs::read(&self.file)?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A TCP socket that lives in a network namespace, whoever uses it; none: in ours.
pub fn tcp_socket(namespace: Option<&str>) -> anyhow::Result<TcpSocket> {
    let Some(namespace) = namespace else { return Ok(TcpSocket::new_v4()?) };
    Ok(TcpSocket::from_std_stream(socket(namespace, Type::STREAM)?.into()))
}

/// A UDP socket that lives at a place.
pub fn udp_socket(place: &Placement) -> anyhow::Result<UdpSocket> {
    udp_socket_at(place, 0)
}

/// The same at a port that is known.
pub fn udp_socket_at(place: &Placement, port: u16) -> anyhow::Result<UdpSocket> {
    let socket = socket(place.namespace.as_deref().context("a place in a lab")?, Type::DGRAM)?;
    socket.bind(&SocketAddr::new(place.ip, port).into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

fn socket(namespace: &str, kind: Type) -> anyhow::Result<Socket> {
    let file = File::open(format!("/run/netns/{namespace}")).context("no such namespace")?;
    // A namespace is a property of a thread, and a socket keeps the one it was made in.
    let made = std::thread::spawn(move || -> anyhow::Result<Socket> {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    made.join().ok().context("the thread that makes the socket panicked")?
}

/// Notes the packets that leave `device` and match `filter`, as lines of tcpdump: seconds, protocol, source, `>`, destination.
pub async fn note_leaving(namespace: &str, device: &str, file: &Path, filter: &str) -> anyhow::Result<Capture> {
    let log = file.with_extension("log");
    let child = Command::new("ip")
        .args(["netns", "exec", namespace, "tcpdump", "-i", device, "-Q", "out", "-n", "-q", "-tt", "-l", filter])
        .stdin(Stdio::null())
        .stdout(File::create(file)?)
        .stderr(File::create(&log)?)
        .spawn()
        .context("cannot start tcpdump")?;
    Capture { child, file: file.into() }.once_it_listens(&log).await
}

fn link(one: (&str, &str), other: (&str, &str), network: &str) -> anyhow::Result<()> {
    ip(&["link", "add", one.1, "netns", one.0, "type", "veth", "peer", "name", other.1, "netns", other.0])?;
    for ((namespace, device), host) in [(one, 1), (other, 2)] {
        ip(&["-n", namespace, "addr", "add", &format!("{network}.{host}/24"), "dev", device])?;
        ip(&["-n", namespace, "link", "set", device, "up"])?;
    }
    Ok(())
}

fn forward(namespace: &str) -> anyhow::Result<()> {
    sysctl(namespace, &["net.ipv4.ip_forward=1"])
}

/// Sets kernel parameters of a namespace.
pub(crate) fn sysctl(namespace: &str, settings: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(["netns", "exec", namespace, "sysctl", "-qw"]).args(settings))
}

/// Runs a command in a namespace.
pub(crate) fn inside(namespace: &str, command: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(["netns", "exec", namespace]).args(command))
}

/// Loads rules in a namespace.
pub(crate) fn nft(namespace: &str, rules: &str) -> anyhow::Result<()> {
    run(Command::new("ip").args(["netns", "exec", namespace, "nft", rules]))
}

/// Removes a namespace; one that was never made cannot be removed, and that is fine.
pub(crate) fn remove(namespace: &str) {
    Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status().ok();
}

/// Commands of `ip`, one a line, in a namespace.
pub(crate) fn batch(namespace: &str, lines: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip")?;
    child.stdin.take().context("a pipe")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{namespace}: {}\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

pub(crate) fn ip(args: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(args))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

//! A router that forwards ports when it is asked: Debian's miniupnpd with PCP, NAT-PMP and UPnP.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
};

use anyhow::Context;
use tempfile::TempDir;

use crate::netns::nft;

/// A running miniupnpd; it ends on drop.
#[derive(Debug)]
pub struct Mapper {
    child: Child,
    dir: TempDir,
}

impl Mapper {
    /// All that it speaks, as its configuration says it.
    pub const EVERYTHING: &'static str = "enable_natpmp=yes\nenable_upnp=yes";

    /// The outer address whose ports the router of this site forwards.
    pub fn outer(site: usize) -> Ipv4Addr {
        Ipv4Addr::new(11, 22, 33, u8::try_from(site + 1).unwrap_or(u8::MAX))
    }

    pub(super) fn start(router: &str, outer: Ipv4Addr, protocols: &str) -> anyhow::Result<Self> {
        nft(
            router,
            "table inet filter {
               chain miniupnpd { }
               chain forward { type filter hook forward priority 0; jump miniupnpd; }
               chain prerouting_miniupnpd { }
               chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
               chain postrouting_miniupnpd { }
               chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
             }",
        )?;
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("miniupnpd.conf");
        fs::write(
            &config,
            format!(
                "ext_ifname=wan\next_ip={outer}\nlistening_ip=lan\nipv6_disable=yes\nsecure_mode=yes\n{protocols}\n\
                 uuid=6b473c46-13e1-4e76-80e5-2d37cd495526\nallow 1024-65535 10.0.0.0/8 1024-65535\n"
            ),
        )?;
        let log = File::create(dir.path().join("log"))?;
        let child = Command::new("ip")
            .args(["netns", "exec", router, "miniupnpd", "-d", "-f"])
            .arg(&config)
            .arg("-P")
            .arg(dir.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start miniupnpd")?;
        Ok(Self { child, dir })
    }

    /// What it says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

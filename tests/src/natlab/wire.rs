//! The bad wire between the internet and a site: `gateway-hop` in a namespace of its own.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::process::Program;

/// A running hop; killed on drop, and the wire is cut.
#[derive(Debug)]
pub struct BadWire {
    child: Child,
}

impl BadWire {
    /// Connects the interfaces `outer` and `inner` of `namespace`; frames pass when this returns.
    pub(super) fn start(namespace: &str, settings: &str) -> anyhow::Result<Self> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(Program::Hop.path()?)
            .args(["outer", "inner"])
            .args(settings.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start gateway-hop")?;
        let output = child.stdout.take().context("a pipe")?;
        let wire = Self { child };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.contains("ready"), "gateway-hop did not get ready: '{line}'");
        Ok(wire)
    }

    /// Changes settings from now on, for example `loss=20`.
    pub fn change(&mut self, settings: &str) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("a pipe")?;
        writeln!(input, "{settings}").context("gateway-hop is gone")?;
        Ok(input.flush()?)
    }
}

impl Drop for BadWire {
    fn drop(&mut self) {
        // One that ended by itself is fine: what is wanted is that it is gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

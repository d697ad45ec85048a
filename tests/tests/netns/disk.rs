//! The disk below the control plane's database is full: a small file system of its own, so the tests need root.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use gateway_tests::{
    ctl::{items, text},
    platform::{Platform, PlatformOptions},
};

/// A tmpfs that is gone with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "gateway-test"]).arg(directory.path());
        let status = mount.status().context("cannot run mount")?;
        ensure!(status.success(), "a tmpfs cannot be mounted: {status}");
        Ok(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves no byte free.
    fn fill(&self) -> anyhow::Result<()> {
        let mut filler = fs::File::create(self.filler())?;
        loop {
            match filler.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn make_room(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_keeps_what_was_acknowledged_and_is_left_behind() -> anyhow::Result<()> {
    let disk = SmallDisk::mount("24m")?;
    let database = disk.path().join("control.sqlite");
    let more_control = format!("[storage]\nurl = \"sqlite:{}\"\n", database.display());
    let mut platform = Platform::start_with(PlatformOptions { more_control, ..PlatformOptions::default() }).await?;
    platform.create_organization("north", "Organization north").await?;
    let mut acknowledged = vec!["engine 0".to_owned()];
    platform.create_server("north", &acknowledged[0]).await?;

    disk.fill()?;
    let refusal = loop {
        let name = format!("engine {}", acknowledged.len());
        let outcome = platform.ctl.run(&["server", "create", &name, "--profile", "north", "--json"]).await?;
        match outcome.code {
            Some(0) => acknowledged.push(name),
            _ => break outcome,
        }
        ensure!(acknowledged.len() < 500, "the disk is full, and nothing is refused");
    };
    ensure!(refusal.code == Some(2) && refusal.stderr.contains("try again"), "{refusal:?}");
    // What there is can be read, and is what was acknowledged.
    let listed = async |platform: &Platform| -> anyhow::Result<Vec<String>> {
        let servers = platform.ctl.look(&["server", "list", "--profile", "north"]).await?;
        let mut names =
            items(&servers)?.iter().map(|s| Ok(text(s, "name")?.to_owned())).collect::<anyhow::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let mut expected = acknowledged.clone();
    expected.sort();
    ensure!(listed(&platform).await? == expected, "not what was acknowledged");

    // Killed while it is full, and started when there is room again.
    disk.make_room()?;
    platform.create_server("north", "late engine").await?;
    disk.fill()?;
    let _ = platform.ctl.run(&["server", "create", "lost engine", "--profile", "north"]).await?;
    disk.make_room()?;
    platform.restart_control().await?;
    let names = listed(&platform).await?;
    ensure!(expected.iter().all(|name| names.contains(name)) && names.contains(&"late engine".to_owned()), "{names:?}");
    Ok(())
}

//! The disk below the control plane's database, or a gateway's state, is full: a small file system of its own, so the tests
//! need root.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use gateway_tests::{
    ctl::{items, text},
    platform::{Platform, PlatformOptions},
    scene::{Scene, play},
    wait,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A tmpfs that is gone with the test.
struct SmallDisk {
    path: PathBuf,
    _directory: Option<tempfile::TempDir>,
}

impl SmallDisk {
    fn mount(size: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        mount_at(directory.path(), size)?;
        Ok(Self { path: directory.path().to_owned(), _directory: Some(directory) })
    }

    /// In the place of a directory, with what is in it.
    fn over(path: &Path, size: &str) -> anyhow::Result<Self> {
        let aside = tempfile::tempdir()?;
        copy(path, aside.path())?;
        mount_at(path, size)?;
        let disk = Self { path: path.to_owned(), _directory: None };
        copy(aside.path(), path)?;
        Ok(disk)
    }

    fn path(&self) -> &Path {
        &self.path
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

fn mount_at(path: &Path, size: &str) -> anyhow::Result<()> {
    let options = format!("size={size},mode=700");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "gateway-test"]).arg(path).status();
    let status = status.context("cannot run mount")?;
    ensure!(status.success(), "a tmpfs cannot be mounted: {status}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().context("cannot run cp")?;
    ensure!(status.success(), "{} cannot be copied: {status}", from.display());
    Ok(())
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
    ensure!(refusal.code == Some(2) && refusal.stderr.contains("the disk of the database is full"), "{refusal:?}");
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

#[tokio::test]
async fn a_gateway_that_starts_on_a_full_disk_carries_messages_and_its_log_goes_on_when_there_is_room()
-> anyhow::Result<()> {
    play(async |scene| {
        let writable = async |scene: &Scene, value: &str| {
            let line = format!("gatewayd_audit_writable {value}");
            anyhow::Ok(scene.metrics_of(&scene.south).await?.lines().any(|found| found == line).then_some(()))
        };
        // What the control plane still had to tell while the disk was full is in force all the same.
        scene.expected_errors.extend(["the audit log cannot be written", "the policy is in force and not saved"]);
        scene.connected().await?;
        scene.south.gateway.kill_and_reap();
        let disk = SmallDisk::over(scene.south.state_dir(), "8m")?;
        scene.south.gateway.restart(LIMIT).await?;
        scene.connected().await?;
        disk.fill()?;
        // The last block of the log's file has room for some records yet.
        while writable(scene, "0").await?.is_none() {
            let message = scene.message();
            scene.deliver(&mut scene.sender(), &message).await?;
        }
        scene.south.gateway.kill_and_reap();
        scene.south.gateway.restart(LIMIT).await?;
        scene.connected().await?;
        let message = scene.message();
        scene.deliver(&mut scene.sender(), &message).await?;
        scene.arrived_once(&message)?;
        while writable(scene, "0").await?.is_none() {
            let message = scene.message();
            scene.deliver(&mut scene.sender(), &message).await?;
        }

        disk.make_room()?;
        wait::until(LIMIT, "the log is written again", async || writable(scene, "1").await).await?;
        let socket = scene.south.socket();
        let verify = scene.ctl(&["gateway", "audit", "verify", "--socket", socket]).await?;
        ensure!(verify["unclean_starts"] == 2, "{verify}");
        scene.south.gateway.terminate(LIMIT).await?;
        Ok(())
    })
    .await
}

//! A program under callgrind.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail, ensure};
use gateway_tests::process::Process;
use tempfile::TempDir;
use tokio::process::Command;

/// Counts the instructions of one program.
#[derive(Debug)]
pub(crate) struct Callgrind {
    dir: TempDir,
}

impl Callgrind {
    /// From its next start on, this program is counted.
    pub(crate) fn wrap(process: &mut Process) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("gateway-guard-").tempdir()?;
        let out = format!("--callgrind-out-file={}/out", dir.path().display());
        process.wrap(&["valgrind", "--tool=callgrind", "--quiet", &out]);
        Ok(Self { dir })
    }

    /// Counts from here.
    pub(crate) async fn reset(&self, process: &Process) -> anyhow::Result<()> {
        control("--zero", process).await
    }

    /// Instructions since [`reset`](Self::reset).
    pub(crate) async fn look(&self, process: &Process) -> anyhow::Result<u64> {
        control("--dump", process).await?;
        let dumps: Vec<PathBuf> = fs::read_dir(self.dir.path())?
            .map(|entry| Ok(entry?.path()))
            .filter(|path: &anyhow::Result<PathBuf>| path.as_ref().map_or(true, |path| path.extension().is_some()))
            .collect::<anyhow::Result<_>>()?;
        let [dump] = &dumps[..] else { bail!("callgrind left {dumps:?}") };
        let text = fs::read_to_string(dump)?;
        fs::remove_file(dump)?;
        let counts = text.lines().filter_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
        let count = counts.map(str::trim).next_back().with_context(|| format!("{} has no sum", dump.display()))?;
        Ok(count.parse()?)
    }
}

async fn control(what: &str, process: &Process) -> anyhow::Result<()> {
    let output = Command::new("callgrind_control").arg(what).arg(process.pid().to_string()).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("OK"), "callgrind_control {what}: {said}");
    Ok(())
}

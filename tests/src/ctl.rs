//! `gateway-ctl`, run like a person runs it: own home directory, one profile per organization, `--json` read back.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::process::Program;

/// No command of ours takes longer, except those that wait on purpose and name their own limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What one command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The command line with a home directory.
#[derive(Debug, Clone)]
pub struct Ctl {
    home: PathBuf,
    namespace: Option<String>,
    show: Option<Shown>,
}

/// Commands are printed as a person would type them, with the long temporary directory as `$D`.
#[derive(Debug, Clone)]
struct Shown {
    dir: String,
    print: fn(&str),
}

impl Ctl {
    /// The command line with this home directory.
    pub fn new(home: &Path) -> Self {
        Self { home: home.into(), namespace: None, show: None }
    }

    /// The same inside a network namespace.
    pub fn in_namespace(&self, namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(Into::into), ..self.clone() }
    }

    /// Prints each changing command before it runs, with `dir` shown as `$D`.
    pub fn show(&mut self, dir: &Path, print: fn(&str)) {
        self.show = Some(Shown { dir: dir.display().to_string(), print });
    }

    /// Runs a command and gives back what it did, good or bad.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        let program = Program::Ctl.path()?;
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(args).env("GATEWAY_CTL_HOME", &self.home).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_LIMIT, command.output())
            .await
            .with_context(|| format!("`{}` did not end within {} s", line(args), COMMAND_LIMIT.as_secs()))?
            .with_context(|| format!("cannot run `{}`", line(args)))?;
        Ok(Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed, with `--json`, and reads its answer. The command is shown.
    pub async fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        if let Some(shown) = &self.show {
            (shown.print)(&line(args).replace(&shown.dir, "$D"));
        }
        self.look(args).await
    }

    /// Like [`json`](Self::json), for looking only: not shown.
    pub async fn look(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.answer(args, &[0]).await
    }

    /// `gateway-ctl status`: exit code 1 says "not connected" and is an answer too.
    pub async fn status(&self, socket: &str) -> anyhow::Result<Value> {
        self.answer(&["status", "--socket", socket], &[0, 1]).await
    }

    async fn answer(&self, args: &[&str], good: &[i32]) -> anyhow::Result<Value> {
        let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let outcome = self.run(&with_json).await?;
        if !outcome.code.is_some_and(|code| good.contains(&code)) {
            bail!("`{}` ended with {:?}: {}", line(&with_json), outcome.code, outcome.stderr.trim());
        }
        serde_json::from_str(&outcome.stdout)
            .with_context(|| format!("`{}` printed no JSON: {}{}", line(&with_json), outcome.stdout, outcome.stderr))
    }
}

/// A text field of an answer.
pub fn text<'a>(answer: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    answer[field].as_str().with_context(|| format!("no text field '{field}' in {answer}"))
}

/// The entries of a list, whether it came as a page or as an array.
pub fn items(answer: &Value) -> anyhow::Result<&[Value]> {
    let list = answer.as_array().or_else(|| answer["items"].as_array());
    list.map(Vec::as_slice).with_context(|| format!("not a list: {answer}"))
}

/// The command as a line for a shell.
pub fn line(args: &[&str]) -> String {
    let quoted = args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).into() });
    std::iter::once("gateway-ctl".into()).chain(quoted).collect::<Vec<String>>().join(" ")
}

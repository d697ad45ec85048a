//! The command line of gatewayd.
//!
//! Exit codes, as of all programs of the product: 0 done; 1 the answer is no; 2 failure; 64 wrong usage.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use gateway_proto::api::{
    Problem,
    local::{EnrollBody, Enrolled},
};

use crate::config::{Config, ConfigError, DEFAULT_CONFIG_FILE, DEFAULT_SOCKET};

/// The daemon tries for 60 s to reach the control plane; its answer should be the one that is seen.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(75);
const NO: u8 = 1;
const FAILURE: u8 = 2;
const WRONG_USAGE: u8 = 64;
/// An enrolment code on standard input at most.
const MAX_CODE: u64 = 16 << 10;

/// The gateway beside the engine: an encrypted tunnel to partners, by one outbound connection.
#[derive(Debug, Parser)]
#[command(name = "gatewayd", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0   done
  1   the answer is no: the configuration is wrong, the enrolment was refused
  2   failure: network, files, another daemon on the state directory
  64  wrong usage

Status, peers and paths: gateway-ctl status.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG_FILE)]
        config: PathBuf,
    },
    /// Check a configuration file: all mistakes at once, exit code 1 if there are any
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG_FILE)]
        config: PathBuf,
    },
    /// Give the running daemon an enrolment code from the control plane
    Enroll {
        /// The daemon's local API socket
        #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// The code (gwe1_…), or - to read it from standard input, which keeps it out of the process list
        code: String,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man,
}

/// Reads the command line; on a mistake, says so and returns the exit code to end with (that of wrong usage, or 0 for help and version).
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // Nothing is left to do when even this cannot be written.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { WRONG_USAGE } else { 0 })
    })
}

/// The enrolment was refused: trying again with the same code changes nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// The exit code that goes with an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_no = error.is::<ConfigError>() || error.is::<Refused>();
    ExitCode::from(if is_no { NO } else { FAILURE })
}

/// `gatewayd check`
pub fn check(file: &Path) -> anyhow::Result<()> {
    Config::load(file)?;
    print(format!("{}: ok\n", file.display()).as_bytes())
}

/// `gatewayd enroll`
pub async fn enroll(socket: &Path, code: String) -> anyhow::Result<()> {
    let code = if code == "-" { code_from_stdin()? } else { code };
    let client = gateway_net::http::unix_client(socket)?;
    let request = client.post("http://localhost/v1/enroll").timeout(ENROLL_TIMEOUT).json(&EnrollBody { code });
    let response = request.send().await.with_context(|| {
        format!("no answer at {}: is gatewayd running, and are you its user or root?", socket.display())
    })?;
    if !response.status().is_success() {
        let problem: Problem = response.json().await.context("gatewayd answered with something unknown")?;
        let is_failure = matches!(problem.code.as_str(), "unavailable" | "internal");
        return Err(if is_failure { anyhow::anyhow!(problem.detail) } else { Refused(problem.detail).into() });
    }
    let enrolled: Enrolled = response.json().await.context("gatewayd answered with something unknown")?;
    let (server, organization) = (&enrolled.server_name, &enrolled.organization_name);
    print(format!("enrolled as server '{server}' of '{organization}' with key {}\n", enrolled.key).as_bytes())
}

/// `gatewayd completions`
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gatewayd", &mut text);
    print(&text)
}

/// `gatewayd man`
pub fn man() -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut text)?;
    print(&text)
}

fn code_from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin().take(MAX_CODE).read_to_string(&mut text).context("cannot read the code from standard input")?;
    Ok(text.trim().to_owned())
}

/// A reader that went away (`| head`) is not our failure.
fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_configuration_has_its_own_exit_code() {
        let error = check(Path::new("/nonexistent/gatewayd.toml")).unwrap_err();
        assert_eq!(format!("{:?}", exit_code(&error)), format!("{:?}", ExitCode::from(NO)));
        let other = anyhow::anyhow!("something else");
        assert_eq!(format!("{:?}", exit_code(&other)), format!("{:?}", ExitCode::from(FAILURE)));
    }
}

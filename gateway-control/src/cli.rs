//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use gateway_net::log::LogFormat;

/// The control plane: organizations, agreements, grants, and the signed policies of their gateways.
///
/// Exit status: 0 done, 1 failed, 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "gateway-control", version)]
pub struct Args {
    /// Log as text or as JSON, on stderr.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", value_parser = parse_format)]
    pub log_format: LogFormat,
    /// What to log, as in RUST_LOG (which wins).
    #[arg(long, global = true, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane; prints one line of JSON when it is ready.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file and say everything that is wrong with it.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Write a backup while the control plane runs: database, policy key, operator token, TLS identity, in one file
    /// (mode 0600). Keep it as safe as the policy key. PostgreSQL: tells the command to use.
    Backup {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The backup to write; must not exist.
        #[arg(value_name = "BACKUP")]
        to: PathBuf,
    },
    /// Bring a backup back where there is no database yet; the control plane must not run.
    Restore {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The backup.
        #[arg(value_name = "BACKUP")]
        from: PathBuf,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

fn parse_format(text: &str) -> Result<LogFormat, String> {
    text.parse().map_err(|_| "expected text or json".to_owned())
}

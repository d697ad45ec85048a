//! The command line. Exit codes: 0 done, 1 the configuration is wrong, 2 failure, 64 wrong usage.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use gateway_net::{log, shutdown::Shutdown};

use crate::{
    Relay,
    config::{Config, ConfigError},
    ready::Identity,
};

/// Rendezvous, relay and STUN for gateways.
///
/// Without a subcommand the relay runs until SIGTERM or SIGINT. At start it prints one line of JSON with the addresses it
/// listens on, its id and the fingerprint of its TLS key, and writes the same to ready.json in its data directory.
#[derive(Debug, Parser)]
#[command(name = "gateway-relay", version)]
struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE", global = true, env = "GATEWAY_RELAY_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, report every mistake, start nothing
    Check,
    /// Print the relay's id and the fingerprint of its TLS key as JSON (both are made if they do not exist)
    Id,
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page (roff)
    Man,
}

const WRONG_CONFIG: u8 = 1;
const FAILURE: u8 = 2;
const WRONG_USAGE: u8 = 64;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { WRONG_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<ConfigError>() { WRONG_CONFIG } else { FAILURE };
            let _ = writeln!(io::stderr(), "gateway-relay: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let load = || {
        let path = arguments.config.as_deref().unwrap_or(Path::new("/etc/gateway/relay.toml"));
        Config::load(path)
    };
    match arguments.command {
        None => serve(load()?),
        Some(Command::Check) => {
            load()?;
            print(b"the configuration is valid\n")
        }
        Some(Command::Id) => {
            let identity = Identity::load_or_create(&load()?)?;
            print(format!("{}\n", identity.to_json()).as_bytes())
        }
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "gateway-relay", &mut text);
            print(&text)
        }
        Some(Command::Man) => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut text)?;
            print(&text)
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    log::init(config.log.format, &config.log.filter)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
        let relay = Relay::start(config).await?;
        print(format!("{}\n", relay.ready().to_json()).as_bytes())?;
        relay.run(&shutdown).await?;
        Ok(())
    })
}

/// A reader that went away (`| head`) is not our failure.
fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}

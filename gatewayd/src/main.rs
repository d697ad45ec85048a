//! gatewayd: the gateway beside the engine.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use gatewayd::{
    cli::{self, Command},
    config::Config,
};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            let _ = writeln!(io::stderr(), "gatewayd: {error:#}");
            cli::exit_code(&error)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { config } => run(&config),
        Command::Check { config } => cli::check(&config),
        Command::Enroll { socket, code } => runtime()?.block_on(cli::enroll(&socket, code)),
        Command::Completions { shell } => cli::completions(shell),
        Command::Man => cli::man(),
    }
}

/// The life of the daemon: configuration, log, and then everything else until it is asked to end.
fn run(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    gateway_net::log::init(config.log_format, "info")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %file.display(), "gatewayd starts");
    runtime()?.block_on(gatewayd::app::run(config))?;
    tracing::info!("gatewayd ended in order");
    Ok(())
}

/// Sockets that are looked after before what they brought is sent on: with all at once the other gateway would have
/// nothing to do meanwhile (docs/adr/0070).
const SOCKETS_PER_TURN: usize = 16;

/// One thread carries everything: a message passes four tasks, and a wake-up across CPUs costs more than the work in
/// each (docs/adr/0011). What blocks runs in threads of its own.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().max_io_events_per_tick(SOCKETS_PER_TURN).enable_all().build()
}

//! gateway-control: reads the command line, hands over to the library.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use gateway_control::{
    app, backup,
    cli::{Args, Command},
    clock::Clock,
    config::Config,
    http,
};
use gateway_net::{log, shutdown::Shutdown};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no mistakes.
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match act(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "gateway-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Run { config } => {
            let config = Config::load(&config)?;
            log::init(args.log_format, &args.log).context("cannot set up logging")?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(config))
        }
        Command::Check { config } => {
            Config::load(&config)?;
            print(b"the configuration is usable\n")
        }
        Command::Backup { config, to } => {
            let config = Config::load(&config)?;
            let files = small_runtime()?.block_on(backup::run(&config, &to))?.join(", ");
            let text =
                format!("the backup is {}, with {files}; keep it as safe as the policy key in it\n", to.display());
            print(text.as_bytes())
        }
        Command::Restore { config, from } => {
            let config = Config::load(&config)?;
            small_runtime()?.block_on(backup::restore(&config, &from))?;
            print(b"restored; start the control plane\n")
        }
        Command::Openapi => print(format!("{}\n", http::document()).as_bytes()),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "gateway-control", &mut text);
            print(&text)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut text)?;
            print(&text)
        }
    }
}

fn small_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn run(config: Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    // A database that does not answer holds up the start, and no end.
    let running = tokio::select! {
        biased;
        () = shutdown.requested() => return Ok(()),
        running = app::start(config, Clock::system(), shutdown.clone()) => running?,
    };
    let mut line = serde_json::to_vec(running.ready())?;
    line.push(b'\n');
    print(&line)?;
    Ok(running.run().await?)
}

/// Writes to stdout; a reader that has seen enough is no error.
fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

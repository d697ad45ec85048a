//! The program behind `deploy/demo`: the five steps of the mission with two organizations on one machine, real HL7 v2
//! messages both ways, and every claim checked.
//!
//! It uses what a person would use: the real programs and `gateway-ctl`, whose commands are printed as they run. It
//! stays up afterwards, so that one can look further; with `--exit` it ends, and its last line is
//! `demo: ok, N messages, path direct, …` or `demo: failed: …`.

mod stage;
mod traffic;

use std::{io::Write, process::ExitCode, time::Instant};

use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};

/// How to call it.
pub fn usage() -> ExitCode {
    say("usage: deploy/demo [--exit]");
    say("  without arguments the demo stays up until Ctrl-C; --exit ends it after the checks");
    ExitCode::from(64)
}

/// Runs the demo.
pub async fn run(exit: bool) -> ExitCode {
    tokio::select! {
        code = perform(exit) => code,
        name = interrupted() => {
            say("");
            failed("interrupted", &anyhow::anyhow!("{name} arrived before the end"))
        }
    }
}

/// Says that a step failed, as the last line.
pub fn failed(step: &str, error: &anyhow::Error) -> ExitCode {
    say(&format!("demo: failed: {step}: {}", format!("{error:#}").lines().next().unwrap_or("unknown")));
    ExitCode::FAILURE
}

async fn perform(exit: bool) -> ExitCode {
    let begun = Instant::now();
    let mut stage = Stage::default();
    let outcome = stage.play().await;
    match outcome {
        Ok(summary) => {
            let line = format!("demo: ok, {summary}, {:.1} s", begun.elapsed().as_secs_f64());
            if exit {
                drop(stage);
                say(&line);
                return ExitCode::SUCCESS;
            }
            say(&line);
            stage.look_further();
            let name = interrupted().await;
            say(&format!("\n{name}: stopping"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("\nfailed in {}: {error:#}\n", stage.step()));
            say(&stage.log_tails());
            let code = failed(stage.step(), &error);
            drop(stage);
            code
        }
    }
}

async fn interrupted() -> &'static str {
    // Without signal handling the default action still ends the process.
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "Ctrl-C",
    }
}

/// Prints a line; a reader that went away (`deploy/demo | head`) is no error.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

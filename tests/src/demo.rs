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
    let begun = Instant::now();
    let mut stage = Stage::default();
    let played = tokio::select! {
        played = stage.play() => Some(played),
        _ = interrupted() => None,
    };
    match played {
        Some(Ok(summary)) => {
            let line = format!("demo: ok, {summary}, {:.1} s", begun.elapsed().as_secs_f64());
            if !exit {
                say(&format!("\n{line}"));
                stage.look_further();
                say(&format!("\n{}: stopping everything", interrupted().await));
            }
            // Everything is gone before the last line is printed.
            drop(stage);
            if exit {
                say(&line);
            }
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            say(&format!("\nfailed in {}: {error:#}\n", stage.step()));
            say(&stage.log_tails());
            let step = stage.step();
            drop(stage);
            failed(step, &error)
        }
        None => {
            let step = stage.step();
            drop(stage);
            failed(step, &anyhow::anyhow!("interrupted"))
        }
    }
}

/// Says that a step failed, as the last line.
pub fn failed(step: &str, error: &anyhow::Error) -> ExitCode {
    say(&format!("demo: failed: {step}: {}", format!("{error:#}").lines().next().unwrap_or("unknown")));
    ExitCode::FAILURE
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

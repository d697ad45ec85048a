//! `gateway-ctl`: the command line of the product, for people and scripts.
//!
//! It speaks to two programs: to the control plane (HTTPS, as the user of a *profile*), and to the gatewayd on this machine (HTTP over
//! its Unix socket). It decides nothing itself: it turns names into ids, shows what the two answer, and tells the outcome by exit code.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the arguments every command shares, and the table of commands |
//! | `cmd` | the commands, a file per noun: arguments, calls, views |
//! | `client` | the two HTTP clients and their errors |
//! | `profile` | who we are at which control plane, kept between calls |
//! | `resolve` | names wherever an id is asked for |
//! | `secret`, `confirm`, `ready` | secrets from files, questions before destruction, the ready files of the servers |
//! | `output` | JSON, tables, times |
//! | `error` | every failure and its exit code |

mod args;
mod client;
mod cmd;
mod confirm;
mod error;
mod output;
mod profile;
mod ready;
mod resolve;
mod secret;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

use crate::{
    args::Cli,
    cmd::{Answer, Context},
    error::{CtlError, exit},
};

/// Runs one command: the whole program but the process around it.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return report(&CtlError::Runtime(source)),
    };
    let mut context = Context::new(cli.global);
    let outcome = runtime.block_on(cmd::run(&mut context, cli.command));
    // Nobody waits for a reader that blocks on the terminal.
    runtime.shutdown_background();
    match outcome {
        Ok(Answer::Yes) => ExitCode::from(exit::DONE),
        Ok(Answer::No) => ExitCode::from(exit::NO),
        Err(error) => report(&error),
    }
}

/// The whole command tree, for completions, manual pages and the documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Help and version are answers; everything else clap says is a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(write) if write.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(exit::FAILURE),
        Ok(()) | Err(_) if error.use_stderr() => ExitCode::from(exit::USAGE),
        Ok(()) | Err(_) => ExitCode::from(exit::DONE),
    }
}

fn report(error: &CtlError) -> ExitCode {
    if !error.is_silent() {
        // Nowhere left to tell about a closed stderr.
        let _ = writeln!(io::stderr(), "error: {}", error::chain(error));
    }
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_a_help_text() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} has no help", argument.get_id());
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&command(), "gateway-ctl");
    }

    #[test]
    fn an_enrolment_code_does_not_show_in_the_debug_form_of_the_arguments() {
        let cli = Cli::try_parse_from(["gateway-ctl", "gateway", "enroll", "gwe1_topsecret"]).unwrap();
        assert!(!format!("{cli:?}").contains("topsecret"));
    }
}

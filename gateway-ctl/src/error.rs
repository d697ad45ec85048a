//! Every way a command can fail, and what the caller's shell learns from it.

use std::{error::Error, io, path::PathBuf};

use gateway_net::{causes::with_causes, secret_file::SecretFileError};

use crate::{
    client::ClientError, output::text::printable_lines, profile::ProfileError, ready::ReadyError,
    resolve::ResolveError, secret::SecretError,
};

/// Exit codes; documented in `--help` and in docs/gateway-ctl.md, never changed.
pub(crate) mod exit {
    /// Done; the answer is yes.
    pub(crate) const DONE: u8 = 0;
    /// The answer is no.
    pub(crate) const NO: u8 = 1;
    /// It could not be found out or done: network, files, an unavailable server.
    pub(crate) const FAILURE: u8 = 2;
    /// The command line is wrong (`EX_USAGE` of sysexits.h).
    pub(crate) const USAGE: u8 = 64;
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// The arguments do not fit together in a way clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// The question asked has the answer no.
    #[error("{0}")]
    No(String),
    /// A name fits nothing, or too much.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Control plane or daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A secret that comes from a file.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The ready file of a server.
    #[error(transparent)]
    Ready(#[from] ReadyError),
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The terminal, while asking.
    #[error("cannot ask on the terminal")]
    Terminal(#[source] io::Error),
    /// The port that the browser comes back to.
    #[error("cannot wait for the browser on 127.0.0.1; `--paste` needs no port")]
    Loopback(#[source] io::Error),
    /// A manual page.
    #[error("cannot write manual pages to {directory}")]
    Man {
        /// Where to.
        directory: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is no secret: an export, a site.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Steps of a site.
    #[error("{}", failed_steps(.0))]
    Steps(Vec<FailedStep>),
    /// Whom the names of a site mean cannot be written down.
    #[error(
        "whom the site means by its names could not be remembered, and nothing was done; where no file can be written \
         beside it, name partners by their ids (org_…)"
    )]
    Partners(#[source] SecretFileError),
    /// The program itself.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// A step of a site that was not done.
#[derive(Debug)]
pub(crate) struct FailedStep {
    /// The step, in words.
    pub(crate) step: String,
    /// Why.
    pub(crate) source: CtlError,
}

fn failed_steps(failed: &[FailedStep]) -> String {
    let words = |failed: &FailedStep| format!("could not {}: {}", failed.step, with_causes(&failed.source));
    match failed {
        [one] => words(one),
        several => {
            let lines: String = several.iter().map(|failed| format!("\n  - {}", words(failed))).collect();
            format!("{} steps failed:{lines}", several.len())
        }
    }
}

impl CtlError {
    /// What the shell gets.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => exit::DONE,
            Self::Usage(_) | Self::Secret(SecretError::StdinTwice { .. }) => exit::USAGE,
            Self::No(_) | Self::Resolve(_) => exit::NO,
            Self::Client(error) if error.is_refusal() => exit::NO,
            Self::Steps(failed) => failed.iter().map(|failed| failed.source.exit_code()).max().unwrap_or(exit::FAILURE),
            Self::Client(_)
            | Self::Profile(_)
            | Self::Secret(_)
            | Self::File { .. }
            | Self::Ready(_)
            | Self::Output(_)
            | Self::Terminal(_)
            | Self::Loopback(_)
            | Self::Man { .. }
            | Self::Partners(_)
            | Self::Runtime(_) => exit::FAILURE,
        }
    }

    /// A reader that had enough is no error worth a word.
    pub(crate) fn is_silent(&self) -> bool {
        self.exit_code() == exit::DONE
    }
}

/// The error and its causes in one text; control characters that came from elsewhere do not reach the terminal.
pub(crate) fn chain(error: &dyn Error) -> String {
    printable_lines(&with_causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_a_success_and_another_write_error_is_not() {
        assert_eq!(CtlError::Output(io::ErrorKind::BrokenPipe.into()).exit_code(), exit::DONE);
        assert_eq!(CtlError::Output(io::ErrorKind::StorageFull.into()).exit_code(), exit::FAILURE);
    }

    #[test]
    fn steps_that_failed_are_all_told_and_the_worst_of_them_is_the_exit_code() {
        let failed = |step: &str, source| FailedStep { step: step.to_owned(), source };
        let one = CtlError::Steps(vec![failed("ask 'P' for an agreement", CtlError::No("it is hidden".into()))]);
        assert_eq!(
            (chain(&one).as_str(), one.exit_code()),
            ("could not ask 'P' for an agreement: it is hidden", exit::NO)
        );
        let full = CtlError::Output(io::ErrorKind::StorageFull.into());
        let two = CtlError::Steps(vec![failed("a", CtlError::No("x".into())), failed("b", full)]);
        assert!(chain(&two).starts_with("2 steps failed:\n  - could not a: x\n  - could not b: cannot write"));
        assert_eq!(two.exit_code(), exit::FAILURE);
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let error = CtlError::Output(io::Error::other("disk gone"));
        assert_eq!(chain(&error), "cannot write the output: disk gone");
        let same = CtlError::No("disk gone\u{1b}[31m".into());
        assert_eq!(chain(&same), "disk gone\u{fffd}[31m");
    }
}

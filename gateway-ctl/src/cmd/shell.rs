//! `gateway-ctl completions` and `man`: made from the same table as the arguments themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::{cmd::Context, command, error::CtlError};

/// A completion script.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell.
    shell: Shell,
}

/// Manual pages.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write one page per command into this directory instead.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "gateway-ctl", &mut script);
        context.out.bytes(&script)
    }
}

impl Man {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Some(directory) = self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page).map_err(CtlError::Output)?;
            return context.out.bytes(&page);
        };
        std::fs::create_dir_all(&directory)
            .and_then(|()| clap_mangen::generate_to(command(), &directory))
            .map_err(|source| CtlError::Man { directory: directory.display().to_string(), source })
    }
}

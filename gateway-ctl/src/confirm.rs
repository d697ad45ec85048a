//! The question before something is destroyed: asked on a terminal, and without one only `--yes` counts.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::{args::Confirm, error::CtlError, output::text::printable};

impl Confirm {
    /// Returns when it may be done. `deed` is a sentence without its full stop: "Delete the server 'lab'".
    pub(crate) fn ask(&self, deed: &str) -> Result<(), CtlError> {
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        decide(self.yes, terminal, deed, io::stdin().lock(), io::stderr())
    }
}

fn decide(
    yes: bool,
    terminal: bool,
    deed: &str,
    mut input: impl BufRead,
    mut output: impl Write,
) -> Result<(), CtlError> {
    if yes {
        return Ok(());
    }
    if !terminal {
        return Err(CtlError::Usage(format!(
            "{deed}: this cannot be undone and there is no terminal to ask on; add --yes"
        )));
    }
    write!(output, "{}? [y/N] ", printable(deed)).and_then(|()| output.flush()).map_err(CtlError::Terminal)?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(CtlError::Terminal)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CtlError::No("nothing was changed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit;

    fn code(yes: bool, terminal: bool, answer: &str) -> u8 {
        decide(yes, terminal, "Delete it", answer.as_bytes(), io::sink())
            .map_or_else(|e| e.exit_code(), |()| exit::DONE)
    }

    #[test]
    fn only_a_clear_yes_destroys() {
        for answer in ["y\n", "YES\n", " yes "] {
            assert_eq!(code(false, true, answer), exit::DONE, "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "yep\n"] {
            assert_eq!(code(false, true, answer), exit::NO, "{answer:?}");
        }
    }

    #[test]
    fn without_a_terminal_only_the_flag_counts() {
        assert_eq!(code(false, false, "y\n"), exit::USAGE);
        assert_eq!(code(true, false, ""), exit::DONE);
    }
}

//! Secrets given to a command: from a file that only its owner reads, or from standard input; never from the arguments, which every
//! process of the machine can see, but for codes that are good once.

use std::{
    convert::Infallible,
    io::{self, Read},
    path::PathBuf,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use gateway_net::secret_file::{self, SecretFileError};
use gateway_proto::api::platform::Hidden;
use zeroize::Zeroizing;

/// No password, token or code is longer.
const MAX_LEN: usize = 64 << 10;
/// Whether standard input was read: it is read to its end, and nothing is left for a second secret.
static STDIN_READ: AtomicBool = AtomicBool::new(false);

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// `-`.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file.
    #[error("cannot take the {what} from its file")]
    File {
        /// Which secret.
        what: &'static str,
        /// Why.
        source: SecretFileError,
    },
    /// Standard input.
    #[error("cannot read the {what} from standard input")]
    Stdin {
        /// Which secret.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Standard input, for the second time.
    #[error("the {what} cannot come from standard input, too: another secret did; give one of the two in a file")]
    StdinTwice {
        /// Which secret.
        what: &'static str,
    },
    /// Nothing usable in it.
    #[error("the {what} is empty, longer than {MAX_LEN} bytes, or not UTF-8 text")]
    Content {
        /// Which secret.
        what: &'static str,
    },
}

impl FromStr for SecretSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(text.into()) })
    }
}

impl SecretSource {
    /// Reads the secret; the line end after it does not belong to it. `what` names it in errors.
    pub(crate) fn read(&self, what: &'static str) -> Result<Hidden, SecretError> {
        let content = match self {
            Self::Stdin if STDIN_READ.swap(true, Ordering::Relaxed) => return Err(SecretError::StdinTwice { what }),
            Self::Stdin => from_reader(io::stdin().lock()).map_err(|source| SecretError::Stdin { what, source })?,
            Self::File(path) => secret_file::read(path).map_err(|source| SecretError::File { what, source })?,
        };
        secret_text(&content).ok_or(SecretError::Content { what })
    }
}

/// Keeps a one-time code that is given as an argument out of the debug form of the arguments.
pub(crate) fn hidden(text: &str) -> Result<Hidden, Infallible> {
    Ok(Hidden(text.to_owned()))
}

fn from_reader(reader: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it from the start: a growing buffer would leave copies of the secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_LEN + 2));
    reader.take(MAX_LEN as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn secret_text(content: &[u8]) -> Option<Hidden> {
    if content.len() > MAX_LEN {
        return None;
    }
    let text = std::str::from_utf8(content).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { None } else { Some(Hidden(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_taken_off_and_nothing_else() {
        assert_eq!(secret_text(b" pass word \r\n"), Some(Hidden(" pass word ".into())));
        assert_eq!(secret_text(b"x\n\n"), Some(Hidden("x\n".into())));
    }

    #[test]
    fn an_empty_endless_or_binary_secret_is_refused() {
        assert_eq!(secret_text(b"\n"), None);
        assert_eq!(secret_text(&[0xff, 0xfe]), None);
        assert_eq!(secret_text(&from_reader(io::repeat(b'a')).unwrap()), None);
    }
}

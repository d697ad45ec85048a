//! Log set-up: one subscriber on standard error, filtered by `RUST_LOG` or the configured filter.

use std::{io::IsTerminal, str::FromStr};

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The format is unknown.
    #[error("'{0}' is no log format: 'text' and 'json' are accepted")]
    Format(String),
    /// The filter does not parse.
    #[error("the log filter '{filter}' does not parse (example: 'info,gatewayd=debug')")]
    Filter {
        /// What was given.
        filter: String,
        /// Where it went wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is already there.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogError::Format(other.chars().take(32).collect())),
        }
    }
}

/// Sets up logging for the process. `RUST_LOG` wins over `filter`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| filter.to_owned());
    let parsed = EnvFilter::try_new(&filter).map_err(|source| LogError::Filter { filter, source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|_| LogError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_parsed_and_others_are_named_in_the_error() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("'xml'"));
    }

    #[test]
    fn a_broken_filter_is_an_error_and_not_silence() {
        assert!(matches!(init(LogFormat::Text, "gatewayd=loud=x"), Err(LogError::Filter { .. })));
    }
}

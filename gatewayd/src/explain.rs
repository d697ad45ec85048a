//! Errors for people: an error with its causes in one line, for status, reports and logs.

use std::{error::Error, fmt::Write};

/// The error and its sources, joined by `: `.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

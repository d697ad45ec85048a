//! Errors for people: an error with its causes in one line, for status, reports and logs.

use std::error::Error;

/// The error and its causes, joined by `: `. A cause that was already spelled out is not said twice.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("the file was not read")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error("the disk says: {0}")]
    struct Inner(#[source] io::Error);

    #[test]
    fn causes_are_said_once_each_and_in_order() {
        let error = Outer(Inner(io::Error::other("it is gone")));
        assert_eq!(with_causes(&error), "the file was not read: the disk says: it is gone");
    }
}

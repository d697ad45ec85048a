//! Masks secrets in the engine's answers, byte stream in, byte stream out, with memory that does not grow.
//!
//! The Administrator needs calls such as `POST /channels/_getSummary` to draw its pages, and their answers show connector
//! passwords in clear. XML and JSON pass through a small tokenizer that knows the name each text stands under. What is named
//! like a secret is replaced by eight asterisks; `true`, `false` and empty texts stay, so that the GUI can still read them.
//! Of the headers that a connector sends every value is masked, whatever the header's name.
//! Not found: a password inside a script, a comment of the user's own, a URL, or the content a connector sends.

mod json;
mod names;
mod xml;

use json::JsonRedactor;
pub(super) use names::is_secret_name;
use xml::XmlRedactor;

/// What stands in place of a secret.
pub(super) const MASK: &str = "********";
/// Nested elements or containers at most.
const MAX_DEPTH: usize = 512;
/// The longest tag or JSON key that is held, in bytes.
const MAX_HELD: usize = 64 << 10;

/// How much is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// Whatever is named like a secret, and the values of headers.
    Passwords,
    /// In addition every value of a map: the keys stay.
    Values,
}

/// Why an answer could not be masked; it must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// Neither XML nor JSON in UTF-8.
    #[error("the engine's answer is in a format in which secrets cannot be masked")]
    Format,
    /// Nested too deep, or a tag too long.
    #[error("the engine's answer is too deeply nested to mask secrets in it")]
    Depth,
}

/// Masks one answer.
#[derive(Debug)]
pub struct Redactor(Kind);

#[derive(Debug)]
enum Kind {
    Xml(XmlRedactor),
    Json(JsonRedactor),
}

impl Redactor {
    /// For an answer of this content type.
    pub fn new(redaction: Redaction, content_type: &str) -> Result<Self, RedactError> {
        let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let charset =
            parts.find_map(|part| part.strip_prefix("charset=").map(|name| name.trim_matches('"').to_owned()));
        // In these a byte below 0x80 is always the character itself.
        if charset.is_some_and(|name| !["utf-8", "us-ascii", "iso-8859-1"].contains(&name.as_str())) {
            return Err(RedactError::Format);
        }
        match media.as_str() {
            "application/xml" | "text/xml" => Ok(Self(Kind::Xml(XmlRedactor::new(redaction)))),
            "application/json" => Ok(Self(Kind::Json(JsonRedactor::new(redaction)))),
            _ => Err(RedactError::Format),
        }
    }

    /// Takes the next bytes and appends what may pass to `output`.
    pub fn update(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), RedactError> {
        match &mut self.0 {
            Kind::Xml(xml) => xml.update(input, output),
            Kind::Json(json) => json.update(input, output),
        }
    }

    /// The answer is complete: appends what was held back, if it may pass.
    pub fn finish(self, output: &mut Vec<u8>) {
        match self.0 {
            Kind::Xml(xml) => xml.finish(output),
            Kind::Json(json) => json.finish(output),
        }
    }
}

/// Whether a text says nothing even under the name of a secret.
fn is_harmless(text: &[u8]) -> bool {
    let trimmed = text.trim_ascii();
    trimmed.is_empty() || trimmed == b"true" || trimmed == b"false"
}

#[cfg(test)]
mod tests;

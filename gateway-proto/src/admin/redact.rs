//! Masks secrets in the engine's answers, byte stream in, byte stream out, with memory that does not grow.
//!
//! The Administrator needs calls such as `POST /channels/_getSummary` to draw its pages, and their answers show connector
//! passwords in clear. XML and JSON pass through a small tokenizer that knows the name each text stands under. What is named
//! like a secret is replaced by eight asterisks; `true`, `false` and empty texts stay, so that the GUI can still read them.
//! Of the headers that a connector sends every value is masked, whatever the header's name. A text that is a document itself, XML
//! or JSON, is masked in the same way.
//!
//! What can be read in two ways hides what it likes: an answer that is not certain to be XML or JSON does not pass, and a text
//! that only began like one is masked from there. Only HTML's open elements are followed, as long as nothing depends on them.
//! Not found: a password inside a script, a comment of the user's own, a URL, or content a connector sends that is no document.

mod escape;
mod held;
mod json;
mod names;
mod text;
mod xml;

use escape::Escaping;
use held::Unit;
use json::JsonRedactor;
pub(super) use names::is_secret_name;
use text::{Scope, Text};
use xml::XmlRedactor;

/// What stands in place of a secret.
pub(super) const MASK: &str = "********";
/// May stand before an answer in UTF-8, and says nothing.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Nested elements or containers at most.
const MAX_DEPTH: usize = 512;
/// The longest tag or JSON key that is held, in bytes.
const MAX_HELD: usize = 64 << 10;
/// A text that is masked is held this far, in bytes, to tell `true`, `false` and blanks from secrets.
const MAX_DECIDING: usize = 16;

/// How much is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// Whatever is named like a secret, and the values of headers.
    Passwords,
    /// In addition every text but the keys of maps.
    Values,
    /// As [`Self::Passwords`], and the values of what an event of the engine tells: patients, and what was searched for.
    Events,
    /// As [`Self::Passwords`], in an answer that is one text, whatever its content type: a document or not.
    Text,
}

/// Why an answer could not be masked; it must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// Neither XML nor JSON in UTF-8, not what its content type says, or to be read in more than one way.
    #[error("the engine's answer is in a format in which secrets cannot be masked")]
    Format,
    /// Nested too deep, or a tag too long.
    #[error("the engine's answer is too deeply nested to mask secrets in it")]
    Depth,
}

/// Masks one answer.
#[derive(Debug)]
pub struct Redactor {
    kind: Kind,
    /// It was seen that the answer is what its head says.
    begun: bool,
}

#[derive(Debug)]
enum Kind {
    Xml(XmlRedactor),
    Json(JsonRedactor),
    Text(Text),
}

impl Kind {
    /// Whether an answer can begin so. The engine's JSON is always an object or a list.
    fn begins_with(&self, byte: u8) -> bool {
        match self {
            Self::Xml(_) => byte == b'<',
            Self::Json(_) => byte == b'{' || byte == b'[',
            Self::Text(_) => true,
        }
    }
}

impl Redactor {
    /// For an answer of this content type.
    pub fn new(redaction: Redaction, content_type: &str) -> Result<Self, RedactError> {
        let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        // In these a byte below 0x80 is always the character itself.
        let is_readable = |charset: &str| {
            let name = charset.trim_start().strip_prefix('=').map(|name| name.trim().trim_matches('"'));
            name.is_some_and(|name| ["utf-8", "us-ascii", "iso-8859-1"].contains(&name))
        };
        if !parts.all(|part| part.strip_prefix("charset").is_none_or(is_readable)) {
            return Err(RedactError::Format);
        }
        let scope = Scope::new(redaction);
        let kind = match (redaction, media.as_str()) {
            (Redaction::Text, _) => Kind::Text(Text::new(scope)),
            (_, "application/xml" | "text/xml") => Kind::Xml(XmlRedactor::new(scope)),
            (_, "application/json") => Kind::Json(JsonRedactor::new(scope)),
            _ => return Err(RedactError::Format),
        };
        Ok(Self { begun: matches!(kind, Kind::Text(_)), kind })
    }

    /// Takes the next bytes and appends what may pass to `output`. Nothing is appended before it is known that the answer
    /// is what its content type says; blanks before a document are dropped.
    pub fn update(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), RedactError> {
        for byte in input {
            // In no text of a character set that is read here.
            if *byte == 0 {
                return Err(RedactError::Format);
            }
            if !self.begun {
                if byte.is_ascii_whitespace() || BYTE_ORDER_MARK.contains(byte) {
                    continue;
                }
                if !self.kind.begins_with(*byte) {
                    return Err(RedactError::Format);
                }
                self.begun = true;
            }
            match &mut self.kind {
                Kind::Xml(xml) => xml.push(Unit::written(byte), output)?,
                Kind::Json(json) => json.push(Unit::written(byte), output)?,
                Kind::Text(text) => text.push(Unit::written(byte), Escaping::None, output),
            }
        }
        Ok(())
    }

    /// The answer is complete: appends what was held back, if it may pass.
    pub fn finish(self, output: &mut Vec<u8>) {
        match self.kind {
            Kind::Xml(xml) => xml.finish(output),
            Kind::Json(json) => json.finish(output),
            Kind::Text(mut text) => text.end(output),
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

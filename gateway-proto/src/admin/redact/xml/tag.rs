//! A start tag: what its name and its attributes say, and what of it may pass. What is not written as a tag is none: who reads it
//! in another way finds other attributes in it.

use std::{borrow::Cow, ops::Range};

use super::super::{
    MASK, RedactError,
    escape::Escaping,
    held::Held,
    is_harmless, is_secret_name,
    names::{NAMING_ATTRIBUTES, SYSTEM_ATTRIBUTES},
    text::{Scope, Text},
};

/// Whether a byte behind `<` makes it the beginning of markup.
pub(super) fn begins_markup(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || !byte.is_ascii() || b"_:/!?".contains(&byte)
}

/// Whether what begins with `<!` is a document type as far as it came.
pub(super) fn begins_doctype(text: &[u8]) -> bool {
    b"<!DOCTYPE".iter().zip(text).all(|(wanted, byte)| byte.eq_ignore_ascii_case(wanted))
}

/// Whether what stands in a comment is markup to somebody: to HTML a comment may end earlier, at `<!-->` or `--!>`.
pub(super) fn holds_markup(comment: &[u8]) -> bool {
    let ends_earlier = comment.starts_with(b">") || comment.starts_with(b"->");
    ends_earlier || comment.contains(&b'<') || comment.windows(2).any(|pair| pair == b"--")
}

/// Whether no quotation mark is open at the end.
pub(super) fn closes_quotes(text: &[u8]) -> bool {
    let mut open = None;
    for byte in text {
        match open {
            None if b"\"'".contains(byte) => open = Some(*byte),
            Some(quote) if quote == *byte => open = None,
            None | Some(_) => {}
        }
    }
    open.is_none()
}

/// A start tag from `<` to `>`, or a processing instruction.
#[derive(Debug)]
pub(super) struct Tag<'a> {
    held: &'a Held,
    name: Range<usize>,
    attributes: Vec<Attribute>,
    /// There are attributes without a value.
    has_words: bool,
}

#[derive(Debug)]
struct Attribute {
    name: Range<usize>,
    value: Range<usize>,
}

impl<'a> Tag<'a> {
    /// Fails for what is not written as a tag.
    pub(super) fn read(held: &'a Held) -> Result<Self, RedactError> {
        let text = held.text();
        let closing = if text.ends_with(b"/>") || text.ends_with(b"?>") { 2 } else { 1 };
        let content = &text[..text.len() - closing];
        let ends = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'/';
        let name_end = content.iter().skip(1).position(ends).map_or(content.len(), |length| 1 + length);
        let mut tag = Self { held, name: 1..name_end, attributes: Vec::new(), has_words: false };
        if content[1..name_end].iter().any(is_syntax) {
            return Err(RedactError::Format);
        }
        tag.read_attributes(content)?;
        Ok(tag)
    }

    fn read_attributes(&mut self, content: &[u8]) -> Result<(), RedactError> {
        let mut at = skip_blanks(content, self.name.end);
        while at < content.len() {
            let name = at..until(content, at, |byte| byte.is_ascii_whitespace() || *byte == b'=');
            if name.is_empty() || content[name.clone()].iter().any(is_syntax) {
                return Err(RedactError::Format);
            }
            let equals = skip_blanks(content, name.end);
            if content.get(equals) != Some(&b'=') {
                self.has_words = true;
                at = equals;
                continue;
            }
            let value = value_at(content, skip_blanks(content, equals + 1)).ok_or(RedactError::Format)?;
            let quoted = content.get(value.end).is_some_and(|byte| !byte.is_ascii_whitespace());
            let behind = value.end + usize::from(quoted);
            if content.get(behind).is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return Err(RedactError::Format);
            }
            self.attributes.push(Attribute { name, value });
            at = skip_blanks(content, behind);
        }
        Ok(())
    }

    /// Its name.
    pub(super) fn name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.name_as_it_reads())
    }

    /// Its name, byte by byte.
    pub(super) fn name_as_it_reads(&self) -> &[u8] {
        &self.held.text()[self.name.clone()]
    }

    /// Whether there are words in it that are neither a name nor a value.
    pub(super) fn has_words(&self) -> bool {
        self.has_words
    }

    /// Whether its element ends with it.
    pub(super) fn is_empty(&self) -> bool {
        self.held.text().ends_with(b"/>")
    }

    /// Whether one of its attributes names what it holds, as in `<property name="…">`.
    pub(super) fn is_named(&self) -> bool {
        self.attributes.iter().any(|attribute| NAMING_ATTRIBUTES.contains(&&*self.attribute_name(attribute)))
    }

    /// Whether one of its attributes names what it holds, and names it like a secret.
    pub(super) fn names_a_secret(&self) -> bool {
        self.attributes.iter().any(|attribute| self.is_name_of_a_secret(attribute))
    }

    /// Appends it with the secrets among its attributes masked: those that are named like one; of a secret element all but its
    /// name and what only says how to read it; where all values are masked, all but names and that.
    pub(super) fn pass(&self, of_secret: bool, of_values: bool, scope: Scope, output: &mut Vec<u8>) {
        let mut passed = 0;
        for attribute in &self.attributes {
            let (name, value) = (self.attribute_name(attribute), attribute.value.clone());
            output.extend_from_slice(self.held.raw_of(passed..value.start));
            passed = value.end;
            let names = !of_secret && NAMING_ATTRIBUTES.contains(&&*name);
            let stays = SYSTEM_ATTRIBUTES.contains(&&*name) || names || self.is_name_of_a_secret(attribute);
            let secret = is_secret_name(&name) || ((of_secret || of_values) && !stays);
            if secret && !is_harmless(&self.held.text()[value.clone()]) {
                output.extend_from_slice(MASK.as_bytes());
            } else {
                Text::new(scope).pass(self.held, value, Escaping::Xml, output);
            }
        }
        output.extend_from_slice(self.held.raw_of(passed..self.held.len()));
    }

    fn attribute_name(&self, attribute: &Attribute) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.held.text()[attribute.name.clone()])
    }

    fn is_name_of_a_secret(&self, attribute: &Attribute) -> bool {
        NAMING_ATTRIBUTES.contains(&&*self.attribute_name(attribute))
            && is_secret_name(&Text::name_in(self.held, attribute.value.clone(), Escaping::Xml))
    }
}

/// What neither a name nor a value without quotation marks holds.
fn is_syntax(byte: &u8) -> bool {
    b"\"'`=<>".contains(byte)
}

fn skip_blanks(content: &[u8], at: usize) -> usize {
    until(content, at, |byte| !byte.is_ascii_whitespace())
}

fn until(content: &[u8], at: usize, ends: impl Fn(&u8) -> bool) -> usize {
    content[at..].iter().position(ends).map_or(content.len(), |length| at + length)
}

/// The value that begins here, without its quotation marks.
fn value_at(content: &[u8], at: usize) -> Option<Range<usize>> {
    if let quote @ (b'"' | b'\'') = *content.get(at)? {
        let length = memchr::memchr(quote, &content[at + 1..])?;
        return Some(at + 1..at + 1 + length);
    }
    // HTML has values without quotation marks.
    let value = at..until(content, at, u8::is_ascii_whitespace);
    (!content[value.clone()].iter().any(is_syntax)).then_some(value)
}

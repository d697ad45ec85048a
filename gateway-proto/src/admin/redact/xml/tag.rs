//! A start tag: what its name and its attributes say, and what of it may pass.

use std::{borrow::Cow, ops::Range};

use super::super::{
    MASK,
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

/// A start tag from `<` to `>`.
#[derive(Debug)]
pub(super) struct Tag<'a> {
    held: &'a Held,
    name: Range<usize>,
    attributes: Vec<Attribute>,
}

#[derive(Debug)]
struct Attribute {
    name: Range<usize>,
    value: Range<usize>,
}

impl<'a> Tag<'a> {
    pub(super) fn read(held: &'a Held) -> Self {
        let text = held.text();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/>".contains(byte);
        let name_end = text.iter().skip(1).position(ends).map_or(text.len(), |length| 1 + length);
        Self { held, name: name_end.min(1)..name_end, attributes: attributes(text, name_end) }
    }

    /// Its name.
    pub(super) fn name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.held.text()[self.name.clone()])
    }

    /// Whether one of its attributes names what it holds, as in `<property name="…">`, and names it like a secret.
    pub(super) fn names_a_secret(&self) -> bool {
        self.attributes.iter().any(|attribute| self.is_name_of_a_secret(attribute))
    }

    /// Appends it with the secrets among its attributes masked: those that are named like one, and of a secret element
    /// all but its name and what only says how to read it.
    pub(super) fn pass(&self, of_secret: bool, scope: Scope, output: &mut Vec<u8>) {
        let mut passed = 0;
        for attribute in &self.attributes {
            let (name, value) = (self.attribute_name(attribute), attribute.value.clone());
            output.extend_from_slice(self.held.raw_of(passed..value.start));
            passed = value.end;
            let stays = SYSTEM_ATTRIBUTES.contains(&&*name) || self.is_name_of_a_secret(attribute);
            let secret = is_secret_name(&name) || (of_secret && !stays);
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

fn attributes(tag: &[u8], from: usize) -> Vec<Attribute> {
    let (mut found, mut at) = (Vec::new(), from);
    while let Some(equals) = memchr::memchr(b'=', &tag[at..]).map(|before| at + before) {
        let start = equals + 1 + tag[equals + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let (value, next) = match tag.get(start) {
            None => break,
            Some(quote @ (b'"' | b'\'')) => {
                let Some(length) = memchr::memchr(*quote, &tag[start + 1..]) else { break };
                (start + 1..start + 1 + length, start + length + 2)
            }
            // HTML has values without quotation marks.
            Some(_) => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'>';
                let end = tag[start..].iter().position(ends).map_or(tag.len(), |length| start + length);
                (start..end, end)
            }
        };
        found.push(Attribute { name: last_word(tag, at..equals), value });
        at = next;
    }
    found
}

/// The last word of a part of a tag: what stands before it is an attribute without a value.
fn last_word(tag: &[u8], part: Range<usize>) -> Range<usize> {
    let text = tag[part.clone()].trim_ascii_end();
    let start = text.iter().rposition(u8::is_ascii_whitespace).map_or(0, |blank| blank + 1);
    part.start + start..part.start + text.len()
}

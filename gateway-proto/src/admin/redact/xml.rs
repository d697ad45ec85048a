//! XML as XStream writes it: elements named after fields, maps as `<entry>` with the key first.

use super::{MASK, MAX_DEPTH, MAX_HELD, RedactError, Redaction, is_harmless, is_secret_name, names::holds_headers};

/// A text under a secret name is held this far, to tell `true`, `false` and blanks from secrets.
const MAX_DECIDING: usize = 16;

#[derive(Debug)]
pub(super) struct XmlRedactor {
    redaction: Redaction,
    stack: Vec<Element>,
    state: State,
    /// The markup being read, from `<` on; or a secret text that is not decided yet.
    held: Vec<u8>,
}

#[derive(Debug, Default)]
struct Element {
    /// Its texts are masked.
    secret: bool,
    /// The values of all maps in it are masked, and their keys stay.
    values: bool,
    is_entry: bool,
    /// Of an entry: its first child was closed.
    key_seen: bool,
    /// Of an entry: everything after the key is masked.
    value_secret: bool,
    /// Its text so far, if it may be a key.
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text { masked: bool },
    Markup { quote: Option<u8> },
    CData { masked: bool },
}

impl XmlRedactor {
    pub(super) fn new(redaction: Redaction) -> Self {
        Self { redaction, stack: Vec::new(), state: State::Text { masked: false }, held: Vec::new() }
    }

    pub(super) fn update(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), RedactError> {
        for byte in input {
            match self.state {
                State::Text { masked } if *byte == b'<' => {
                    self.end_text(masked, output);
                    self.held.push(b'<');
                    self.state = State::Markup { quote: None };
                }
                State::Text { masked } => {
                    let masked = self.text(*byte, masked, output);
                    self.state = State::Text { masked };
                }
                State::Markup { quote } => self.markup(*byte, quote, output)?,
                State::CData { masked } => self.cdata(*byte, masked, output),
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, output: &mut Vec<u8>) {
        if let State::Text { masked } = self.state {
            self.end_text(masked, output);
        }
    }

    fn is_secret(&self) -> bool {
        self.stack.last().is_some_and(|element| element.secret)
    }

    fn text(&mut self, byte: u8, masked: bool, output: &mut Vec<u8>) -> bool {
        if !self.is_secret() {
            self.note_key(byte);
            output.push(byte);
            return false;
        }
        if masked {
            return true;
        }
        self.held.push(byte);
        if self.held.len() > MAX_DECIDING && !self.held.trim_ascii().is_empty() {
            self.held.clear();
            output.extend_from_slice(MASK.as_bytes());
            return true;
        }
        false
    }

    fn end_text(&mut self, masked: bool, output: &mut Vec<u8>) {
        if !masked && !self.held.is_empty() {
            if is_harmless(&self.held) {
                output.append(&mut self.held);
            } else {
                output.extend_from_slice(MASK.as_bytes());
            }
        }
        self.held.clear();
    }

    fn note_key(&mut self, byte: u8) {
        if let Some(element) = self.stack.last_mut()
            && element.text.len() < 256
        {
            element.text.push(byte);
        }
    }

    fn markup(&mut self, byte: u8, quote: Option<u8>, output: &mut Vec<u8>) -> Result<(), RedactError> {
        self.held.push(byte);
        if self.held.len() > MAX_HELD {
            return Err(RedactError::Depth);
        }
        if self.held == b"<![CDATA[" {
            self.held.clear();
            // Its markers are dropped where its text is masked: asterisks need none.
            if !self.is_secret() {
                output.extend_from_slice(b"<![CDATA[");
            }
            self.state = State::CData { masked: false };
            return Ok(());
        }
        if self.held.starts_with(b"<!--") {
            if self.held.len() >= 7 && self.held.ends_with(b"-->") {
                self.pass_markup(output);
            } else {
                self.state = State::Markup { quote: None };
            }
            return Ok(());
        }
        match (quote, byte) {
            (None, b'"' | b'\'') => self.state = State::Markup { quote: Some(byte) },
            (Some(open), _) if open == byte => self.state = State::Markup { quote: None },
            (None, b'>') => return self.tag(output),
            (None | Some(_), _) => {}
        }
        Ok(())
    }

    fn pass_markup(&mut self, output: &mut Vec<u8>) {
        if !self.is_secret() {
            output.extend_from_slice(&self.held);
        }
        self.held.clear();
        self.state = State::Text { masked: false };
    }

    fn tag(&mut self, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let tag = std::mem::take(&mut self.held);
        self.state = State::Text { masked: false };
        match tag.get(1) {
            Some(b'?' | b'!') => output.extend_from_slice(&tag),
            Some(b'/') => {
                output.extend_from_slice(&tag);
                self.close();
            }
            _ => {
                let (element, masked) = self.open(&tag);
                output.extend_from_slice(&masked);
                if self.stack.len() == MAX_DEPTH {
                    return Err(RedactError::Depth);
                }
                self.stack.push(element);
                if tag.ends_with(b"/>") {
                    self.close();
                }
            }
        }
        Ok(())
    }

    fn open(&self, tag: &[u8]) -> (Element, Vec<u8>) {
        let text = String::from_utf8_lossy(tag);
        let inner = text.trim_start_matches('<').trim_end_matches('>').trim_end_matches('/');
        let name_end = inner.find(|c: char| c.is_ascii_whitespace()).unwrap_or(inner.len());
        let (name, attributes) = inner.split_at(name_end);
        let is_entry = name == "entry";
        let is_headers = holds_headers(name);
        let in_values = self.stack.last().is_some_and(|parent| parent.values);
        let values = self.redaction == Redaction::Values || is_headers || in_values;
        let (inherited, from_entry) = match self.stack.last() {
            Some(parent) if parent.is_entry => (parent.secret, parent.key_seen && parent.value_secret),
            Some(parent) => (parent.secret, false),
            None => (false, false),
        };
        let mut secret = inherited || from_entry || is_headers || is_secret_name(name);
        let mut masked = Vec::new();
        let mut passed = 0;
        for (attribute, value) in attribute_list(attributes) {
            // `<property name="…">` and the like: the name of the text stands in an attribute.
            secret |= ["name", "key", "id"].contains(&attribute) && is_secret_name(value);
            if is_secret_name(attribute) && !is_harmless(value.as_bytes()) {
                let at = value.as_ptr() as usize - text.as_ptr() as usize;
                masked.extend_from_slice(&text.as_bytes()[passed..at]);
                masked.extend_from_slice(MASK.as_bytes());
                passed = at + value.len();
            }
        }
        masked.extend_from_slice(&text.as_bytes()[passed..]);
        // The keys of a map inside a masked value stay, where only values are asked to be masked.
        let fresh = is_entry && values;
        (Element { secret: secret && !fresh, values, is_entry, ..Element::default() }, masked)
    }

    fn close(&mut self) {
        let Some(closed) = self.stack.pop() else { return };
        let Some(parent) = self.stack.last_mut() else { return };
        if parent.is_entry && !parent.key_seen {
            parent.key_seen = true;
            parent.value_secret = parent.values || is_secret_name(&String::from_utf8_lossy(&closed.text));
        }
    }

    fn cdata(&mut self, byte: u8, masked: bool, output: &mut Vec<u8>) {
        self.held.push(byte);
        let ended = self.held.ends_with(b"]]>");
        if self.is_secret() {
            if !masked
                && !is_harmless(self.held.strip_suffix(b"]]>").unwrap_or(&self.held))
                && self.held.len() > MAX_DECIDING
            {
                output.extend_from_slice(MASK.as_bytes());
                self.state = State::CData { masked: true };
            }
            if ended {
                let content = &self.held[..self.held.len() - 3];
                if self.state == (State::CData { masked: false }) && !is_harmless(content) {
                    output.extend_from_slice(MASK.as_bytes());
                }
            } else if self.held.len() > MAX_DECIDING + 3 {
                // Enough to see the end marker across two reads.
                self.held.drain(..self.held.len() - 3);
            }
        } else {
            self.note_key(byte);
            output.push(byte);
            if self.held.len() > 3 {
                self.held.remove(0);
            }
        }
        if ended {
            self.held.clear();
            self.state = State::Text { masked: false };
        }
    }
}

fn attribute_list(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| ['"', '\''].contains(c))?;
        let (value, remaining) = after[1..].split_once(quote)?;
        rest = remaining;
        Some((name.trim(), value))
    })
}

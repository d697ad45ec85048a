//! JSON as the engine writes it: XStream's elements as keys, a map as `entry` objects with the key first, attributes as
//! keys that begin with `@`.

mod shape;

use shape::{Attribute, Container, Entry, Key, Next, begins_word, goes_on, is_word};

use super::{
    MASK, MAX_DEPTH, RedactError, Redaction,
    escape::Escaping,
    held::{Held, Unit},
    is_harmless, is_secret_name,
    text::{Scope, Text},
};

#[derive(Debug)]
pub(super) struct JsonRedactor {
    scope: Scope,
    stack: Vec<Container>,
    next: Next,
    /// The name the next value stands under, with what it means.
    key: Option<Key>,
    state: State,
    /// The string or bare word being read.
    held: Held,
    /// The text that passes.
    text: Text,
    /// How a quotation mark is written here.
    quote: Vec<u8>,
    /// Something in it has a name, or is one of a secret: what comes behind is not just any text.
    has_names: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    String {
        escaped: bool,
    },
    /// Inside a value that is masked already.
    Masked {
        escaped: bool,
    },
    /// Inside a long value that passes.
    Passing {
        escaped: bool,
    },
    Word,
}

impl JsonRedactor {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            stack: Vec::new(),
            next: Next::Document,
            key: None,
            state: State::Between,
            held: Held::default(),
            text: Text::new(scope),
            quote: b"\"".to_vec(),
            has_names: false,
        }
    }

    /// A unit that makes it no JSON is refused, and neither it nor what is held has been passed on.
    pub(super) fn push(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) -> Result<(), RedactError> {
        match self.state {
            State::Between => self.between(unit, output)?,
            State::String { escaped } => self.string(unit, escaped, output),
            State::Masked { escaped: false } if unit.byte == b'"' => {
                output.extend_from_slice(unit.raw);
                self.state = State::Between;
            }
            State::Masked { escaped } => self.state = State::Masked { escaped: escapes(unit, escaped) },
            State::Passing { escaped: false } if unit.byte == b'"' => {
                self.text.end(output);
                output.extend_from_slice(unit.raw);
                self.state = State::Between;
            }
            State::Passing { escaped } => {
                self.text.push(unit, Escaping::Json, output);
                self.state = State::Passing { escaped: escapes(unit, escaped) };
            }
            State::Word if goes_on(self.held.text(), unit.byte) => self.held.push(unit),
            // No JSON; the word may be a name, and is still held.
            State::Word if unit.byte == b':' => return Err(RedactError::Format),
            State::Word => {
                self.end_word(output)?;
                self.between(unit, output)?;
            }
        }
        if self.held.is_full() { self.too_long(output) } else { Ok(()) }
    }

    /// What was held when this byte made it no JSON; none: nothing that follows may pass.
    pub(super) fn into_unread(self, byte: u8) -> Option<Held> {
        // A text before a colon may be a name, and has passed; a word (an IPv6 address in brackets) has not.
        let follows_a_name = byte == b':' && self.state != State::Word;
        (!self.has_names && !follows_a_name).then_some(self.held)
    }

    pub(super) fn finish(mut self, output: &mut Vec<u8>) {
        match self.state {
            State::Word => {
                if self.end_word(output).is_err() {
                    output.extend_from_slice(MASK.as_bytes());
                }
            }
            State::Passing { .. } => self.text.end(output),
            // Without its end it is not known what a text is.
            State::String { .. } => {
                output.extend_from_slice(self.held.raw_of(0..1));
                if self.held.len() > 1 {
                    output.extend_from_slice(MASK.as_bytes());
                }
            }
            State::Between | State::Masked { .. } => {}
        }
    }

    fn between(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let in_object = self.stack.last().is_some_and(|container| container.is_object);
        match (self.next, unit.byte) {
            (_, byte) if byte.is_ascii_whitespace() => {}
            (Next::Document | Next::Value | Next::ValueOrEnd, byte @ (b'{' | b'[')) => self.open(byte == b'{')?,
            (Next::KeyOrEnd | Next::CommaOrEnd, b'}') if in_object => self.close(),
            (Next::ValueOrEnd | Next::CommaOrEnd, b']') if !in_object => self.close(),
            (Next::CommaOrEnd, b',') => {
                self.key = None;
                self.next = if in_object { Next::Key } else { Next::Value };
            }
            (Next::Colon, b':') => {
                self.has_names = true;
                self.next = Next::Value;
            }
            (Next::Key | Next::KeyOrEnd | Next::Value | Next::ValueOrEnd, b'"') => {
                self.quote.clear();
                self.quote.extend_from_slice(unit.raw);
                self.held.push(unit);
                self.state = State::String { escaped: false };
                return Ok(());
            }
            (Next::Value | Next::ValueOrEnd, byte) if begins_word(byte) => {
                self.held.push(unit);
                self.state = State::Word;
                return Ok(());
            }
            _ => return Err(RedactError::Format),
        }
        output.extend_from_slice(unit.raw);
        Ok(())
    }

    fn open(&mut self, is_object: bool) -> Result<(), RedactError> {
        if self.stack.len() == MAX_DEPTH {
            return Err(RedactError::Depth);
        }
        let key = self.key.take();
        let parent = self.stack.last();
        let is_entry = key.as_ref().map_or(parent.is_some_and(|p| p.of_entries), |key| key.is_entry);
        let values = self.in_values() || key.as_ref().is_some_and(|key| key.of_values);
        // The keys of a map inside a masked value stay, where only values are asked to be masked.
        let fresh = is_entry && values;
        let secret = key.is_some_and(|key| key.secret) || parent.is_some_and(|p| p.secret) || self.entry_secret();
        let entry = (is_entry && is_object).then_some(Entry { key_seen: false, value_secret: false });
        let of_entries = is_entry && !is_object;
        self.stack.push(Container { is_object, secret: secret && !fresh, values, named: false, of_entries, entry });
        self.next = if is_object { Next::KeyOrEnd } else { Next::ValueOrEnd };
        Ok(())
    }

    fn close(&mut self) {
        self.stack.pop();
        self.key = None;
        self.next = if self.stack.is_empty() { Next::Document } else { Next::CommaOrEnd };
    }

    /// Whether everything is masked here but the keys of maps.
    fn in_values(&self) -> bool {
        self.stack.last().map_or(self.scope.redaction == Redaction::Values, |container| container.values)
    }

    /// Whether the nearest entry says that what follows its key is masked.
    fn entry_secret(&self) -> bool {
        self.stack
            .iter()
            .rev()
            .find_map(|container| container.entry)
            .is_some_and(|entry| entry.key_seen && entry.value_secret)
    }

    /// Whether the next scalar is the key of an entry: the text of its first child, which is named after a type.
    fn is_entry_key(&self) -> bool {
        let mut around = self.stack.iter().rev().peekable();
        let is_text = self.key.as_ref().is_some_and(|key| key.is_text);
        // The text of the entry itself is neither its key nor its value.
        if is_text && around.next_if(|container| container.entry.is_none()).is_none() {
            return false;
        }
        around.next_if(|container| !container.is_object);
        around.next().and_then(|container| container.entry).is_some_and(|entry| !entry.key_seen)
    }

    fn attribute(&self) -> Option<Attribute> {
        self.key.as_ref().and_then(|key| key.attribute)
    }

    fn value_secret(&self) -> bool {
        let parent = self.stack.last();
        match self.attribute() {
            Some(Attribute::System) => return false,
            // What it is the value of is said behind it, if at all.
            Some(Attribute::Value) if parent.is_some_and(|parent| !parent.named) => return true,
            Some(Attribute::Name | Attribute::Value | Attribute::Other) | None => {}
        }
        self.key.as_ref().is_some_and(|key| key.secret)
            || parent.is_some_and(|parent| parent.secret)
            || self.entry_secret()
    }

    /// Whether the next scalar is masked unless it is a document, in which there may be maps.
    fn is_guarded(&self) -> bool {
        let stays = match self.attribute() {
            Some(Attribute::System | Attribute::Name) => true,
            Some(Attribute::Value | Attribute::Other) => false,
            None => self.is_entry_key(),
        };
        self.in_values() && !stays
    }

    fn string(&mut self, unit: Unit<'_>, escaped: bool, output: &mut Vec<u8>) {
        self.held.push(unit);
        if escaped || unit.byte != b'"' {
            self.state = State::String { escaped: escapes(unit, escaped) };
            return;
        }
        self.state = State::Between;
        let held = std::mem::take(&mut self.held);
        let content = 1..held.len() - 1;
        let reading = Text::name_in(&held, content.clone(), Escaping::Json);
        if self.wants_key() {
            self.next = Next::Colon;
            self.key = Some(Key::new(&reading, self.scope));
            output.extend_from_slice(held.raw());
            return;
        }
        self.next = Next::CommaOrEnd;
        output.extend_from_slice(held.raw_of(0..1));
        if self.value_secret() && !is_harmless(&held.text()[content.clone()]) {
            output.extend_from_slice(MASK.as_bytes());
        } else {
            let scope = self.text_scope();
            self.text.reset(scope);
            self.text.pass(&held, content.clone(), Escaping::Json, output);
        }
        output.extend_from_slice(held.raw_of(content.end..held.len()));
        self.note_scalar(&reading);
    }

    fn wants_key(&self) -> bool {
        matches!(self.next, Next::Key | Next::KeyOrEnd)
    }

    fn end_word(&mut self, output: &mut Vec<u8>) -> Result<(), RedactError> {
        if !is_word(self.held.text()) {
            return Err(RedactError::Format);
        }
        (self.state, self.next) = (State::Between, Next::CommaOrEnd);
        let word = std::mem::take(&mut self.held);
        let masked = self.value_secret() || self.is_guarded();
        // The engine turns texts that look like numbers into numbers: a password may be one.
        if masked && !is_harmless(word.text()) && word.text() != b"null" {
            for part in [self.quote.as_slice(), MASK.as_bytes(), self.quote.as_slice()] {
                output.extend_from_slice(part);
            }
        } else {
            output.extend_from_slice(word.raw());
        }
        self.note_scalar(&String::from_utf8_lossy(word.text()));
        Ok(())
    }

    /// What a scalar says of those that follow.
    fn note_scalar(&mut self, text: &str) {
        let is_secret = is_secret_name(text);
        self.has_names |= is_secret;
        match self.attribute() {
            Some(Attribute::Name) => self.note_name(is_secret),
            Some(Attribute::System | Attribute::Value | Attribute::Other) => {}
            None => self.note_entry_key(is_secret),
        }
    }

    fn note_name(&mut self, is_secret: bool) {
        let Some(container) = self.stack.last_mut() else { return };
        container.named = true;
        container.secret |= is_secret;
        // Of an entry it is the key, and what follows is the value.
        if let Some(entry) = &mut container.entry
            && (container.values || is_secret)
        {
            *entry = Entry { key_seen: true, value_secret: true };
        }
    }

    /// The first scalar of an entry that is no attribute is its key.
    fn note_entry_key(&mut self, is_secret: bool) {
        let mut innermost_first = self.stack.iter_mut().rev();
        let nearest = innermost_first.find_map(|container| Some((container.values, container.entry.as_mut()?)));
        if let Some((values, entry)) = nearest
            && !entry.key_seen
        {
            *entry = Entry { key_seen: true, value_secret: values || is_secret };
        }
    }

    /// A text above the limit is no name and no key of a map: it is masked or passes as it comes.
    fn too_long(&mut self, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let State::String { escaped } = self.state else { return Err(RedactError::Depth) };
        if self.wants_key() {
            return Err(RedactError::Depth);
        }
        self.next = Next::CommaOrEnd;
        let held = std::mem::take(&mut self.held);
        output.extend_from_slice(held.raw_of(0..1));
        if self.value_secret() {
            output.extend_from_slice(MASK.as_bytes());
            self.state = State::Masked { escaped };
        } else {
            let scope = self.text_scope();
            self.text.reset(scope);
            for unit in held.units(1..held.len()) {
                self.text.push(unit, Escaping::Json, output);
            }
            self.state = State::Passing { escaped };
        }
        if self.attribute().is_none() {
            self.note_entry_key(false);
        }
        Ok(())
    }

    fn text_scope(&self) -> Scope {
        self.scope.with_values(self.in_values()).guarded(self.is_guarded())
    }
}

/// Whether a unit of a string escapes the next one.
fn escapes(unit: Unit<'_>, escaped: bool) -> bool {
    !escaped && unit.byte == b'\\'
}

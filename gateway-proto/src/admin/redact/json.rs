//! JSON as the engine writes it: XStream's elements as keys, a map as `entry` objects with the key first, attributes as
//! keys that begin with `@`.

use super::{
    MASK, MAX_DEPTH, RedactError, Redaction,
    escape::Escaping,
    held::{Held, Unit},
    is_harmless, is_secret_name,
    names::{NAMING_ATTRIBUTES, SYSTEM_ATTRIBUTES, holds_headers},
    text::{Scope, Text},
};

#[derive(Debug)]
pub(super) struct JsonRedactor {
    scope: Scope,
    stack: Vec<Container>,
    /// The name the next value stands under, with what it means.
    key: Option<Key>,
    state: State,
    /// The string or bare word being read.
    held: Held,
    /// The text that passes.
    text: Text,
    /// How a quotation mark is written here.
    quote: Vec<u8>,
}

#[derive(Debug)]
struct Container {
    is_object: bool,
    /// An object waits for a key, not for a value.
    wants_key: bool,
    secret: bool,
    /// The values of all maps in it are masked, and their keys stay.
    values: bool,
    /// An attribute has named what it holds.
    named: bool,
    /// Its elements are `entry` objects.
    of_entries: bool,
    /// Of an entry: its first scalar was seen, here or below.
    entry: Option<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key_seen: bool,
    value_secret: bool,
}

#[derive(Debug)]
struct Key {
    secret: bool,
    is_entry: bool,
    /// It stands over a map of headers.
    is_headers: bool,
    attribute: Option<Attribute>,
}

/// An attribute of the XML that this JSON was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    /// Says how to read the value, and nothing can read it without.
    System,
    /// The name of the value, as in `<property name="…">`.
    Name,
    /// The value itself, as in `<property name="…" value="…"/>`.
    Value,
    Other,
}

impl Key {
    fn new(name: &str) -> Self {
        let is_headers = holds_headers(name);
        let attribute = name.strip_prefix('@').map(|attribute| match attribute {
            attribute if SYSTEM_ATTRIBUTES.contains(&attribute) => Attribute::System,
            attribute if NAMING_ATTRIBUTES.contains(&attribute) => Attribute::Name,
            "value" => Attribute::Value,
            _ => Attribute::Other,
        });
        Self { secret: is_headers || is_secret_name(name), is_entry: name == "entry", is_headers, attribute }
    }
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
        let (held, text, quote) = (Held::default(), Text::new(scope), b"\"".to_vec());
        Self { scope, stack: Vec::new(), key: None, state: State::Between, held, text, quote }
    }

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
            State::Word if unit.byte.is_ascii_alphanumeric() || b"+-.".contains(&unit.byte) => self.held.push(unit),
            State::Word => {
                self.end_word(output);
                self.between(unit, output)?;
            }
        }
        if self.held.is_full() { self.too_long(output) } else { Ok(()) }
    }

    pub(super) fn finish(mut self, output: &mut Vec<u8>) {
        match self.state {
            State::Word => self.end_word(output),
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
        match unit.byte {
            byte @ (b'{' | b'[') => {
                if self.stack.len() == MAX_DEPTH {
                    return Err(RedactError::Depth);
                }
                let container = self.open(byte == b'{');
                self.stack.push(container);
            }
            b'}' | b']' => {
                self.stack.pop();
                self.key = None;
            }
            b',' => {
                self.key = None;
                if let Some(container) = self.stack.last_mut() {
                    container.wants_key = container.is_object;
                }
            }
            b'"' => {
                self.quote.clear();
                self.quote.extend_from_slice(unit.raw);
                self.held.push(unit);
                self.state = State::String { escaped: false };
                return Ok(());
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
                self.held.push(unit);
                self.state = State::Word;
                return Ok(());
            }
            _ => {}
        }
        output.extend_from_slice(unit.raw);
        Ok(())
    }

    fn open(&mut self, is_object: bool) -> Container {
        let key = self.key.take();
        let parent = self.stack.last();
        let is_entry = key.as_ref().map_or(parent.is_some_and(|p| p.of_entries), |key| key.is_entry);
        let is_headers = key.as_ref().is_some_and(|key| key.is_headers);
        let values = self.scope.redaction == Redaction::Values || is_headers || parent.is_some_and(|p| p.values);
        // The keys of a map inside a masked value stay, where only values are asked to be masked.
        let fresh = is_entry && values;
        let secret = key.is_some_and(|key| key.secret) || parent.is_some_and(|p| p.secret) || self.entry_secret();
        let entry = (is_entry && is_object).then_some(Entry { key_seen: false, value_secret: false });
        Container {
            is_object,
            wants_key: is_object,
            secret: secret && !fresh,
            values,
            named: false,
            of_entries: is_entry && !is_object,
            entry,
        }
    }

    /// Whether the nearest entry says that what follows its key is masked.
    fn entry_secret(&self) -> bool {
        self.stack
            .iter()
            .rev()
            .find_map(|container| container.entry)
            .is_some_and(|entry| entry.key_seen && entry.value_secret)
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
        if let Some(container) = self.stack.last_mut().filter(|container| container.wants_key) {
            container.wants_key = false;
            self.key = Some(Key::new(&reading));
            output.extend_from_slice(held.raw());
            return;
        }
        output.extend_from_slice(held.raw_of(0..1));
        if self.value_secret() && !is_harmless(&held.text()[content.clone()]) {
            output.extend_from_slice(MASK.as_bytes());
        } else {
            let scope = self.text_scope();
            self.text.reset(scope);
            self.text.pass(&held, content.clone(), Escaping::Json, output);
        }
        output.extend_from_slice(held.raw_of(content.end..held.len()));
        if self.attribute() == Some(Attribute::Name)
            && let Some(container) = self.stack.last_mut()
        {
            container.named = true;
            container.secret |= is_secret_name(&reading);
        }
        self.note_scalar(&reading);
    }

    fn end_word(&mut self, output: &mut Vec<u8>) {
        self.state = State::Between;
        let word = std::mem::take(&mut self.held);
        // The engine turns texts that look like numbers into numbers: a password may be one.
        if self.value_secret() && !is_harmless(word.text()) && word.text() != b"null" {
            for part in [self.quote.as_slice(), MASK.as_bytes(), self.quote.as_slice()] {
                output.extend_from_slice(part);
            }
        } else {
            output.extend_from_slice(word.raw());
        }
        self.note_scalar(&String::from_utf8_lossy(word.text()));
    }

    /// The first scalar of an entry that is no attribute is its key.
    fn note_scalar(&mut self, text: &str) {
        if self.attribute().is_some() {
            return;
        }
        let mut innermost_first = self.stack.iter_mut().rev();
        let nearest = innermost_first.find_map(|container| Some((container.values, container.entry.as_mut()?)));
        if let Some((values, entry)) = nearest
            && !entry.key_seen
        {
            *entry = Entry { key_seen: true, value_secret: values || is_secret_name(text) };
        }
    }

    /// A text above the limit is no name and no key of a map: it is masked or passes as it comes.
    fn too_long(&mut self, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let State::String { escaped } = self.state else { return Err(RedactError::Depth) };
        if self.stack.last().is_some_and(|container| container.wants_key) {
            return Err(RedactError::Depth);
        }
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
        self.note_scalar("");
        Ok(())
    }

    fn text_scope(&self) -> Scope {
        self.scope.with_values(self.stack.last().is_some_and(|container| container.values))
    }
}

/// Whether a unit of a string escapes the next one.
fn escapes(unit: Unit<'_>, escaped: bool) -> bool {
    !escaped && unit.byte == b'\\'
}

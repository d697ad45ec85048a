//! JSON as the engine writes it: XStream's elements as keys, a map as `entry` objects with the key first, attributes as
//! keys that begin with `@`.

use super::{MASK, MAX_DEPTH, MAX_HELD, RedactError, Redaction, is_harmless, is_secret_name, names::holds_headers};

#[derive(Debug)]
pub(super) struct JsonRedactor {
    redaction: Redaction,
    stack: Vec<Container>,
    /// The name the next value stands under, with what it means.
    key: Option<Key>,
    state: State,
    /// The string or bare word being read.
    held: Vec<u8>,
}

#[derive(Debug)]
struct Container {
    is_object: bool,
    /// An object waits for a key, not for a value.
    wants_key: bool,
    secret: bool,
    /// The values of all maps in it are masked, and their keys stay.
    values: bool,
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
    /// The class of the value: says nothing, and nothing can read the value without it.
    Class,
    /// The name of the value, as in `<property name="…">`.
    Name,
    Other,
}

impl Key {
    fn new(name: &str) -> Self {
        let is_headers = holds_headers(name);
        let attribute = name.strip_prefix('@').map(|attribute| match attribute {
            "class" => Attribute::Class,
            "name" | "key" | "id" => Attribute::Name,
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
    pub(super) fn new(redaction: Redaction) -> Self {
        Self { redaction, stack: Vec::new(), key: None, state: State::Between, held: Vec::new() }
    }

    pub(super) fn update(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), RedactError> {
        for byte in input {
            match self.state {
                State::Between => self.between(*byte, output)?,
                State::String { escaped } => self.string(*byte, escaped, output),
                State::Masked { escaped } => match (escaped, *byte) {
                    (false, b'"') => self.state = State::Between,
                    (escaped, byte) => self.state = State::Masked { escaped: !escaped && byte == b'\\' },
                },
                State::Passing { escaped } => {
                    output.push(*byte);
                    self.state = match (escaped, *byte) {
                        (false, b'"') => State::Between,
                        (escaped, byte) => State::Passing { escaped: !escaped && byte == b'\\' },
                    };
                }
                State::Word if byte.is_ascii_alphanumeric() || b"+-.".contains(byte) => self.held.push(*byte),
                State::Word => {
                    self.end_word(output);
                    self.between(*byte, output)?;
                }
            }
            if self.held.len() > MAX_HELD {
                self.too_long(output)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, output: &mut Vec<u8>) {
        if self.state == State::Word {
            self.end_word(output);
        }
    }

    fn between(&mut self, byte: u8, output: &mut Vec<u8>) -> Result<(), RedactError> {
        match byte {
            b'{' | b'[' => {
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
                self.held.push(byte);
                self.state = State::String { escaped: false };
                return Ok(());
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
                self.held.push(byte);
                self.state = State::Word;
                return Ok(());
            }
            _ => {}
        }
        output.push(byte);
        Ok(())
    }

    fn open(&mut self, is_object: bool) -> Container {
        let key = self.key.take();
        let parent = self.stack.last();
        let is_entry = key.as_ref().map_or(parent.is_some_and(|p| p.of_entries), |key| key.is_entry);
        let is_headers = key.as_ref().is_some_and(|key| key.is_headers);
        let values = self.redaction == Redaction::Values || is_headers || parent.is_some_and(|p| p.values);
        // The keys of a map inside a masked value stay, where only values are asked to be masked.
        let fresh = is_entry && values;
        let secret = key.is_some_and(|key| key.secret) || parent.is_some_and(|p| p.secret) || self.entry_secret();
        let entry = (is_entry && is_object).then_some(Entry { key_seen: false, value_secret: false });
        Container {
            is_object,
            wants_key: is_object,
            secret: secret && !fresh,
            values,
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
        if self.attribute() == Some(Attribute::Class) {
            return false;
        }
        self.key.as_ref().is_some_and(|key| key.secret)
            || self.stack.last().is_some_and(|c| c.secret)
            || self.entry_secret()
    }

    fn string(&mut self, byte: u8, escaped: bool, output: &mut Vec<u8>) {
        self.held.push(byte);
        if escaped || byte != b'"' {
            self.state = State::String { escaped: !escaped && byte == b'\\' };
            return;
        }
        self.state = State::Between;
        let text = std::mem::take(&mut self.held);
        let inner = &text[1..text.len() - 1];
        if self.stack.last().is_some_and(|container| container.wants_key) {
            self.key = Some(Key::new(&String::from_utf8_lossy(inner)));
            if let Some(container) = self.stack.last_mut() {
                container.wants_key = false;
            }
            output.extend_from_slice(&text);
            return;
        }
        if self.value_secret() && !is_harmless(inner) {
            output.extend_from_slice(format!("\"{MASK}\"").as_bytes());
        } else {
            output.extend_from_slice(&text);
        }
        let inner = String::from_utf8_lossy(inner);
        if self.attribute() == Some(Attribute::Name)
            && is_secret_name(&inner)
            && let Some(container) = self.stack.last_mut()
        {
            container.secret = true;
        }
        self.note_scalar(&inner);
    }

    fn end_word(&mut self, output: &mut Vec<u8>) {
        self.state = State::Between;
        let word = std::mem::take(&mut self.held);
        // The engine turns texts that look like numbers into numbers: a password may be one.
        if self.value_secret() && !is_harmless(&word) && word != b"null" {
            output.extend_from_slice(format!("\"{MASK}\"").as_bytes());
        } else {
            output.extend_from_slice(&word);
        }
        self.note_scalar(&String::from_utf8_lossy(&word));
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
        if self.value_secret() {
            output.extend_from_slice(format!("\"{MASK}\"").as_bytes());
            self.state = State::Masked { escaped };
        } else {
            output.extend_from_slice(&self.held);
            self.state = State::Passing { escaped };
        }
        self.held.clear();
        self.note_scalar("");
        Ok(())
    }
}

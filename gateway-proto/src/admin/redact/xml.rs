//! XML as XStream writes it: elements named after fields, maps as `<entry>` with the key first.

mod tag;

use tag::{Tag, begins_markup};

use super::{
    MASK, MAX_DEPTH, RedactError, Redaction,
    escape::Escaping,
    held::{Held, Unit},
    is_harmless, is_secret_name,
    names::holds_headers,
    text::{Scope, Text},
};

/// A text under a secret name is held this far, to tell `true`, `false` and blanks from secrets.
const MAX_DECIDING: usize = 16;

#[derive(Debug)]
pub(super) struct XmlRedactor {
    scope: Scope,
    stack: Vec<Element>,
    state: State,
    /// The markup being read, from `<` on; the brackets that may end a CDATA section; a secret text that is not decided yet.
    held: Held,
    /// The text since the last tag, where it stands under no secret name.
    text: Text,
}

#[derive(Debug)]
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text { masked: bool },
    Markup { quote: Option<u8> },
    CData { masked: bool },
}

impl XmlRedactor {
    pub(super) fn new(scope: Scope) -> Self {
        let state = State::Text { masked: false };
        Self { scope, stack: Vec::new(), state, held: Held::default(), text: Text::new(scope) }
    }

    pub(super) fn push(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) -> Result<(), RedactError> {
        match self.state {
            State::Text { masked } if unit.byte == b'<' => {
                self.end_text(masked, output);
                self.held.push(unit);
                self.state = State::Markup { quote: None };
            }
            State::Text { masked } => self.text(unit, masked, output),
            State::Markup { quote } => self.markup(unit, quote, output)?,
            State::CData { .. } => self.cdata(unit, output),
        }
        Ok(())
    }

    pub(super) fn finish(mut self, output: &mut Vec<u8>) {
        match self.state {
            State::Text { masked } => self.end_text(masked, output),
            State::CData { .. } => {
                let brackets = std::mem::take(&mut self.held);
                for unit in brackets.units(0..brackets.len()) {
                    self.cdata_text(unit, output);
                }
            }
            State::Markup { .. } => {}
        }
        self.text.end(output);
        if matches!(self.state, State::Markup { .. }) {
            // A tag that does not end may hold a value or another tag; a text such as `<` holds neither.
            let hides = self.held.text().iter().skip(1).any(|byte| b"<=".contains(byte));
            output.extend_from_slice(if hides || self.is_secret() { MASK.as_bytes() } else { self.held.raw() });
        }
    }

    fn is_secret(&self) -> bool {
        self.stack.last().is_some_and(|element| element.secret)
    }

    fn text(&mut self, unit: Unit<'_>, masked: bool, output: &mut Vec<u8>) {
        if !self.is_secret() {
            self.text.push(unit, Escaping::Xml, output);
            return;
        }
        if masked {
            return;
        }
        self.held.push(unit);
        let decided = self.held.len() > MAX_DECIDING && !self.held.text().trim_ascii().is_empty();
        if decided || self.held.is_full() {
            self.held.clear();
            output.extend_from_slice(MASK.as_bytes());
            self.state = State::Text { masked: true };
        }
    }

    fn end_text(&mut self, masked: bool, output: &mut Vec<u8>) {
        self.text.settle(output);
        if !masked && !self.held.is_empty() {
            let harmless = is_harmless(self.held.text());
            output.extend_from_slice(if harmless { self.held.raw() } else { MASK.as_bytes() });
        }
        self.held.clear();
    }

    fn markup(&mut self, unit: Unit<'_>, quote: Option<u8>, output: &mut Vec<u8>) -> Result<(), RedactError> {
        if self.held.len() == 1 && !begins_markup(unit.byte) {
            return self.no_markup(unit, output);
        }
        self.held.push(unit);
        if self.held.is_full() {
            return Err(RedactError::Depth);
        }
        let text = self.held.text();
        if text == b"<![CDATA[" {
            // Its markers are dropped where its text is masked: asterisks need none.
            self.pass_markup(output);
            self.state = State::CData { masked: false };
            return Ok(());
        }
        if text.starts_with(b"<!--") {
            if text.len() >= 7 && text.ends_with(b"-->") {
                self.pass_markup(output);
            } else {
                self.state = State::Markup { quote: None };
            }
            return Ok(());
        }
        match (quote, unit.byte) {
            (None, b'"' | b'\'') => self.state = State::Markup { quote: Some(unit.byte) },
            (Some(open), _) if open == unit.byte => self.state = State::Markup { quote: None },
            (None, b'>') => return self.tag(output),
            (None | Some(_), _) => {}
        }
        Ok(())
    }

    /// `<` stands for itself, which it does only in a text that is no XML after all.
    fn no_markup(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let bracket = std::mem::take(&mut self.held);
        self.state = State::Text { masked: false };
        self.text.take_as_plain();
        for held in bracket.units(0..bracket.len()) {
            self.text(held, false, output);
        }
        self.push(unit, output)
    }

    fn pass_markup(&mut self, output: &mut Vec<u8>) {
        if !self.is_secret() {
            output.extend_from_slice(self.held.raw());
        }
        self.held.clear();
        self.state = State::Text { masked: false };
    }

    fn tag(&mut self, output: &mut Vec<u8>) -> Result<(), RedactError> {
        if matches!(self.held.text().get(1), Some(b'?' | b'!')) {
            self.pass_markup(output);
            return Ok(());
        }
        let tag = std::mem::take(&mut self.held);
        self.state = State::Text { masked: false };
        self.text.end(output);
        if tag.text().get(1) == Some(&b'/') {
            output.extend_from_slice(tag.raw());
            self.close();
            return Ok(());
        }
        let element = self.open(&tag, output);
        if self.stack.len() == MAX_DEPTH {
            return Err(RedactError::Depth);
        }
        self.stack.push(element);
        let scope = self.text_scope();
        self.text.reset(scope);
        if tag.text().ends_with(b"/>") {
            self.close();
        }
        Ok(())
    }

    fn open(&self, held: &Held, output: &mut Vec<u8>) -> Element {
        let tag = Tag::read(held);
        let (parent, name) = (self.stack.last(), tag.name());
        let is_entry = name == "entry";
        let is_headers = holds_headers(&name);
        let in_values = parent.is_some_and(|parent| parent.values);
        let values = self.scope.redaction == Redaction::Values || is_headers || in_values;
        let of_parent =
            parent.is_some_and(|parent| parent.secret || (parent.is_entry && parent.key_seen && parent.value_secret));
        let secret = of_parent || is_headers || is_secret_name(&name) || tag.names_a_secret();
        // The keys of a map inside a masked value stay, where only values are asked to be masked.
        let fresh = is_entry && values;
        let element = Element { secret: secret && !fresh, values, is_entry, key_seen: false, value_secret: false };
        tag.pass(element.secret, self.scope.with_values(values), output);
        element
    }

    fn close(&mut self) {
        if self.stack.pop().is_some()
            && let Some(parent) = self.stack.last_mut()
            && parent.is_entry
            && !parent.key_seen
        {
            parent.key_seen = true;
            parent.value_secret = parent.values || is_secret_name(&self.text.noted());
        }
        let scope = self.text_scope();
        self.text.reset(scope);
    }

    fn text_scope(&self) -> Scope {
        self.scope.with_values(self.stack.last().is_some_and(|element| element.values))
    }

    fn cdata(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) {
        if unit.byte == b'>' && self.held.len() == 2 {
            self.held.push(unit);
            self.pass_markup(output);
            return;
        }
        if unit.byte == b']' && self.held.len() < 2 {
            self.held.push(unit);
            return;
        }
        let brackets = std::mem::take(&mut self.held);
        if unit.byte != b']' {
            for bracket in brackets.units(0..brackets.len()) {
                self.cdata_text(bracket, output);
            }
            self.cdata_text(unit, output);
            return;
        }
        // Of three brackets the last two may belong to the end.
        for bracket in brackets.units(0..1) {
            self.cdata_text(bracket, output);
        }
        for bracket in brackets.units(1..brackets.len()) {
            self.held.push(bracket);
        }
        self.held.push(unit);
    }

    fn cdata_text(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) {
        if !self.is_secret() {
            self.text.push(unit, Escaping::None, output);
        } else if self.state == (State::CData { masked: false }) {
            output.extend_from_slice(MASK.as_bytes());
            self.state = State::CData { masked: true };
        }
    }
}

//! XML as XStream writes it: elements named after fields, maps as `<entry>` with the key first.

mod element;
mod tag;

use element::Element;
use tag::{Tag, begins_doctype, begins_markup, closes_quotes, holds_markup};

use super::{
    MASK, MAX_DECIDING, MAX_DEPTH, RedactError, Redaction,
    escape::Escaping,
    held::{Held, Unit},
    is_harmless,
    text::{Scope, Text},
};

const COMMENT: &[u8] = b"<!--";
const CDATA: &[u8] = b"<![CDATA[";

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text { masked: bool },
    Markup { quote: Option<u8> },
    CData { masked: bool },
}

impl XmlRedactor {
    pub(super) fn new(scope: Scope) -> Self {
        let (state, guarded) = (State::Text { masked: false }, scope.redaction == Redaction::Values);
        Self { scope, stack: Vec::new(), state, held: Held::default(), text: Text::new(scope.guarded(guarded)) }
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
            let hides = self.held.text().iter().skip(1).any(|byte| b"<=\"'{[:".contains(byte));
            output.extend_from_slice(if hides || self.is_masked() { MASK.as_bytes() } else { self.held.raw() });
        }
    }

    fn is_secret(&self) -> bool {
        self.stack.last().is_some_and(|element| element.secret)
    }

    /// Whether a text here is masked, unless it is a document where it is only a value.
    fn is_masked(&self) -> bool {
        self.is_secret() || self.is_guarded()
    }

    fn is_guarded(&self) -> bool {
        self.stack.last().map_or(self.scope.redaction == Redaction::Values, Element::is_guarded)
    }

    fn text_scope(&self) -> Scope {
        let in_values = self.stack.last().is_some_and(|element| element.values);
        self.scope.with_values(in_values).guarded(self.is_guarded())
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
        match self.held.text() {
            [_, b'!', ..] => return self.declaration(unit.byte, output),
            [_, b'?', ..] => return self.instruction(unit.byte, output),
            _ => {}
        }
        match (quote, unit.byte) {
            // In no tag: what was taken for one is none, or its quotation marks are not what they seem to be.
            (_, b'<') => return Err(RedactError::Format),
            (None, b'"' | b'\'') if self.follows_equals() => self.state = State::Markup { quote: Some(unit.byte) },
            (None, b'"' | b'\'') => return Err(RedactError::Format),
            (Some(open), _) if open == unit.byte => self.state = State::Markup { quote: None },
            (None, b'>') => return self.tag(output),
            (None | Some(_), _) => {}
        }
        Ok(())
    }

    /// Whether the byte read last stands behind an equals sign.
    fn follows_equals(&self) -> bool {
        let text = self.held.text().split_last().map_or(&[][..], |(_, before)| before);
        text.trim_ascii_end().ends_with(b"=")
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

    /// A comment, the beginning of a section, or a document type.
    fn declaration(&mut self, byte: u8, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let text = self.held.text();
        if text == CDATA {
            // Its markers are dropped where its text is masked: asterisks need none.
            self.pass_markup(output);
            self.state = State::CData { masked: false };
            return Ok(());
        }
        if text.starts_with(COMMENT) {
            if text.len() >= 7 && text.ends_with(b"-->") {
                self.comment(output);
            }
            return Ok(());
        }
        if COMMENT.starts_with(text) || CDATA.starts_with(text) {
            return Ok(());
        }
        // One with declarations of its own could put any text in any place, and where it ends is read in two ways.
        if !begins_doctype(text) || b"<[{=".contains(&byte) || (byte == b'>' && !closes_quotes(text)) {
            return Err(RedactError::Format);
        }
        if byte == b'>' {
            self.pass_markup(output);
        }
        Ok(())
    }

    /// Something for people, or a part of the document that was taken out of it, with what is secret in there.
    fn comment(&mut self, output: &mut Vec<u8>) {
        let comment = std::mem::take(&mut self.held);
        self.state = State::Text { masked: false };
        if self.is_masked() {
            return;
        }
        let inside = COMMENT.len()..comment.len() - 3;
        output.extend_from_slice(comment.raw_of(0..inside.start));
        if holds_markup(&comment.text()[inside.clone()]) {
            output.extend_from_slice(MASK.as_bytes());
        } else {
            Text::new(self.text_scope()).pass(&comment, inside.clone(), Escaping::None, output);
        }
        output.extend_from_slice(comment.raw_of(inside.end..comment.len()));
    }

    /// XML ends it at `?>` and HTML at the first `>`: one for which that is not the same is none.
    fn instruction(&mut self, byte: u8, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let ends = byte == b'>' && self.held.len() > 3 && self.held.text().ends_with(b"?>");
        if byte == b'<' || (byte == b'>' && !ends) {
            return Err(RedactError::Format);
        }
        if !ends {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.state = State::Text { masked: false };
        if self.is_masked() {
            return Ok(());
        }
        let tag = Tag::read(&held)?;
        if tag.has_words() {
            // For a program, and read in its own way.
            return Err(RedactError::Format);
        }
        tag.pass(tag.names_a_secret(), false, self.text_scope(), output);
        Ok(())
    }

    fn pass_markup(&mut self, output: &mut Vec<u8>) {
        if !self.is_secret() {
            output.extend_from_slice(self.held.raw());
        }
        self.held.clear();
        self.state = State::Text { masked: false };
    }

    fn tag(&mut self, output: &mut Vec<u8>) -> Result<(), RedactError> {
        let held = std::mem::take(&mut self.held);
        self.state = State::Text { masked: false };
        self.text.end(output);
        if let [_, b'/', name @ .., _] = held.text() {
            self.close(name.trim_ascii_end())?;
            output.extend_from_slice(held.raw());
            return Ok(());
        }
        let tag = Tag::read(&held)?;
        if self.stack.len() == MAX_DEPTH {
            return Err(RedactError::Depth);
        }
        let element = Element::open(&tag, self.stack.last(), self.scope)?;
        tag.pass(element.secret, element.values, self.scope.with_values(element.values), output);
        self.stack.push(element);
        self.begin_text();
        if tag.is_empty() {
            self.closed();
        }
        Ok(())
    }

    fn close(&mut self, name: &[u8]) -> Result<(), RedactError> {
        if self.stack.last().is_some_and(|element| element.name == name) {
            self.closed();
            return Ok(());
        }
        // HTML leaves elements open, and closes what is not open: good enough where nothing is masked for the place it is in.
        let is_name = !name.iter().any(|byte| byte.is_ascii_whitespace() || b"=\"'".contains(byte));
        if !is_name || self.scope.redaction == Redaction::Values || self.stack.iter().any(Element::decides) {
            return Err(RedactError::Format);
        }
        if let Some(at) = self.stack.iter().rposition(|element| element.name == name) {
            self.stack.truncate(at);
        }
        self.begin_text();
        Ok(())
    }

    fn closed(&mut self) {
        if self.stack.pop().is_some()
            && let Some(parent) = self.stack.last_mut()
        {
            parent.child_ended(&self.text.noted());
        }
        self.begin_text();
    }

    fn begin_text(&mut self) {
        let scope = self.text_scope();
        self.text.reset(scope);
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

//! A text of an answer, looked into: plug-ins and connectors keep whole objects in one text, as XML or JSON, and what is
//! secret in there stands under a name too.
//!
//! The first character says whether a text is such a document: `<`, `{`, `[`, or one of these behind a quotation mark or
//! another escape. A document is masked like an answer, at any depth down to [`MAX_LEVEL`]; what cannot be followed any further
//! is masked from there on. Every other text passes as it is: a script with markup in its middle stays a script.

use std::{borrow::Cow, ops::Range};

use super::{
    MASK, Redaction,
    escape::{Escaping, Reading},
    held::{Held, Unit},
    json::JsonRedactor,
    xml::XmlRedactor,
};

/// Documents inside of documents at most; a deeper one is masked as a whole.
const MAX_LEVEL: u8 = 4;
/// What is kept of the beginning of a text, to know it for a name, in bytes.
const MAX_NOTED: usize = 256;

/// What is masked in a document, and how deep it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    pub(super) redaction: Redaction,
    level: u8,
}

impl Scope {
    /// Of an answer.
    pub(super) fn new(redaction: Redaction) -> Self {
        Self { redaction, level: 0 }
    }

    /// The same, with the values of maps masked in addition if `values` says so.
    pub(super) fn with_values(self, values: bool) -> Self {
        Self { redaction: if values { Redaction::Values } else { self.redaction }, ..self }
    }

    /// Of a document in a text of this one.
    fn inside(self) -> Self {
        Self { level: self.level + 1, ..self }
    }
}

#[derive(Debug)]
pub(super) struct Text {
    scope: Scope,
    kind: Kind,
    /// An escape that is not complete.
    escape: Held,
    /// How it begins, as it reads.
    noted: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    /// Nothing but blanks so far.
    Blank,
    /// No document.
    Plain,
    Xml(Box<XmlRedactor>),
    Json(Box<JsonRedactor>),
    /// What it reads as is escaped once more.
    Escaped(Box<Text>, Escaping),
    /// What comes now is not judged any more.
    Masked,
}

impl Kind {
    /// By the first byte that is no blank.
    fn begun_by(first: u8, scope: Scope) -> Self {
        match first {
            b'<' | b'{' | b'[' | b'&' | b'"' if scope.level == MAX_LEVEL => Self::Masked,
            b'<' => Self::Xml(Box::new(XmlRedactor::new(scope.inside()))),
            b'{' | b'[' => Self::Json(Box::new(JsonRedactor::new(scope.inside()))),
            b'&' => Self::Escaped(Box::new(Text::new(scope.inside())), Escaping::Xml),
            b'"' => Self::Escaped(Box::new(Text::new(scope.inside())), Escaping::Json),
            _ => Self::Plain,
        }
    }
}

impl Text {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, kind: Kind::Blank, escape: Held::default(), noted: Vec::new() }
    }

    /// The name that some held units are.
    pub(super) fn name_in(held: &Held, units: Range<usize>, escaping: Escaping) -> String {
        let (mut text, mut unseen) = (Self::new(Scope::new(Redaction::Passwords)), Vec::new());
        text.take_as_plain();
        for unit in held.units(units) {
            if text.noted.len() == MAX_NOTED {
                break;
            }
            text.push(unit, escaping, &mut unseen);
        }
        text.settle(&mut unseen);
        text.noted().into_owned()
    }

    /// A held text as a whole.
    pub(super) fn pass(&mut self, held: &Held, units: Range<usize>, escaping: Escaping, output: &mut Vec<u8>) {
        for unit in held.units(units) {
            self.push(unit, escaping, output);
        }
        self.end(output);
    }

    /// Takes the next unit and appends what may pass.
    pub(super) fn push(&mut self, unit: Unit<'_>, escaping: Escaping, output: &mut Vec<u8>) {
        if self.escape.is_empty() && !escaping.begins(unit.byte) {
            self.look(unit, output);
            return;
        }
        self.escape.push(unit);
        match escaping.read(self.escape.text()) {
            Reading::Open => {}
            Reading::Stands(byte) => {
                let mut escape = std::mem::take(&mut self.escape);
                self.look(Unit { byte, raw: escape.raw() }, output);
                escape.clear();
                self.escape = escape;
            }
            Reading::NoEscape => {
                let begins_anew = self.escape.len() > 1 && escaping.begins(unit.byte);
                let whole = std::mem::take(&mut self.escape);
                self.look_at_no_escape(&whole, whole.len() - usize::from(begins_anew), output);
                if begins_anew {
                    self.escape.push(unit);
                }
            }
        }
    }

    /// What began like an escape is none, as its text or its section is over.
    pub(super) fn settle(&mut self, output: &mut Vec<u8>) {
        if !self.escape.is_empty() {
            let whole = std::mem::take(&mut self.escape);
            self.look_at_no_escape(&whole, whole.len(), output);
        }
    }

    /// It is no document, whatever it begins with.
    pub(super) fn take_as_plain(&mut self) {
        if matches!(self.kind, Kind::Blank) {
            self.kind = Kind::Plain;
        }
    }

    /// It is complete: appends what was held back, if it may pass. How it began stays known until [`Self::reset`].
    pub(super) fn end(&mut self, output: &mut Vec<u8>) {
        self.settle(output);
        match std::mem::replace(&mut self.kind, Kind::Blank) {
            Kind::Xml(xml) => xml.finish(output),
            Kind::Json(json) => json.finish(output),
            Kind::Escaped(mut text, _) => text.end(output),
            Kind::Blank | Kind::Plain | Kind::Masked => {}
        }
    }

    /// Another text begins.
    pub(super) fn reset(&mut self, scope: Scope) {
        self.scope = scope;
        self.kind = Kind::Blank;
        self.escape.clear();
        self.noted.clear();
    }

    /// How it begins, as it reads: enough to know a name.
    pub(super) fn noted(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.noted)
    }

    fn look_at_no_escape(&mut self, held: &Held, until: usize, output: &mut Vec<u8>) {
        // A document does not begin so, and the next level would only wait for the same escape.
        self.take_as_plain();
        for unit in held.units(0..until) {
            self.look(unit, output);
        }
    }

    fn look(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) {
        if self.noted.len() < MAX_NOTED {
            self.noted.push(unit.byte);
        }
        if matches!(self.kind, Kind::Blank) && unit.byte.is_ascii_graphic() {
            self.kind = Kind::begun_by(unit.byte, self.scope);
            match &self.kind {
                Kind::Masked => output.extend_from_slice(MASK.as_bytes()),
                Kind::Escaped(_, Escaping::Json) => {
                    // The quotation mark is around what is looked into.
                    output.extend_from_slice(unit.raw);
                    return;
                }
                Kind::Blank | Kind::Plain | Kind::Xml(_) | Kind::Json(_) | Kind::Escaped(..) => {}
            }
        }
        let followed = match &mut self.kind {
            Kind::Xml(xml) => xml.push(unit, output),
            Kind::Json(json) => json.push(unit, output),
            Kind::Escaped(text, escaping) => {
                text.push(unit, *escaping, output);
                Ok(())
            }
            Kind::Blank | Kind::Plain => {
                output.extend_from_slice(unit.raw);
                Ok(())
            }
            Kind::Masked => Ok(()),
        };
        if followed.is_err() {
            output.extend_from_slice(MASK.as_bytes());
            self.kind = Kind::Masked;
        }
    }
}

//! A text of an answer, looked into: plug-ins and connectors keep whole objects in one text, as XML or JSON, and what is
//! secret in there stands under a name too.
//!
//! The first character says whether a text is such a document: `<`, `{`, `[`, or one of these behind a quotation mark or
//! another escape. A document is masked like an answer, at any depth down to [`MAX_LEVEL`]; what cannot be followed any further
//! is masked from there on. Every other text passes as it is: a script with markup in its middle stays a script. What begins with
//! a bracket and turns out to be no JSON passes up to the first word that names a secret.

use std::{borrow::Cow, ops::Range};

use super::{
    MASK, MAX_DECIDING, RedactError, Redaction,
    escape::{Escaping, Reading},
    held::{Held, Unit},
    is_harmless, is_secret_name,
    json::JsonRedactor,
    names::holds_headers,
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
    /// A text that is no document is masked.
    guarded: bool,
}

impl Scope {
    /// Of an answer.
    pub(super) fn new(redaction: Redaction) -> Self {
        Self { redaction, level: 0, guarded: false }
    }

    /// The same, with the values of maps masked in addition if `values` says so.
    pub(super) fn with_values(self, values: bool) -> Self {
        Self { redaction: if values { Redaction::Values } else { self.redaction }, ..self }
    }

    /// The same, where only documents are looked into and every other text is masked, if `guarded` says so.
    pub(super) fn guarded(self, guarded: bool) -> Self {
        Self { guarded, ..self }
    }

    /// Whether what stands under this name is masked but for the keys of its maps.
    pub(super) fn holds_values(self, name: &str) -> bool {
        holds_headers(name) || (self.redaction == Redaction::Events && name == "attributes")
    }

    /// Of a document in a text of this one: it says itself which of its texts are guarded.
    fn document(self) -> Self {
        Self { guarded: false, ..self.inside() }
    }

    /// Of a text that this one reads as.
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
    /// No document, and masked unless it says nothing: what came so far.
    Guarded(Held),
    /// It began like JSON and is none: the word that it is in.
    Loose(Vec<u8>),
    /// What comes now is not judged any more.
    Masked,
}

impl Kind {
    /// By the first byte that is no blank.
    fn begun_by(first: u8, scope: Scope) -> Self {
        match first {
            b'<' | b'{' | b'[' | b'&' | b'"' if scope.level == MAX_LEVEL => Self::Masked,
            b'<' => Self::Xml(Box::new(XmlRedactor::new(scope.document()))),
            b'{' | b'[' => Self::Json(Box::new(JsonRedactor::new(scope.document()))),
            b'&' => Self::Escaped(Box::new(Text::new(scope.inside())), Escaping::Xml),
            b'"' => Self::Escaped(Box::new(Text::new(scope.inside())), Escaping::Json),
            _ => Self::plain(scope),
        }
    }

    fn plain(scope: Scope) -> Self {
        if scope.guarded { Self::Guarded(Held::default()) } else { Self::Plain }
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
            self.kind = Kind::plain(self.scope);
        }
    }

    /// It is complete: appends what was held back, if it may pass. How it began stays known until [`Self::reset`].
    pub(super) fn end(&mut self, output: &mut Vec<u8>) {
        self.settle(output);
        match std::mem::replace(&mut self.kind, Kind::Blank) {
            Kind::Xml(xml) => xml.finish(output),
            Kind::Json(json) => json.finish(output),
            Kind::Escaped(mut text, _) => text.end(output),
            Kind::Guarded(held) => {
                let harmless = is_harmless(held.text());
                output.extend_from_slice(if harmless { held.raw() } else { MASK.as_bytes() });
            }
            Kind::Blank | Kind::Plain | Kind::Loose(_) | Kind::Masked => {}
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
        // What is neither ASCII nor a blank begins no document, and is something to mask all the same.
        let begins = unit.byte.is_ascii_graphic() || (self.scope.guarded && !unit.byte.is_ascii_whitespace());
        if matches!(self.kind, Kind::Blank) && begins {
            self.kind = Kind::begun_by(unit.byte, self.scope);
            match &self.kind {
                Kind::Masked => output.extend_from_slice(MASK.as_bytes()),
                Kind::Escaped(_, Escaping::Json) => {
                    // The quotation mark is around what is looked into.
                    output.extend_from_slice(unit.raw);
                    return;
                }
                Kind::Blank
                | Kind::Plain
                | Kind::Xml(_)
                | Kind::Json(_)
                | Kind::Escaped(..)
                | Kind::Guarded(_)
                | Kind::Loose(_) => {}
            }
        }
        self.follow(unit, output);
    }

    fn follow(&mut self, unit: Unit<'_>, output: &mut Vec<u8>) {
        let followed = match &mut self.kind {
            Kind::Xml(xml) => xml.push(unit, output),
            Kind::Json(json) => json.push(unit, output),
            Kind::Escaped(text, escaping) => {
                text.push(unit, *escaping, output);
                Ok(())
            }
            Kind::Guarded(held) => {
                held.push(unit);
                if held.len() > MAX_DECIDING { Err(RedactError::Format) } else { Ok(()) }
            }
            Kind::Loose(word) => {
                if names_a_secret(word, unit.byte) {
                    Err(RedactError::Format)
                } else {
                    output.extend_from_slice(unit.raw);
                    Ok(())
                }
            }
            Kind::Blank | Kind::Plain => {
                output.extend_from_slice(unit.raw);
                Ok(())
            }
            Kind::Masked => Ok(()),
        };
        if let Err(error) = followed {
            self.lose(error, unit, output);
        }
    }

    /// It is not what it seemed to be, and this unit did not pass.
    fn lose(&mut self, error: RedactError, unit: Unit<'_>, output: &mut Vec<u8>) {
        let unread = match std::mem::replace(&mut self.kind, Kind::Masked) {
            Kind::Json(json) if error == RedactError::Format && !self.scope.guarded => json.into_unread(unit.byte),
            Kind::Blank
            | Kind::Plain
            | Kind::Xml(_)
            | Kind::Json(_)
            | Kind::Escaped(..)
            | Kind::Guarded(_)
            | Kind::Loose(_)
            | Kind::Masked => None,
        };
        let Some(unread) = unread else {
            output.extend_from_slice(MASK.as_bytes());
            return;
        };
        self.kind = Kind::Loose(Vec::new());
        for held in unread.units(0..unread.len()) {
            self.follow(held, output);
        }
        self.follow(unit, output);
    }
}

/// Whether this byte ends a word that is the name of a secret; otherwise the word goes on, or another one may begin.
fn names_a_secret(word: &mut Vec<u8>, byte: u8) -> bool {
    if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) {
        if word.len() < MAX_NOTED {
            word.push(byte);
        }
        return false;
    }
    let names = is_secret_name(&String::from_utf8_lossy(word));
    word.clear();
    names
}

//! An open element: what of its texts may pass.

use super::{
    super::{RedactError, Redaction, is_secret_name, text::Scope},
    tag::Tag,
};

/// The longest name of an element, in bytes: names of classes are the longest there are.
const MAX_NAME: usize = 1 << 10;

#[derive(Debug)]
pub(super) struct Element {
    pub(super) name: Vec<u8>,
    /// Its texts are masked.
    pub(super) secret: bool,
    /// Everything in it is masked but the keys of its maps.
    pub(super) values: bool,
    /// The key of an entry.
    is_key: bool,
    is_entry: bool,
    /// Of an entry: its first child was closed, or an attribute is the key.
    key_seen: bool,
    /// Of an entry: everything after the key is masked.
    value_secret: bool,
}

impl Element {
    pub(super) fn open(tag: &Tag<'_>, parent: Option<&Self>, scope: Scope) -> Result<Self, RedactError> {
        let name = tag.name();
        if name.len() > MAX_NAME {
            return Err(RedactError::Depth);
        }
        let is_entry = name == "entry";
        let of_values = scope.holds_values(&name);
        let values = scope.redaction == Redaction::Values || of_values || parent.is_some_and(|parent| parent.values);
        let named = tag.names_a_secret();
        let of_parent = parent.is_some_and(|parent| parent.secret || (parent.key_seen && parent.value_secret));
        // The keys of a map inside a masked value stay, where only values are asked to be masked.
        let fresh = is_entry && values && !named;
        let keyed = is_entry && (named || (values && tag.is_named()));
        let element = Self {
            name: tag.name_as_it_reads().to_vec(),
            secret: (of_parent || of_values || named || is_secret_name(&name)) && !fresh,
            values,
            is_key: parent.is_some_and(|parent| parent.is_entry && !parent.key_seen),
            is_entry,
            key_seen: keyed,
            value_secret: keyed,
        };
        // A word without a value may be one: nobody knows of what.
        if tag.has_words() && element.decides() { Err(RedactError::Format) } else { Ok(element) }
    }

    /// Whether a text of its own is masked though it has no secret name.
    pub(super) fn is_guarded(&self) -> bool {
        self.values && !self.is_key
    }

    /// Whether what is masked depends on where it ends.
    pub(super) fn decides(&self) -> bool {
        self.secret || self.values || self.is_entry
    }

    /// A child was closed, whose text began so.
    pub(super) fn child_ended(&mut self, text: &str) {
        if self.is_entry && !self.key_seen {
            self.key_seen = true;
            self.value_secret = self.values || is_secret_name(text);
        }
    }
}

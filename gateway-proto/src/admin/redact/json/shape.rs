//! The shape of JSON: what may come next, the containers around a place, and what the name says that it stands under.

use super::super::{
    is_secret_name,
    names::{NAMING_ATTRIBUTES, SYSTEM_ATTRIBUTES},
    text::Scope,
};

/// What comes next, if it is JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// An object or a list, on its own.
    Document,
    Key,
    KeyOrEnd,
    Colon,
    Value,
    ValueOrEnd,
    CommaOrEnd,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) is_object: bool,
    pub(super) secret: bool,
    /// Everything in it is masked but the keys of its maps.
    pub(super) values: bool,
    /// An attribute has named what it holds.
    pub(super) named: bool,
    /// Its elements are `entry` objects.
    pub(super) of_entries: bool,
    /// Of an entry: its first scalar was seen, here or below.
    pub(super) entry: Option<Entry>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key_seen: bool,
    pub(super) value_secret: bool,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) secret: bool,
    pub(super) is_entry: bool,
    /// Of what it stands over, the keys of maps stay and nothing else.
    pub(super) of_values: bool,
    /// It stands over the text of an element that has attributes.
    pub(super) is_text: bool,
    pub(super) attribute: Option<Attribute>,
}

/// An attribute of the XML that this JSON was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    /// Says how to read the value, and nothing can read it without.
    System,
    /// The name of the value, as in `<property name="…">`.
    Name,
    /// The value itself, as in `<property name="…" value="…"/>`.
    Value,
    Other,
}

impl Key {
    pub(super) fn new(name: &str, scope: Scope) -> Self {
        let of_values = scope.holds_values(name);
        let attribute = name.strip_prefix('@').map(|attribute| match attribute {
            attribute if SYSTEM_ATTRIBUTES.contains(&attribute) => Attribute::System,
            attribute if NAMING_ATTRIBUTES.contains(&attribute) => Attribute::Name,
            "value" => Attribute::Value,
            _ => Attribute::Other,
        });
        let secret = of_values || is_secret_name(name);
        Self { secret, is_entry: name == "entry", of_values, is_text: name == "$", attribute }
    }
}

/// Whether a byte begins a number, a word of JSON, or a variable that an engine puts a value in place of.
pub(super) fn begins_word(byte: u8) -> bool {
    byte.is_ascii_digit() || b"-tfn$".contains(&byte)
}

/// Whether a byte belongs to a word that has begun.
pub(super) fn goes_on(word: &[u8], byte: u8) -> bool {
    match word {
        [b'$', .., b'}'] => false,
        [b'$', ..] => byte.is_ascii_alphanumeric() || b"_.-{}".contains(&byte),
        _ => byte.is_ascii_alphanumeric() || b"+-.".contains(&byte),
    }
}

/// Whether a word that has ended is one.
pub(super) fn is_word(word: &[u8]) -> bool {
    match word {
        b"true" | b"false" | b"null" | [b'$', b'{', .., b'}'] => true,
        _ => word.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte)),
    }
}

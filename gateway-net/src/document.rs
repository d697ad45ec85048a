//! A TOML document that people wrote, read key by key: every mistake in it is collected on the way.
//!
//! serde would stop at the first mistake; here each key is asked for once, with its default and what is accepted, and
//! what nobody asked for is an unknown key. Nothing is decided here: what a program accepts is its own to say.

mod shown;

use std::{cell::RefCell, fmt, ops::RangeInclusive, time::Duration};

pub use shown::{Listing, masked};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One thing in the file that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; 0: about what is not there.
    pub line: usize,
    /// Path of the key, `section.key`; empty for a syntax error.
    pub key: String,
    /// What is wrong and what is accepted.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A parsed file and the mistakes found so far. `Debug` shows nothing of it: a file may hold what should not be there.
pub struct Document<'i> {
    text: &'i str,
    table: DeTable<'i>,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'i> Document<'i> {
    /// Parses; syntax errors become mistakes, and what could be read is read on.
    pub fn parse(text: &'i str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let document = Self { text, table: table.into_inner(), mistakes: RefCell::default() };
        for error in errors {
            let line = error.span().map_or(0, |span| document.line(span.start));
            let message = format!("not valid TOML: {}", error.message().replace('\n', " "));
            document.push(line, String::new(), message);
        }
        document
    }

    /// The keys that are in no section.
    pub fn root(&self) -> Section<'_, 'i> {
        Section { document: self, path: String::new(), line: 0, table: Some(&self.table), known: Vec::new() }
    }

    /// Every mistake, in the order of the file; what is missing comes last.
    pub fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| if mistake.line == 0 { usize::MAX } else { mistake.line });
        mistakes
    }

    fn push(&self, line: usize, key: String, message: String) {
        self.mistakes.borrow_mut().push(Mistake { line, key, message });
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A value as found in the file.
#[derive(Clone, Copy)]
pub struct Value<'a, 'i>(&'a DeValue<'i>);

impl<'a> Value<'a, '_> {
    /// A text.
    pub fn text(self) -> Option<&'a str> {
        self.0.as_str()
    }

    /// A list of texts, none of them empty.
    pub fn texts(self) -> Option<Vec<String>> {
        let texts = self.0.as_array()?.iter().map(|value| value.get_ref().as_str().filter(|text| !text.is_empty()));
        texts.map(|text| text.map(str::to_owned)).collect()
    }

    /// `true` or `false`.
    pub fn flag(self) -> Option<bool> {
        self.0.as_bool()
    }

    /// A whole number.
    pub fn integer(self) -> Option<i64> {
        let DeValue::Integer(integer) = self.0 else { return None };
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

impl fmt::Display for Value<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown::shown(self.0))
    }
}

/// One table of the document. Ask for every key, then call [`finish`](Self::finish).
pub struct Section<'a, 'i> {
    document: &'a Document<'i>,
    path: String,
    /// Where it begins, if there are several of its kind: that is where something is missing. 0: its path says enough.
    line: usize,
    table: Option<&'a DeTable<'i>>,
    known: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// A table below this one; a missing one is an empty one.
    pub fn section(&mut self, key: &'static str) -> Self {
        let table = self.find(key).and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.refuse(key, value, &format!("a table, written as [{key}]"));
            }
            table
        });
        Self { document: self.document, path: self.path_of(key), line: 0, table, known: Vec::new() }
    }

    /// The tables of a list, each written as `[[key]]`; none where there is none.
    pub fn sections(&mut self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let tables = value.get_ref().as_array().and_then(|list| {
            let tables = list.iter().map(|item| Some((item.span().start, item.get_ref().as_table()?)));
            tables.collect::<Option<Vec<_>>>()
        });
        let Some(tables) = tables else {
            self.refuse(key, value, &format!("tables, each written as [[{key}]]"));
            return Vec::new();
        };
        let (document, path) = (self.document, self.path_of(key));
        let section = |(start, table)| Self {
            document,
            path: path.clone(),
            line: document.line(start),
            table: Some(table),
            known: Vec::new(),
        };
        tables.into_iter().map(section).collect()
    }

    /// Whether the table itself is in the file.
    pub fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Whether there is a value, good or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The value of a key, or `default`. `accepted` completes "accepted: …" when `read` says no.
    pub fn value<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        default: T,
        read: impl FnOnce(Value<'a, 'i>) -> Option<T>,
    ) -> T {
        let Some(value) = self.find(key) else { return default };
        read(Value(value.get_ref())).unwrap_or_else(|| {
            self.refuse(key, value, accepted);
            default
        })
    }

    /// The value of a key that may be left out.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl FnOnce(Value<'a, 'i>) -> Option<T>,
    ) -> Option<T> {
        self.value(key, accepted, None, |value| read(value).map(Some))
    }

    /// The value of a key that must be there.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl FnOnce(Value<'a, 'i>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.find(key) else {
            self.missing(key, accepted);
            return None;
        };
        let result = read(Value(value.get_ref()));
        if result.is_none() {
            self.refuse(key, value, accepted);
        }
        result
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.value(key, "true or false", default, Value::flag)
    }

    /// A whole number in this range.
    pub fn number(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(key, &accepted, default, |value| {
            value.integer().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number))
        })
    }

    /// The same for large ones.
    pub fn count(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(key, &accepted, default, |value| {
            value.integer().and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number))
        })
    }

    /// A length of time in this range, as people write it.
    pub fn duration(&mut self, key: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let text = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let accepted = format!(
            "a duration in quotes from \"{}\" to \"{}\", for example \"{}\"",
            text(range.start()),
            text(range.end()),
            text(&default)
        );
        self.value(key, &accepted, default, |value| {
            humantime::parse_duration(value.text()?).ok().filter(|duration| range.contains(duration))
        })
    }

    /// Reports a value that is wrong for a reason other than its own form.
    pub fn mistake(&self, key: &'static str, shown: &str, accepted: &str) {
        let (line, shown) = (self.position(key), masked(shown));
        self.document.push(line, self.path_of(key), format!(" = {shown:?} is not accepted; accepted: {accepted}"));
    }

    /// The same for the value as the file has it.
    pub fn reject(&self, key: &'static str, accepted: &str) {
        if let Some(value) = self.table.and_then(|table| table.get(key)) {
            self.refuse(key, value, accepted);
        }
    }

    /// The same for a value that may be a secret in the wrong place: it is not shown.
    pub fn reject_unseen(&self, key: &'static str, accepted: &str) {
        let line = self.position(key);
        self.document.push(line, self.path_of(key), format!(" = \"…\" is not accepted; accepted: {accepted}"));
    }

    /// Reports that a key has to be there.
    pub fn missing(&self, key: &'static str, accepted: &str) {
        self.document.push(self.line, self.path_of(key), format!(" is missing; accepted: {accepted}"));
    }

    /// Reports the keys nobody asked for.
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        for key in table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let message = format!(" is an unknown key; accepted here: {}", self.known.join(", "));
            let line = self.document.line(key.span().start);
            self.document.push(line, self.path_of(key.get_ref()), message);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.and_then(|table| table.get(key))
    }

    fn refuse(&self, key: &str, value: &Spanned<DeValue<'i>>, accepted: &str) {
        let line = self.document.line(value.span().start);
        let message = format!(" = {} is not accepted; accepted: {accepted}", Value(value.get_ref()));
        self.document.push(line, self.path_of(key), message);
    }

    fn position(&self, key: &str) -> usize {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or(0, |value| self.document.line(value.span().start))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").finish_non_exhaustive()
    }
}

impl fmt::Debug for Section<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Value<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

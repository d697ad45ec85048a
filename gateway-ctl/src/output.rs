//! What commands print: stable JSON for programs, tables and blocks for people.
//!
//! Everything that came over a network passes [`text::printable`] on its way to a terminal: a partner's public name must not move the
//! cursor. Times are relative to a `now` that the caller passes, so that rendering is testable.

pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use crate::error::CtlError;

/// A type that is shown as a row of a table and as a block of lines.
pub(crate) trait View {
    /// Column titles.
    const HEADERS: &'static [&'static str];
    /// The cells of its row. `now` in Unix seconds.
    fn row(&self, now: u64) -> Vec<String>;
    /// Everything, label and value.
    fn block(&self, now: u64) -> Vec<(&'static str, String)>;
}

/// Colours or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether escape sequences are wanted.
    pub(crate) color: bool,
}

impl Style {
    /// Plain text.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { color: false };

    /// Good news.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    /// Bad news.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// A heading.
    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Standard output.
pub(crate) struct Output {
    json: bool,
    terminal: bool,
    style: Style,
    out: Box<dyn Write>,
}

/// A deed whose answer has no body.
#[derive(Debug, Serialize)]
struct Deed<'a> {
    act: &'a str,
    id: String,
}

impl Output {
    /// To standard output; colours only on a terminal and without `NO_COLOR` (no-color.org).
    pub(crate) fn stdout(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let style = Style { color: terminal && !unwanted && !json };
        Self { json, terminal, style, out: Box::new(io::stdout().lock()) }
    }

    /// Whether `--json` was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The style of human output.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// A list: a JSON array, or a table.
    pub(crate) fn list<T: Serialize + View>(&mut self, items: &[T]) -> Result<(), CtlError> {
        let now = gateway_net::time::unix_secs();
        self.table(&items, T::HEADERS, || items.iter().map(|item| item.row(now)).collect())
    }

    /// A list whose rows hold more than its JSON.
    pub(crate) fn table(
        &mut self,
        json: &impl Serialize,
        headers: &[&str],
        rows: impl FnOnce() -> Vec<Vec<String>>,
    ) -> Result<(), CtlError> {
        if self.json {
            return self.json(json);
        }
        let rows = rows();
        if rows.is_empty() { self.line("(none)") } else { self.text(&table::render(headers, &rows)) }
    }

    /// One thing: a JSON object, or a block.
    pub(crate) fn item<T: Serialize + View>(&mut self, item: &T) -> Result<(), CtlError> {
        if self.json {
            return self.json(item);
        }
        self.text(&table::render_block(&item.block(gateway_net::time::unix_secs())))
    }

    /// A deed without an answer: `{"act": …, "id": …}`, or a sentence.
    pub(crate) fn deed(&mut self, act: &str, id: impl Display, sentence: &str) -> Result<(), CtlError> {
        if self.json { self.json(&Deed { act, id: id.to_string() }) } else { self.line(&text::printable(sentence)) }
    }

    /// Indented JSON and a newline.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), CtlError> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CtlError::Output(error.into()))?;
        self.line(&text)
    }

    /// JSON on one line, for streams of them.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CtlError> {
        let text = serde_json::to_string(value).map_err(|error| CtlError::Output(error.into()))?;
        self.line(&text)
    }

    /// A line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), CtlError> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(CtlError::Output)
    }

    /// A text that ends its own lines.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CtlError> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CtlError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(CtlError::Output)
    }

    /// Something that went wrong on the way, while the command goes on: always on stderr.
    pub(crate) fn problem(&self, problem: &str) {
        // A problem nobody can read is not missed.
        let _ = writeln!(io::stderr(), "{}", text::printable_lines(problem));
    }

    /// A remark beside the answer, on stderr so that the answer stays clean; none with `--json`.
    pub(crate) fn remark(&self, remark: &str) {
        if !self.json {
            // A remark nobody can read is not missed.
            let _ = writeln!(io::stderr(), "{}", text::printable(remark));
        }
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("json", &self.json).field("style", &self.style).finish_non_exhaustive()
    }
}

/// `yes` or `no`.
pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// The value, or a dash.
pub(crate) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The word of a status enum, the same as in JSON but readable: `never_connected` → `never connected`.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

//! How a message shows what stands in a file: short, and without what may be a secret.

use std::{fmt, path::Path};

use toml::de::DeValue;

use super::Mistake;

/// Characters of an offending value that are repeated in a message.
const MAX_SHOWN: usize = 60;
/// Words in the name of a URL's parameter whose value is not repeated.
const SECRETS: [&str; 4] = ["pass", "secret", "token", "key"];

/// One line a mistake, under the name of the file and their number.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// The file.
    pub file: &'a Path,
    /// What is wrong with it.
    pub mistakes: &'a [Mistake],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{}: {count} {noun}", self.file.display())?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// The text without the user and password of a URL, and without the values of parameters that are named like secrets.
pub fn masked(text: &str) -> String {
    let (before, parameters) = match text.split_once('?') {
        Some((before, parameters)) => (before, Some(parameters)),
        None => (text, None),
    };
    // A password may hold a question mark that nobody encoded: an `@` behind it belongs to the password.
    if parameters.is_some_and(|parameters| parameters.contains('@')) {
        return without_user(text);
    }
    let mut shown = without_user(before);
    let mut sign = '?';
    for parameter in parameters.into_iter().flat_map(|parameters| parameters.split('&')) {
        shown.push(sign);
        sign = '&';
        match parameter.split_once('=') {
            Some((name, _)) if is_secret(name) => shown.extend([name, "=…"]),
            Some(_) | None => shown.push_str(parameter),
        }
    }
    shown
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|word| name.contains(word))
}

fn without_user(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(end) => text.split_at(end + 3),
        None => ("", text),
    };
    match rest.rsplit_once('@') {
        // An address of somebody is no secret; `user:password@host` without a scheme is.
        Some((user, host)) if !scheme.is_empty() || (user.contains(':') && !user.starts_with("mailto:")) => {
            format!("{scheme}…@{host}")
        }
        Some(_) | None => text.to_owned(),
    }
}

/// The value as the file has it, cut where it is long.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    let text = whole(value);
    match text.char_indices().nth(MAX_SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

fn whole(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", masked(text)),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| inner(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

/// Lists in lists are not shown: whoever nests them a thousand deep is not followed.
fn inner(value: &DeValue<'_>) -> String {
    if value.is_array() { "[…]".to_owned() } else { whole(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_in_a_url_is_not_repeated() {
        for (text, shown) in [
            ("https://ann:sesame@engine:8443", "https://…@engine:8443"),
            ("https://ann:ses@me@engine", "https://…@engine"),
            ("https://ann:ses?me@engine", "https://…@engine"),
            ("https://sesame@engine", "https://…@engine"),
            ("ann:sesame@engine:3128", "…@engine:3128"),
            ("https:ann:sesame@engine", "…@engine"),
            ("postgres://db/x?sslmode=maybe&password=sesame", "postgres://db/x?sslmode=maybe&password=…"),
            ("mailto:ops@example.org", "mailto:ops@example.org"),
            ("ops@example.org", "ops@example.org"),
            ("https://engine:8443", "https://engine:8443"),
        ] {
            assert_eq!(masked(text), shown, "{text}");
        }
    }
}

//! The operations of the engine's admin API and what each one does: the table behind every decision of the guard.
//!
//! `data/engine-api.tsv` lists the 210 operations of Open Integration Engine 4.5.2, each classified by observing a running
//! engine. What is not in the table is unknown, and the unknown is refused.

use std::{fmt, sync::LazyLock};

use serde::{Deserialize, Serialize};

const TABLE: &str = include_str!("../../data/engine-api.tsv");

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Reads.
    #[serde(rename = "R")]
    Read,
    /// Reads, and exposes secrets.
    #[serde(rename = "R!")]
    ReadSecrets,
    /// Reads patient data.
    #[serde(rename = "R#")]
    ReadPatients,
    /// Begins or ends a session.
    #[serde(rename = "S")]
    Session,
    /// Writes an audit event of the engine and nothing else.
    #[serde(rename = "A")]
    Audit,
    /// Makes the engine connect or write somewhere on the caller's behalf.
    #[serde(rename = "P")]
    Probe,
    /// Changes something.
    #[serde(rename = "W")]
    Write,
}

impl Class {
    /// The symbol of the table.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Read => "R",
            Self::ReadSecrets => "R!",
            Self::ReadPatients => "R#",
            Self::Session => "S",
            Self::Audit => "A",
            Self::Probe => "P",
            Self::Write => "W",
        }
    }

    fn from_symbol(symbol: &str) -> Option<Self> {
        const ALL: [Class; 7] = [
            Class::Read,
            Class::ReadSecrets,
            Class::ReadPatients,
            Class::Session,
            Class::Audit,
            Class::Probe,
            Class::Write,
        ];
        ALL.into_iter().find(|class| class.symbol() == symbol)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

/// The methods that pass at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD, decided like GET.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

impl Method {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// Reads it as it is written; none for every other method.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        const ALL: [Method; 5] = [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete];
        ALL.into_iter().find(|method| method.name().as_bytes() == name)
    }

    /// The method of a head that is refused, as the audit log names it. From a closed list, or `-`: nobody writes into the log what
    /// he likes.
    pub fn name_of_refused(head: &[u8]) -> &'static str {
        const NEVER_PASS: [&str; 7] = ["OPTIONS", "PATCH", "TRACE", "TRACK", "CONNECT", "PROPFIND", "QUERY"];
        let method = head.split(|b| *b == b' ').next().unwrap_or_default();
        let other = || NEVER_PASS.into_iter().find(|name| name.as_bytes() == method);
        Self::from_name(method).map(Self::name).or_else(other).unwrap_or("-")
    }

    /// Whether requests of it may have a body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put)
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its method, never HEAD.
    pub method: Method,
    /// Its path below `/api`, parameters in braces.
    pub template: &'static str,
    /// What it does.
    pub class: Class,
    segments: Vec<&'static str>,
    literal_length: usize,
}

impl Operation {
    /// Whether both templates are the same but for the names of their parameters.
    fn has_shape_of(&self, other: &Self) -> bool {
        let same = |(one, other): (&&str, &&str)| one == other || (is_parameter(one) && is_parameter(other));
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(same)
    }
}

/// All operations, in the order of the table.
pub fn operations() -> &'static [Operation] {
    static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#') && !line.starts_with("method\t"));
        rows.filter_map(read_row).collect()
    });
    &OPERATIONS
}

fn read_row(row: &'static str) -> Option<Operation> {
    let mut cells = row.split('\t');
    let method = Method::from_name(cells.next()?.as_bytes())?;
    let template = cells.next()?;
    let class = Class::from_symbol(cells.next()?)?;
    let segments: Vec<_> = template.strip_prefix('/')?.split('/').collect();
    let literal_length = segments.iter().filter(|segment| !is_parameter(segment)).map(|segment| segment.len()).sum();
    Some(Operation { method, template, class, segments, literal_length })
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

/// The operation of a path, as the engine finds it: the template with the most literal characters is chosen whatever the
/// method, and then must have the method. `raw` are the segments as sent, `decoded` without percent-encoding.
pub(super) fn find(method: Method, raw: &[&str], decoded: &[String]) -> Option<&'static Operation> {
    let fits = |operation: &&Operation| {
        operation.segments.len() == raw.len()
            && operation.segments.iter().zip(raw.iter().zip(decoded)).all(|(wanted, (raw, decoded))| {
                // A value that looks like an action is none of ours: on another version it might be one.
                if is_parameter(wanted) { !decoded.starts_with('_') } else { wanted == raw }
            })
    };
    let best = operations().iter().filter(fits).max_by_key(|operation| operation.literal_length)?;
    let wanted = if method == Method::Head { Method::Get } else { method };
    operations().iter().find(|operation| operation.method == wanted && operation.has_shape_of(best))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count() - 1;
        assert_eq!((operations().len(), rows), (210, 210));
        let mut counts = BTreeMap::new();
        for operation in operations() {
            *counts.entry(operation.class.symbol()).or_insert(0) += 1;
        }
        assert_eq!(counts["R#"], 6);
        assert_eq!(counts.values().sum::<i32>(), 210);
    }

    /// Two templates that fit one path must not leave a doubt which of them the engine takes.
    #[test]
    fn no_path_fits_two_templates_of_the_same_weight() {
        for one in operations() {
            let raw: Vec<_> = one.segments.iter().map(|s| if is_parameter(s) { "x" } else { s }).collect();
            let decoded: Vec<_> = raw.iter().map(ToString::to_string).collect();
            assert_eq!(find(one.method, &raw, &decoded), Some(one), "{}", one.template);
            let fits = |other: &&Operation| {
                !other.has_shape_of(one)
                    && other.segments.len() == raw.len()
                    && other.segments.iter().zip(&raw).all(|(wanted, raw)| is_parameter(wanted) || wanted == raw)
            };
            for other in operations().iter().filter(fits) {
                assert_ne!(other.literal_length, one.literal_length, "{} and {}", one.template, other.template);
            }
        }
    }

    #[test]
    fn the_method_of_a_refused_head_is_one_that_we_know_or_none() {
        for (head, method) in [
            ("GET / HTTP/1.1\r\n\r\n", "GET"),
            ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "TRACE"),
            ("PATCH ", "PATCH"),
            ("get / HTTP/1.1\r\n\r\n", "-"),
            ("GET\t/ HTTP/1.1\r\n\r\n", "-"),
            ("MADE-UP / HTTP/1.1\r\n\r\n", "-"),
            ("", "-"),
        ] {
            assert_eq!(Method::name_of_refused(head.as_bytes()), method, "{head:?}");
        }
    }
}

//! The log in the forms that others read, and the comparison with an older one.

use std::{
    cmp::Ordering,
    fs::File,
    io::{BufRead, BufReader, Lines},
    iter::Enumerate,
    path::{Path, PathBuf},
};

use gateway_proto::{
    api::{
        local::AuditLine,
        platform::{AuditAnchor, AuditEntry},
    },
    audit::record::Event,
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Format, Source};
use crate::error::CtlError;

/// An entry in one line, without a line break.
pub(super) fn line(format: Format, source: &Source, entry: &AuditEntry) -> String {
    match format {
        Format::Jsonl => serde_json::to_string(entry).unwrap_or_default(),
        Format::Fhir => fhir(source, &Item::of_platform(entry)).to_string(),
        Format::Syslog => syslog(source, &Item::of_platform(entry)),
    }
}

/// A record of a gateway in one line, without a line break; `text` is its line in the log.
pub(crate) fn gateway_line(format: Format, source: &Source, text: &str, line: &AuditLine) -> String {
    match format {
        Format::Jsonl => text.to_owned(),
        Format::Fhir => fhir(source, &Item::of_gateway(line)).to_string(),
        Format::Syslog => syslog(source, &Item::of_gateway(line)),
    }
}

/// What the logs of platform and gateways have in common.
#[derive(Debug)]
pub(crate) struct Item {
    id: String,
    sequence: u64,
    /// Unix milliseconds.
    at: u64,
    pub(crate) actor: String,
    act: String,
    pub(crate) object: String,
    pub(crate) detail: String,
    request: String,
    hash: String,
    is_refusal: bool,
}

impl Item {
    fn of_platform(entry: &AuditEntry) -> Self {
        Self {
            id: entry.id.to_string().replace('_', "-"),
            sequence: entry.sequence,
            at: entry.at.saturating_mul(1000),
            actor: entry.actor.clone(),
            act: entry.act.clone(),
            object: entry.object.clone(),
            detail: entry.detail.clone(),
            request: entry.request_id.clone(),
            hash: entry.hash.clone(),
            is_refusal: is_refusal(&entry.act),
        }
    }

    /// Who and what by their names; everything else of the record as its detail.
    pub(crate) fn of_gateway(AuditLine { hash, record }: &AuditLine) -> Self {
        let mut fields = match serde_json::to_value(&record.event) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let mut take = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        take("act");
        let (server, organization, connection) = (take("server"), take("organization"), take("connection"));
        let endpoint = take("endpoint");
        let at = match (server.is_empty(), organization.is_empty()) {
            (true, true) => String::new(),
            _ => format!("{server}, {organization}"),
        };
        let actor = if let Event::AdminCall(call) = &record.event {
            format!("{} at {at}", call.person.as_ref().unwrap_or(&call.user))
        } else if at.is_empty() {
            "gatewayd".to_owned()
        } else {
            at
        };
        let object = match (connection.is_empty(), endpoint.is_empty()) {
            (true, _) => "audit log".to_owned(),
            (false, true) => connection,
            (false, false) => format!("{endpoint} ({connection})"),
        };
        let object = if record.event.is_refusal() && object == "audit log" { "tunnel".to_owned() } else { object };
        let detail: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
        Self {
            // An id of FHIR has 64 characters at most; the hash alone is one of a kind.
            id: hash.clone(),
            sequence: record.sequence,
            at: record.at,
            actor,
            act: record.event.act().to_owned(),
            object,
            detail: detail.join(" "),
            request: String::new(),
            hash: hash.clone(),
            is_refusal: record.event.is_refusal(),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// An AuditEvent of FHIR R4.
fn fhir(source: &Source, entry: &Item) -> Value {
    let coding = |system: &str, code: &str, display: &str| json!({"system": system, "code": code, "display": display});
    let mut details = vec![json!({"type": "sequence", "valueString": entry.sequence.to_string()})];
    for (name, value) in [("detail", &entry.detail), ("request", &entry.request), ("hash", &entry.hash)] {
        if !value.is_empty() {
            details.push(json!({"type": name, "valueString": value}));
        }
    }
    json!({
        "resourceType": "AuditEvent",
        "id": entry.id,
        "type": coding("http://dicom.nema.org/resources/ontology/DCM", "110100", "Application Activity"),
        "subtype": [{"system": "urn:gateway:act", "code": entry.act}],
        "action": action(&entry.act),
        "recorded": instant(entry.at),
        "outcome": if entry.is_refusal { "4" } else { "0" },
        "agent": [{"who": {"display": entry.actor}, "requestor": true}],
        "source": {
            "observer": {"display": source.owner, "identifier": {"value": source.chain}},
            "type": [coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4", "Application Server")],
        },
        "entity": [{"what": {"identifier": {"value": entry.object}}, "detail": details}],
    })
}

/// Create, read, update, delete or execute, by the verb of the act.
fn action(act: &str) -> &'static str {
    match act.rsplit('.').next().unwrap_or_default() {
        "create" | "offer" | "request" | "put" => "C",
        "update" | "accept" | "approve" | "activate" | "pause" | "resume" | "suspend" | "assign_tier" => "U",
        "delete" | "end" | "revoke" | "surrender" | "terminate" | "withdraw" | "expire" => "D",
        _ => "E",
    }
}

fn is_refusal(act: &str) -> bool {
    act.ends_with(".refuse") || act.ends_with(".refused") || act.ends_with(".rejected") || act.ends_with(".fail")
}

/// A line of RFC 5424: facility 13 (log audit), severity informational or warning.
fn syslog(source: &Source, entry: &Item) -> String {
    let priority = 13 * 8 + if entry.is_refusal { 4 } else { 6 };
    let parameters = [
        ("sequence", entry.sequence.to_string()),
        ("id", entry.id.clone()),
        ("actor", entry.actor.clone()),
        ("object", entry.object.clone()),
        ("request", entry.request.clone()),
        ("hash", entry.hash.clone()),
    ];
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let detail: String = entry.detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!(
        "<{priority}>1 {} {} {} - {} [gateway@32473 {}] \u{feff}{detail}",
        instant(entry.at),
        source.chain,
        source.daemon,
        word(&entry.act),
        parameters.join(" "),
    )
    .trim_end()
    .to_owned()
}

/// What a parameter's value may not hold as it is.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' | '\\' | ']' => {
                text.push('\\');
                text.push(c);
            }
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text
}

/// A name in the header: up to 32 visible characters.
fn word(text: &str) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(32).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}

fn instant(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

/// An older export, which must be the beginning of the log as far as the log still has it; what was removed from it must
/// end with the entry that the log begins after.
#[derive(Debug)]
pub(super) struct Older {
    path: PathBuf,
    lines: Enumerate<Lines<BufReader<File>>>,
    anchor: AuditAnchor,
    /// Lines read, and those of them that the log or its anchor could be compared with.
    read: usize,
    compared: usize,
}

impl Older {
    pub(super) fn open(path: &Path, anchor: &AuditAnchor) -> Result<Self, CtlError> {
        let path = path.to_owned();
        match File::open(&path) {
            Ok(file) => {
                let lines = BufReader::new(file).lines().enumerate();
                Ok(Self { path, lines, anchor: anchor.clone(), read: 0, compared: 0 })
            }
            Err(source) => Err(CtlError::File { path, source }),
        }
    }

    /// Compares the next entry of the log; none: the log is at its end, and so must the export be.
    pub(super) fn compare(&mut self, entry: Option<&AuditEntry>) -> Result<(), CtlError> {
        for (number, line) in self.lines.by_ref() {
            let line = line.map_err(|source| CtlError::File { path: self.path.clone(), source })?;
            if line.trim().is_empty() {
                continue;
            }
            self.read += 1;
            let older: Option<AuditEntry> = serde_json::from_str(&line).ok();
            let place = older.as_ref().map(|older| older.sequence.cmp(&self.anchor.sequence));
            self.compared += usize::from(place.is_some_and(Ordering::is_ge));
            match (place, older) {
                (Some(Ordering::Less), _) => {}
                (Some(Ordering::Equal), Some(older)) if older.hash == self.anchor.hash => {}
                (Some(Ordering::Greater), older) if older.as_ref() == entry => return Ok(()),
                _ => {
                    let place = format!("line {} of {}", number + 1, self.path.display());
                    let words = format!("{place} is not what the log says today: the log was written anew");
                    return Err(CtlError::No(words));
                }
            }
        }
        Ok(())
    }

    /// The log is at its end: the export must be, too, and must have had something in common with it.
    pub(super) fn finish(mut self) -> Result<(), CtlError> {
        self.compare(None)?;
        if self.compared > 0 || self.read == 0 {
            return Ok(());
        }
        let (place, first) = (self.path.display(), self.anchor.sequence);
        Err(CtlError::No(format!("{place} ends before entry {first}, after which the log begins: nothing to compare")))
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::id::{AuditId, OrganizationId};

    use super::*;

    fn source() -> Source {
        Source {
            chain: OrganizationId::new(1, [0; 10]).to_string(),
            owner: "Clinic \"A\"".into(),
            daemon: "gateway-control",
        }
    }

    fn entry() -> AuditEntry {
        AuditEntry {
            id: AuditId::new(1, [0; 10]),
            sequence: 3,
            at: 1_700_000_000,
            actor: "a]\"\\b\n".into(),
            act: "connection.pause".into(),
            object: "con_1".into(),
            detail: "status: active → paused".into(),
            request_id: "r1".into(),
            hash: "ab".into(),
        }
    }

    #[test]
    fn a_syslog_line_is_one_line_with_its_values_escaped() {
        let line = line(Format::Syslog, &source(), &entry());
        let id = source().chain;
        assert!(line.starts_with(&format!(
            "<110>1 2023-11-14T22:13:20Z {id} gateway-control - connection.pause [gateway@32473 sequence=\"3\" "
        )));
        assert!(line.contains("actor=\"a\\]\\\"\\\\b \""), "{line}");
        assert!(line.ends_with("hash=\"ab\"] \u{feff}status: active → paused") && !line.contains('\n'), "{line}");
        let refused = AuditEntry { act: "session.refuse".into(), ..entry() };
        assert!(super::line(Format::Syslog, &source(), &refused).starts_with("<108>1 "));
    }

    #[test]
    fn an_audit_event_says_who_did_what_when_and_how_it_ended() {
        let event: Value = serde_json::from_str(&line(Format::Fhir, &source(), &entry())).unwrap();
        assert_eq!((&event["resourceType"], &event["action"]), (&json!("AuditEvent"), &json!("U")));
        assert_eq!((&event["recorded"], &event["outcome"]), (&json!("2023-11-14T22:13:20Z"), &json!("0")));
        assert_eq!(event["entity"][0]["what"]["identifier"]["value"], "con_1");
        assert_eq!(event["subtype"][0]["code"], "connection.pause");
    }
}

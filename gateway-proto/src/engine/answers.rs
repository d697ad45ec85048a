//! The answers of the engine that discovery asks for, in their JSON form (design: which requests, and why, is told in
//! `docs/engine.md`).
//!
//! | request | what it tells |
//! |---|---|
//! | `GET /channels/idsAndNames` | every stored channel with its name |
//! | `GET /channels/portsInUse` | ports with variables resolved; names in upper case; undeployed and client-mode channels too |
//! | `GET /channels/statuses` | states, revisions and counts of deployed channels |
//! | `GET /channels?channelId=…` | connectors: hosts, protocols, limits, destinations |
//!
//! The engine always names what it answers, also when there is none (`{"list":null}`). JSON without that is somebody else's,
//! of a proxy or a maintenance page, and not an engine without channels.

mod details;

use std::collections::BTreeMap;

pub use details::{ChannelDetails, channels};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    EngineChannelState, EngineCounts, clean,
    lossy::{AnyMany, Many, Maybe, Text},
};

/// The largest answer that is read, in bytes. An engine of 500 channels answers 11 MB when all details are asked for at
/// once; discovery asks for a few at a time.
pub const MAX_ANSWER: usize = 16 << 20;
/// The longest id that is believed; the engine's are UUIDs of 36 characters.
const MAX_ID: usize = 64;

/// Why an answer is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is larger than anything an engine says.
    #[error("the engine's answer to {request} is larger than {MAX_ANSWER} bytes")]
    TooLarge {
        /// What was asked.
        request: &'static str,
    },
    /// It is not in the form that is known.
    #[error("the engine's answer to {request} is not understood (line {line}, column {column})")]
    Form {
        /// What was asked.
        request: &'static str,
        /// Where; the text itself may hold secrets.
        line: usize,
        /// Where in the line.
        column: usize,
    },
}

/// Names by id.
pub fn ids_and_names(answer: &[u8]) -> Result<BTreeMap<String, String>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        map: Maybe<Entries>,
    }
    #[derive(Deserialize)]
    struct Entries {
        #[serde(default)]
        entry: Many<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        string: Pair,
    }
    /// Key and value, one after the other.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pair {
        Both(Text, Text),
        Other(serde::de::IgnoredAny),
    }
    let answer: Answer = read("idsAndNames", answer)?;
    let entries = answer.map.0.map(|entries| entries.entry.items).unwrap_or_default();
    Ok(entries
        .into_iter()
        .filter_map(|entry| match entry.string {
            Pair::Both(id, name) => Some((known_id(&id)?, clean(&name.0))),
            Pair::Other(_) => None,
        })
        .collect())
}

/// Ports by channel id. A port that is none (a variable without a value) is left out.
pub fn ports_in_use(answer: &[u8]) -> Result<BTreeMap<String, u16>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        list: AnyMany<Port>,
    }
    #[derive(Deserialize)]
    struct Port {
        id: Text,
        port: Text,
    }
    let answer: Answer = read("portsInUse", answer)?;
    let ports = answer.list.0.items.iter();
    Ok(ports.filter_map(|port| Some((known_id(&port.id)?, port_number(&port.port)?))).collect())
}

/// What the dashboard knows of a deployed channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelStatus {
    /// State.
    pub state: EngineChannelState,
    /// Revisions saved since the deployment.
    pub revision_delta: u64,
    /// When it was deployed, Unix milliseconds, 0 when unknown.
    pub deployed_at: u64,
    /// Messages.
    pub counts: EngineCounts,
}

/// Statuses by channel id; undeployed channels have none.
pub fn statuses(answer: &[u8]) -> Result<BTreeMap<String, ChannelStatus>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        list: AnyMany<Status>,
    }
    let answer: Answer = read("statuses", answer)?;
    let statuses = answer.list.0.items.into_iter();
    Ok(statuses.filter_map(|status| Some((known_id(&status.channel_id)?, status.known()))).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    channel_id: Text,
    state: Text,
    #[serde(default)]
    deployed_revision_delta: Text,
    #[serde(default)]
    deployed_date: Maybe<Date>,
    #[serde(default)]
    statistics: Maybe<Statistics>,
    #[serde(default)]
    queued: Text,
    #[serde(default)]
    child_statuses: AnyMany<Child>,
}

#[derive(Deserialize)]
struct Date {
    #[serde(default)]
    time: Text,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    entry: Many<BTreeMap<String, Text>>,
}

#[derive(Deserialize)]
struct Child {
    #[serde(default)]
    queued: Text,
}

impl Status {
    fn known(&self) -> ChannelStatus {
        let entries = self.statistics.0.iter().flat_map(|statistics| &statistics.entry.items);
        let mut counts = EngineCounts::default();
        for entry in entries {
            // `{"the.class.of.Status": "RECEIVED", "long": 3}`
            let Some(count) = entry.get("long").and_then(Text::number::<u64>) else { continue };
            match entry.iter().find(|(key, _)| *key != "long").map(|(_, name)| name.0.as_str()) {
                Some("RECEIVED") => counts.received = count,
                Some("SENT") => counts.sent = count,
                Some("ERROR") => counts.errors = count,
                Some("FILTERED") => counts.filtered = count,
                Some("QUEUED") => counts.queued = count,
                Some(_) | None => {}
            }
        }
        let waiting = self.child_statuses.0.items.iter().filter_map(|child| child.queued.number::<u64>());
        counts.queued = counts.queued.max(self.queued.number().unwrap_or(0)).max(waiting.fold(0, u64::saturating_add));
        ChannelStatus {
            state: state(&self.state.0),
            revision_delta: self.deployed_revision_delta.number().unwrap_or(0),
            deployed_at: self.deployed_date.0.as_ref().and_then(|date| date.time.number()).unwrap_or(0),
            counts,
        }
    }
}

fn state(word: &str) -> EngineChannelState {
    match word {
        "STARTED" => EngineChannelState::Started,
        "STOPPED" => EngineChannelState::Stopped,
        "PAUSED" => EngineChannelState::Paused,
        "UNDEPLOYED" => EngineChannelState::Undeployed,
        // STARTING, STOPPING, PAUSING, DEPLOYING, UNDEPLOYING, SYNCING, and what a newer engine may add.
        _ => EngineChannelState::Changing,
    }
}

fn port_number(text: &Text) -> Option<u16> {
    text.number().filter(|port| *port != 0)
}

/// An id as the engine makes them; anything else is not one.
fn known_id(text: &Text) -> Option<String> {
    let fits = |id: &str| {
        !id.is_empty()
            && id.len() <= MAX_ID
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    fits(&text.0).then(|| text.0.clone())
}

fn read<T: DeserializeOwned>(request: &'static str, answer: &[u8]) -> Result<T, AnswerError> {
    if answer.len() > MAX_ANSWER {
        return Err(AnswerError::TooLarge { request });
    }
    serde_json::from_slice(answer).map_err(|error| AnswerError::Form {
        request,
        line: error.line(),
        column: error.column(),
    })
}

#[cfg(test)]
mod tests;

//! A TCP Sender of a channel: its queue, its retries, and what it writes down about each message.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use super::definition::DestinationDefinition;
use crate::mllp::{MessageStatus, Sender};

/// A TCP destination.
#[derive(Debug)]
pub struct Destination {
    /// Number of the connector, from 1.
    pub meta_data_id: usize,
    /// How it is set up.
    pub definition: DestinationDefinition,
    /// What became of its messages; outlives a redeployment.
    pub outcomes: Arc<Outcomes>,
    port: u16,
    tasks: JoinSet<()>,
}

/// What became of the messages of a destination.
#[derive(Debug, Default)]
pub struct Outcomes {
    messages: Mutex<BTreeMap<u64, Entry>>,
    changed: Notify,
}

#[derive(Debug, Clone)]
struct Entry {
    bytes: Vec<u8>,
    status: Option<MessageStatus>,
    attempts: u32,
    problem: String,
}

/// A message as the message browser shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Message id.
    pub id: u64,
    /// Status; none: not tried yet.
    pub status: Option<MessageStatus>,
    /// How often it was sent.
    pub attempts: u32,
    /// What happened last.
    pub problem: String,
}

impl Outcomes {
    /// Every message.
    pub fn shown(&self) -> Vec<Shown> {
        let show = |(id, entry): (&u64, &Entry)| Shown {
            id: *id,
            status: entry.status,
            attempts: entry.attempts,
            problem: entry.problem.clone(),
        };
        self.lock().iter().map(show).collect()
    }

    /// Messages sent, failed, and queued.
    pub fn counts(&self) -> [u64; 3] {
        let messages = self.lock();
        [MessageStatus::Sent, MessageStatus::Error, MessageStatus::Queued]
            .map(|status| messages.values().filter(|entry| entry.status == Some(status)).count() as u64)
    }

    fn next(&self) -> Option<(u64, Entry)> {
        let open = |entry: &Entry| matches!(entry.status, None | Some(MessageStatus::Queued));
        self.lock().iter().find(|(_, entry)| open(entry)).map(|(id, entry)| (*id, entry.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination {
    /// A destination that does nothing yet.
    pub fn new(meta_data_id: usize, definition: DestinationDefinition, port: u16, outcomes: Arc<Outcomes>) -> Self {
        Self { meta_data_id, definition, outcomes, port, tasks: JoinSet::new() }
    }

    /// Takes a message.
    pub fn process(&self, id: u64, message: &[u8]) {
        let entry = Entry { bytes: message.into(), status: None, attempts: 0, problem: String::new() };
        self.outcomes.lock().insert(id, entry);
        self.outcomes.changed.notify_one();
    }

    /// Starts sending.
    pub fn start(&mut self) {
        if self.tasks.is_empty() {
            self.tasks.spawn(send(self.definition.clone(), self.port, self.outcomes.clone()));
        }
    }

    /// Stops sending; what is queued stays.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// One message after the other; a queued one is in the way of those behind it until it is through. A connection that is kept
/// is closed once it was idle for the send timeout.
async fn send(definition: DestinationDefinition, port: u16, outcomes: Arc<Outcomes>) {
    let Ok(address) = format!("{}:{port}", definition.host.replace("localhost", "127.0.0.1")).parse() else { return };
    let mut sender = Sender::new(address, definition.keep_connection_open)
        .with_response_timeout(Duration::from_millis(definition.response_timeout_ms));
    let idle = match definition.send_timeout_ms {
        0 => Duration::MAX,
        limit => Duration::from_millis(limit),
    };
    loop {
        let Some((id, entry)) = outcomes.next() else {
            if timeout(idle, outcomes.changed.notified()).await.is_err() {
                sender.close();
            }
            continue;
        };
        let verdict = sender.send(&entry.bytes).await;
        let status = verdict.status(definition.queue, definition.validate_response);
        if let Some(entry) = outcomes.lock().get_mut(&id) {
            entry.status = Some(status);
            entry.attempts += 1;
            entry.problem = verdict.to_string();
        }
        if status == MessageStatus::Queued {
            tokio::time::sleep(Duration::from_millis(definition.retry_interval_ms)).await;
        }
    }
}

//! Connections: what both sides may do with them, and what becomes of them by itself.

use std::collections::BTreeSet;

use super::{
    Limits, Model, ORGS, Org,
    Outcome::{self, Done},
    PLAIN, UNKNOWN, WRONG,
};

/// How long a request may take, seconds.
const LATE_SECS: u64 = 30;

/// A secret that is being replaced; moments are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// From then on streams are opened with the new one.
    pub(crate) turns_at: u64,
    /// From then on the one before is not taken any more.
    pub(crate) until: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) agreement: usize,
    /// None: an admin connection.
    pub(crate) grant: Option<usize>,
    /// The share an admin connection belongs to.
    pub(crate) share: Option<usize>,
    /// Of an admin connection: whether the engine may be changed.
    pub(crate) writes: bool,
    /// Whose server receives, or is administered.
    pub(crate) owner: Org,
    /// Who sends, or administers.
    pub(crate) user: Org,
    pub(crate) listener: usize,
    pub(crate) sender: Option<usize>,
    pub(crate) status: &'static str,
    pub(crate) auto: bool,
    pub(crate) paused: [bool; ORGS],
    pub(crate) limits: Limits,
    /// How often its secret was replaced.
    pub(crate) secret: usize,
    pub(crate) rotation: Option<Rotation>,
    /// When an offer that nobody answered is over, Unix seconds.
    pub(crate) answer_by: u64,
    pub(crate) expires_at: Option<u64>,
    /// Who offered it, where a second person has to approve it.
    pub(crate) first_person: Option<usize>,
    pub(crate) approved: bool,
}

impl Connection {
    pub(super) fn new(agreement: usize, owner: Org, user: Org, listener: usize) -> Self {
        Self {
            agreement,
            grant: None,
            share: None,
            writes: false,
            owner,
            user,
            listener,
            sender: None,
            status: "provisioning",
            auto: true,
            paused: [false; ORGS],
            limits: PLAIN,
            secret: 0,
            rotation: None,
            answer_by: 0,
            expires_at: None,
            first_person: None,
            approved: false,
        }
    }

    pub(crate) fn has(&self, org: Org) -> bool {
        self.owner == org || self.user == org
    }

    /// Whether it was approved or accepted in these words.
    pub(super) fn answered(&self, sender: Option<usize>, auto: bool) -> bool {
        sender.is_none_or(|named| self.sender == Some(named)) && self.auto == auto
    }

    pub(crate) fn is_at(&self, server: usize) -> bool {
        self.listener == server || self.sender == Some(server)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status, "declined" | "expired" | "terminated")
    }
}

impl Model {
    pub(super) fn activate(&mut self, n: usize, own: Org) -> Outcome {
        self.step(n, own, &["ready", "active"], "active")
    }

    pub(super) fn retry(&mut self, n: usize, own: Org) -> Outcome {
        self.step(n, own, &["failed", "ready"], "ready")
    }

    /// Each side holds its own pause.
    pub(super) fn pause(&mut self, n: usize, own: Org, on: bool) -> Outcome {
        let connection = &mut self.connections[n];
        if !connection.has(own) {
            return UNKNOWN;
        }
        if !matches!(connection.status, "active" | "paused") {
            return WRONG;
        }
        connection.paused[own] = on;
        connection.status = if connection.paused.contains(&true) { "paused" } else { "active" };
        Done
    }

    /// The end of a connection ends its grant.
    pub(super) fn terminate(&mut self, n: usize, own: Org) -> Outcome {
        let connection = &mut self.connections[n];
        if !connection.has(own) {
            return UNKNOWN;
        }
        match connection.status {
            "terminated" => return Done,
            "declined" | "expired" => return WRONG,
            _ => connection.status = "terminated",
        }
        if let Some(grant) = connection.grant {
            self.grants[grant].status = if connection.owner == own { "revoked" } else { "surrendered" };
        }
        Done
    }

    /// By either side, of what gateways know; one after the other, or at once. The overlap lasts twice as long as an end may go on
    /// without hearing of it, and the sender turns in its middle.
    pub(super) fn rotate(&mut self, n: usize, own: Org, at_once: bool, now: u64) -> Outcome {
        let connection = &self.connections[n];
        if !connection.has(own) {
            return UNKNOWN;
        }
        if self.activation(connection).is_none() || (connection.rotation.is_some() && !at_once) {
            return WRONG;
        }
        let connection = &mut self.connections[n];
        let half = connection.limits.staleness_secs;
        connection.secret += 1;
        connection.rotation = (!at_once).then_some(Rotation { turns_at: now + half, until: now + 2 * half });
        Done
    }

    /// A rotation as it is shown, which began when the platform took its turn: a moment after it was asked for.
    pub(crate) fn rotation_began(&mut self, n: usize, shown: Option<Rotation>) -> Result<(), String> {
        let rotation = &mut self.connections[n].rotation;
        let fits = match (*rotation, shown) {
            (None, None) => true,
            (Some(expected), Some(shown)) => {
                let late = shown.turns_at.checked_sub(expected.turns_at);
                late.is_some_and(|late| late <= LATE_SECS && shown.until.checked_sub(expected.until) == Some(late))
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !fits {
            return Err(format!("connection {n} is shown with {shown:?}, the model says {rotation:?}"));
        }
        *rotation = shown;
        Ok(())
    }

    pub(super) fn end_connections(&mut self, to: &'static str, which: impl Fn(&Connection) -> bool) {
        for connection in self.connections.iter_mut().filter(|row| !row.is_over()) {
            if which(connection) {
                connection.status = to;
            }
        }
    }

    /// Goes on with one as far as gateways and persons let it.
    pub(super) fn provision(&mut self, n: usize) {
        let connection = &self.connections[n];
        let listens = self.servers[connection.listener].gateway;
        let sends = connection.sender.map(|server| self.servers[server].gateway);
        let waits = connection.first_person.is_some() && !connection.approved;
        let status = match (connection.grant, sends) {
            (Some(_), sends) if listens && sends == Some(true) => "ready",
            (None, None) if listens && !waits => "offered",
            // A share, or inside a self-agreement: accepted at once.
            (None, Some(_)) if listens && !waits => "ready",
            _ => "provisioning",
        };
        self.connections[n].status = status;
    }

    /// What follows once all gateways have answered their policies. One of them may refuse what its policy introduces: the
    /// connections it did not know before. The numbers of those that fail.
    pub(crate) fn settle(&mut self, refusing: Option<(usize, &BTreeSet<usize>)>) -> Vec<usize> {
        let mut failed = Vec::new();
        for (n, connection) in self.connections.iter_mut().enumerate().filter(|(_, row)| row.status == "ready") {
            if refusing.is_some_and(|(server, known)| connection.is_at(server) && !known.contains(&n)) {
                connection.status = "failed";
                failed.push(n);
            } else if connection.auto {
                connection.status = "active";
            }
        }
        failed
    }

    fn step(&mut self, n: usize, own: Org, from: &[&str], to: &'static str) -> Outcome {
        let connection = &mut self.connections[n];
        if !connection.has(own) {
            return UNKNOWN;
        }
        if !from.contains(&connection.status) {
            return WRONG;
        }
        connection.status = to;
        Done
    }
}

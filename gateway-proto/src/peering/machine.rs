//! How the table is read: who may do what in which status, and what a refusal says.

use std::{fmt, hash::Hash};

/// Which side acts.
///
/// Of a peering request the asking organization is the owner, of a grant the organization whose channel it is, of a
/// connection the organization of the receiving server. Inside a self-agreement one organization is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The owner.
    Owner,
    /// The other organization.
    Peer,
    /// One organization that is both sides.
    Both,
    /// The platform itself: time, cascades, gateways.
    System,
}

/// Who may take a step of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The owner only.
    Owner,
    /// The peer only.
    Peer,
    /// One of the two organizations.
    Either,
    /// The platform only.
    System,
    /// One of the two organizations, or the platform.
    Anyone,
}

impl By {
    /// Whether the side may take the step.
    pub fn allows(self, side: Side) -> bool {
        match (self, side) {
            (Self::Anyone, _)
            | (Self::Owner | Self::Peer | Self::Either, Side::Both)
            | (Self::Owner | Self::Either, Side::Owner)
            | (Self::Peer | Self::Either, Side::Peer)
            | (Self::System, Side::System) => true,
            (Self::System, Side::Owner | Side::Peer | Side::Both)
            | (Self::Owner | Self::Peer | Self::Either, Side::System)
            | (Self::Owner, Side::Peer)
            | (Self::Peer, Side::Owner) => false,
        }
    }

    /// The word in diagrams and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Peer => "peer",
            Self::Either => "either side",
            Self::System => "platform",
            Self::Anyone => "either side or platform",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition<S, A> {
    /// In this status,
    pub from: S,
    /// this act
    pub act: A,
    /// of this side
    pub by: By,
    /// leads to this status.
    pub to: S,
}

/// A status of one of the machines.
pub trait Status: Copy + Eq + Hash + fmt::Debug + fmt::Display + 'static {}

impl<T: Copy + Eq + Hash + fmt::Debug + fmt::Display + 'static> Status for T {}

/// An act of one of the machines.
pub trait Act: Copy + Eq + fmt::Debug + fmt::Display + 'static {
    /// The statuses of the machine.
    type Status: Status;
    /// What the machine is about, for people.
    const MACHINE: &'static str;
    /// The statuses a new one may start in.
    const START: &'static [Self::Status];
    /// Every status.
    const STATUSES: &'static [Self::Status];
    /// The table.
    const TABLE: &'static [Transition<Self::Status, Self>];
}

/// A step that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {machine} is {status}: '{act}' is not possible {}{}", whom(.by), list(.possible))]
pub struct TransitionError {
    /// What it is about.
    pub machine: &'static str,
    /// Its status.
    pub status: String,
    /// What was asked for.
    pub act: String,
    /// Who could do it in this status; none: nobody.
    pub by: Option<By>,
    /// What the asking side can do in this status.
    pub possible: Vec<String>,
}

fn whom(by: &Option<By>) -> String {
    by.map_or_else(String::new, |by| format!("for this side (only: {}) ", by.as_str()))
}

fn list(possible: &[String]) -> String {
    if possible.is_empty() {
        return "and nothing else is either".to_owned();
    }
    format!("now; possible: {}", possible.join(", "))
}

/// The status after an act, or why there is none.
pub fn next<A: Act>(status: A::Status, act: A, side: Side) -> Result<A::Status, TransitionError> {
    let mut by = None;
    for row in A::TABLE.iter().filter(|row| row.from == status && row.act == act) {
        if row.by.allows(side) {
            return Ok(row.to);
        }
        by = Some(row.by);
    }
    let mut names: Vec<String> =
        possible::<A>(status).filter(|row| row.by.allows(side)).map(|row| row.act.to_string()).collect();
    names.dedup();
    Err(TransitionError { machine: A::MACHINE, status: status.to_string(), act: act.to_string(), by, possible: names })
}

/// Whether the act's result is in place already, so that repeating it changes nothing. Where the table has a step for
/// the act in this status (a second side's pause), it is a step and not a repetition.
pub fn in_place<A: Act>(status: A::Status, act: A, side: Side) -> bool {
    let mut rows = A::TABLE.iter().filter(|row| row.act == act && row.by.allows(side));
    next(status, act, side).is_err() && rows.any(|row| row.to == status)
}

/// The rows that lead out of a status; none: it is terminal.
pub fn possible<A: Act>(status: A::Status) -> impl Iterator<Item = &'static Transition<A::Status, A>> {
    A::TABLE.iter().filter(move |row| row.from == status)
}

//! Whether a gateway runs twice: two processes with one key, as after the copy of a machine.
//!
//! Each process draws an [`Instance`] at its start and says it wherever its gateway has one place: at the control plane and at each
//! relay. Whoever gives that place away remembers in a [`Seat`] who holds it and who had or wanted it lately, and decides by that
//! alone: nothing depends on the clocks of two machines.
//!
//! - The same process, from another address say, always takes over from itself.
//! - A new one takes an empty place at once, and that of a holder that gives no sign of life: it is a restart as a rule.
//! - The older of two that live keeps the place. Where the holder could be asked ([`Life::Answers`]) the newcomer never gets it;
//!   where it could not, the holder is put off for a moment and comes back, which shows that both live.
//! - Who was refused stands by: it gets the place when that has been empty for [`RETURN_SECS`], and gives it up to any new
//!   process, and to those that were there before it. So a restart of the original wins over a copy that waits for its chance.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So long it is remembered who had the place, and who was refused, in seconds.
pub const MEMORY_SECS: u64 = 3_600;
/// So long a place stays empty before one that stood by gets it, in seconds: the time of a restart.
pub const RETURN_SECS: u64 = 15;
/// Processes remembered beside the holder, at most; the one that was seen first is forgotten.
pub const MAX_OTHERS: usize = 8;
/// Header of the upgrade request in which a gateway says its instance to a relay.
pub const INSTANCE_HEADER: &str = "gateway-instance";

/// One process of a gateway: random, drawn at its start and never written to its disk, so that no copy of the disk has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance([u8; 16]);

/// The text is no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance is 32 hex digits")]
pub struct InstanceError;

impl Instance {
    /// An instance of random bytes.
    pub const fn from_random(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Instance {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, InstanceError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InstanceError)?;
        bytes.try_into().map(Self).map_err(|_| InstanceError)
    }
}

impl Serialize for Instance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is known of the holder when another process comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It has no link, or one that was silent beyond the limit.
    Gone,
    /// It has a link and was asked, and did not answer in time.
    Mute,
    /// It has a link, and could not be asked.
    Unasked,
    /// It answered after the other one had come.
    Answers,
}

/// Whether a process gets the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has it.
    Enters,
    /// It has it, and was refused before: another one may come back for it.
    StandsIn,
    /// Another one has it, or had it a moment ago.
    Refused,
}

/// A process as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    instance: Instance,
    /// In the order of coming: the lower is the older.
    order: u64,
    since: u64,
    seen_at: u64,
    address: Option<String>,
    /// When it was refused last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stood_by_at: Option<u64>,
}

impl Process {
    /// Since when it has, or had, the place; of one that never had it, when it came first. Seconds of whoever decides.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Where it came from last.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

/// Two processes were there at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twice {
    /// When the second was refused first, and
    pub since: u64,
    /// last. Seconds of whoever decides.
    pub at: u64,
    /// Where the holder came from.
    pub address: Option<String>,
    /// Where the second came from.
    pub other_address: Option<String>,
}

/// The place of a gateway: who has it, who had it, who wants it. Times are seconds of one clock, that of whoever decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    holder: Option<Process>,
    #[serde(default)]
    next_order: u64,
    /// Since when the holder is known to be gone.
    #[serde(default)]
    empty_since: Option<u64>,
    /// At most [`MAX_OTHERS`], the one seen last at the end.
    #[serde(default)]
    others: Vec<Process>,
    #[serde(default)]
    twice: Option<Twice>,
}

impl Seat {
    /// A process asks for the place. `life` is that of the holder, if it is another one.
    pub fn enter(&mut self, instance: Instance, address: Option<String>, life: Life, now: u64) -> Verdict {
        self.forget(now);
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.instance == instance) {
            holder.address = address;
            self.empty_since = None;
        } else if self.may_enter(instance, life, now) {
            self.take(instance, address, life, now);
        } else {
            self.refuse(instance, address, life, now);
            return Verdict::Refused;
        }
        if self.stands_in(now) { Verdict::StandsIn } else { Verdict::Enters }
    }

    /// The link of a process ended.
    pub fn leave(&mut self, instance: Instance, now: u64) {
        self.forget(now);
        // Nobody asks how long it is empty, unless somebody stands by.
        let is_waited_for = self.others.iter().any(|other| other.stood_by_at.is_some());
        if is_waited_for && self.holder.as_ref().is_some_and(|holder| holder.instance == instance) {
            self.empty_since = Some(now);
        }
    }

    /// Who has the place, or had it last.
    pub fn holder(&self) -> Option<&Process> {
        self.holder.as_ref()
    }

    /// Whether this process has the place, or had it last.
    pub fn is_held_by(&self, instance: Instance) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.instance == instance)
    }

    /// Whether the holder was refused lately, and has the place only because another one left it.
    pub fn stands_in(&self, now: u64) -> bool {
        self.holder.as_ref().and_then(|holder| holder.stood_by_at).is_some_and(|at| is_late(at, now))
    }

    /// Whether two processes were there at the same time, within [`MEMORY_SECS`].
    pub fn twice(&self, now: u64) -> Option<&Twice> {
        self.twice.as_ref().filter(|twice| is_late(twice.at, now))
    }

    /// Whether more than one process wanted it lately. Otherwise nothing of an empty one needs to be remembered.
    pub fn is_contested(&self, now: u64) -> bool {
        let stood_by = |other: &Process| other.stood_by_at.is_some_and(|at| is_late(at, now));
        self.twice(now).is_some() || self.stands_in(now) || self.others.iter().any(stood_by)
    }

    fn may_enter(&mut self, instance: Instance, life: Life, now: u64) -> bool {
        let Some(holder) = &self.holder else { return true };
        let known = self.others.iter().find(|other| other.instance == instance);
        let stood_by = known.is_some_and(|other| other.stood_by_at.is_some());
        match (life, known) {
            (Life::Gone, _) => {
                let since = *self.empty_since.get_or_insert(now);
                !stood_by || now.abs_diff(since) >= RETURN_SECS
            }
            // It was put off, and is back: both live, and the older one stays.
            (Life::Mute | Life::Unasked | Life::Answers, Some(other)) => !stood_by && other.order < holder.order,
            (Life::Mute | Life::Unasked | Life::Answers, None) if holder.stood_by_at.is_some() => true,
            (Life::Mute, None) => true,
            // Where it is known that there are two, a new one is as well the copy, started again.
            (Life::Unasked, None) => self.twice(now).is_none(),
            (Life::Answers, None) => false,
        }
    }

    fn take(&mut self, instance: Instance, address: Option<String>, life: Life, now: u64) {
        let known = self.remembered(instance);
        let is_back = life != Life::Gone && known.as_ref().is_some_and(|known| known.stood_by_at.is_none());
        let mut process = known.unwrap_or_else(|| self.newcomer(instance, now));
        process.address = address;
        process.seen_at = now;
        if process.stood_by_at.is_some() {
            process.since = now;
        }
        self.empty_since = None;
        let Some(mut former) = self.holder.replace(process) else { return };
        former.seen_at = now;
        if is_back {
            former.stood_by_at = Some(now);
        }
        self.remember(former);
    }

    fn refuse(&mut self, instance: Instance, address: Option<String>, life: Life, now: u64) {
        let mut process = self.remembered(instance).unwrap_or_else(|| self.newcomer(instance, now));
        process.address.clone_from(&address);
        process.seen_at = now;
        process.stood_by_at = Some(now);
        self.remember(process);
        // While the place is empty there is only one.
        if life == Life::Gone {
            return;
        }
        let since = self.twice.as_ref().map_or(now, |twice| twice.since);
        let holder = self.holder.as_ref().and_then(|holder| holder.address.clone());
        self.twice = Some(Twice { since, at: now, address: holder, other_address: address });
    }

    fn newcomer(&mut self, instance: Instance, now: u64) -> Process {
        let order = self.next_order;
        self.next_order += 1;
        Process { instance, order, since: now, seen_at: now, address: None, stood_by_at: None }
    }

    fn remembered(&mut self, instance: Instance) -> Option<Process> {
        let position = self.others.iter().position(|other| other.instance == instance)?;
        Some(self.others.remove(position))
    }

    fn remember(&mut self, process: Process) {
        self.others.push(process);
        if self.others.len() > MAX_OTHERS {
            self.others.remove(0);
        }
    }

    fn forget(&mut self, now: u64) {
        self.others.retain(|other| is_late(other.seen_at, now));
        if self.twice(now).is_none() {
            self.twice = None;
        }
        if !self.stands_in(now)
            && let Some(holder) = &mut self.holder
        {
            holder.stood_by_at = None;
        }
    }
}

/// Whether a time is remembered; one of the future, from before a clock was set back, is not for ever.
fn is_late(at: u64, now: u64) -> bool {
    now.abs_diff(at) < MEMORY_SECS
}

/// What a gateway that runs twice is told, and tells its people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsTwice {
    /// Whether this is the second process, which carries nothing.
    pub is_second: bool,
    /// Of the other process: since when it holds the place; of a second, when it was refused first. Unix seconds of the control plane.
    pub since: u64,
    /// When both were seen last, Unix seconds of the control plane.
    pub at: u64,
    /// Where the other process comes from, as the control plane sees it.
    pub address: Option<String>,
}

impl fmt::Display for RunsTwice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.address.as_deref().unwrap_or("an address that is not known");
        if self.is_second {
            write!(
                f,
                "this gateway runs twice: another process with the same key holds its place, from {from}, and this one carries \
                 nothing. If this machine is a copy, give gatewayd a new state directory and enrol it for a server of its own \
                 (`gateway-ctl gateway enroll CODE`); if it is the replacement, stop the other one"
            )
        } else {
            write!(
                f,
                "this gateway runs twice: another process with the same key was refused, from {from}; this one goes on. If that \
                 machine is a copy of this one, give its gatewayd a new state directory and enrol it for a server of its own"
            )
        }
    }
}

#[cfg(test)]
mod tests;

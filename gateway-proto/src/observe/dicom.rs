//! DICOM as it passes: associations and data units of the upper layer protocol (DICOM PS3.8 §9.3). What the data units hold
//! is skipped.

#[cfg(test)]
mod tests;

use std::fmt;

use super::{
    completed::{Completed, Followed},
    uncounted::{Counted, Uncounted},
};
use crate::mllp::End;

const HEADER: usize = 6;
/// Of a request for an association, this much of the body is read: versions and the two titles.
const KEPT: usize = 36;
/// The least body of a request for an association (PS3.8 §9.3.2): what is kept, and 32 reserved bytes.
const LEAST_REQUEST: u32 = 68;

/// The title of an application entity, for its owner's eyes: letters, digits, `_`, `-`, `.` and blanks; anything else
/// shows as `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AeTitle([u8; 16]);

impl AeTitle {
    fn new(bytes: [u8; 16]) -> Self {
        let restricted = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b' ' => byte,
            _ => b'?',
        };
        Self(bytes.map(restricted))
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.trim_ascii().iter().try_for_each(|byte| write!(f, "{}", *byte as char))
    }
}

/// Counts since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DicomCounts {
    /// Associations asked for.
    pub requested: u64,
    /// Associations accepted.
    pub accepted: u64,
    /// Associations rejected.
    pub rejected: u64,
    /// Associations aborted, by either side.
    pub aborted: u64,
    /// Associations released in order.
    pub released: u64,
    /// Data units from the side that asked.
    pub data_units_sent: u64,
    /// Data units to it.
    pub data_units_received: u64,
    /// Connections that are no DICOM.
    pub unreadable: u64,
    /// Associations that are over: rejected, released or aborted.
    pub completed: Completed,
}

/// Why an association was rejected: result, source and reason of PS3.8 §9.3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// 1 permanent, 2 transient.
    pub result: u8,
    /// 1 the user, 2 and 3 the provider.
    pub source: u8,
    /// Depends on the source.
    pub reason: u8,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match (self.source, self.reason) {
            (1, 1) => "no reason given",
            (1, 2) => "the application context is not supported",
            (1, 3) => "the calling title is not known there",
            (1, 7) => "the called title is not known there",
            (2, 2) => "the protocol version is not supported",
            (3, 1) => "congestion there, for the moment",
            (3, 2) => "too many associations there",
            _ => return write!(f, "result {}, source {}, reason {}", self.result, self.source, self.reason),
        };
        f.write_str(reason)
    }
}

/// What one end of a DICOM connection saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DicomLedger {
    /// The counts.
    pub counts: DicomCounts,
    /// Title that was called last.
    pub called: Option<AeTitle>,
    /// Title that called last.
    pub calling: Option<AeTitle>,
    /// Why the last rejected association was rejected; none after an accepted one.
    pub rejection: Option<Rejection>,
}

impl Counted for DicomLedger {
    fn add(&mut self, later: Self) {
        let Self { counts, called, calling, rejection } = later;
        self.counts.requested += counts.requested;
        self.counts.accepted += counts.accepted;
        self.counts.rejected += counts.rejected;
        self.counts.aborted += counts.aborted;
        self.counts.released += counts.released;
        self.counts.data_units_sent += counts.data_units_sent;
        self.counts.data_units_received += counts.data_units_received;
        self.counts.unreadable += counts.unreadable;
        self.counts.completed.add(counts.completed);
        self.called = called.or(self.called);
        self.calling = calling.or(self.calling);
        // Whoever accepts or rejects has taken the connection before: then nothing is held back any more.
        self.rejection = rejection.or(self.rejection);
    }
}

/// Both directions of one TCP connection that should carry DICOM.
#[derive(Debug, Clone)]
pub struct Association {
    requestor: UnitReader,
    acceptor: UnitReader,
    followed: Followed,
    stopped: bool,
    uncounted: Uncounted<DicomLedger>,
}

impl Association {
    /// A connection. `accepted`: the far side has taken it; otherwise [`accepted`](Self::accepted) follows, or its end.
    pub fn new(accepted: bool) -> Self {
        Self {
            requestor: UnitReader::default(),
            acceptor: UnitReader::default(),
            followed: Followed::default(),
            stopped: false,
            uncounted: Uncounted::new(accepted),
        }
    }

    /// The far side has taken the connection.
    pub fn accepted(&mut self, ledger: &mut DicomLedger) {
        self.uncounted.accepted(ledger);
    }

    /// Bytes from the side that connected: how many requests for an association they completed.
    pub fn observe_requestor_bytes(&mut self, bytes: &[u8], ledger: &mut DicomLedger) -> u64 {
        let Self { requestor, followed, stopped, uncounted, .. } = self;
        let ledger = uncounted.counts(ledger);
        let before = ledger.counts.requested;
        if !*stopped && requestor.observe(bytes, |unit| note(unit, true, ledger, followed)).is_err() {
            stop(stopped, ledger, followed);
        }
        ledger.counts.requested.saturating_sub(before)
    }

    /// Bytes from the side that was connected to.
    pub fn observe_acceptor_bytes(&mut self, bytes: &[u8], ledger: &mut DicomLedger) {
        let Self { acceptor, followed, stopped, uncounted, .. } = self;
        let ledger = uncounted.counts(ledger);
        if !*stopped && acceptor.observe(bytes, |unit| note(unit, false, ledger, followed)).is_err() {
            stop(stopped, ledger, followed);
        }
    }

    /// The connection is over.
    pub fn end(mut self, ledger: &mut DicomLedger, end: End) {
        let completed = &mut self.uncounted.counts(ledger).counts.completed;
        if self.stopped {
            self.followed.end_unfollowed(completed);
        } else {
            self.followed.end(completed, end);
        }
        self.uncounted.end(ledger, end);
    }
}

fn stop(stopped: &mut bool, ledger: &mut DicomLedger, followed: &mut Followed) {
    *stopped = true;
    ledger.counts.unreadable += 1;
    followed.lost_track(&mut ledger.counts.completed);
}

/// A whole unit. What is read of its body is what `body` holds.
struct Unit {
    kind: u8,
    length: u32,
    body: [u8; KEPT],
}

impl Unit {
    /// Long enough for a request for an association, and of a version that there is.
    fn is_request(&self) -> bool {
        self.length >= LEAST_REQUEST && self.body[1] & 1 == 1
    }
}

fn note(unit: Unit, from_requestor: bool, ledger: &mut DicomLedger, followed: &mut Followed) -> Result<(), NotDicom> {
    let counts = &mut ledger.counts;
    match unit.kind {
        // A connection carries one association, and who connected asks for it. What else looks like a request is something
        // else, and what would be its titles may be anything.
        1 if !from_requestor || followed.has_asked() || !unit.is_request() => return Err(NotDicom),
        1 => followed.asked(),
        3 | 6 | 7 => followed.answered(&mut counts.completed),
        _ => {}
    }
    match unit.kind {
        1 => {
            counts.requested += 1;
            ledger.called = title(&unit.body, 4);
            ledger.calling = title(&unit.body, 20);
        }
        2 => {
            counts.accepted += 1;
            ledger.rejection = None;
        }
        3 => {
            counts.rejected += 1;
            let [_, result, source, reason, ..] = unit.body;
            ledger.rejection = Some(Rejection { result, source, reason });
        }
        4 if from_requestor => counts.data_units_sent += 1,
        4 => counts.data_units_received += 1,
        6 => counts.released += 1,
        7 => counts.aborted += 1,
        // 5 asks for the release that 6 confirms.
        _ => {}
    }
    Ok(())
}

fn title(body: &[u8; KEPT], at: usize) -> Option<AeTitle> {
    body.get(at..at + 16)?.try_into().ok().map(AeTitle::new)
}

#[derive(Clone)]
struct UnitReader {
    header: [u8; HEADER],
    header_read: usize,
    body: [u8; KEPT],
    body_read: usize,
    left: u32,
}

/// Without the bytes: of a data unit they are an image's or a patient's.
impl fmt::Debug for UnitReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitReader")
            .field("header_read", &self.header_read)
            .field("body_read", &self.body_read)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Default for UnitReader {
    fn default() -> Self {
        Self { header: [0; HEADER], header_read: 0, body: [0; KEPT], body_read: 0, left: 0 }
    }
}

impl UnitReader {
    fn observe(
        &mut self,
        mut bytes: &[u8],
        mut read: impl FnMut(Unit) -> Result<(), NotDicom>,
    ) -> Result<(), NotDicom> {
        while !bytes.is_empty() {
            if self.header_read < HEADER {
                self.header[self.header_read] = bytes[0];
                self.header_read += 1;
                bytes = &bytes[1..];
                if !(1..=7).contains(&self.header[0]) {
                    return Err(NotDicom);
                }
                if self.header_read < HEADER {
                    continue;
                }
                let [_, _, length @ ..] = self.header;
                self.left = u32::from_be_bytes(length);
                (self.body, self.body_read) = ([0; KEPT], 0);
            }
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let room = &mut self.body[self.body_read.min(KEPT)..];
            let kept = room.len().min(count);
            room[..kept].copy_from_slice(&bytes[..kept]);
            self.body_read += kept;
            self.left -= u32::try_from(count).map_err(|_| NotDicom)?;
            bytes = &bytes[count..];
            if self.left == 0 {
                self.header_read = 0;
                let [kind, _, length @ ..] = self.header;
                let body = std::mem::replace(&mut self.body, [0; KEPT]);
                read(Unit { kind, length: u32::from_be_bytes(length), body })?;
            }
        }
        Ok(())
    }
}

struct NotDicom;

//! Observers: what can be known of an exchange from the bytes that pass, without keeping one of them.
//!
//! An observer sees every byte and owns none: it is handed slices beside the copy loop, changes nothing, delays nothing, and
//! cannot fail. What it cannot read it counts and leaves alone. Its state is bounded, whatever a peer sends: labels
//! are restricted ([`crate::mllp::MessageKind`]) and tabled up to a cap, control ids are hashed at once, addresses, names
//! and bodies are skipped.
//!
//! - [`Book`]: the observer a behavior asks for
//! - [`Ledger`]: MLLP, one per end of a connection, fed by [`crate::mllp::Conversation`]
//! - [`http::HttpExchange`]: method classes, status classes, times
//! - [`dicom::Association`]: associations, their application entities, data units
//! - [`Completed`]: what of HTTP and DICOM is over, for the delivery proof
//! - [`Latency`]: how long answers take
//! - [`Uncounted`]: what passed before the far side took the stream, for all of them
//! - [`Schedule`]: how long this channel is usually silent, by the hour, working days and weekends apart

mod book;
mod completed;
pub mod dicom;
pub mod http;
mod latency;
mod ledger;
mod schedule;
#[cfg(test)]
mod secrecy;
mod uncounted;

pub use book::{Book, Exchange, Protocol};
pub use completed::Completed;
pub use latency::{BOUNDS, Latency};
pub use ledger::{AnswerSeen, Counts, Kinds, Ledger, RESPONSE_TIMEOUT, Wait, Warning};
pub(crate) use ledger::{Moving, Passage, Taken};
pub use schedule::{Schedule, Silence};
pub(crate) use uncounted::Uncounted;

//! Admin connections: who acts, and what the owner's gateway lets through to the engine's admin API.
//!
//! A partner's administrator speaks HTTP to a local port of its own gateway. The owner's gateway ends that HTTP: it reads
//! each request strictly ([`head`], [`body`], [`target`]), decides ([`guard`]), writes a new request to the engine
//! ([`forward`]), masks secrets in the answer ([`redact`]) and keeps a record ([`call`]). The engine never sees a byte of a
//! request's head that was not understood.
//!
//! | module | what it holds |
//! |---|---|
//! | [`opening`] | the frame that names the acting user at the head of every admin stream |
//! | [`operation`] | the 210 operations of the engine with their classes |
//! | [`target`] | request targets with one reading only |
//! | [`head`], [`body`] | HTTP/1.1, strictly |
//! | [`guard`] | allow, mask or refuse |
//! | [`form`] | the form of a sign-in, with one reading only |
//! | [`forward`], [`answer`] | what is written to the engine and to the client |
//! | [`redact`] | masks secrets in XML and JSON as they stream by |
//! | [`limiter`] | how often somebody may try to sign in |
//! | [`sessions`] | which connection a session at the engine belongs to |
//! | [`call`] | the record of a call |

pub mod answer;
pub mod body;
pub mod call;
pub mod form;
pub mod forward;
pub mod guard;
pub mod head;
pub mod limiter;
pub mod opening;
pub mod operation;
mod phrase;
pub mod redact;
pub mod sessions;
pub mod target;

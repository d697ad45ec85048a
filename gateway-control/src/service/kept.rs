//! Where the data of a connection comes from stays as the approval or acceptance that made it said.

use std::fmt::Display;

use gateway_proto::id::ServerId;

use super::{ServiceError, ServiceResult};
use crate::storage::ConnectionRow;

/// What an answer that comes again names of the sending end, with the names of the fields; what it leaves out is not compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamedEnd {
    pub(super) server: (&'static str, Option<ServerId>),
    /// 0: its gateway picks one.
    pub(super) port: (&'static str, Option<u16>),
    pub(super) auto_activate: Option<bool>,
}

impl NamedEnd {
    /// Refuses what is not in place, so that nobody takes another server or port for the one that is open. Only for those whose
    /// server it is, where it names server or port: the refusal says what is in place.
    pub(super) fn check_kept(self, row: &ConnectionRow) -> ServiceResult<()> {
        let Self { server, port, auto_activate } = self;
        let others = [
            row.sender.server.and_then(|is| other(server.0, is, server.1)),
            other(port.0, row.sender_port, port.1),
            other("auto_activate", row.auto_activate, auto_activate),
        ];
        let others: Vec<_> = others.into_iter().flatten().collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(ServiceError::Conflict(format!(
            "this was answered already, and what the first answer said stays: {}; leave out what is to stay, or end it and make a \
             new one",
            others.join(", ")
        )))
    }
}

fn other<T: PartialEq + Display>(field: &str, is: T, named: Option<T>) -> Option<String> {
    let named = named.filter(|named| *named != is)?;
    Some(format!("{field} is {is} and not {named}"))
}

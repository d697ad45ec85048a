//! The record of one admin call, and the chain that shows whether a log of them was changed.
//!
//! One line of JSON a call: `{"hash":"<hex>","record":{…}}`. The hash covers the record's bytes and the hash of the line before,
//! so a line that is changed, removed or put elsewhere breaks every line after it. No body, no query, no value of a path.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{opening::KnownBy, operation::Class};
use crate::id::ConnectionId;

const CONTEXT: &[u8] = b"gateway/admin-audit/1\0";
const PREFIX: &str = "{\"hash\":\"";
const MIDDLE: &str = "\",\"record\":";

/// One call of a partner's administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminCall {
    /// Goes up by one with every call.
    pub sequence: u64,
    /// When it ended, Unix milliseconds.
    pub at: u64,
    /// The admin connection.
    pub connection: ConnectionId,
    /// The organization of the user's gateway, as our policy names it.
    pub organization: String,
    /// The server of the user's gateway, as our policy names it.
    pub server: String,
    /// The acting user, as that gateway vouches.
    pub user: String,
    /// How that gateway knows.
    pub known_by: KnownBy,
    /// The person behind the acting user, as the platform says; none: nobody named himself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The account at the engine, once somebody has signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The method.
    pub method: Cow<'static, str>,
    /// The path with parameters in braces.
    pub path: Cow<'static, str>,
    /// What it does; none: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The status of the answer; 0: the caller or the permission went before there was one.
    pub status: u16,
    /// Why the gateway refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

/// The end of a chain of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    last: [u8; 32],
}

/// Why a line does not continue a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not a line of this form.
    #[error("the line is no record of the audit log")]
    Malformed,
    /// The hash is another one.
    #[error("the line was changed, or lines before it are missing")]
    Broken,
}

impl Chain {
    /// The line of a record, without its line break; it is the new end.
    pub fn append(&mut self, record: &AdminCall) -> String {
        let record = serde_json::to_string(record).expect("plain fields serialize");
        self.last = self.next(record.as_bytes());
        format!("{PREFIX}{}{MIDDLE}{record}}}", HEXLOWER.encode(&self.last))
    }

    /// Checks that a line continues the chain; it is the new end.
    pub fn verify(&mut self, line: &str) -> Result<AdminCall, ChainError> {
        let (hash, record) = split(line)?;
        if self.next(record.as_bytes()) != hash {
            return Err(ChainError::Broken);
        }
        self.last = hash;
        serde_json::from_str(record).map_err(|_| ChainError::Malformed)
    }

    /// The chain that ends with this line, taken as it is.
    pub fn after(line: &str) -> Result<(Self, AdminCall), ChainError> {
        let (hash, record) = split(line)?;
        let record = serde_json::from_str(record).map_err(|_| ChainError::Malformed)?;
        Ok((Self { last: hash }, record))
    }

    fn next(&self, record: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(CONTEXT).chain_update(self.last).chain_update(record).finalize().into()
    }
}

fn split(line: &str) -> Result<([u8; 32], &str), ChainError> {
    let rest = line.strip_prefix(PREFIX).ok_or(ChainError::Malformed)?;
    let (hash, rest) = rest.split_at_checked(64).ok_or(ChainError::Malformed)?;
    let record = rest.strip_prefix(MIDDLE).and_then(|rest| rest.strip_suffix('}')).ok_or(ChainError::Malformed)?;
    let hash = HEXLOWER.decode(hash.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    Ok((hash.ok_or(ChainError::Malformed)?, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(sequence: u64) -> AdminCall {
        AdminCall {
            sequence,
            at: 1_800_000_000_000,
            connection: ConnectionId::new(1, [1; 10]),
            organization: "North".into(),
            server: "north".into(),
            user: "maria".into(),
            known_by: KnownBy::LocalAccount,
            person: None,
            account: None,
            method: "POST".into(),
            path: "/channels/_stop".into(),
            class: Some(Class::Write),
            status: 403,
            refused: Some("read-only through gateway: stop channel is not permitted".into()),
            duration_ms: 1,
        }
    }

    #[test]
    fn a_changed_removed_or_moved_line_breaks_the_chain() {
        let mut chain = Chain::default();
        let lines: Vec<_> = (0..3).map(|n| chain.append(&call(n))).collect();
        let verify = |lines: &[&String]| {
            let mut chain = Chain::default();
            lines.iter().map(|line| chain.verify(line).map(|call| call.sequence)).collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(verify(&[&lines[0], &lines[1], &lines[2]]), Ok(vec![0, 1, 2]));
        assert_eq!(verify(&[&lines[0], &lines[2]]), Err(ChainError::Broken));
        assert_eq!(verify(&[&lines[1], &lines[0]]), Err(ChainError::Broken));
        let changed = lines[1].replace("maria", "peter");
        assert_eq!(verify(&[&lines[0], &changed]), Err(ChainError::Broken));
        assert_eq!(verify(&[&"{}".to_owned()]), Err(ChainError::Malformed));
        let (mut resumed, last) = Chain::after(&lines[1]).unwrap();
        assert_eq!((last.sequence, resumed.verify(&lines[2]).unwrap()), (1, call(2)));
    }
}

//! Entity tags: what an object is, in a few characters, so that a change can be made on the condition that nobody else
//! made one (`If-Match`). They are made from what is shown, without what changes by itself.
//!
//! A condition is never passed over: a change that did not look at it is not committed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Actor, OperatorCaller, ServiceError, ServiceResult};

/// Fields that gateways and time change, not people.
const VOLATILE: &[&str] = &[
    "report",
    "reported_at",
    "local_port",
    "policy_in_force",
    "policy_in_force_since",
    "policy_confirmed_at",
    "policy_stale",
    "online",
    "last_seen_at",
    "policy_revision",
    "secret_rotation",
    "applied_revision",
    "policy_problem",
    "gateway_version",
    "metrics",
    "delivery",
    "last_used_at",
    "audit_alarm",
    "runs_twice",
    "newest",
    "found",
    "times",
    "told_at",
];

/// The tag of an object as it is shown, in the quotes of the header.
pub fn etag(shown: &impl Serialize) -> String {
    let mut value = serde_json::to_value(shown).unwrap_or_default();
    strip(&mut value);
    // Objects are maps with sorted keys: the text is the same for the same content.
    let digest = Sha256::digest(value.to_string());
    format!("\"{}\"", HEXLOWER.encode(&digest[..16]))
}

/// The condition of a request: tags of which one must be the object's.
#[derive(Debug, Clone)]
pub struct Condition {
    tags: String,
    /// It was compared with an object, by whoever has a clone of it.
    looked_at: Arc<AtomicBool>,
}

impl Condition {
    /// The content of `If-Match`.
    pub fn new(tags: String) -> Self {
        Self { tags, looked_at: Arc::default() }
    }

    /// Refuses what was done without a look at it.
    pub(super) fn must_be_looked_at(&self) -> ServiceResult<()> {
        if self.looked_at.load(Ordering::Relaxed) { Ok(()) } else { Err(ServiceError::Unconditional) }
    }

    fn fits(&self, own: &str) -> bool {
        self.looked_at.store(true, Ordering::Relaxed);
        self.tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == own)
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Actor {
    /// Whether the request is on a condition: then what the object is has to be looked at before it is changed.
    pub(super) fn is_conditional(&self) -> bool {
        self.if_match.is_some()
    }

    /// Refuses a change of an object that is not what the user saw.
    pub(super) fn check_match(&self, shown: &impl Serialize) -> ServiceResult<()> {
        must_fit(self.if_match.as_ref(), shown)
    }
}

impl OperatorCaller {
    /// Refuses a change of an object that is not what the operator saw.
    pub(super) fn check_match(&self, shown: &impl Serialize) -> ServiceResult<()> {
        must_fit(self.if_match.as_ref(), shown)
    }
}

fn must_fit(condition: Option<&Condition>, shown: &impl Serialize) -> ServiceResult<()> {
    match condition {
        Some(condition) if !condition.fits(&etag(shown)) => Err(ServiceError::Changed),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_that_nobody_looked_at_does_not_count_as_kept() {
        let condition = Condition::new("\"x\", \"y\"".to_owned());
        let kept = condition.clone();
        assert!(matches!(kept.must_be_looked_at(), Err(ServiceError::Unconditional)));
        assert!(condition.fits("\"y\"") && !condition.fits("\"z\""));
        assert!(kept.must_be_looked_at().is_ok());
        assert!(Condition::new("*".to_owned()).fits("\"z\""));
    }

    #[test]
    fn a_tag_tells_what_people_changed_and_not_what_gateways_report() {
        let seen = json!({"id": "con_1", "status": "active", "sender": {"paused": false, "report": {"streams": 1}}});
        let same = json!({"status": "active", "id": "con_1", "sender": {"paused": false, "report": null},
            "delivery": {"sender_messages": 7}, "policy_in_force_since": 5});
        let other = json!({"id": "con_1", "status": "active", "sender": {"paused": true}});
        assert_eq!(etag(&seen), etag(&same));
        assert_ne!(etag(&seen), etag(&other));
    }
}

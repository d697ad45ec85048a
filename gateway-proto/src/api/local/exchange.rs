//! What was observed of a connection's messages, by protocol.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was observed since the daemon started, without a byte of payload (docs/observers.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum ExchangeStatus {
    /// HL7 v2 over MLLP.
    Mllp(MllpStatus),
    /// HTTP, FHIR.
    Http(HttpStatus),
    /// DICOM.
    Dicom(DicomStatus),
}

/// Times to an answer over the last 10 to 20 minutes, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AnswerTimes {
    /// Half of the answers came within.
    pub p50_ms: f64,
    /// 99 of 100 came within.
    pub p99_ms: f64,
}

/// What an MLLP connection showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MllpStatus {
    /// Whole messages that passed.
    pub messages: u64,
    /// Answers `AA` and `CA`.
    pub accepted: u64,
    /// Answers `AE` and `CE`.
    pub errors: u64,
    /// Answers `AR` and `CR`.
    pub rejected: u64,
    /// Answers without such a code.
    pub other_answers: u64,
    /// Commit blocks of MLLP release 2 that accept; neither messages nor answers.
    #[serde(default)]
    pub commits_accepted: u64,
    /// Commit blocks that refuse.
    #[serde(default)]
    pub commits_refused: u64,
    /// Messages without an answer now, also those that a commit block has accepted.
    pub outstanding: u64,
    /// Messages whose connection ended before an answer passed or a commit block accepted them.
    pub unacknowledged: u64,
    /// Messages that came again on a new connection without an answer, after the sending engine had given up.
    pub duplicates: u64,
    /// Messages that came again after the tunnel or the policy had ended their connection.
    pub retries: u64,
    /// Acknowledgements that passed later than a sending engine waits for them, or after their message had come again.
    pub late_answers: u64,
    /// Answers that name another message than those that wait.
    pub mismatched_answers: u64,
    /// Faults of the framing by kind: `junk`, `end_missing`, `no_header`, `empty`, `cut`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub framing_faults: BTreeMap<String, u64>,
    /// Messages by type, a few types one by one, the rest as `other`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, u64>,
    /// Type of the last message that the far side took.
    pub last_type: Option<String>,
    /// Code of the last answer.
    pub last_code: Option<String>,
    /// From message to answer.
    pub answer_times: Option<AnswerTimes>,
}

/// What an HTTP connection showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpStatus {
    /// GET, HEAD, OPTIONS.
    pub reads: u64,
    /// POST, PUT, PATCH, DELETE.
    pub writes: u64,
    /// Other methods.
    pub others: u64,
    /// Answers by class, 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Requests whose connection ended before an answer passed.
    pub unanswered: u64,
    /// Connections that became something else.
    pub upgraded: u64,
    /// Connections that were no HTTP/1.1.
    pub unreadable: u64,
    /// From request to answer.
    pub answer_times: Option<AnswerTimes>,
}

/// What a DICOM connection showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DicomStatus {
    /// Associations asked for.
    pub requested: u64,
    /// Accepted.
    pub accepted: u64,
    /// Rejected.
    pub rejected: u64,
    /// Aborted.
    pub aborted: u64,
    /// Released in order.
    pub released: u64,
    /// Data units from the side that asked.
    pub data_units_sent: u64,
    /// Data units to it.
    pub data_units_received: u64,
    /// Connections that were no DICOM.
    pub unreadable: u64,
    /// Application entity called last.
    pub called: Option<String>,
    /// Application entity that called last.
    pub calling: Option<String>,
    /// Why the last association was rejected.
    pub rejection: Option<String>,
}

//! The observer a behavior asks for: one book per end of a connection, one exchange per stream.

use std::time::Instant;

use super::{
    Ledger,
    dicom::{Association, DicomLedger},
    http::{HttpExchange, HttpLedger},
};
use crate::{
    mllp::{Conversation, End, HashKey},
    policy::HL7V2_MLLP,
};

/// What is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `hl7v2-mllp`
    Mllp,
    /// `http`, and every behavior that begins with `fhir-`.
    Http,
    /// `dicom`
    Dicom,
    /// Anything else: its bytes are counted, not looked at.
    Unknown,
}

impl Protocol {
    /// The protocol of a behavior.
    pub fn of(behavior: &str) -> Self {
        match behavior {
            HL7V2_MLLP => Self::Mllp,
            "dicom" => Self::Dicom,
            "http" => Self::Http,
            fhir if fhir.starts_with("fhir-") => Self::Http,
            _ => Self::Unknown,
        }
    }
}

/// What one end of a connection saw.
#[derive(Debug)]
pub enum Book {
    /// MLLP.
    Mllp(Box<Ledger>),
    /// HTTP.
    Http(Box<HttpLedger>),
    /// DICOM.
    Dicom(Box<DicomLedger>),
    /// Nothing: the protocol is not known.
    Nothing,
}

/// One stream that is observed.
#[derive(Debug)]
pub enum Exchange {
    /// MLLP.
    Mllp(Box<Conversation>),
    /// HTTP.
    Http(Box<HttpExchange>),
    /// DICOM.
    Dicom(Box<Association>),
    /// Nothing.
    Nothing,
}

impl Book {
    /// An empty book; `key` is random.
    pub fn new(protocol: Protocol, key: HashKey) -> Self {
        match protocol {
            Protocol::Mllp => Self::Mllp(Box::new(Ledger::new(key))),
            Protocol::Http => Self::Http(Box::default()),
            Protocol::Dicom => Self::Dicom(Box::default()),
            Protocol::Unknown => Self::Nothing,
        }
    }

    /// What it observes.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Mllp(_) => Protocol::Mllp,
            Self::Http(_) => Protocol::Http,
            Self::Dicom(_) => Protocol::Dicom,
            Self::Nothing => Protocol::Unknown,
        }
    }

    /// A stream begins. `accepted`: the far side has taken it; otherwise [`accepted`](Self::accepted) follows, or its end.
    pub fn begin(&mut self, accepted: bool) -> Exchange {
        match self {
            Self::Mllp(ledger) => Exchange::Mllp(Box::new(Conversation::new(ledger, accepted))),
            Self::Http(_) => Exchange::Http(Box::default()),
            Self::Dicom(_) => Exchange::Dicom(Box::default()),
            Self::Nothing => Exchange::Nothing,
        }
    }

    /// The far side has taken the stream. An exchange belongs to the book that began it; with another one nothing happens,
    /// here and below.
    pub fn accepted(&mut self, exchange: &mut Exchange) {
        if let (Exchange::Mllp(conversation), Self::Mllp(ledger)) = (exchange, self) {
            conversation.accepted(ledger);
        }
    }

    /// Bytes from the side that connected: how many messages or requests they completed.
    pub fn asked(&mut self, exchange: &mut Exchange, bytes: &[u8], now: Instant) -> u64 {
        match (exchange, self) {
            (Exchange::Mllp(conversation), Self::Mllp(ledger)) => {
                let before = ledger.passed();
                conversation.observe_message_bytes(bytes, ledger, now);
                ledger.passed().saturating_sub(before)
            }
            (Exchange::Http(exchange), Self::Http(ledger)) => {
                let asked = |ledger: &HttpLedger| ledger.counts.reads + ledger.counts.writes + ledger.counts.others;
                let before = asked(ledger);
                exchange.observe_request_bytes(bytes, ledger, now);
                asked(ledger).saturating_sub(before)
            }
            (Exchange::Dicom(association), Self::Dicom(ledger)) => {
                let before = ledger.counts.requested;
                association.observe_requestor_bytes(bytes, ledger);
                ledger.counts.requested.saturating_sub(before)
            }
            _ => 0,
        }
    }

    /// Bytes from the side that was connected to.
    pub fn answered(&mut self, exchange: &mut Exchange, bytes: &[u8], now: Instant) {
        match (exchange, self) {
            (Exchange::Mllp(conversation), Self::Mllp(ledger)) => {
                conversation.observe_acknowledgement_bytes(bytes, ledger, now);
            }
            (Exchange::Http(exchange), Self::Http(ledger)) => exchange.observe_answer_bytes(bytes, ledger, now),
            (Exchange::Dicom(association), Self::Dicom(ledger)) => association.observe_acceptor_bytes(bytes, ledger),
            _ => {}
        }
    }

    /// The stream is over.
    pub fn end(&mut self, exchange: Exchange, end: End) {
        match (exchange, self) {
            (Exchange::Mllp(conversation), Self::Mllp(ledger)) => conversation.end(ledger, end),
            (Exchange::Http(exchange), Self::Http(ledger)) => exchange.end(ledger),
            _ => {}
        }
    }
}

impl Exchange {
    /// Whether the receiving side may end it with a FIN; only MLLP has an opinion ([`Conversation::may_end_cleanly`]).
    pub fn may_end_cleanly(&self) -> bool {
        match self {
            Self::Mllp(conversation) => conversation.may_end_cleanly(),
            Self::Http(_) | Self::Dicom(_) | Self::Nothing => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviors_have_their_observer() {
        for (behavior, protocol) in [
            ("hl7v2-mllp", Protocol::Mllp),
            ("fhir-query", Protocol::Http),
            ("http", Protocol::Http),
            ("dicom", Protocol::Dicom),
            ("tcp", Protocol::Unknown),
            ("sftp", Protocol::Unknown),
        ] {
            assert_eq!(Protocol::of(behavior), protocol);
            assert_eq!(Book::new(protocol, HashKey::from_bytes([1; 16])).protocol(), protocol);
        }
    }
}

//! The observer a behavior asks for: one book per end of a connection, one exchange per stream.

use std::time::{Duration, Instant};

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

    /// The same for engines that wait so long for an acknowledgement;
    /// [`RESPONSE_TIMEOUT`](super::RESPONSE_TIMEOUT) unless said so.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        if let Self::Mllp(ledger) = &mut self {
            ledger.set_patience(patience);
        }
        self
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

    /// How many acknowledgements, answers to requests, and answers about associations passed; only grows.
    pub fn answers(&self) -> u64 {
        match self {
            Self::Mllp(ledger) => ledger.answers(),
            Self::Http(ledger) => ledger.counts.completed.answered,
            Self::Dicom(ledger) => ledger.counts.completed.answered,
            Self::Nothing => 0,
        }
    }

    /// A stream begins. `accepted`: the far side has taken it; otherwise [`accepted`](Self::accepted) follows, or its end.
    pub fn begin(&mut self, accepted: bool) -> Exchange {
        match self {
            Self::Mllp(ledger) => Exchange::Mllp(Box::new(Conversation::new(ledger, accepted))),
            Self::Http(_) => Exchange::Http(Box::new(HttpExchange::new(accepted))),
            Self::Dicom(_) => Exchange::Dicom(Box::new(Association::new(accepted))),
            Self::Nothing => Exchange::Nothing,
        }
    }

    /// The far side has taken the stream. An exchange belongs to the book that began it; with another one nothing happens,
    /// here and below.
    pub fn accepted(&mut self, exchange: &mut Exchange) {
        match (exchange, self) {
            (Exchange::Mllp(conversation), Self::Mllp(ledger)) => conversation.accepted(ledger),
            (Exchange::Http(exchange), Self::Http(ledger)) => exchange.accepted(ledger),
            (Exchange::Dicom(association), Self::Dicom(ledger)) => association.accepted(ledger),
            _ => {}
        }
    }

    /// Bytes from the side that connected: how many messages or requests they completed, taken by the far side or not.
    pub fn asked(&mut self, exchange: &mut Exchange, bytes: &[u8], now: Instant) -> u64 {
        match (exchange, self) {
            (Exchange::Mllp(conversation), Self::Mllp(ledger)) => {
                let before = ledger.passed();
                conversation.observe_message_bytes(bytes, ledger, now);
                ledger.passed().saturating_sub(before)
            }
            (Exchange::Http(exchange), Self::Http(ledger)) => exchange.observe_request_bytes(bytes, ledger, now),
            (Exchange::Dicom(association), Self::Dicom(ledger)) => association.observe_requestor_bytes(bytes, ledger),
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
            (Exchange::Http(exchange), Self::Http(ledger)) => exchange.end(ledger, end),
            (Exchange::Dicom(association), Self::Dicom(ledger)) => association.end(ledger, end),
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
#[expect(clippy::disallowed_methods, reason = "a start for virtual time")]
mod tests {
    use super::*;

    /// One of each protocol, with what the side that connects says first.
    const ASKED: [(Protocol, &[u8]); 3] = [
        (Protocol::Mllp, b"\x0bMSH|^~\\&|A|B|C|D|1||ADT^A01|ID\r\x1c\r"),
        (Protocol::Http, b"GET /Patient HTTP/1.1\r\n\r\n"),
        (
            Protocol::Dicom,
            b"\x01\0\0\0\0\x44\0\x01\0\0OIE             MODALITY        \
              \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ];

    /// What was asked of this book, and what of it had no answer at the end.
    fn counted(book: &Book) -> (u64, u64) {
        match book {
            Book::Mllp(ledger) => (ledger.counts().messages, ledger.counts().unacknowledged),
            Book::Http(ledger) => (ledger.counts.reads, ledger.counts.unanswered),
            Book::Dicom(ledger) => (ledger.counts.requested, u64::from(ledger.called.is_some())),
            Book::Nothing => (0, 0),
        }
    }

    #[test]
    fn what_is_refused_is_not_counted_whatever_the_protocol() {
        for (protocol, asks) in ASKED {
            let mut book = Book::new(protocol, HashKey::from_bytes([1; 16]));
            for _ in 0..3 {
                let mut refused = book.begin(false);
                assert_eq!(book.asked(&mut refused, asks, Instant::now()), 1, "{protocol:?}: it passed");
                assert_eq!(counted(&book), (0, 0), "{protocol:?}");
                book.end(refused, End::Refused);
                assert_eq!(counted(&book), (0, 0), "{protocol:?}");
            }
            let mut junk = book.begin(false);
            book.asked(&mut junk, &[0xff; 9], Instant::now());
            book.end(junk, End::Refused);
            match &book {
                Book::Http(ledger) => assert_eq!(ledger.counts, HttpLedger::default().counts),
                Book::Dicom(ledger) => assert_eq!(**ledger, DicomLedger::default()),
                Book::Mllp(_) | Book::Nothing => {}
            }
        }
    }

    #[test]
    fn what_is_taken_is_counted_and_so_is_what_nobody_answered_for() {
        for (protocol, asks) in ASKED {
            let mut book = Book::new(protocol, HashKey::from_bytes([1; 16]));
            let mut taken = book.begin(false);
            book.asked(&mut taken, asks, Instant::now());
            book.accepted(&mut taken);
            assert_eq!(counted(&book).0, 1, "{protocol:?}: once it is taken");
            book.accepted(&mut taken);
            if protocol != Protocol::Dicom {
                book.asked(&mut taken, asks, Instant::now());
                assert_eq!(counted(&book).0, 2, "{protocol:?}: and at once from then on");
            }
            book.end(taken, End::ByTheSender);
            let (before, _) = counted(&book);
            let mut lost = book.begin(false);
            book.asked(&mut lost, asks, Instant::now());
            book.end(lost, End::Otherwise);
            let (after, open) = counted(&book);
            assert!(after == before + 1 && open > 0, "{protocol:?}: nobody knows what became of it");
        }
    }

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

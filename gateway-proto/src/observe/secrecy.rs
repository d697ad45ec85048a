//! Of what passes an observer, nothing can be read in what it keeps: not as text, and not as numbers.

#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]

use std::time::Instant;

use proptest::{collection::vec, prelude::*, sample::select};

use super::{Book, Protocol};
use crate::mllp::{End, HashKey};

/// Letters of what must not be seen.
const TOKEN: usize = 12;

/// What is said in a protocol, with the token at every `@`.
fn samples(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Mllp => &[
            "\x0bMSH|^~\\&|@|@|@|@|@||@^@|@|P|2.5\rPID|1||@\r\x1c\r",
            "\x0bMSH|^~\\&|B|A|D|C|2026||ACK|@|P|2.5\rMSA|@|@|@\r\x1c\r",
            "\x0bFHS|^~\\&|@\rBHS|^~\\&|@\r\x1c\r",
            "@\x0b@\x1c\r@",
        ],
        Protocol::Http => &[
            "POST /@?@=@ HTTP/1.1\r\nHost: @\r\n@: @\r\nContent-Length: 12\r\n\r\n@",
            "GET /@ HTTP/1.1\r\nAuthorization: @\r\nContent-Length: @\r\n\r\n",
            "HTTP/1.1 200 @\r\nTransfer-Encoding: chunked\r\nX: @\r\n\r\nc;@\r\n@\r\n0\r\n@: @\r\n\r\n",
            "@ /@ HTTP/1.1\r\n\r\n@",
        ],
        Protocol::Dicom => &[
            // A request for an association; titles are what is kept of it, and the rest of its 80 bytes is not.
            "\x01\0\0\0\0\x50\0\x01\0\0OIE             MODALITY        @\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0@",
            "\x04\0\0\0\0\x12\0\0\0\x0e\x01\x03@",
            "\x02\0\0\0\0\x0c@\x06\0\0\0\0\x0c@",
            "\x03\0\0\0\0\x10\0\x01\x01\x07@\x07\0\0\0\0\x0c@@",
        ],
        Protocol::Unknown => &["@"],
    }
}

fn filled(protocol: Protocol, which: usize, token: &str) -> Vec<u8> {
    let samples = samples(protocol);
    samples[which % samples.len()].replace('@', token).into_bytes()
}

/// What is shown of the titles of application entities is said in the documentation.
fn forget_titles(book: &mut Book) {
    if let Book::Dicom(ledger) = book {
        ledger.called = None;
        ledger.calling = None;
    }
}

fn hides(shown: &str, token: &str) -> Result<(), TestCaseError> {
    prop_assert!(!shown.contains(&token[..4]), "{token} in {shown}");
    for bytes in token.as_bytes().windows(4) {
        // A byte string shows as numbers.
        let numbers = format!("{bytes:?}").replace(['[', ']'], "");
        prop_assert!(!shown.contains(&numbers), "{token} in {shown}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_that_passes_can_be_read_in_what_an_observer_keeps(
        letters in vec(b'a'..=b'z', TOKEN),
        protocol in select(vec![Protocol::Mllp, Protocol::Http, Protocol::Dicom, Protocol::Unknown]),
        turns in vec((any::<bool>(), 0..8_usize, any::<prop::sample::Index>(), 1..40_usize), 1..8),
    ) {
        // It begins as no word of ours does.
        let token = format!("qzx{}", String::from_utf8_lossy(&letters[3..]));
        let (mut book, now) = (Book::new(protocol, HashKey::from_bytes([3; 16])), Instant::now());
        let mut exchange = book.begin(true);
        for (asks, which, until, piece) in turns {
            let bytes = filled(protocol, which, &token);
            for part in bytes[..until.index(bytes.len() + 1)].chunks(piece) {
                if asks {
                    book.asked(&mut exchange, part, now);
                } else {
                    book.answered(&mut exchange, part, now);
                }
            }
        }
        forget_titles(&mut book);
        hides(&format!("{exchange:?}{book:?}"), &token)?;
        book.end(exchange, End::Otherwise);
        forget_titles(&mut book);
        hides(&format!("{book:?}"), &token)?;
    }
}

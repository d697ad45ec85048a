use proptest::prelude::*;

use super::*;

fn unit(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    [&[kind, 0][..], &length, body].concat()
}

fn request(called: &[u8; 16], calling: &[u8; 16]) -> Vec<u8> {
    unit(1, &[&[0, 1, 0, 0][..], called, calling, &[0; 32], b"\x10\0\0\x15 contexts follow"].concat())
}

fn pass(requestor: &[u8], acceptor: &[u8], piece: usize) -> DicomLedger {
    let (mut association, mut ledger) = (Association::new(true), DicomLedger::default());
    for part in requestor.chunks(piece) {
        association.observe_requestor_bytes(part, &mut ledger);
    }
    for part in acceptor.chunks(piece) {
        association.observe_acceptor_bytes(part, &mut ledger);
    }
    ledger
}

fn store() -> (Vec<u8>, Vec<u8>) {
    let image = unit(4, &[1; 3_000]);
    let asks = [request(b"OIE             ", b"MODALITY<script>"), image.clone(), image, unit(5, &[0; 4])].concat();
    (asks, [unit(2, &[0; 200]), unit(4, b"ok"), unit(6, &[0; 4])].concat())
}

#[test]
fn an_association_is_followed_however_it_is_cut() {
    let (asks, answers) = store();
    for piece in [1, 5, 6, 7, 1000, usize::MAX] {
        let ledger = pass(&asks, &answers, piece);
        let expected = DicomCounts {
            requested: 1,
            accepted: 1,
            released: 1,
            data_units_sent: 2,
            data_units_received: 1,
            completed: Completed { answered: 1, ..Completed::default() },
            ..DicomCounts::default()
        };
        assert_eq!(ledger.counts, expected);
        assert_eq!(ledger.called.map(|t| t.to_string()).as_deref(), Some("OIE"));
        assert_eq!(ledger.calling.map(|t| t.to_string()).as_deref(), Some("MODALITY?script?"));
    }
}

#[test]
fn a_rejection_says_why_and_an_abort_is_counted() {
    let ledger = pass(&request(b"NOBODY          ", b"ME              "), &unit(3, &[0, 1, 1, 7]), 9);
    assert_eq!(ledger.counts.rejected, 1);
    assert_eq!(ledger.rejection.map(|r| r.to_string()).as_deref(), Some("the called title is not known there"));
    assert_eq!(pass(&unit(7, &[0; 4]), &[], 3).counts.aborted, 1);
}

#[test]
fn what_is_no_dicom_is_counted_once() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"\0\0\0\0\0\0"] {
        assert_eq!(pass(bytes, bytes, 2).counts.unreadable, 1);
    }
}

#[test]
fn nothing_but_the_one_request_of_who_connected_tells_titles_or_counts_as_one() {
    let good = request(b"OIE             ", b"MODALITY        ");
    let other = request(b"SMITH^JOHN      ", &[b'x'; 16]);
    for (asks, answers, requested) in [
        // Asked once more, asked by who was connected to, too short, of no version.
        ([good.clone(), other.clone()].concat(), vec![], 1),
        (good, [other.clone(), unit(7, &[0; 4])].concat(), 1),
        (vec![], [other, unit(7, &[0; 4])].concat(), 0),
        (unit(1, &[b'y'; 67]), vec![], 0),
        (unit(1, &[b'x'; 80]), vec![], 0),
    ] {
        let ledger = pass(&asks, &answers, usize::MAX);
        let counts = ledger.counts;
        assert_eq!((counts.requested, counts.unreadable, counts.completed.answered), (requested, 1, 0));
        let titles = [ledger.called, ledger.calling].map(|title| title.map(|title| title.to_string()));
        let told = (requested == 1).then(|| ["OIE", "MODALITY"].map(str::to_owned));
        assert_eq!(titles, told.map_or([None, None], |told| told.map(Some)));
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_counts(
        junk in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..9_u8, piece in 1..60_usize
    ) {
        let bytes = [store().0, unit(kind, &junk), junk].concat();
        prop_assert_eq!(pass(&bytes, &bytes, piece), pass(&bytes, &bytes, usize::MAX));
    }
}

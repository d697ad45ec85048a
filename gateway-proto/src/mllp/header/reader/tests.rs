use proptest::prelude::*;

use super::*;

fn key() -> HashKey {
    HashKey::from_bytes([7; 16])
}

fn hash(text: &str) -> Option<ControlHash> {
    let mut hasher = SipHasher13::new_with_key(&[7; 16]);
    hasher.write(text.as_bytes());
    Some(ControlHash(hasher.finish()))
}

fn read(mut reader: HeaderReader, parts: &[&[u8]]) -> Header {
    for part in parts {
        reader.feed(part);
    }
    reader.found()
}

fn message(text: &str) -> Header {
    read(HeaderReader::of_messages(key()), &[text.as_bytes()])
}

fn answer(text: &str) -> Option<Answer> {
    read(HeaderReader::of_answers(key()), &[text.as_bytes()]).answer
}

fn kind(text: &str) -> String {
    match message(text).content {
        Content::Message(kind) => kind.to_string(),
        Content::Untyped => "untyped".into(),
        Content::Batch => "batch".into(),
        Content::Unknown => "unknown".into(),
    }
}

#[test]
fn type_trigger_and_control_id_are_read_with_any_separators() {
    for (text, wanted) in [
        ("MSH|^~\\&|A|B|C|D|2026||ADT^A01^ADT_A01|ID-1|P|2.5\rPID|", "ADT^A01"),
        ("MSH|^~\\&|A|B|C|D|2026||ACK|ID-1|P", "ACK"),
        ("MSH|^~\\&|A|B|C|D|2026||ORU^R01|ID-1", "ORU^R01"),
        ("MSH#*~\\&#A#B#C#D#2026##ORU*R01#ID-1#P\r", "ORU^R01"),
        ("\u{feff}MSH|^~\\&|A|B|C|D|2026||ADT^A08|ID-1|P\r", "ADT^A08"),
        ("\r\n MSH|^~\\&|A|B|C|D|2026||ADT^A08|ID-1  |P\r\n", "ADT^A08"),
        ("MSH|^~\\&|A|B|C|D|2026||adt^A01|ID-1|P\r", "untyped"),
        ("MSH|^~\\&|A|B|C|D|2026||ADT^DOE^JOHN|ID-1|P\r", "ADT^DOE"),
        ("MSH|^~\\&|A|B|C|D|2026||ADT^A01X|ID-1|P\r", "untyped"),
        ("MSH|^~\\&|A|B|C|D|2026||JOHN DOE|ID-1|P\r", "untyped"),
    ] {
        assert_eq!(kind(text), wanted, "{text:?}");
        assert_eq!(message(text).control, hash("ID-1"), "{text:?}");
    }
}

#[test]
fn what_is_short_empty_or_not_hl7_is_said_to_be_so() {
    assert_eq!(kind(""), "unknown");
    assert_eq!(kind("MS"), "unknown");
    assert_eq!(kind("GET / HTTP/1.1"), "unknown");
    assert_eq!(kind("M\0S\0H\0|\0"), "unknown");
    assert_eq!(kind("MSH|^~\\&|A\rPID|1"), "untyped");
    assert_eq!(kind("FHS|^~\\&|A\rBHS|^~\\&\rMSH|^~\\&|"), "batch");
    assert_eq!(message("MSH|^~\\&|A|B|C|D|2026||ADT^A01||P\r").control, None);
    assert_eq!(message("MSH|^~\\&|A\rMSH|^~\\&|A|B|C|D|2026||ADT^A01|X|P\r").control, None);
}

#[test]
fn an_acknowledgement_is_found_behind_other_segments() {
    let head = "MSH|^~\\&|B|A|C|D|2026||ACK^A01|R-9|P|2.5\r";
    for between in ["", "SFT|Vendor|1\rUAC|x\r", "\n"] {
        for code in ["AA", "AE", "AR", "CA", "CE", "CR"] {
            let found = answer(&format!("{head}{between}MSA|{code}|ID-1|text\rERR|\r")).unwrap();
            assert_eq!(found.code.map(AckCode::as_str), Some(code));
            assert_eq!(found.of, hash("ID-1"));
        }
    }
    assert_eq!(answer(&format!("{head}MSA|AA|ID-1")), Some(Answer { code: Some(AckCode::Accept), of: hash("ID-1") }));
    assert_eq!(answer(&format!("{head}MSA|AA\r")), Some(Answer { code: Some(AckCode::Accept), of: None }));
    assert_eq!(answer(&format!("{head}MSA|OK|ID-1\r")), Some(Answer { code: None, of: hash("ID-1") }));
    assert_eq!(answer(head), None);
    assert_eq!(answer("MSA|AA|ID-1\r"), None, "an acknowledgement has a header");
}

#[test]
fn an_endless_header_is_given_up() {
    let mut reader = HeaderReader::of_answers(key());
    reader.feed(b"MSH|^~\\&|A|B|C|D|2026||ACK|R|P\r");
    for _ in 0..usize::from(MAX_HEADER) {
        reader.feed(b"ZZZ|");
    }
    assert_eq!(reader.phase, Phase::Done);
    assert!(size_of::<HeaderReader>() < 256, "{}", size_of::<HeaderReader>());
}

proptest! {
    #[test]
    fn any_bytes_in_any_cuts_give_the_same_header(bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in
        proptest::collection::vec(any::<prop::sample::Index>(), 0..6), hl7 in any::<bool>()
    ) {
        let mut text = if hl7 { b"MSH|^~\\&|A|B|C|D|2026||ACK^A01|R-9|P|2.5\rMSA|AA|I".to_vec() } else { Vec::new() };
        text.extend(bytes);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        for reader in [HeaderReader::of_messages(key()), HeaderReader::of_answers(key())] {
            prop_assert_eq!(read(reader.clone(), &parts), read(reader, &[&text]));
        }
    }
}

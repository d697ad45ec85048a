use proptest::prelude::*;

use super::{
    super::record::{Begun, FileBegun, Gap, Removed},
    *,
};

/// A log as the daemon writes it: files of so many records, each in its own text.
fn log(lengths: &[usize]) -> Vec<Vec<String>> {
    let (mut chain, mut sequence) = (LineChain::default(), 0);
    let mut line = |event: Event| {
        let mut text = String::new();
        chain.append(&Record { sequence, at: 1_800_000_000_000 + sequence, event }, &mut text);
        sequence += 1;
        (text.trim_end_matches('\n').to_owned(), chain.hash())
    };
    let mut previous = LineChain::default().hash();
    let mut files = Vec::new();
    for length in lengths {
        let mut file = vec![line(Event::File(FileBegun { previous: previous.clone() })).0];
        let begun = Begun { version: "1\n\"2\u{7f}\r".into(), in_order: true, torn_bytes: 0, broken: false };
        for number in 0..*length {
            let event = if number % 2 == 0 { Event::Begun(begun.clone()) } else { Event::Ended };
            file.push(line(event).0);
        }
        let (end, hash) = line(Event::Ended);
        file.push(end);
        previous = hash;
        files.push(file);
    }
    files
}

fn verify<'a>(lines: impl IntoIterator<Item = &'a String>) -> Result<Verified, LineError> {
    let mut verifier = LineVerifier::default();
    lines.into_iter().try_for_each(|line| verifier.push(line).map(drop))?;
    verifier.finish()
}

proptest! {
    #[test]
    fn whatever_is_done_to_a_line_of_any_file_is_seen(
        lengths in prop::collection::vec(0_usize..6, 1..5),
        at: prop::sample::Index,
        other: prop::sample::Index,
        deed in 0..5,
        byte: prop::sample::Index,
    ) {
        let lines: Vec<String> = log(&lengths).concat();
        let whole = verify(&lines).unwrap();
        prop_assert_eq!(whole.records, lines.len() as u64);
        let (at, other) = (at.index(lines.len()), other.index(lines.len()));
        let mut changed = lines.clone();
        match deed {
            0 => {
                let byte = byte.index(lines[at].len());
                let mut bytes = lines[at].clone().into_bytes();
                bytes[byte] ^= 1;
                prop_assume!(std::str::from_utf8(&bytes).is_ok());
                changed[at] = String::from_utf8(bytes).unwrap();
            }
            1 => drop(changed.remove(at)),
            2 => changed.insert(other, lines[at].clone()),
            3 => changed.swap(at, other),
            _ => changed.truncate(at),
        }
        prop_assume!(changed != lines);
        let mut verifier = LineVerifier::knowing(whole.head);
        let pushed = changed.iter().try_for_each(|line| verifier.push(line).map(drop));
        prop_assert!(pushed.and_then(|()| verifier.finish().map(drop)).is_err(), "deed {} at {}", deed, at);
    }

    #[test]
    fn no_text_is_taken_for_a_line_and_none_panics(text in ".{0,300}") {
        prop_assert!(LineVerifier::default().push(&text).is_err());
        let text = format!("{PREFIX}{}{MIDDLE}{text}}}", "0".repeat(64));
        prop_assert!(LineVerifier::default().push(&text).is_err());
    }
}

#[test]
fn a_log_without_its_oldest_files_verifies_if_a_record_says_so_and_not_otherwise() {
    let files = log(&[3, 4, 2]);
    let rest: Vec<_> = files[1..].concat();
    assert_eq!(verify(&rest), Err(LineError::Beheaded { first: 5 }));
    let (mut chain, mut line) = (LineChain::from_hash(&read(rest.last().unwrap()).unwrap().1).unwrap(), String::new());
    let sequence = read(rest.last().unwrap()).unwrap().0.sequence + 1;
    let (last, hash) = read(files[0].last().unwrap()).unwrap();
    let removed = Event::Removed(Removed { through: last.sequence, hash });
    chain.append(&Record { sequence, at: 1, event: removed }, &mut line);
    let told = [rest.clone(), vec![line.trim_end().to_owned()]].concat();
    assert_eq!(verify(&told).unwrap().first, 5);
    // Somebody takes away another file.
    let less: Vec<_> = told[files[1].len()..].to_vec();
    assert!(matches!(verify(&less), Err(LineError::Beheaded { .. })));
    // The removal is told first and done later: nothing is wrong in between.
    let both = [files.concat(), vec![line.trim_end().to_owned()]].concat();
    assert_eq!(verify(&both).unwrap().first, 0);
    assert_eq!(verify(&rest[1..]), Err(LineError::Beginning { sequence: 6 }));
}

#[test]
fn a_tail_that_is_gone_and_a_log_that_was_written_anew_show_against_a_head_known_from_elsewhere() {
    let lines = log(&[5]).concat();
    let head = verify(&lines).unwrap().head.unwrap();
    let against = |lines: &[String], known: &Head| {
        let mut verifier = LineVerifier::knowing([known.clone()]);
        lines.iter().try_for_each(|line| verifier.push(line).map(drop))?;
        verifier.finish()
    };
    assert!(against(&lines, &head).is_ok());
    assert_eq!(against(&lines[..4], &head), Err(LineError::CutOff { last: 3, known: 6 }));
    assert_eq!(against(&[], &head), Err(LineError::CutOff { last: 0, known: 6 }));
    let other = Head { hash: "0".repeat(64), ..head };
    assert_eq!(against(&lines, &other), Err(LineError::Rewritten { sequence: 6 }));
    let earlier = Head { sequence: 2, hash: read(&lines[2]).unwrap().1 };
    assert!(against(&lines, &earlier).is_ok());
    // Of several, each counts; two that contradict each other are not both true.
    let (first, last) = (earlier, Head { sequence: 6, hash: read(&lines[6]).unwrap().1 });
    let all = |known: &[&Head]| {
        let mut verifier = LineVerifier::knowing(known.iter().copied().cloned());
        lines.iter().try_for_each(|line| verifier.push(line).map(drop))?;
        verifier.finish()
    };
    assert!(all(&[&first, &last]).is_ok());
    let wrong = Head { sequence: 2, hash: "0".repeat(64) };
    assert_eq!(all(&[&wrong, &last]), Err(LineError::Rewritten { sequence: 2 }));
    assert_eq!(all(&[&wrong, &first]), Err(LineError::Rewritten { sequence: 2 }));
}

#[test]
fn what_the_log_says_is_missing_is_counted() {
    let (mut chain, mut text) = (LineChain::default(), String::new());
    let first = FileBegun { previous: chain.hash() };
    chain.append(&Record { sequence: 0, at: 1, event: Event::File(first) }, &mut text);
    let gap = Gap { since: 1, too_fast: 3, unwritten: 4, unwritten_calls: 1 };
    chain.append(&Record { sequence: 1, at: 1, event: Event::Gap(gap) }, &mut text);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(verify(&lines).unwrap().missing, 7);
}

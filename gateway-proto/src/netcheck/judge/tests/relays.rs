//! Relays that do not see the same of us.

use super::*;

/// What each of the STUN ports of some relays saw, two of each.
fn told_by(relays: &[[&str; 2]]) -> Observations {
    let mut reflections = Vec::new();
    for (seen, n) in relays.iter().zip(1..) {
        for (port, outer) in [3478, 3479].into_iter().zip(seen) {
            let (server, address) = (format!("relay-{n}.example:{port}"), format!("192.0.2.{n}:{port}"));
            reflections.push(reflection(&server, &address, Some(*outer)));
        }
    }
    Observations { reflections, ..seen_as(["203.0.113.1:7000"; 3]) }
}

#[test]
fn one_relay_of_three_that_answers_otherwise_is_named_and_the_others_are_believed() {
    let right = "203.0.113.1:7000";
    for third in [["203.0.113.193:5001"; 2], ["203.0.113.193:5001", right]] {
        let report = judge(&told_by(&[third, [right; 2], [right; 2]]), 1);
        assert_eq!((report.nat, report.verdict), (NatMapping::EndpointIndependent, Verdict::Limited));
        assert_eq!(report.public_ipv4, Some(right.parse().unwrap()), "not what the first server said");
        let codes: Vec<_> = report.problems.iter().map(|problem| problem.code.as_str()).collect();
        assert_eq!(codes, ["relay_disagrees"], "no port is asked for");
        let (text, request) = (&report.problems[0].text, report.problems[0].request.as_ref().unwrap());
        assert!(text.contains("relay-1.example saw 203.0.113.193:5001") && text.contains("rewrites STUN"), "{text}");
        assert!(text.contains("most relays (relay-2.example, relay-3.example) saw 203.0.113.1:7000"), "{text}");
        let expected = "Please look by which outer address UDP from 10.1.0.2 to relay-1.example (192.0.2.1) port 3478, \
                        relay-1.example (192.0.2.1) port 3479 leaves";
        assert!(request.starts_with(expected), "{request}");
        assert!(request.contains("tell the operator of relay-1.example"), "{request}");
    }
}

#[test]
fn two_relays_that_contradict_each_other_are_told_with_what_is_assumed_and_why() {
    let report = judge(&told_by(&[["203.0.113.1:7000"; 2], ["203.0.113.1:17000"; 2]]), 1);
    assert_eq!((report.nat, report.verdict, report.problems.len()), (NatMapping::Random, Verdict::Limited, 1));
    let text = &report.problems[0].text;
    assert!(report.problems[0].code == "hard_nat" && text.starts_with("Two relays contradict each other"), "{text}");
    for part in ["relay-1.example saw 203.0.113.1:7000", "relay-2.example saw", "no third relay", "a third relay in"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(report.nat_text.contains("two relays contradict each other"), "{}", report.nat_text);
    let hard = [["203.0.113.1:7000", "203.0.113.1:17000"], ["203.0.113.1:27000", "203.0.113.1:37000"]];
    assert!(!judge(&told_by(&hard), 1).problems[0].text.contains("contradict"), "they agree that every port differs");
}

#[test]
fn a_nat_that_counts_is_hard_and_the_network_team_is_told_what_to_do() {
    let counting = [["203.0.113.1:4000", "203.0.113.1:4001"], ["203.0.113.1:4002", "203.0.113.1:4003"]];
    let report = judge(&told_by(&counting), 1);
    assert_eq!((report.nat, report.verdict, report.problems.len()), (NatMapping::Regular, Verdict::Limited, 1));
    let problem = &report.problems[0];
    assert!(problem.code == "hard_nat" && problem.text.contains("the next outer port"), "{problem:?}");
    assert!(problem.request.as_ref().unwrap().contains("UDP from 10.1.0.2 one fixed outer port"), "{problem:?}");
    let mut with_ipv6 = told_by(&counting);
    with_ipv6.reflections.push(reflection("relay-1.example:3478", "[2001:db8::1]:3478", Some("[2001:db8:1::2]:7000")));
    assert!(judge(&with_ipv6, 1).problems.is_empty(), "there is a way without it");
}

#[test]
fn one_relay_alone_tells_no_class_and_the_report_says_what_is_missing_and_what_follows() {
    let report = judge(&told_by(&[["203.0.113.1:7000"; 2]]), 1);
    assert_eq!((report.nat, report.verdict), (NatMapping::Unknown, Verdict::Good), "nothing is known to be wrong");
    for part in ["a NAT; 2 STUN answers from 1 server address", "a second relay", "no port is guessed"] {
        assert!(report.nat_text.contains(part), "{part}: {}", report.nat_text);
    }
    let report = judge(&told_by(&[["203.0.113.1:7000", "203.0.113.1:17000"]]), 1);
    assert_eq!((report.nat, report.problems.len()), (NatMapping::Unknown, 1));
    assert!(report.problems[0].code == "hard_nat" && report.problems[0].request.is_some(), "{report:?}");
}

#[test]
fn a_router_without_hairpin_is_a_note_with_its_sentence_and_no_problem() {
    let with = |hairpin, outer| judge(&Observations { hairpin, ..told_by(&[[outer; 2]; 2]) }, 1);
    let report = with(Some(false), "203.0.113.1:7000");
    assert_eq!((report.verdict, report.problems.len(), report.notes.len()), (Verdict::Good, 0, 1));
    let (text, request) = (&report.notes[0].text, report.notes[0].request.as_ref().unwrap());
    assert!(report.notes[0].code == "hairpin" && text.contains("203.0.113.1 round"), "{text}");
    assert!(request.contains("let UDP pass between it and 10.1.0.2") && request.contains("hairpin NAT"), "{request}");
    for (hairpin, outer) in
        [(Some(true), "203.0.113.1:7000"), (None, "203.0.113.1:7000"), (Some(false), "10.1.0.2:7000")]
    {
        assert!(with(hairpin, outer).notes.is_empty(), "{hairpin:?} {outer}");
    }
}

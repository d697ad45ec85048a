use proptest::prelude::*;

use super::*;
use crate::identity::{Context, GatewayKey};

fn key() -> GatewayKey {
    GatewayKey::from_seed(&[1; 32])
}

fn signed(object: &serde_json::Value) -> Envelope {
    Envelope::sign(&key(), Context::Policy, object).unwrap()
}

/// As the entries of policies are: each has a piece of its own, and ends as many others do.
fn entry(number: u64) -> serde_json::Value {
    serde_json::json!({
        "id": format!("con_{number:032}"),
        "admin": { "patient_data": false, "probes": false },
        "endpoint": format!("Aufnahme {number} – Läbor"),
        "limits": { "bytes_per_second": 1_000 + number % 7 },
        "secrets": [{ "secret": format!("{number:064}") }],
        "staleness_secs": 259_200,
    })
}

fn policy(revision: u64, entries: &[serde_json::Value]) -> Envelope {
    signed(&serde_json::json!({ "a_revision": revision, "b_server": { "name": "one" }, "connections": entries }))
}

#[test]
fn one_connection_more_less_or_other_among_a_thousand_costs_about_one_connection() {
    let entries: Vec<_> = (0..1_000).map(entry).collect();
    let base = policy(1, &entries);
    let changed = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut entries = entries.clone();
        change(&mut entries);
        entries
    };
    let changes = [
        ("first", changed(&|entries| entries.insert(0, entry(2_000)))),
        ("in the middle", changed(&|entries| entries.insert(500, entry(2_000)))),
        ("last", changed(&|entries| entries.push(entry(2_000)))),
        ("two fewer", changed(&|entries| drop((entries.remove(0), entries.remove(998))))),
        ("another", changed(&|entries| entries[999] = entry(3_000))),
        ("the limit of another one", changed(&|entries| entries[3]["limits"] = entry(995)["limits"].clone())),
    ];
    for (what, entries) in changes {
        let next = policy(2, &entries);
        let delta = PolicyDelta::between(1, &base, &next).unwrap();
        assert_eq!(delta.apply(&base).unwrap(), next, "{what}");
        let length = serde_json::to_string(&delta).unwrap().len();
        assert!(length < 1_200, "{what}: {length} bytes instead of {}", next.payload.len());
    }
}

#[test]
fn what_changes_in_most_places_goes_out_whole() {
    let base = policy(1, &(0..50).map(entry).collect::<Vec<_>>());
    let next = policy(2, &(50..100).map(entry).collect::<Vec<_>>());
    assert_eq!(PolicyDelta::between(1, &base, &next), None);
}

#[test]
fn a_delta_on_another_base_gives_no_policy_that_anybody_signed() {
    let entries: Vec<_> = (0..100).map(entry).collect();
    let (base, next) = (policy(1, &entries), policy(2, &entries[1..]));
    let delta = PolicyDelta::between(1, &base, &next).unwrap();
    let trusted = [key().public()];
    let opened = |envelope: Envelope| envelope.open::<serde_json::Value>(Context::Policy, &trusted);
    assert!(opened(delta.apply(&base).unwrap()).is_ok());
    let replayed = delta.apply(&next).map(opened);
    assert!(!matches!(replayed, Ok(Ok(_))), "{replayed:?}");
    assert_eq!(delta.apply(&policy(1, &entries[..2])), Err(DeltaError::Misfit), "too short");
    let mut forged = delta.clone();
    forged.edits[0].insert.push(' ');
    assert!(opened(forged.apply(&base).unwrap()).is_err());
    let huge = Edit { keep: usize::MAX, skip: usize::MAX, insert: String::new() };
    assert_eq!(PolicyDelta { edits: vec![huge], ..delta.clone() }.apply(&base), Err(DeltaError::Misfit));
    let split = Edit { keep: base.text().unwrap().find('ä').unwrap() + 1, skip: 0, insert: String::new() };
    assert_eq!(PolicyDelta { edits: vec![split], ..delta }.apply(&base), Err(DeltaError::Misfit), "half a character");
}

#[test]
fn secrets_are_masked() {
    let delta = PolicyDelta {
        from: 1,
        key: key().public(),
        signature: "s".into(),
        edits: vec![Edit { keep: 1, skip: 2, insert: "secret".into() }],
    };
    assert!(!format!("{delta:?} {:?}", delta.edits).contains("secret"));
}

proptest! {
    #[test]
    fn any_text_is_made_from_any_other(old in "[a{}é,]{0,200}", new in "[a{}é,]{0,200}") {
        let envelope = |text: &str| Envelope::of_text(key().public(), text, String::new());
        let delta = PolicyDelta { from: 1, key: key().public(), signature: String::new(), edits: edits(&old, &new) };
        prop_assert_eq!(delta.apply(&envelope(&old)).unwrap(), envelope(&new));
    }

    #[test]
    fn lists_of_which_some_are_changed_are_made_from_each_other(changes in prop::collection::vec((0usize..60, 0u8..3), 0..12)) {
        let mut entries: Vec<_> = (0..60).map(entry).collect();
        let base = policy(1, &entries);
        for (place, change) in changes {
            let place = place.min(entries.len() - 1);
            match change {
                0 => entries[place] = entry(1_000 + place as u64),
                1 => { entries.remove(place); }
                _ => entries.insert(place, entry(2_000 + place as u64)),
            }
        }
        let next = policy(2, &entries);
        if let Some(delta) = PolicyDelta::between(1, &base, &next) {
            prop_assert_eq!(delta.apply(&base).unwrap(), next);
        }
    }
}

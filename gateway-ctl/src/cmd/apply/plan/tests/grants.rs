//! Grants that there are, and those that can never be.

use super::*;

const DAY: u64 = 86_400;

/// [`SITE`] with more of its grant.
fn with(more: &str) -> String {
    format!("{SITE}\n{more}")
}

fn found(grant: Grant) -> Found {
    Found { grants: vec![grant], ..everything() }
}

#[test]
fn a_request_that_was_approved_days_later_for_as_long_as_the_file_says_is_in_force() {
    let (asked, approved) = (1_000, 1_000 + 5 * DAY);
    let ends = |from: u64, approved_at: Option<u64>| {
        let expires_at = Some(from + 90 * DAY);
        waits(SITE, &found(Grant { approved_at, expires_at, ..grant(GrantStatus::Active) }))
    };
    assert_eq!(ends(approved, Some(approved)), Vec::<String>::new());
    assert_eq!(ends(asked, Some(approved)), Vec::<String>::new(), "counted from the offer");
    let other = ends(approved, None);
    assert!(other[0].contains("an end after 95d instead of 90d"), "{other:?}");
    // What is shown is the length that is nearer.
    let other = ends(approved + 2 * DAY, Some(approved));
    assert!(other[0].contains("an end after 92d instead of 90d"), "{other:?}");
}

#[test]
fn a_request_is_approved_with_the_limits_of_the_file_where_they_are_tighter_and_denied_where_they_are_not() {
    let limits = "max_streams = 5\nbytes_per_second = 2000\nreceive_timeout = '2m'";
    let requested = Grant { expires_at: None, ..grant(GrantStatus::Requested) };
    let id = requested.id;
    let approve = |options: &str| {
        format!("decide with `gateway-ctl grant approve {id}{options}`, or `grant deny` and apply again")
    };
    let told = waits(&with(limits), &found(requested.clone()));
    let options = " --expires 90d --max-streams 5 --bytes-per-second 2000 --receive-timeout 120s";
    assert!(told[0].ends_with(&approve(options)), "{told:?}");
    let almost = Grant { expires_at: Some(7_777_000), bytes_per_second: Some(2_000), ..requested.clone() };
    let told = waits(&with(limits), &found(almost));
    assert!(told[0].ends_with(&approve(" --max-streams 5 --receive-timeout 120s")), "{told:?}");
    for wider in [
        Grant { max_streams: 4, ..requested.clone() },
        Grant { bytes_per_second: Some(1_999), ..requested.clone() },
        Grant { receive_timeout_secs: Some(119), ..requested.clone() },
        Grant { expires_at: Some(1_000 + DAY), ..requested },
    ] {
        let told = waits(&with(limits), &found(wider));
        let deny = format!("`gateway-ctl grant deny {id}` and apply again to offer it as the file says");
        assert!(told[0].ends_with(&deny) && !told[0].contains("grant approve"), "{told:?}");
    }
}

#[test]
fn kinds_of_exchange_that_a_grant_can_never_have_are_told_before_anything_is_done() {
    let known = |found: Found| Found { behaviors: vec!["dicom".into(), "hl7v2-mllp".into()], ..found };
    let refusals = |text: &str, found: Found| plan(&site(text), &known(found)).refusals;
    let what = "the grant of 'lab/adt' to 'Clinic B'";
    let unknown = format!("{what}: behavior 'nonsense' is none of this platform: known are dicom, hl7v2-mllp");
    let other =
        format!("{what}: its channel's behavior is hl7v2-mllp: name it among `behaviors` too, or leave them out");
    let (nonsense, dicom) = (with("behaviors = ['hl7v2-mllp', 'nonsense']"), with("behaviors = ['dicom']"));
    // With and without server, channel and agreement, and beside a grant that nobody should be told to revoke.
    let in_force = || found(grant(GrantStatus::Active));
    for there in [nothing as fn() -> Found, everything, in_force] {
        assert_eq!(refusals(&nonsense, there()), [unknown.as_str()]);
        assert_eq!(refusals(&dicom, there()), [other.as_str()]);
        assert_eq!(refusals(&with("behaviors = ['dicom', 'hl7v2-mllp']"), there()), Vec::<String>::new());
    }
    // A kind that there is no more stays in a grant that is in force.
    let old = Grant { behaviors: vec!["hl7v2-mllp".into(), "nonsense".into()], ..grant(GrantStatus::Active) };
    assert_eq!(refusals(&nonsense, found(old.clone())), Vec::<String>::new());
    assert_eq!(waits(&nonsense, &known(found(old))), Vec::<String>::new());
}

//! Partners that want no agreement, and grants with another end.

use super::*;

#[test]
fn a_partner_that_ended_its_agreement_or_declined_is_not_asked_again_and_holds_up_nobody() {
    let text = format!("{SITE}\n[[peer]]\norganization = 'Clinic C'\n[[grant]]\nchannel = 'lab/adt'\nto = 'Clinic C'");
    let ended = Agreement { status: AgreementStatus::Ended, ended_at: Some(900), ..agreement(2, "Clinic B") };
    let agreements = vec![agreement(3, "Clinic C"), ended];
    let found = Found { agreements, ..everything() };
    assert_eq!(steps(&text, &found), ["offer the channel 'lab/adt' to 'Clinic C'"]);
    let asks = format!("`gateway-ctl peering request {}` asks it", organization(2));
    let is_over = format!("'Clinic B' is not asked again, as the agreement with it has ended: {asks}");
    let grant_waits = "the grant of 'lab/adt' to 'Clinic B' waits for an agreement";
    assert_eq!(waits(&text, &found), [is_over.as_str(), grant_waits]);
    // The same where it declined; what came of an older or later request does not count.
    let asked_at = |created_at, status| PeeringRequest { created_at, ..request("outgoing", status) };
    let answers = |before, last| {
        let theirs = PeeringRequest { direction: "incoming".into(), ..asked_at(30, before) };
        Found { requests: vec![asked_at(20, last), asked_at(10, before), theirs], ..nothing() }
    };
    let declined = answers(PeeringStatus::Expired, PeeringStatus::Declined);
    assert!(waits(SITE, &declined)[0].starts_with("'Clinic B' is not asked again, as it has declined"));
    let ask = "ask 'Clinic B' for an agreement".to_owned();
    assert!(!steps(SITE, &declined).contains(&ask));
    // Who did not answer, and whom a person took the request back from, is asked anew.
    for last in [PeeringStatus::Expired, PeeringStatus::Withdrawn] {
        assert!(steps(SITE, &answers(PeeringStatus::Declined, last)).contains(&ask), "{last:?}");
    }
    // A person asked it again: that is waited for, and what comes of it is in force.
    let again = Found { requests: vec![request("outgoing", PeeringStatus::Pending)], ..found };
    assert!(waits(&text, &again)[0].contains("has not answered"), "{:?}", waits(&text, &again));
}

#[test]
fn a_grant_that_ends_at_another_time_than_the_file_says_is_told() {
    let with = |text: &str, expires_at| {
        let found = Found { grants: vec![Grant { expires_at, ..grant(GrantStatus::Active) }], ..everything() };
        assert_eq!(steps(text, &found), Vec::<String>::new());
        waits(text, &found)
    };
    let told = |words: &str| {
        let id = grant(GrantStatus::Active).id;
        let revoke = format!("`gateway-ctl grant revoke {id}` and apply again");
        vec![format!(
            "'lab/adt' to 'Clinic B': it is in force with {words}; the terms of a grant never change: {revoke}"
        )]
    };
    let (day, offered_at) = (86_400, 1_000);
    assert_eq!(with(SITE, None), told("no end instead of one after 90d"));
    assert_eq!(with(SITE, Some(offered_at + 91 * day)), told("an end after 91d instead of 90d"));
    assert_eq!(with(SITE, Some(offered_at + day)), told("an end after 1d instead of 90d"));
    // The platform's clock was not quite ours.
    assert_eq!(with(SITE, Some(offered_at + 90 * day - 100)), Vec::<String>::new());
    let short = SITE.replace("'90d'", "'10m'");
    assert_eq!(with(&short, Some(offered_at + 590)), Vec::<String>::new());
    assert_eq!(with(&short, Some(offered_at + 1_200)), told("an end after 20m instead of 10m"));
    // What the file leaves out is not compared.
    let any = SITE.replace("expires = '90d'", "");
    assert_eq!(with(&any, Some(offered_at + day)), Vec::<String>::new());
}

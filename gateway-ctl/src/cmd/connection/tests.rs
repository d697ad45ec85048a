use gateway_proto::id::ServerId;

use super::*;

#[test]
fn a_difference_says_which_way_it_goes() {
    let both = Difference { messages: 2, answers: -1 };
    assert_eq!(difference(both), "2 messages not handed over, 1 answers that the listener did not count");
    let delivery = Delivery {
        sender_messages: 5,
        listener_messages: 4,
        sender_answers: 4,
        listener_answers: 4,
        alarm: None,
        written_off: Difference::NONE,
        explained: Difference::NONE,
        uncompared: false,
    };
    assert_eq!(delivery_lines(&delivery, 0).len(), 1);
    let delivery = Delivery { explained: Difference { messages: 21, answers: -20 }, ..delivery };
    let lines = delivery_lines(&delivery, 0);
    assert!(lines[1].0 == "  Not missing" && lines[1].1.starts_with("21 messages and 20 answers"), "{lines:?}");
}

fn report(connectivity: Connectivity) -> ConnectionReport {
    ConnectionReport {
        id: ConnectionId::new(1, [0; 10]),
        connectivity,
        path: None,
        rtt_ms: None,
        last_message_at: None,
        bytes_sent: 0,
        bytes_received: 0,
        streams: 0,
        problem: None,
        counts: None,
        details: None,
    }
}

#[test]
fn a_connection_is_connected_only_if_both_ends_proved_it() {
    let (yes, no) = (report(Connectivity::Connected), report(Connectivity::Disconnected));
    let never = report(Connectivity::NeverConnected);
    assert_eq!(connectivity([Some(&yes), Some(&yes)]), "connected");
    assert_eq!(connectivity([Some(&yes), Some(&no)]), "disconnected");
    assert_eq!(connectivity([None, Some(&yes)]), "connected at one end");
    assert_eq!(connectivity([Some(&never), None]), "never connected");
    assert_eq!(connectivity([None, None]), "not reported");
}

fn end(
    report: Option<ConnectionReport>,
    policy_confirmed_at: Option<u64>,
    policy_stale: Option<bool>,
) -> ConnectionEnd {
    ConnectionEnd {
        server_id: Some(ServerId::new(1, [0; 10])),
        server_name: "main".into(),
        organization_name: "Hospital".into(),
        role: "sender".into(),
        paused: false,
        policy_in_force: true,
        policy_in_force_since: None,
        policy_confirmed_at,
        policy_stale,
        report,
        reported_at: Some(1_000),
    }
}

fn line(lines: &[(&'static str, String)], name: &str) -> Option<String> {
    lines.iter().find(|(known, _)| known.trim() == name).map(|(_, text)| text.clone())
}

#[test]
fn an_end_says_why_its_path_is_in_use_and_how_old_what_it_rests_on_is() {
    let why = PathWhy { code: "HeartbeatLost".into(), text: "the direct path stopped answering".into() };
    let details = EndDetails { path_reason: Some(why), last_acknowledged_at: Some(940_000), ..EndDetails::default() };
    let told = ConnectionReport { details: Some(details), ..report(Connectivity::Connected) };
    let lines = end_lines(&end(Some(told.clone()), Some(997), Some(false)), true, 1_000);
    assert_eq!(line(&lines, "Why").as_deref(), Some("the direct path stopped answering (HeartbeatLost)"));
    assert_eq!(line(&lines, "Acknowledged").as_deref(), Some("60 s ago"));
    assert_eq!(line(&lines, "Policy age").as_deref(), Some("confirmed 3 s ago"));
    let lines = end_lines(&end(Some(told.clone()), Some(900), Some(true)), true, 1_000);
    assert_eq!(line(&lines, "Policy age").as_deref(), Some("STALE, no data passes: confirmed 100 s ago"));
    assert_eq!(line(&end_lines(&end(Some(told), None, None), false, 1_000), "Policy age"), None, "it is over");
    let idle = ConnectionReport { details: Some(EndDetails::default()), ..report(Connectivity::NeverConnected) };
    let lines = end_lines(&end(Some(idle), Some(997), Some(false)), true, 1_000);
    assert_eq!(line(&lines, "Acknowledged").as_deref(), Some("nothing since its gatewayd started"));
}

#[test]
fn why_the_other_sides_path_is_in_use_is_told_by_its_code() {
    let why = |code: &str| {
        let path_reason = Some(PathWhy { code: code.into(), text: String::new() });
        let details = EndDetails { path_reason, ..EndDetails::default() };
        let told = ConnectionReport { details: Some(details), ..report(Connectivity::Connected) };
        line(&end_lines(&end(Some(told), None, None), true, 1_000), "Why")
    };
    assert_eq!(why("HeartbeatLost").as_deref(), Some("the direct path stopped answering (HeartbeatLost)"));
    assert_eq!(why(PathWhy::OTHER).as_deref(), Some(UNNAMED));
}

#[test]
fn what_an_older_gateway_does_not_tell_is_shown_as_not_known() {
    let lines = end_lines(&end(Some(report(Connectivity::Connected)), None, None), true, 1_000);
    for name in ["Why", "Acknowledged", "Policy age"] {
        assert_eq!(line(&lines, name).as_deref(), Some(UNTOLD), "{name}");
    }
    let lines = end_lines(&end(None, None, None), true, 1_000);
    assert_eq!(line(&lines, "Policy age").as_deref(), Some("not known"));
}

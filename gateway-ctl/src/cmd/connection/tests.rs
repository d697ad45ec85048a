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

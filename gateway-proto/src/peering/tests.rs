use std::collections::HashSet;

use super::*;

const SIDES: [Side; 4] = [Side::Owner, Side::Peer, Side::Both, Side::System];

/// Walks every cell of a machine: status × act × side.
fn walk<A: Act>(acts: &[A]) {
    for status in A::STATUSES {
        for act in acts {
            for side in SIDES {
                let row = A::TABLE.iter().find(|row| row.from == *status && row.act == *act && row.by.allows(side));
                match (next(*status, *act, side), row) {
                    (Ok(to), Some(row)) => assert_eq!(to, row.to),
                    (Err(error), None) => {
                        let text = error.to_string();
                        assert!(text.contains(&status.to_string()) && text.contains(&act.to_string()), "{text}");
                        for name in &error.possible {
                            assert!(text.contains(name.as_str()), "{text}");
                        }
                    }
                    (answer, row) => panic!("{status} + {act} by {side:?}: {answer:?}, the table says {row:?}"),
                }
            }
        }
    }
}

#[test]
fn every_cell_of_every_machine_answers_as_the_table_says() {
    walk(PeeringAct::ALL);
    walk(AgreementAct::ALL);
    walk(GrantAct::ALL);
    walk(ConnectionAct::ALL);
}

/// No two rows of a machine contradict each other, and every status can be reached.
fn is_sound<A: Act>() {
    let mut reached: HashSet<A::Status> = A::START.iter().copied().collect();
    for (index, row) in A::TABLE.iter().enumerate() {
        reached.insert(row.to);
        for other in &A::TABLE[index + 1..] {
            assert!(!(row.from == other.from && row.act == other.act), "two rows for {} + {}", row.from, row.act);
        }
    }
    assert_eq!(reached.len(), A::STATUSES.len(), "a status of the {} cannot be reached", A::MACHINE);
}

#[test]
fn no_row_contradicts_another_and_every_status_can_be_reached() {
    is_sound::<PeeringAct>();
    is_sound::<AgreementAct>();
    is_sound::<GrantAct>();
    is_sound::<ConnectionAct>();
}

#[test]
fn the_asking_organization_cannot_accept_its_own_request() {
    let error = next(PeeringStatus::Pending, PeeringAct::Accept, Side::Owner).unwrap_err();
    assert_eq!(error.by, Some(By::Peer));
    assert_eq!(error.possible, ["withdraw"]);
    assert_eq!(next(PeeringStatus::Pending, PeeringAct::Accept, Side::Both), Ok(PeeringStatus::Accepted));
}

#[test]
fn whoever_started_a_grant_cannot_approve_it() {
    assert!(next(GrantStatus::Pending, GrantAct::Approve, Side::Owner).is_err());
    assert!(next(GrantStatus::Requested, GrantAct::Approve, Side::Peer).is_err());
    assert_eq!(next(GrantStatus::Requested, GrantAct::Approve, Side::Owner), Ok(GrantStatus::Active));
}

#[test]
fn nothing_leads_out_of_a_terminal_status() {
    for status in [ConnectionStatus::Declined, ConnectionStatus::Expired, ConnectionStatus::Terminated] {
        assert!(status.is_ended());
        let error = next(status, ConnectionAct::Activate, Side::System).unwrap_err();
        assert_eq!(error.possible, Vec::<String>::new());
    }
    assert!(!ConnectionStatus::Failed.is_ended());
}

#[test]
fn every_non_terminal_connection_can_be_terminated_and_expired() {
    for status in ConnectionStatus::ALL.iter().filter(|status| !status.is_ended()) {
        assert_eq!(next(*status, ConnectionAct::Terminate, Side::Owner), Ok(ConnectionStatus::Terminated));
        assert_eq!(next(*status, ConnectionAct::Expire, Side::System), Ok(ConnectionStatus::Expired));
    }
}

#[test]
fn only_an_active_connection_of_an_active_agreement_carries_data() {
    for status in ConnectionStatus::ALL {
        for agreement in AgreementStatus::ALL {
            let carries = activation(*status, *agreement) == Some(Activation::Active);
            assert_eq!(carries, *status == ConnectionStatus::Active && *agreement == AgreementStatus::Active);
        }
    }
    assert_eq!(activation(ConnectionStatus::Active, AgreementStatus::Suspended), Some(Activation::Suspended));
    assert_eq!(activation(ConnectionStatus::Terminated, AgreementStatus::Active), None);
}

#[test]
fn repeating_an_act_is_told_from_an_act_out_of_place() {
    assert!(in_place(GrantStatus::Revoked, GrantAct::Revoke, Side::Owner));
    assert!(!in_place(GrantStatus::Revoked, GrantAct::Revoke, Side::Peer));
    assert!(!in_place(GrantStatus::Expired, GrantAct::Revoke, Side::Owner));
    assert!(!in_place(ConnectionStatus::Paused, ConnectionAct::Resume, Side::Owner));
    assert!(!in_place(ConnectionStatus::Paused, ConnectionAct::Pause, Side::Owner), "the other side may hold it");
}

#[test]
fn names_round_trip() {
    for status in GrantStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(*status));
        assert_eq!(serde_json::to_string(status).unwrap(), format!("\"{status}\""));
    }
    assert!("gone".parse::<GrantStatus>().is_err());
}

#[test]
fn the_document_shows_the_table_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/state-machines.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, diagrams()).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text == diagrams(), "docs/state-machines.md is out of date: run with UPDATE_DOCS=1");
}

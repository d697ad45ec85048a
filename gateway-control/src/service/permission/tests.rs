use std::collections::BTreeSet;

use gateway_proto::peering::{Act as MachineAct, By, ConnectionAct, GrantAct, PeeringAct, Side};

use super::*;

#[test]
fn every_act_has_its_own_row() {
    assert_eq!(Act::ALL.len(), MATRIX.len());
    for act in Act::ALL {
        assert_eq!(rule(*act).act, *act);
    }
}

/// The sides that the transition table lets take a step.
fn sides<A: MachineAct>(acts: &[A]) -> BTreeSet<Relation> {
    let rows = A::TABLE.iter().filter(|row| acts.contains(&row.act) && row.by != By::System);
    rows.flat_map(|row| {
        let sides = [(Side::Owner, Relation::Own), (Side::Peer, Relation::Peer)];
        sides.into_iter().filter(|(side, _)| row.by.allows(*side)).map(|(_, relation)| relation)
    })
    .collect()
}

#[test]
fn the_matrix_and_the_transition_table_name_the_same_sides() {
    let named = |act| rule(act).relations.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(named(Act::AnswerPeering), sides(&[PeeringAct::Accept, PeeringAct::Decline]));
    assert_eq!(named(Act::WithdrawPeering), sides(&[PeeringAct::Withdraw]));
    assert_eq!(named(Act::AnswerGrant), sides(&[GrantAct::Approve, GrantAct::Deny, GrantAct::Withdraw]));
    assert_eq!(named(Act::RevokeGrant), sides(&[GrantAct::Revoke]));
    assert_eq!(named(Act::SurrenderGrant), sides(&[GrantAct::Surrender]));
    let operate = [
        ConnectionAct::Activate,
        ConnectionAct::Pause,
        ConnectionAct::Resume,
        ConnectionAct::Release,
        ConnectionAct::Retry,
    ];
    assert_eq!(named(Act::OperateConnections), sides(&operate));
    assert_eq!(named(Act::TerminateConnections), sides(&[ConnectionAct::Terminate]));
}

#[test]
fn a_viewer_and_an_auditor_change_nothing() {
    for rule in MATRIX {
        let reads = matches!(rule.act, Act::Read | Act::ReadDirectory | Act::ReadAudit | Act::ManageTokens);
        assert!(reads || !(rule.roles.contains(&Viewer) || rule.roles.contains(&Auditor)), "{:?}", rule.act);
    }
}

#[test]
fn the_document_shows_the_table_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permissions.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text == document(), "docs/permissions.md is out of date: run with UPDATE_DOCS=1");
}

use gateway_proto::{peering::ConnectionStatus, policy::Secret};

use super::*;
use crate::{
    service::ground::Ground,
    storage::{RelayRow, StorageError},
};

#[tokio::test]
async fn what_a_refused_policy_lets_fail_fails_in_portions_between_which_others_write() {
    let ground = Ground::new().await;
    let (sender, _) = ground.connected(120).await;
    let refused = ground.service.gateway_rejected(&sender, 0, 0, "cannot read it");
    let (refused, seen) = tokio::join!(refused, ground.sees_some(sender.server, ConnectionStatus::Failed, 120));
    refused.unwrap();
    assert!(seen.is_some(), "all of them were one transaction");
    assert_eq!(ground.count_in_turn(sender.server, ConnectionStatus::Failed).await, 120);
    assert_eq!(ground.row(sender.server).await.policy_problem.as_deref(), Some("cannot read it"));
}

#[tokio::test]
async fn what_a_gateway_has_in_force_does_not_fail_with_what_it_refuses_although_nothing_of_that_is_written() {
    let ground = Ground::new().await;
    let (sender, listener) = ground.connected(2).await;
    // Said, and lost on the way to the storage.
    let in_force = ground.revision(sender.server).await;
    let channel = ground.channel(listener.server, 6_662).await;
    ground.connect(sender.server, channel, ConnectionStatus::Ready, 1).await;
    ground.mark(&[sender.server]).await;
    ground.compile().await;
    ground.service.gateway_rejected(&sender, 0, in_force, "cannot read it").await.unwrap();
    assert_eq!(ground.row(sender.server).await.applied_revision, 0);
    let count = async |status| ground.count_in_turn(sender.server, status).await;
    assert_eq!((count(ConnectionStatus::Ready).await, count(ConnectionStatus::Failed).await), (2, 1));
}

#[tokio::test]
async fn what_changed_in_a_refused_policy_and_was_in_force_before_does_not_fail_with_what_is_new_in_it() {
    let ground = Ground::new().await;
    let (sender, listener) = (ground.gateway(1).await, ground.gateway(2).await);
    let channel = ground.channel(listener.server, 6_661).await;
    let known = ground.connect(sender.server, channel, ConnectionStatus::Ready, 1).await[0];
    ground.mark(&[sender.server]).await;
    ground.compile().await;
    let mut server = ground.row(sender.server).await;
    server.applied_revision = ground.revision(sender.server).await;
    let mut tx = ground.begin().await;
    tx.update_server(&server).await.unwrap();
    let mut row = tx.connection(known).await.unwrap().unwrap();
    row.secret = Secret::from_bytes([7; 32]);
    tx.update_connection(&row).await.unwrap();
    tx.commit().await.unwrap();
    let new = ground.connect(sender.server, channel, ConnectionStatus::Ready, 1).await[0];
    ground.mark(&[sender.server]).await;
    ground.compile().await;
    let revisions = [server.applied_revision, ground.revision(sender.server).await];
    let row = ground.begin().await.connection(known).await.unwrap().unwrap();
    assert!(row.sender.revision == revisions[1] && revisions[0] < revisions[1], "the policy says its new secret");
    ground.service.gateway_rejected(&sender, 0, 0, "cannot read it").await.unwrap();
    let mut tx = ground.begin().await;
    let statuses = [tx.connection(known).await, tx.connection(new).await].map(|row| row.unwrap().unwrap().status);
    assert_eq!(statuses, [ConnectionStatus::Ready, ConnectionStatus::Failed]);
}

async fn two_relays(ground: &Ground) -> [RelayId; 2] {
    let relays = [1, 2].map(|n| RelayId::from_bytes([n; 16]));
    let mut tx = ground.begin().await;
    for id in relays {
        let (name, url) = (id.to_string(), format!("wss://{id}.example/relay"));
        let row = RelayRow { id, name, url, tls_pin: None, stun: Vec::new(), region: None };
        tx.insert_relay(&row).await.unwrap();
    }
    tx.commit().await.unwrap();
    relays
}

#[tokio::test]
async fn a_home_relay_moves_no_more_often_than_it_may_however_often_the_gateway_comes_back() {
    let ground = Ground::new().await;
    let (mover, neighbour) = ground.connected(1).await;
    let relays = two_relays(&ground).await;
    let moved = async |home: usize| ground.service.gateway_moved(&mover, Some(relays[home])).await;
    moved(0).await.unwrap();
    moved(1).await.unwrap();
    ground.compile().await;
    let told = ground.revision(neighbour.server).await;
    // What is known is no move, and costs nothing.
    moved(1).await.unwrap();
    let refused = moved(0).await;
    assert!(matches!(refused, Err(ServiceError::RateLimited(wait)) if wait.as_secs() <= 10), "{refused:?}");
    ground.compile().await;
    assert_eq!(ground.revision(neighbour.server).await, told);
    assert_eq!(ground.row(mover.server).await.home_relay, Some(relays[1]));
}

#[tokio::test]
async fn a_move_that_a_busy_database_did_not_take_costs_no_other() {
    let (ground, faults) = Ground::with_faults().await;
    let (mover, _) = ground.connected(1).await;
    let relays = two_relays(&ground).await;
    let moved = async |home: usize| ground.service.gateway_moved(&mover, Some(relays[home])).await;
    for _ in 0..5 {
        faults.lock().unwrap().push_back(StorageError::Busy);
        assert!(matches!(moved(0).await, Err(ServiceError::Busy)));
    }
    moved(0).await.unwrap();
    moved(1).await.unwrap();
    assert!(matches!(moved(0).await, Err(ServiceError::RateLimited(_))), "what is done counts");
}

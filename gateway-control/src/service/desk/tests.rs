use std::sync::Arc;

use futures_util::future::join_all;
use gateway_proto::peering::ConnectionStatus;

use super::*;
use crate::{
    service::ground::Ground,
    storage::{ApiTokenRow, StorageError},
};

/// Another one each time.
fn proof(n: u64) -> Proof {
    Proof { digest: format!("{n:064x}"), until: u64::MAX >> 1 }
}

async fn hello(ground: &Ground, gateway: &GatewayCaller, n: u64, revision: u64) -> ServiceResult<()> {
    ground.service.gateway_hello(gateway, &proof(n), n, revision, "1.2.3", None).await
}

#[tokio::test]
async fn a_gateway_that_has_a_newer_policy_than_the_storage_costs_the_others_no_large_compilation() {
    let ground = Ground::new().await;
    let (large, _) = ground.connected(210).await;
    let small = ground.gateway(3).await;
    ground.mark(&[small.server]).await;
    ground.compile().await;
    let before = ground.revision(large.server).await;
    let claimed = before + 5_000;
    hello(&ground, &large, 1, claimed).await.unwrap();
    let row = ground.row(large.server).await;
    assert_eq!((ground.revision(large.server).await, row.stale, row.policy_floor), (before, true, claimed));
    // It says so again before there is another policy, and that it has that one in force.
    hello(&ground, &large, 2, claimed).await.unwrap();
    ground.service.gateway_applied(&large, claimed).await.unwrap();
    assert_eq!(ground.row(large.server).await.applied_revision, 0);
    ground.compile().await;
    assert!(ground.revision(large.server).await > claimed, "whoever compiles it knows of that");
    let unknown = ground.service.gateway_applied(&large, claimed + 1_000_000).await;
    assert!(matches!(unknown, Err(ServiceError::Invalid(_))));
    // A small one is compiled with the hello.
    let claimed = ground.revision(small.server).await + 5_000;
    hello(&ground, &small, 3, claimed).await.unwrap();
    assert!(ground.revision(small.server).await > claimed && !ground.row(small.server).await.stale);
}

#[tokio::test]
async fn a_gateway_that_has_newer_policies_again_and_again_is_not_believed() {
    let ground = Ground::new().await;
    let gateway = ground.gateway(1).await;
    ground.mark(&[gateway.server]).await;
    ground.compile().await;
    for n in 0..5 {
        let newest = ground.revision(gateway.server).await;
        hello(&ground, &gateway, n, newest + 5).await.unwrap();
    }
    let newest = ground.revision(gateway.server).await;
    assert!(matches!(hello(&ground, &gateway, 5, newest + 5).await, Err(ServiceError::Invalid(_))));
    assert_eq!(ground.revision(gateway.server).await, newest);
    hello(&ground, &gateway, 6, newest).await.unwrap();
}

#[tokio::test]
async fn a_hello_that_was_not_written_costs_the_gateway_no_other_one() {
    let ground = Ground::new().await;
    let gateway = ground.gateway(1).await;
    for n in 0..10 {
        let note = Note::Hello { proof: proof(n), session: n, revision: 5_000, version: String::new(), newcomer: None };
        let mut work = ground.service.work(Who::System).await.unwrap();
        work.write(&gateway, &note).await.unwrap();
        // The disk takes no more, or another note of the same transaction cannot be written.
        drop(work);
    }
    hello(&ground, &gateway, 10, 5_000).await.unwrap();
    assert!(ground.revision(gateway.server).await > 5_000);
}

#[tokio::test]
async fn when_the_database_goes_away_while_notes_are_written_one_by_one_they_do_not_wait_for_it_in_turn() {
    let (ground, faults) = Ground::with_faults().await;
    let gateway = ground.gateway(1).await;
    let away = || StorageError::Unavailable(Arc::new(sqlx::Error::PoolClosed));
    // One of them cannot be written, so each is written by itself.
    let unreadable = StorageError::Unreadable("one of them".to_owned());
    faults.lock().unwrap().extend(std::iter::once(unreadable).chain((0..10).map(|_| away())));
    let told = join_all((0..5).map(|n| hello(&ground, &gateway, n, 0))).await;
    assert!(told.iter().all(|told| matches!(told, Err(ServiceError::Unavailable(_)))), "{told:?}");
    assert_eq!(faults.lock().unwrap().len(), 9, "it is asked for once more, for all of them");
}

#[tokio::test]
async fn what_a_confirmed_policy_makes_active_becomes_so_in_portions_between_which_others_write() {
    let ground = Ground::new().await;
    let (sender, listener) = ground.connected(120).await;
    let revision = ground.revision(listener.server).await;
    ground.service.gateway_applied(&listener, revision).await.unwrap();
    let revision = ground.revision(sender.server).await;
    let applied = ground.service.gateway_applied(&sender, revision);
    let (applied, seen) = tokio::join!(applied, ground.sees_some(sender.server, ConnectionStatus::Active, 120));
    applied.unwrap();
    assert!(seen.is_some(), "all of them were one transaction");
    assert_eq!(ground.count_in_turn(sender.server, ConnectionStatus::Active).await, 120);
}

#[tokio::test]
async fn first_uses_of_many_tokens_are_written_together_and_others_go_between() {
    let ground = Ground::new().await;
    let user = ground.owner().await;
    let mut tx = ground.begin().await;
    let tokens: Vec<_> = (0..120).map(|n| ApiTokenId::new(n, [1; 10])).collect();
    for id in &tokens {
        let row = ApiTokenRow {
            id: *id,
            user,
            organization: ground.organization,
            name: id.to_string(),
            scopes: Vec::new(),
            expires_at: u64::MAX >> 1,
            last_used_at: None,
            created_at: 1,
        };
        tx.insert_api_token(&row, &id.to_string()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let used = async |mut tx: Box<dyn crate::storage::Transaction>| {
        let rows = tx.api_tokens_of_user(user).await.unwrap();
        rows.iter().filter(|row| row.last_used_at.is_some()).count()
    };
    // While somebody writes, all of them are used; then somebody else comes.
    let held = ground.begin().await;
    for id in &tokens {
        ground.service.note_aside(ground.organization, Aside::TokenUsed(*id));
    }
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
    let other = async { used(ground.begin().await).await };
    let release = async {
        tokio::task::yield_now().await;
        drop(held);
    };
    let (seen, ()) = tokio::join!(other, release);
    assert!(seen <= ASIDES_AT_ONCE, "{seen} came first");
    ground.service.commits.close();
    ground.service.commits.wait().await;
    assert_eq!((used(ground.begin().await).await, ground.service.notes_dropped().get()), (120, 0));
}

#[tokio::test]
async fn what_nobody_waits_for_has_an_end_for_each_organization() {
    let ground = Ground::new().await;
    let held = ground.begin().await;
    let other = OrganizationId::from_bytes([2; 16]);
    for n in 0..=(ASIDES_WAITING + ASIDES_AT_ONCE) as u64 + 10 {
        ground.service.note_aside(ground.organization, Aside::TokenUsed(ApiTokenId::new(n, [1; 10])));
    }
    ground.service.note_aside(other, Aside::TokenUsed(ApiTokenId::new(1, [2; 10])));
    assert!(ground.service.notes_dropped().get() >= 10);
    assert_eq!(ground.service.desk.queues().asides.count_of(other), 1, "another one's are kept");
    drop(held);
    ground.service.commits.close();
    ground.service.commits.wait().await;
}

use std::net::Ipv4Addr;

use gateway_proto::{
    id::EnrollmentCodeId,
    identity::{NoiseBinding, NoiseKey},
};

use super::*;
use crate::service::ground::{Ground, gateway_key};

const SECRET: &str = "00000000000000000000000000000001";

async fn code(ground: &Ground, server: ServerId) {
    let row = EnrollmentCodeRow {
        id: EnrollmentCodeId::new(1, gateway_net::random()),
        secret_hash: digest(SECRET),
        server,
        issued_by: None,
        expires_at: u64::MAX >> 1,
        used_by: None,
        used_at: None,
    };
    let mut tx = ground.begin().await;
    tx.insert_enrollment_code(&row).await.unwrap();
    tx.commit().await.unwrap();
}

fn request(n: u8) -> EnrollRequest {
    let key = gateway_key(n);
    let noise = NoiseBinding::new(&key, &NoiseKey::from_bytes([n; 32]));
    EnrollRequest::new(SECRET.to_owned(), &key, noise, "1.2.3".to_owned())
}

fn stranger() -> Stranger {
    Stranger { address: Ipv4Addr::LOCALHOST.into(), request: String::new() }
}

#[tokio::test]
async fn an_enrolment_compiles_no_large_policy_itself_and_answers_with_it_all_the_same() {
    const COUNT: usize = 210;
    let ground = Ground::new().await;
    let listener = ground.gateway(2).await;
    let channel = ground.channel(listener.server, 6_661).await;
    let server = ground.server(1).await;
    ground.connect(server, channel, ConnectionStatus::Provisioning, COUNT).await;
    code(&ground, server).await;
    let stranger = stranger();
    let enrolling = ground.service.enroll(&stranger, request(1));
    tokio::pin!(enrolling);
    let ready = async {
        let seen = ground.sees_some(server, ConnectionStatus::Ready, COUNT).await;
        while ground.count_in_turn(server, ConnectionStatus::Ready).await < COUNT {
            sleep(Duration::from_millis(5)).await;
        }
        seen
    };
    let seen = tokio::select! {
        answer = &mut enrolling => panic!("answered before anybody compiled: {:?}", answer.map(|answer| answer.server_id)),
        seen = ready => seen,
    };
    assert!(seen.is_some(), "all that waited for the gateway became ready in one transaction");
    let row = ground.row(server).await;
    assert!(row.stale && row.gateway == Some(gateway_key(1).public()), "{row:?}");
    ground.compile().await;
    let answer = enrolling.await.unwrap();
    let policy = policy::content(&answer.policy).unwrap();
    assert_eq!((policy.gateway, policy.connections.len()), (gateway_key(1).public(), COUNT));
    // The same key gets the same answer again, and waits for nobody.
    let again = ground.service.enroll(&stranger, request(1)).await.unwrap();
    assert_eq!(again.policy, answer.policy);
}

#[tokio::test]
async fn a_new_gateway_is_never_answered_with_the_policy_of_the_one_before_it() {
    const COUNT: usize = 210;
    let ground = Ground::new().await;
    let (old, _) = ground.connected(COUNT).await;
    code(&ground, old.server).await;
    let stranger = stranger();
    let enrolling = ground.service.enroll(&stranger, request(7));
    let compiled = async {
        while ground.row(old.server).await.gateway != Some(gateway_key(7).public()) {
            sleep(Duration::from_millis(5)).await;
        }
        ground.compile().await;
    };
    let (answer, ()) = tokio::join!(enrolling, compiled);
    let policy = policy::content(&answer.unwrap().policy).unwrap();
    assert_eq!((policy.gateway, policy.connections.len()), (gateway_key(7).public(), COUNT));
}

#[tokio::test]
async fn enrolments_of_one_organization_are_one_at_a_time_with_its_other_changes() {
    let ground = Ground::new().await;
    let server = ground.server(1).await;
    code(&ground, server).await;
    let turn = ground.service.turn_to_write(ground.organization).await.unwrap();
    let stranger = stranger();
    let enrolling = ground.service.enroll(&stranger, request(1));
    tokio::pin!(enrolling);
    let waits = async {
        let [(_, writes), ..] = ground.service.turns.counts();
        while writes.waiting.get() < 1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = &mut enrolling => panic!("it did not wait: {:?}", answer.map(|answer| answer.server_id)),
        () = waits => {}
    }
    drop(turn);
    enrolling.await.unwrap();
}

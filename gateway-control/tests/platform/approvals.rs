//! Approvals: under limits of the channel's owner, and sent again.

use std::time::Duration;

use gateway_proto::api::platform::Grant;
use serde_json::json;

use super::harness::{Control, Org};

#[tokio::test]
async fn an_owner_approves_a_request_under_tighter_limits_and_never_under_wider_ones() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let ask = async |by: &Org<'_>, name: &str| -> Grant {
        let channel = pair.lab.channel(&pair.lab_server, name).await;
        by.post("/grants", json!({"agreement_id": pair.agreement, "channel_id": channel.id, "max_streams": 8})).await
    };
    let (asked, end) = (ask(&pair.hospital, "Orders").await, control.clock.unix_secs() + 3600);
    let path = format!("/grants/{}/approve", asked.id);
    let limits = |streams: u32, rate: u64| {
        let secs = 60;
        json!({"max_streams": streams, "bytes_per_second": rate, "receive_timeout_secs": secs, "expires_at": end})
    };
    for wrong in [limits(9, 2_000), limits(0, 2_000), limits(8, 999), json!({"expires_at": 1})] {
        assert_eq!(pair.lab.refused("POST", &path, Some(wrong.clone())).await.code, "invalid", "{wrong}");
    }
    let of = |grant: &Grant| (grant.max_streams, grant.bytes_per_second, grant.receive_timeout_secs, grant.expires_at);
    let approved: Grant = pair.lab.post(&path, limits(4, 2_000)).await;
    let tight = (4, Some(2_000), Some(60), Some(end));
    assert_eq!(of(&approved), tight);
    assert_eq!(of(&pair.hospital.get(&format!("/grants/{}", asked.id)).await), tight, "who asked sees it");
    let mut watch = pair.lab_gateway.watch(&control).await;
    let policy = watch.policy_until(|policy| !policy.connections.is_empty()).await;
    let entry = policy.connection(approved.connection_id.unwrap()).unwrap();
    assert_eq!((entry.max_streams, entry.limits.bytes_per_second, entry.expires_at), (4, Some(2_000), Some(end)));

    // Again the same changes nothing, and nobody takes other limits for those in force.
    assert_eq!(of(&pair.lab.post(&path, limits(4, 2_000)).await), tight);
    assert_eq!(of(&pair.lab.post(&path, json!({})).await), tight);
    assert_eq!(pair.lab.refused("POST", &path, Some(limits(3, 2_000))).await.code, "conflict");
    // "For an hour", said again a minute later; ten minutes are another end, and so is an earlier one.
    let until = |end: u64| json!({"expires_at": end});
    assert_eq!(of(&pair.lab.post(&path, until(end + 60)).await), tight);
    for other in [end + 600, end - 600, end - 60] {
        assert_eq!(pair.lab.refused("POST", &path, Some(until(other))).await.code, "conflict");
    }
    let offered = ask(&pair.lab, "Results").await;
    let path = format!("/grants/{}/approve", offered.id);
    assert_eq!(pair.hospital.refused("POST", &path, Some(json!({"max_streams": 4}))).await.code, "invalid");
}

#[tokio::test]
async fn an_approval_that_comes_again_names_what_is_in_place_or_is_told_what_is() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let spare = pair.hospital.server("spare").await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
    let offered: Grant = pair.lab.post("/grants", offer).await;
    assert_eq!(offered.approved_at, None);
    let (path, main) = (format!("/grants/{}/approve", offered.id), pair.hospital_server.id);
    let first = json!({"sender_server_id": main, "sender_port": 7100});
    control.clock.advance(Duration::from_secs(3600));
    let approved: Grant = pair.hospital.post(&path, first.clone()).await;
    assert!(approved.approved_at.is_some_and(|at| at >= approved.created_at + 3600), "{approved:?}");
    for same in [first, json!({}), json!({"auto_activate": true})] {
        assert_eq!(pair.hospital.post::<Grant>(&path, same).await, approved);
    }
    for (other, words) in [
        (json!({"sender_server_id": spare.id}), format!("sender_server_id is {main} and not {}", spare.id)),
        (json!({"sender_server_id": pair.lab_server.id}), format!("sender_server_id is {main}")),
        (json!({"sender_port": 7200}), "sender_port is 7100 and not 7200".to_owned()),
        (json!({"auto_activate": false}), "auto_activate is true and not false".to_owned()),
    ] {
        let refused = pair.hospital.refused("POST", &path, Some(other)).await;
        assert_eq!(refused.code, "conflict");
        assert!(refused.detail.contains(&words), "{}", refused.detail);
    }
    // The owner of the channel has no say in it, nor learns it.
    let refused = pair.lab.refused("POST", &path, Some(json!({"sender_server_id": spare.id}))).await;
    assert_eq!(refused.code, "invalid");
    assert!(!refused.detail.contains(&main.to_string()), "{}", refused.detail);
    assert_eq!(pair.lab.post::<Grant>(&path, json!({})).await.connection_id, approved.connection_id);
}

//! Requests that the owner of a channel approves under limits of its own.

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
    // "For an hour", said again a minute later; ten minutes are another end.
    let until = |end: u64| json!({"expires_at": end});
    assert_eq!(of(&pair.lab.post(&path, until(end + 60)).await), tight);
    for other in [end + 600, end - 600] {
        assert_eq!(pair.lab.refused("POST", &path, Some(until(other))).await.code, "conflict");
    }
    let offered = ask(&pair.lab, "Results").await;
    let path = format!("/grants/{}/approve", offered.id);
    assert_eq!(pair.hospital.refused("POST", &path, Some(json!({"max_streams": 4}))).await.code, "invalid");
}

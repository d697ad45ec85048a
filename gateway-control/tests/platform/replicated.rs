//! Two replicas on one PostgreSQL with a gateway at each, and whether what is decided at the one reaches the other.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use gateway_proto::{
    api::platform::Connection,
    policy::{Activation, Policy},
};
use serde_json::json;

use super::harness::{Control, Org, Pair, Watch};

const FAST: &str = "[limits]\nrequests_per_second = 1000000\nlogins_per_minute = 100000\n";
/// Until what one replica decides is with a gateway at the other: news, not the look every five seconds.
const NEWS: Duration = Duration::from_secs(3);
/// Until news comes again once the server does.
const MENDED: Duration = Duration::from_secs(60);

/// Both replicas, the first of them in `directory`.
pub(super) async fn replicas(directory: tempfile::TempDir) -> (Control, Control) {
    let one = Control::start_in(directory, FAST).await;
    let other = one.replica_with(FAST).await.unwrap();
    (one, other)
}

/// The hospital's gateway watches at the other replica, the lab's where both organizations are asked for.
pub(super) async fn watches(pair: &Pair<'_>, other: &Control) -> (Watch, Watch) {
    let one = pair.lab.control;
    let (mut sender, mut listener) = (pair.hospital_gateway.watch(other).await, pair.lab_gateway.watch(one).await);
    sender.policy().await;
    listener.policy().await;
    (sender, listener)
}

/// A connection that both gateways let data through, and who watches it.
pub(super) async fn watched(pair: &Pair<'_>, other: &Control) -> (String, Watch, Watch) {
    let (mut sender, mut listener) = watches(pair, other).await;
    let watched = pair.connection("Watched").await;
    both(&mut sender, &mut listener, |policy| active(policy, &watched)).await;
    (watched, sender, listener)
}

/// Notes what was measured: to standard output, and to the file that `GATEWAY_TEST_MEASURES` names.
pub(super) fn measure(line: &str) {
    writeln!(std::io::stdout(), "measured: {line}").ok();
    let Some(path) = std::env::var_os("GATEWAY_TEST_MEASURES") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    // One write for the line, so that lines of parallel tests do not mix.
    file.write_all(format!("  {line}\n").as_bytes()).unwrap();
}

/// Waits until both gateways have a policy that is as told.
async fn both(sender: &mut Watch, listener: &mut Watch, is: impl Fn(&Policy) -> bool + Copy) {
    tokio::join!(sender.policy_until(is), listener.policy_until(is));
}

fn active(policy: &Policy, id: &str) -> bool {
    policy.connections.iter().any(|entry| entry.id.to_string() == id && entry.activation == Activation::Active)
}

/// What is decided at each replica reaches the gateway that watches at the other, by news: again and again, so that the
/// look at the newest revisions every few seconds cannot be what helped.
pub(super) async fn line_is_mended(
    lab: &Org<'_>,
    at_other: &Org<'_>,
    id: &str,
    (listener, sender): (&mut Watch, &mut Watch),
) {
    // The line itself is looked after once a second.
    let mended = async {
        loop {
            let quick = change(lab, at_other, id, listener, sender).await;
            if quick < NEWS {
                return;
            }
        }
    };
    tokio::time::timeout(MENDED, mended).await.expect("news never came again");
    for _ in 0..4 {
        let took = change(lab, at_other, id, listener, sender).await;
        assert!(took < NEWS, "it took {took:?}");
    }
}

/// Pauses at one replica and resumes at the other; how long it took until both gateways knew.
async fn change(lab: &Org<'_>, at_other: &Org<'_>, id: &str, listener: &mut Watch, sender: &mut Watch) -> Duration {
    let begun = Instant::now();
    let _: Connection = lab.post(&format!("/connections/{id}/pause"), json!({})).await;
    both(sender, listener, |policy| !active(policy, id)).await;
    let _: Connection = at_other.post(&format!("/connections/{id}/resume"), json!({})).await;
    both(sender, listener, |policy| active(policy, id)).await;
    begun.elapsed()
}

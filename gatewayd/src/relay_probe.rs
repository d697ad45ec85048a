//! Measures the way to every relay of the map, attached to or not: one STUN question each, from a socket of its own.
//!
//! STUN costs a relay one small packet, where an attachment costs a handshake. Where UDP does not pass nothing is measured, and the order of the
//! map decides (see [`gateway_proto::relay::HomeChooser`]).

use std::{collections::HashMap, time::Duration};

use gateway_net::{
    entropy::{random, random_u32},
    nat64,
};
use gateway_proto::{id::RelayId, relay::MAX_RELAYS, stun};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{resolver::Resolver, stun_socket::StunSocket};

/// Between two rounds, plus or minus a quarter, so that the gateways of a fleet do not ask together.
const INTERVAL: Duration = Duration::from_secs(20);
/// The first rounds follow each other quickly: a guess is to be corrected soon.
const FIRST_ROUNDS: u32 = 3;
/// Between the first rounds.
const FIRST_INTERVAL: Duration = Duration::from_millis(300);
/// An answer that takes longer is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Resolving all names of a round.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);
/// Measurements that wait for the mesh.
pub const QUEUE: usize = MAX_RELAYS;

/// The relays to measure, each with one of its STUN addresses.
pub type Targets = Vec<(RelayId, String)>;

/// Measures until `stop`.
pub async fn run(
    mut targets: watch::Receiver<Targets>,
    resolver: Resolver,
    measured: mpsc::Sender<(RelayId, Duration)>,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(async {
        let mut rounds = 0;
        loop {
            let relays = targets.borrow_and_update().clone();
            if !relays.is_empty() {
                match round(&relays, &resolver).await {
                    Ok(rtts) => {
                        for rtt in rtts {
                            // A mesh that is behind loses a sample; the median bears it.
                            let _ = measured.try_send(rtt);
                        }
                    }
                    Err(error) => debug!(%error, "no socket to measure the relays from"),
                }
                rounds += 1;
            }
            let quarter = random_u32() % 10_000;
            let pause =
                if rounds < FIRST_ROUNDS { FIRST_INTERVAL } else { INTERVAL * 3 / 4 + INTERVAL / 2 * quarter / 10_000 };
            tokio::select! {
                () = sleep(pause) => {}
                changed = targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    rounds = 0;
                }
            }
        }
    })
    .await;
}

/// Asks every relay once.
async fn round(relays: &[(RelayId, String)], resolver: &Resolver) -> std::io::Result<Vec<(RelayId, Duration)>> {
    let socket = StunSocket::bind().await?;
    let found = resolver.resolve(relays.iter().map(|(_, server)| server.as_str()), RESOLVE_LIMIT).await;
    let mut waiting = HashMap::new();
    for ((relay, _), addresses) in relays.iter().zip(found) {
        let mut plain = addresses.into_iter().map(nat64::plain);
        let Some(address) = plain.find(|address| socket.reaches(address)) else { continue };
        let transaction: [u8; 12] = random();
        socket.send(&stun::binding_request(&transaction), address).await;
        waiting.insert(transaction, (*relay, Instant::now()));
    }
    let deadline = Instant::now() + ANSWER_LIMIT;
    let mut measured = Vec::new();
    while !waiting.is_empty() {
        let Some((packet, _)) = socket.receive(deadline).await else { break };
        // 96 random bits: nobody else can answer.
        if let Some((relay, sent)) = stun::transaction_id(&packet).and_then(|id| waiting.remove(&id)) {
            measured.push((relay, sent.elapsed()));
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn a_relay_that_answers_is_measured_and_one_that_does_not_is_left_out() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let ids = [1, 2, 3].map(|id| RelayId::from_bytes([id; 16]));
        let relays = [
            (ids[0], server.local_addr().unwrap().to_string()),
            (ids[1], deaf.local_addr().unwrap().to_string()),
            (ids[2], "no.such.name.invalid:1".to_owned()),
        ];
        let resolver = Resolver::new(watch::channel(0).1, Arc::default());
        let answering = async {
            let mut buffer = [0; 600];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let transaction = stun::parse_request(&buffer[..length]).unwrap();
            server.send_to(b"noise", from).await.unwrap();
            server.send_to(&stun::binding_response(&transaction, from), from).await.unwrap();
        };
        let (measured, ()) = tokio::join!(round(&relays, &resolver), answering);
        let measured = measured.unwrap();
        assert_eq!(measured.len(), 1);
        assert!(measured[0].0 == ids[0] && measured[0].1 < ANSWER_LIMIT);
    }
}

//! Finds out the NAT64 of the network this machine is in, and tells everything that sends ([`gateway_net::nat64`]).
//!
//! What is decided is in [`Discovery`]; here its name is resolved, by the machine's own resolver and with a limit, beside everything
//! else. Where IPv4 has a way out nothing is asked.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::{Duration, Instant},
};

use gateway_net::{entropy::random_u32, nat64};
use gateway_proto::nat64::{Discovery, Nat64Prefix, WELL_KNOWN_NAME};
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    net_watch::{way_to, ways_out},
    timer::until,
};

/// For an answer of the name servers.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);
/// Prefixes that STUN servers showed and nobody has read yet; all are the same one.
pub const QUEUE: usize = 2;

type LookUp = Pin<Box<dyn Future<Output = Option<Vec<IpAddr>>> + Send>>;

/// Finds it out until `stop`, anew on every change of the network. `observed` are prefixes that STUN servers showed.
pub async fn find(network: watch::Receiver<u64>, observed: mpsc::Receiver<Nat64Prefix>, stop: CancellationToken) {
    stop.run_until_cancelled(follow(network, observed)).await;
}

/// Whether packets to an address go through the NAT64: the kernel has no other way.
pub(crate) fn is_translated(to: SocketAddr) -> bool {
    nat64::translated(to).is_some() && way_to(to).is_none()
}

/// Our own address towards another one, through the NAT64 if need be; `None`: there is no way.
pub(crate) fn way_through(to: SocketAddr) -> Option<IpAddr> {
    way_to(to).or_else(|| way_to(nat64::translated(to)?))
}

async fn follow(mut network: watch::Receiver<u64>, mut observed: mpsc::Receiver<Nat64Prefix>) {
    let mut discovery = Discovery::default();
    let mut looking: Option<LookUp> = None;
    network.mark_changed();
    loop {
        let due = discovery.poll_timeout();
        tokio::select! {
            Ok(()) = network.changed() => {
                network.mark_unchanged();
                // What is being asked of the former network's name servers says nothing of this one.
                looking = None;
                let [v4, v6] = ways_out();
                discovery.handle_network(v4.is_none() && v6.is_some(), Instant::now());
            }
            Some(prefix) = observed.recv() => discovery.handle_observed(prefix),
            answer = answered(&mut looking, due) => {
                discovery.handle_answer(answer.as_deref(), Instant::now(), random_u32());
            }
        }
        tell(&discovery);
    }
}

fn tell(discovery: &Discovery) {
    let before = nat64::prefix();
    nat64::set(discovery.nat64());
    let prefix = nat64::prefix();
    if prefix == before {
        return;
    }
    match prefix {
        Some(prefix) => {
            info!("IPv4 addresses are reached through the NAT64 of this network");
            debug!(%prefix, "its prefix");
        }
        None => info!("this network has no NAT64 any more, or IPv4 has a way out"),
    }
}

/// What the well-known name resolves to, once that is due; none without an answer. Cancel-safe: whoever asks again goes on waiting for
/// the same.
async fn answered(looking: &mut Option<LookUp>, due: Option<Instant>) -> Option<Vec<IpAddr>> {
    if looking.is_none() {
        until(due).await;
    }
    let answer = looking.get_or_insert_with(|| Box::pin(look_up())).await;
    *looking = None;
    answer
}

async fn look_up() -> Option<Vec<IpAddr>> {
    let found = timeout(LOOK_UP_LIMIT, lookup_host((WELL_KNOWN_NAME, 0))).await.ok()?.ok()?;
    Some(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopped_search_ends() {
        let (stop, (_network, changes), (_shown, observed)) =
            (CancellationToken::new(), watch::channel(0), mpsc::channel(QUEUE));
        stop.cancel();
        find(changes, observed, stop).await;
    }

    #[tokio::test]
    async fn what_is_being_looked_up_is_waited_for_again_after_something_else_came_first() {
        let (answer, waiting) = tokio::sync::oneshot::channel();
        let mut looking: Option<LookUp> = Some(Box::pin(async move { waiting.await.ok() }));
        tokio::select! {
            biased;
            _ = answered(&mut looking, None) => panic!("there is no answer yet"),
            () = tokio::task::yield_now() => {}
        }
        let found = vec![IpAddr::from([192, 0, 0, 170])];
        answer.send(found.clone()).unwrap();
        assert_eq!(answered(&mut looking, None).await, Some(found));
        assert!(looking.is_none(), "the next one is another");
    }
}

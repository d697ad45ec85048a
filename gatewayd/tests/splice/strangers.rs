//! Who is no peer gets no tunnel.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::timeout;

use crate::{LIMIT, direct, site};

#[tokio::test]
async fn a_gateway_with_another_key_gets_no_tunnel() {
    let (dialling, answering) = (site(1, 2), site(2, 9));
    direct(&dialling, &answering);
    direct(&answering, &dialling);
    let dialled = dialling.endpoint.dial(answering.key, &Arc::default()).unwrap();
    let accepted = async { answering.endpoint.accept().await.unwrap().accept().unwrap().await };
    let (dialled, accepted) = timeout(LIMIT, async { tokio::join!(dialled, accepted) }).await.unwrap();
    assert!(accepted.is_err(), "the answering side pins the keys of its policy");
    if let Ok(connection) = dialled {
        timeout(LIMIT, connection.closed()).await.expect("the refused side learns it");
    }
}

#[tokio::test]
async fn packets_of_a_stranger_never_reach_quic() {
    let (a, b) = (site(1, 2), site(2, 1));
    direct(&a, &b);
    // b knows no real address of a.
    let dialling = a.endpoint.dial(b.key, &Arc::default()).unwrap();
    let counted = async {
        while b.socket.counters().strangers.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = dialling => panic!("nobody answers"),
        _ = b.endpoint.accept() => panic!("a stranger's packet reached QUIC"),
        counted = timeout(LIMIT, counted) => counted.expect("the stranger is counted"),
    }
}

use std::{collections::BTreeSet, path::Path};

use gateway_proto::{
    id::{OrganizationId, ServerId},
    policy::ServerName,
    stream::ControlFrame,
};
use tokio::task::JoinSet;

use super::*;
use crate::{
    audit::AuditLog,
    authority::Authority,
    config::AuditConfig,
    engine::EngineWatch,
    gate::Gate,
    observer::Unobserved,
    places::EnginePlaces,
    store::StateDir,
    testing::{Site, tunnel},
    timer::Moments,
    traffic::TrafficTable,
};

fn listener(directory: &Path) -> ListenerContext {
    let authority = Authority::open(Arc::new(StateDir::open(directory).unwrap()), 1).unwrap();
    let (audit, _writer) = AuditLog::open(directory, &AuditConfig::default()).unwrap();
    ListenerContext {
        gate: Gate::new(authority.clone()),
        admin: None,
        audit,
        traffic: TrafficTable::default(),
        unobserved: Unobserved::default(),
        engine: EngineWatch::none(),
        places: EnginePlaces::new(10, EngineWatch::none(), authority.subscribe()),
        authority,
        max_streams: 8,
        hold: Duration::from_secs(1),
        dial_timeout: Duration::from_secs(1),
        keepalive: Duration::from_secs(1),
        moments: Moments::default(),
        closing: CancellationToken::new(),
    }
}

/// A keeper that runs.
struct Kept {
    peer: Arc<Peer>,
    inbound: Handover<Connection>,
    /// Its own.
    home: watch::Sender<Option<RelayId>>,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

/// Of the tunnel from `local` to `remote`, which is wanted and reachable as far as `local` knows.
fn kept(local: &Site, remote: &Site) -> Kept {
    let directory = tempfile::tempdir().unwrap();
    let name = ServerName {
        id: ServerId::new(1, [0; 10]),
        name: "south".into(),
        organization: OrganizationId::new(1, [0; 10]),
        organization_name: "South".into(),
    };
    let (peer, _mailbox) = Peer::new(remote.key, false, name, Arc::default(), Arc::default());
    peer.wanted.send_replace(true);
    peer.reachable.send_replace(true);
    let (inbound, home) = (Handover::default(), watch::Sender::new(None));
    let keeper = Keeper {
        peer: peer.clone(),
        local: local.key,
        endpoint: local.endpoint.clone(),
        inbound: inbound.clone(),
        listener: listener(directory.path()),
        home: home.subscribe(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(keeper.run(CancellationToken::new()));
    Kept { peer, inbound, home, _tasks: tasks, _directory: directory }
}

#[tokio::test(start_paused = true)]
async fn a_partner_that_is_not_there_is_dialled_with_growing_pauses_and_at_once_when_it_shows_itself() {
    let (local, remote) = Site::two();
    let kept = kept(&local, &remote);
    let mut dialling = kept.peer.dialling.subscribe();
    let begun = Instant::now();
    for _ in 0..10 {
        drop(dialling.wait_for(|dialling| *dialling).await.unwrap());
        drop(dialling.wait_for(|dialling| !*dialling).await.unwrap());
    }
    let (dials, took) = (10 * HANDSHAKE_TIMEOUT, begun.elapsed());
    assert!(took > dials + Duration::from_secs(15), "ten dials within {took:?}");
    let absent_until = Instant::now();
    kept.peer.shows_itself();
    drop(dialling.wait_for(|dialling| *dialling).await.unwrap());
    assert!(absent_until.elapsed() < Duration::from_secs(1), "{:?}", absent_until.elapsed());
    // It showed itself while it was dialled, too late for the last packet of that: the next dial follows without a pause.
    kept.peer.shows_itself();
    sleep(HANDSHAKE_TIMEOUT + Duration::from_secs(1)).await;
    assert!(*dialling.borrow());
}

/// The peer opens the control stream of a tunnel that it dialled, and says something.
async fn speaks(dialled: &Connection) -> (SendStream, RecvStream) {
    let (mut send, recv) = dialled.open_bi().await.unwrap();
    send.write_all(&ControlFrame::Ping { sequence: 0, wants_answer: true, home: None }.encode()).await.unwrap();
    (send, recv)
}

#[tokio::test]
async fn while_a_newer_tunnel_says_nothing_yet_no_stream_waits_on_the_former_one_and_a_still_newer_one_takes_over() {
    // Less than a tunnel that says nothing is waited for.
    let soon = HANDSHAKE_TIMEOUT / 2;
    let (remote, local) = Site::two();
    let kept = kept(&local, &remote);
    let mut used = kept.peer.tunnel.subscribe();
    let (first, taken) = tunnel(&remote, &local).await;
    kept.inbound.put(taken);
    let _first = speaks(&first).await;
    drop(timeout(soon, used.wait_for(Option::is_some)).await.expect("the first is up").unwrap());

    let (_silent, taken) = tunnel(&remote, &local).await;
    kept.inbound.put(taken);
    drop(timeout(soon, used.wait_for(Option::is_none)).await.expect("the former one is not used any more").unwrap());

    let (third, taken) = tunnel(&remote, &local).await;
    let expected = taken.stable_id();
    kept.inbound.put(taken);
    let _third = speaks(&third).await;
    let up = timeout(soon, used.wait_for(Option::is_some)).await.expect("the newest takes over").unwrap();
    assert_eq!(up.as_ref().map(|tunnel| tunnel.connection().stable_id()), Some(expected));
}

/// The first frame of this kind that the gateway says.
async fn hears(recv: &mut RecvStream, is_it: impl Fn(&ControlFrame) -> bool) -> ControlFrame {
    loop {
        let mut length = [0; 2];
        recv.read_exact(&mut length).await.unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes(length))];
        recv.read_exact(&mut body).await.unwrap();
        let frame = ControlFrame::decode(&body).unwrap();
        if is_it(&frame) {
            return frame;
        }
    }
}

#[tokio::test]
async fn the_home_that_a_partner_tells_counts_and_it_is_told_of_ours_as_soon_as_that_moves() {
    // Less than an idle pair waits between two questions.
    let soon = Duration::from_secs(5);
    let [ours, theirs] = [1, 2].map(|number| RelayId::from_bytes([number; 16]));
    let (remote, local) = Site::two();
    let kept = kept(&local, &remote);
    let map = Arc::new(BTreeSet::from([ours, theirs]));
    kept.peer.home.send_if_modified(|home| home.set_policy(None, &map));
    let mut homes = kept.peer.home.subscribe();
    let (dialled, taken) = tunnel(&remote, &local).await;
    kept.inbound.put(taken);
    let (mut send, mut recv) = speaks(&dialled).await;

    let is_question = |frame: &ControlFrame| matches!(frame, ControlFrame::Ping { wants_answer: true, .. });
    let first = timeout(soon, hears(&mut recv, is_question)).await.expect("it asks");
    assert_eq!(first, ControlFrame::Ping { sequence: 1, wants_answer: true, home: None });
    send.write_all(&ControlFrame::Pong { sequence: 1, home: Some(theirs) }.encode()).await.unwrap();
    let told = homes.wait_for(|home| home.home() == Some(theirs));
    drop(timeout(soon, told).await.expect("the partner is believed").unwrap());

    kept.home.send_replace(Some(ours));
    let says_ours = |frame: &ControlFrame| matches!(frame, ControlFrame::Ping { home, .. } if *home == Some(ours));
    timeout(soon, hears(&mut recv, says_ours)).await.expect("it asks out of turn");
    send.write_all(&ControlFrame::Ping { sequence: 1, wants_answer: true, home: None }.encode()).await.unwrap();
    let answer = ControlFrame::Pong { sequence: 1, home: Some(ours) };
    timeout(soon, hears(&mut recv, |frame| *frame == answer)).await.expect("answers say it as well");
}

#[test]
fn a_peer_that_says_nothing_or_took_its_leave_is_silent_and_one_that_answered_is_not() {
    use quinn::{ApplicationClose, ConnectionError};
    let closed = |reason: &'static [u8]| {
        let close = ApplicationClose { error_code: VarInt::from_u32(0), reason: reason.into() };
        TunnelError::Ended(ConnectionError::ApplicationClosed(close))
    };
    let silent = [
        TunnelError::Timeout,
        TunnelError::Handshake(ConnectionError::TimedOut),
        TunnelError::Ended(ConnectionError::TimedOut),
        TunnelError::Ended(ConnectionError::Reset),
        closed(REMOVED),
        closed(SHUTTING_DOWN),
    ];
    let there = [
        TunnelError::Handshake(ConnectionError::VersionMismatch),
        TunnelError::Ended(ConnectionError::LocallyClosed),
        TunnelError::Control(HeartbeatError::Malformed),
        closed(b"tunnel ended"),
    ];
    assert!(silent.iter().all(TunnelError::is_silence) && !there.iter().any(TunnelError::is_silence));
}

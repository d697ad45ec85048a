use gateway_proto::peering::ConnectionStatus;

use super::*;
use crate::service::ground::Ground;

fn channel(n: u16, port: u16) -> EngineChannel {
    EngineChannel::example(&format!("id-{n}"), &format!("channel {}", 20_000 + n), port)
}

/// All channels, on ports from this one on.
fn report(count: u16, first: u16) -> EngineReport {
    let (senders, advice) = (Vec::new(), Vec::new());
    let head = EngineHead { state: EngineState::Up, version: None, problem: None, left_out: 0, senders, advice };
    let channels = (0..count).map(|n| channel(n, first + n)).collect();
    EngineReport { head, complete: true, more: false, channels, gone: Vec::new() }
}

/// How many of the channels of a server are on ports from this one on.
fn moved(rows: &[ChannelRow], first: u16) -> usize {
    rows.iter().filter(|row| row.engine.parse::<SocketAddr>().unwrap().port() >= first).count()
}

#[tokio::test]
async fn many_channels_that_moved_are_followed_in_portions_and_no_partner_is_compiled_for_them() {
    const COUNT: u16 = 45;
    let ground = Ground::new().await;
    let (gateway, partner) = (ground.gateway(1).await, ground.gateway(2).await);
    let mut first = None;
    for n in 0..COUNT {
        let channel = ground.channel(gateway.server, 20_000 + n).await;
        first = first.or(Some(channel));
    }
    ground.connect(partner.server, first.unwrap(), ConnectionStatus::Ready, 3).await;
    ground.mark(&[gateway.server, partner.server]).await;
    ground.compile().await;
    ground.service.gateway_engine(&gateway, report(COUNT, 20_000)).await.unwrap();
    let links = ground.read().await.engine_links(gateway.server).await.unwrap();
    assert_eq!(links.len(), usize::from(COUNT), "recognised by their ports");

    let (own, theirs) = (ground.revision(gateway.server).await, ground.revision(partner.server).await);
    // Somebody comes to write again and again meanwhile.
    let others = async {
        loop {
            let rows = ground.begin().await.channels_of_server(gateway.server).await.unwrap();
            match moved(&rows, 25_000) {
                0 => {}
                seen => return seen,
            }
        }
    };
    let followed = ground.service.gateway_engine(&gateway, report(COUNT, 25_000));
    let (followed, seen) = tokio::join!(followed, others);
    followed.unwrap();
    assert!(seen < usize::from(COUNT), "all of them were one transaction");
    let rows = ground.read().await.channels_of_server(gateway.server).await.unwrap();
    assert_eq!(moved(&rows, 25_000), usize::from(COUNT));
    assert!(ground.revision(gateway.server).await > own, "the own policy says where it is reached");
    assert_eq!((ground.revision(partner.server).await, ground.row(partner.server).await.stale), (theirs, false));
}

#[tokio::test]
async fn a_channel_that_a_person_has_bound_to_another_one_meanwhile_is_not_taken_back() {
    let ground = Ground::new().await;
    let gateway = ground.gateway(1).await;
    let adt = ground.channel(gateway.server, 20_000).await;
    ground.service.gateway_engine(&gateway, report(2, 20_000)).await.unwrap();
    let mut tx = ground.begin().await;
    let engine_channel = "id-1".to_owned();
    let link = EngineLinkRow { channel: adt, server: gateway.server, engine_channel, state: EndState::Started };
    tx.put_engine_link(&link).await.unwrap();
    tx.commit().await.unwrap();
    // What was found to be behind before that names the old one.
    let mut work = ground.service.work_of_gateway(&gateway).await.unwrap().unwrap().0;
    work.follow(gateway.server, adt, "id-0").await.unwrap();
    work.commit().await.unwrap();
    let link = ground.read().await.engine_link(adt).await.unwrap().unwrap();
    let row = ground.read().await.channel(adt).await.unwrap().unwrap();
    assert_eq!((link.engine_channel.as_str(), row.engine.as_str()), ("id-1", "127.0.0.1:20001"));
}

#[tokio::test]
async fn a_channel_whose_details_are_not_read_yet_keeps_its_state_and_nothing_is_told_of_it() {
    let ground = Ground::new().await;
    let gateway = ground.gateway(1).await;
    let adt = ground.channel(gateway.server, 20_000).await;
    ground.service.gateway_engine(&gateway, report(2, 20_000)).await.unwrap();
    // The gateway was started anew, and has read the other one's first.
    let mut first = report(2, 20_000);
    let listener = first.channels[0].listener.as_mut().unwrap();
    (listener.transport, listener.behavior, listener.address) = (String::new(), None, None);
    listener.server_mode = false;
    ground.service.gateway_engine(&gateway, first).await.unwrap();
    let link = ground.read().await.engine_link(adt).await.unwrap().unwrap();
    assert_eq!((link.engine_channel.as_str(), link.state), ("id-0", EndState::Started));
    // Deleted is told all the same.
    ground.service.gateway_engine(&gateway, report(0, 20_000)).await.unwrap();
    let link = ground.read().await.engine_link(adt).await.unwrap().unwrap();
    assert_eq!(link.state, EndState::Missing);
}

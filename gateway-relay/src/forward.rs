//! From one gateway to another: over UDP where the destination can be reached so, else over its link.

use std::time::Instant;

use bytes::{BufMut, Bytes};
use gateway_proto::relay::{
    RelayAddress, RelayFrame, readdress,
    udp::{OVERHEAD, Way},
};

use crate::{
    app::Shared,
    clients::Front,
    metrics::{DropReason, Kind},
    udp::{Session, payload_of},
};

/// A train of `source`'s session for `peer`, headers included.
pub(crate) fn train(
    shared: &Shared,
    source: &Session,
    peer: RelayAddress,
    train: &mut [u8],
    segment: usize,
    now: Instant,
) {
    let metrics = &shared.metrics;
    if let Err((reason, _)) = source.budget.charge(Kind::Datagrams, train.len(), now) {
        if let Some(limit) = source.budget.limit_to_tell() {
            source.tell(RelayFrame::LimitReached(limit));
        }
        return metrics.dropped(reason);
    }
    let Some(front) = shared.clients.find(peer) else {
        metrics.dropped(DropReason::PeerAbsent);
        if source.budget.hint(now) {
            source.tell(RelayFrame::PeerAbsent(peer));
        }
        return;
    };
    let over_udp = front.udp.as_ref().and_then(|session| session.readdress(&source.address, train, segment, now));
    if !by_udp(shared, over_udp, train, segment) {
        let frame = unpack(&source.address, train, segment);
        let length = frame.len();
        metrics.queued(Kind::Datagrams, length, front.outbound.datagrams(source.address, frame));
    }
}

/// Sends over UDP if there is a way; false when the link must carry it, too or alone.
fn by_udp(shared: &Shared, way: Option<Way>, train: &[u8], segment: usize) -> bool {
    let Some(way) = way else { return false };
    match shared.udp.send(way.via, train, segment) {
        Ok(()) => shared.metrics.forwarded(Kind::UdpTrain, train.len()),
        Err(reason) => shared.metrics.dropped(reason),
    }
    !way.doubt
}

/// A frame of datagrams that came over a link.
pub(crate) fn datagrams(
    shared: &Shared,
    source: RelayAddress,
    front: &Front,
    frame: &Bytes,
    (segment_size, payload): (u16, &[u8]),
    now: Instant,
) {
    let metrics = &shared.metrics;
    let (size, mut train) = (usize::from(segment_size), Vec::new());
    let over_udp = front.udp.as_ref().and_then(|session| session.pack(&source, payload, size, &mut train, now));
    let segment = if size == 0 { train.len() } else { size + OVERHEAD };
    if !by_udp(shared, over_udp, &train, segment) {
        metrics.queued(Kind::Datagrams, frame.len(), front.outbound.datagrams(source, own(frame, source)));
    }
}

/// The frame as its destination gets it. A copy of its own: a slice would keep the whole read buffer alive as long as it
/// waits in the queue.
pub(crate) fn own(frame: &Bytes, source: RelayAddress) -> Bytes {
    let mut frame = frame.to_vec();
    readdress(&mut frame, source);
    frame.into()
}

/// The frame for the link: the datagrams of a train without their headers.
fn unpack(source: &RelayAddress, train: &[u8], segment: usize) -> Bytes {
    let payload_size = payload_of(train, segment);
    let single = train.len() <= segment;
    let head = RelayFrame::RecvDatagrams {
        source: *source,
        segment_size: if single { 0 } else { u16::try_from(payload_size).unwrap_or(u16::MAX) },
        payload: &[],
    };
    let mut frame = head.encode();
    frame.reserve(train.len());
    for datagram in train.chunks(segment.max(1)) {
        frame.put_slice(&datagram[OVERHEAD..]);
    }
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_becomes_the_frame_a_link_would_have_carried() {
        let source = RelayAddress::from_bytes([1; 32]);
        let mut train = vec![0xff; OVERHEAD];
        train.extend([1, 2, 3]);
        train.extend([0xff; OVERHEAD]);
        train.extend([4]);
        let frame = unpack(&source, &train, OVERHEAD + 3);
        let expected = RelayFrame::RecvDatagrams { source, segment_size: 3, payload: &[1, 2, 3, 4] };
        assert_eq!(RelayFrame::decode(&frame), Ok(expected));
        let single = unpack(&source, &train[..OVERHEAD + 3], OVERHEAD + 3);
        let expected = RelayFrame::RecvDatagrams { source, segment_size: 0, payload: &[1, 2, 3] };
        assert_eq!(RelayFrame::decode(&single), Ok(expected));
    }
}

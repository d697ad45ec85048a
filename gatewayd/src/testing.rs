//! Two gateways on loopback, for tests: QUIC over real sockets.

use std::{net::SocketAddr, sync::Arc};

use gateway_proto::identity::{GatewayKey, GatewayPublicKey};
use quinn::Connection;

use crate::{
    credentials::AllowedPeers,
    path_actor::SessionIndex,
    routes::{Route, Routes},
    socket::TunnelSocket,
    tunnel::TunnelEndpoint,
};

/// One of them.
pub(crate) struct Site {
    pub(crate) key: GatewayPublicKey,
    pub(crate) endpoint: TunnelEndpoint,
    routes: Arc<Routes>,
    socket: Arc<TunnelSocket>,
}

impl Site {
    /// Two that know each other, and no way yet: the one with the smaller key, which dials, comes first.
    pub(crate) fn two() -> (Self, Self) {
        let (one, other) = (Self::new(1, 2), Self::new(2, 1));
        one.routes.meet(other.key, one.key < other.key);
        other.routes.meet(one.key, other.key < one.key);
        if one.key < other.key { (one, other) } else { (other, one) }
    }

    fn new(seed: u8, other: u8) -> Self {
        let key = GatewayKey::from_seed(&[seed; 32]);
        let routes = Arc::new(Routes::default());
        let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
        let (socket, _) = TunnelSocket::bind(bind.into_iter(), routes.clone(), SessionIndex::default()).unwrap();
        let allowed = AllowedPeers::default();
        allowed.replace(vec![GatewayKey::from_seed(&[other; 32]).public()]);
        let endpoint = TunnelEndpoint::new(socket.clone(), &key, allowed, 16).unwrap();
        Self { key: key.public(), endpoint, routes, socket }
    }

    fn reaches(&self, other: &Self) {
        let address = SocketAddr::from(([127, 0, 0, 1], other.socket.local_port()));
        self.routes.set(other.key, Route { direct: Some(address), ..Route::NONE });
        self.routes.admit(address, other.key);
    }
}

/// A tunnel that one dials to the other: its two ends in this order.
pub(crate) async fn tunnel(from: &Site, to: &Site) -> (Connection, Connection) {
    from.reaches(to);
    to.reaches(from);
    let dialled = from.endpoint.dial(to.key, &Arc::default()).unwrap();
    let accepted = async { to.endpoint.accept().await.unwrap().accept().unwrap().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dialled, accepted);
    (dialled.unwrap(), accepted)
}

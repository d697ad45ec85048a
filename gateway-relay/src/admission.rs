//! The first exchange of a link: challenge, token and proof.

use axum::extract::ws::{Message, WebSocket};
use gateway_net::time;
use gateway_proto::relay::{Admission, ClientFrame, RefusalCode, RelayFrame, VERSION, verify_admission};

use crate::{app::Shared, client::End};

/// Challenges the gateway and checks its answer. The caller limits the time.
pub(crate) async fn admit(socket: &mut WebSocket, shared: &Shared) -> Result<Admission, End> {
    let nonce = gateway_net::random();
    let challenge = RelayFrame::Challenge { version: VERSION, relay: shared.relay_id, nonce }.encode();
    socket.send(Message::binary(challenge)).await.map_err(|_| End::Broken)?;
    loop {
        let Some(message) = socket.recv().await else {
            return Err(End::Left);
        };
        match message {
            Ok(Message::Binary(bytes)) => {
                let Ok(ClientFrame::Admit { token, signature }) = ClientFrame::decode(&bytes) else {
                    return Err(End::Refused(RefusalCode::Malformed));
                };
                let now = time::unix_secs();
                let keys = shared.keys.current(now);
                let admission = verify_admission(token, &signature, shared.relay_id, &nonce, &keys, now);
                if admission == Err(RefusalCode::BadToken) {
                    // Perhaps of a key that we have not heard of.
                    shared.keys.doubt();
                }
                return admission.map_err(End::Refused);
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Text(_)) => return Err(End::Refused(RefusalCode::Malformed)),
            Ok(Message::Close(_)) => return Err(End::Left),
            Err(_) => return Err(End::Broken),
        }
    }
}

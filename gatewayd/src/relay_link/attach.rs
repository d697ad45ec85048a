//! How a link comes about: connect, prove who we are; and how a second one is tried beside a connection that fell silent.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    tls::{ServerTrust, TlsPin},
    ws::{self, HeaderMap, HeaderValue, Message, WsOptions},
};
use gateway_proto::{
    policy::RelayEntry,
    relay::{ClientFrame, MAX_FRAME, PATH, RelayFrame, SUB_PROTOCOL, Standing, VERSION, sign_admission},
    twice::INSTANCE_HEADER,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{ADMISSION_TIMEOUT, LinkContext, LinkError, LinkState, Stream, jitter};

/// Between the beginnings of two connections beside one that is silent; up to half as long again by chance.
const BESIDE_INTERVAL: Duration = Duration::from_secs(2);
/// Connecting may take so long, and being admitted too.
const BESIDE_LIMIT: Duration = Duration::from_secs(4);

/// A connection on which the relay admitted us.
pub(super) async fn attach(relay: &RelayEntry, context: &LinkContext) -> Result<Stream, LinkError> {
    let (stream, token) = connect(relay, context).await?;
    admit(relay, context, stream, &token).await
}

/// A connection on which nothing was said yet, and the token to show.
async fn connect(relay: &RelayEntry, context: &LinkContext) -> Result<(Stream, String), LinkError> {
    let token = context.authority.relay_token().borrow().clone().ok_or(LinkError::NoToken)?;
    let mut headers = HeaderMap::new();
    if let Ok(instance) = HeaderValue::try_from(context.authority.instance().to_string()) {
        headers.insert(INSTANCE_HEADER, instance);
    }
    let options = WsOptions {
        url: relay.url.parse().map_err(|_| LinkError::Entry("its URL"))?,
        trust: match &relay.tls_pin {
            Some(pin) => ServerTrust::Pin(pin.parse::<TlsPin>().map_err(|_| LinkError::Entry("its TLS pin"))?),
            None => ServerTrust::WebPki,
        },
        proxy: context.proxy.clone(),
        protocol: SUB_PROTOCOL,
        headers,
        max_message: MAX_FRAME,
    };
    if options.url.path() != PATH {
        return Err(LinkError::Entry("the path of its URL must be /relay"));
    }
    Ok((ws::connect(&options).await?, token))
}

async fn admit(
    relay: &RelayEntry,
    context: &LinkContext,
    mut stream: Stream,
    token: &str,
) -> Result<Stream, LinkError> {
    let admission = admission(relay, context, &mut stream, token);
    timeout(ADMISSION_TIMEOUT, admission).await.map_err(|_| LinkError::AdmissionTimeout)??;
    Ok(stream)
}

async fn admission(
    relay: &RelayEntry,
    context: &LinkContext,
    stream: &mut Stream,
    token: &str,
) -> Result<(), LinkError> {
    let mut was_asked = false;
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(bytes) = message else { continue };
        match RelayFrame::decode(&bytes) {
            Ok(RelayFrame::Challenge { version, relay: named, nonce }) => {
                // A signature is dear: nobody gets more than one of an attempt.
                if std::mem::replace(&mut was_asked, true) {
                    return Err(LinkError::AskedTwice);
                }
                if version != VERSION {
                    return Err(LinkError::Version(version));
                }
                // The proof names the relay: one made for another relay is worth nothing here, and vice versa.
                if named != relay.id {
                    return Err(LinkError::OtherRelay);
                }
                let signature = sign_admission(context.authority.gateway_key(), named, &nonce);
                let admit = ClientFrame::Admit { token, signature }.encode();
                stream.send(Message::Binary(admit.into())).await.map_err(|_| LinkError::Ended)?;
            }
            Ok(RelayFrame::Admitted { .. }) => return Ok(()),
            Ok(RelayFrame::Refused { code, detail }) => {
                return Err(LinkError::Refused { code, detail: detail.to_owned() });
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(LinkError::Ended)
}

/// A second connection to a relay that gives no sign of life on the first; ends with one that was admitted. While the first is
/// heard nothing is begun, and what is being connected is dropped; but once the proof is on its way the relay may replace the first any
/// moment, and there is no way back.
pub(super) async fn beside(relay: &RelayEntry, context: &LinkContext, mut state: watch::Receiver<LinkState>) -> Stream {
    loop {
        until_doubtful(&mut state, true).await;
        let random = u32::from_be_bytes(gateway_net::entropy::random());
        let again = Instant::now() + BESIDE_INTERVAL + jitter(BESIDE_INTERVAL / 2, random);
        let connected = tokio::select! {
            connected = timeout(BESIDE_LIMIT, connect(relay, context)) => Some(connected),
            () = until_doubtful(&mut state, false) => None,
        };
        if let Some(Ok(Ok((stream, token)))) = connected
            && let Ok(Ok(stream)) = timeout(BESIDE_LIMIT, admit(relay, context, stream, &token)).await
        {
            return stream;
        }
        debug!(relay = %relay.id, "no second connection to the relay");
        sleep_until(again).await;
    }
}

/// Waits until the relay is in doubt, or no more.
async fn until_doubtful(state: &mut watch::Receiver<LinkState>, doubtful: bool) {
    while (state.borrow_and_update().standing == Standing::Doubtful) != doubtful {
        if state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn doubt_is_waited_for_and_its_end_too() {
        let (state, mut watched) = watch::channel(LinkState::default());
        until_doubtful(&mut watched, false).await;
        let limit = Duration::from_secs(1);
        state.send_modify(|state| state.standing = Standing::Suspected);
        assert!(timeout(limit, until_doubtful(&mut watched, true)).await.is_err(), "a suspicion is not enough");
        state.send_modify(|state| state.standing = Standing::Doubtful);
        until_doubtful(&mut watched, true).await;
        assert!(timeout(limit, until_doubtful(&mut watched, false)).await.is_err());
        state.send_modify(|state| state.standing = Standing::Sound);
        until_doubtful(&mut watched, false).await;
    }
}

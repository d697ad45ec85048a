//! How a link comes about: connect, prove who we are; and how a second one is tried beside a connection that fell silent, or that leads
//! where the relay was.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    causes::with_causes,
    entropy::random_u32,
    tls::{ServerTrust, TlsPin},
    ws::{self, HeaderMap, HeaderValue, Message, WsOptions},
};
use gateway_proto::{
    backoff::Backoff,
    policy::RelayEntry,
    relay::{ClientFrame, MAX_FRAME, PATH, RelayFrame, SUB_PROTOCOL, Standing, VERSION, sign_admission},
    twice::INSTANCE_HEADER,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{ADMISSION_TIMEOUT, LinkContext, LinkError, LinkState, Stream, jitter};

/// Between the beginnings of two connections beside one that is silent; up to half as long again by chance.
const BESIDE_INTERVAL: Duration = Duration::from_secs(2);
/// Connecting may take so long, and being admitted too.
const BESIDE_LIMIT: Duration = Duration::from_secs(4);
/// First and longest pause between two attempts at the place where the relay is now, while the link to the former one stands.
const MOVE_PAUSES: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

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

/// A second connection beside the one that was made to the relay as `made` tells, when that gives no sign of life, or when the map has
/// the relay elsewhere; ends with one that was admitted, by what the map said then. Where the first is heard after all nothing is begun,
/// and what is being connected is dropped; but once the proof is on its way the relay may replace the first any moment, and there is no way back.
pub(super) async fn beside(
    made: &RelayEntry,
    mut map: watch::Receiver<RelayEntry>,
    context: &LinkContext,
    state: &watch::Sender<LinkState>,
) -> (Stream, RelayEntry) {
    let mut doubt = state.subscribe();
    let mut pauses = Backoff::new(MOVE_PAUSES.0, MOVE_PAUSES.1);
    // All gateways of the relay hear of it at about the same time.
    let mut pause = jitter(BESIDE_INTERVAL, random_u32());
    loop {
        tokio::select! {
            () = until_doubtful(&mut doubt, true) => {}
            () = until_elsewhere(&mut map, &made.url, pause, state) => {}
        }
        let again = Instant::now() + BESIDE_INTERVAL + jitter(BESIDE_INTERVAL / 2, random_u32());
        let relay = map.borrow_and_update().clone();
        let attached = if relay.url == made.url {
            in_doubt(&relay, context, &mut doubt).await
        } else {
            pause = pauses.next_delay(random_u32());
            attach(&relay, context).await.inspect_err(|error| tell_stays(&relay, state, error)).ok()
        };
        if let Some(stream) = attached {
            return (stream, relay);
        }
        debug!(relay = %relay.id, "no second connection to the relay");
        sleep_until(again).await;
    }
}

/// A connection, as long as the one there is gives no sign of life.
async fn in_doubt(relay: &RelayEntry, context: &LinkContext, doubt: &mut watch::Receiver<LinkState>) -> Option<Stream> {
    let connected = tokio::select! {
        connected = timeout(BESIDE_LIMIT, connect(relay, context)) => connected.ok()?,
        () = until_doubtful(doubt, false) => return None,
    };
    let (stream, token) = connected.ok()?;
    timeout(BESIDE_LIMIT, admit(relay, context, stream, &token)).await.ok()?.ok()
}

/// The link that stands goes on, and says why it leads where the relay was.
fn tell_stays(relay: &RelayEntry, state: &watch::Sender<LinkState>, error: &LinkError) {
    let problem = format!(
        "this is still the link to its former address: at {}, where the platform's map has it now, it is not reached: {}",
        relay.url,
        with_causes(error)
    );
    if state.borrow().problem.as_ref() != Some(&problem) {
        warn!(relay = %relay.id, %problem, "the relay is elsewhere by now");
        state.send_modify(|state| state.problem = Some(problem));
    }
}

/// Waits until the map has the relay at another URL than this, and then a little. As long as it has not, the link leads where it should.
async fn until_elsewhere(
    map: &mut watch::Receiver<RelayEntry>,
    url: &str,
    pause: Duration,
    state: &watch::Sender<LinkState>,
) {
    while map.borrow_and_update().url == url {
        state.send_if_modified(|state| state.problem.take().is_some());
        if map.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    sleep(pause).await;
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

    fn relay(url: &str) -> RelayEntry {
        let (id, url) = (gateway_proto::id::RelayId::new(1, [0; 10]), url.to_owned());
        RelayEntry { id, url, tls_pin: None, stun: Vec::new(), region: None }
    }

    #[tokio::test(start_paused = true)]
    async fn only_another_url_makes_a_relay_be_looked_for_elsewhere() {
        let (map, mut watched) = watch::channel(relay("wss://a/relay"));
        let (limit, pause) = (Duration::from_secs(100), Duration::from_secs(1));
        let state = watch::Sender::new(LinkState::default());
        assert!(timeout(limit, until_elsewhere(&mut watched, "wss://a/relay", pause, &state)).await.is_err());
        map.send_modify(|entry| entry.tls_pin = Some("ab".repeat(32)));
        map.send_modify(|entry| entry.region = Some("eu".to_owned()));
        assert!(timeout(limit, until_elsewhere(&mut watched, "wss://a/relay", pause, &state)).await.is_err());
        map.send_modify(|entry| entry.url = "wss://b/relay".to_owned());
        let begun = Instant::now();
        until_elsewhere(&mut watched, "wss://a/relay", pause, &state).await;
        assert!(begun.elapsed() >= pause, "not all gateways at once");
        drop(map);
        assert!(timeout(limit, until_elsewhere(&mut watched, "wss://b/relay", pause, &state)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_to_where_the_relay_was_says_so_stays_attached_and_says_it_no_more_when_the_map_goes_back() {
        let state = watch::Sender::new(LinkState { attached: true, ..LinkState::default() });
        tell_stays(&relay("wss://b/relay"), &state, &LinkError::AdmissionTimeout);
        let told = state.borrow().clone();
        let problem = told.problem.unwrap();
        assert!(told.attached && problem.contains("wss://b/relay") && problem.contains("did not admit"), "{problem}");
        let (_map, mut watched) = watch::channel(relay("wss://a/relay"));
        let waits = until_elsewhere(&mut watched, "wss://a/relay", Duration::ZERO, &state);
        assert!(timeout(Duration::from_secs(1), waits).await.is_err());
        assert!(state.borrow().attached && state.borrow().problem.is_none());
    }

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

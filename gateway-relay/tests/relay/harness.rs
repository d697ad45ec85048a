//! A relay on loopback with free ports, and links to it that say whatever a test wants.

use std::{path::Path, time::Duration};

use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    shutdown::Shutdown,
    time,
    tls::ServerTrust,
    ws::{self, Bytes, HeaderMap, Message, WsError, WsOptions, WsStream},
};
use gateway_proto::{
    id::{OrganizationId, RelayId},
    identity::GatewayKey,
    relay::{ClientFrame, PATH, RefusalCode, RelayAddress, RelayFrame, SUB_PROTOCOL, sign_admission, udp::UdpSecret},
    signed::RelayToken,
    twice::{INSTANCE_HEADER, Instance},
};
use gateway_relay::{Ready, Relay, RunError, config::Config};
use tokio::{task::JoinSet, time::timeout};

/// No honest step takes longer, not even on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct TestRelay {
    pub(crate) ready: Ready,
    pub(crate) shutdown: Shutdown,
    running: JoinSet<Result<(), RunError>>,
    http: reqwest::Client,
    _directory: tempfile::TempDir,
}

pub(crate) struct Link {
    pub(crate) stream: WsStream,
    pub(crate) relay: RelayId,
    pub(crate) nonce: [u8; 32],
    /// The UDP session, once admitted: number, secret and the relay's port.
    pub(crate) udp: Option<(u32, UdpSecret, u16)>,
}

pub(crate) fn control() -> GatewayKey {
    GatewayKey::from_seed(&[100; 32])
}

pub(crate) fn gateway(number: u8) -> GatewayKey {
    GatewayKey::from_seed(&[number; 32])
}

pub(crate) fn address(number: u8) -> RelayAddress {
    gateway(number).public().into()
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(edit: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::load(Path::new("tests/config/valid/minimal.toml")).unwrap();
        config.data_dir = directory.path().to_owned();
        config.metrics_listen = "127.0.0.1:0".parse().unwrap();
        config.control_keys = vec![control().public()];
        edit(&mut config);
        let relay = Relay::start(config).await.unwrap();
        let (ready, shutdown) = (relay.ready().clone(), Shutdown::manual());
        let mut running = JoinSet::new();
        let asked = shutdown.clone();
        running.spawn(async move { relay.run(&asked).await });
        let http = gateway_net::http::client_builder(ServerTrust::WebPki, None).https_only(false).build().unwrap();
        Self { ready, shutdown, running, http, _directory: directory }
    }

    /// Waits for the relay to end by itself after a shutdown.
    pub(crate) async fn ended(&mut self) -> Result<(), RunError> {
        within(self.running.join_next()).await.unwrap().unwrap()
    }

    pub(crate) fn options(&self) -> WsOptions {
        WsOptions {
            url: format!("wss://{}{PATH}", self.ready.listen).parse().unwrap(),
            trust: ServerTrust::Pin(self.ready.tls_pin),
            proxy: None,
            protocol: SUB_PROTOCOL,
            headers: HeaderMap::new(),
            max_message: 65_535,
        }
    }

    pub(crate) fn token(&self, key: &GatewayKey) -> RelayToken {
        let now = time::unix_secs();
        let org = OrganizationId::from_bytes([1; 16]);
        RelayToken { key: key.public(), org, relays: vec![self.ready.relay_id], iat: now, exp: now + 300 }
    }

    /// A link that has read its challenge.
    pub(crate) async fn open(&self) -> Result<Link, WsError> {
        self.open_with(self.options()).await
    }

    /// The link of one process of a gateway, with its answer to the challenge sent.
    pub(crate) async fn admit_as(&self, number: u8, instance: Instance) -> Link {
        let mut options = self.options();
        options.headers.insert(INSTANCE_HEADER, instance.to_string().try_into().unwrap());
        let mut link = self.open_with(options).await.unwrap();
        link.prove(&self.token(&gateway(number)), &gateway(number)).await;
        link
    }

    async fn open_with(&self, options: WsOptions) -> Result<Link, WsError> {
        let mut stream = ws::connect(&options).await?;
        let bytes = within(stream.next()).await.unwrap().unwrap().into_data();
        let RelayFrame::Challenge { version: 1, relay, nonce } = RelayFrame::decode(&bytes).unwrap() else {
            panic!("a link starts with a challenge of version 1");
        };
        Ok(Link { stream, relay, nonce, udp: None })
    }

    /// A link with its answer to the challenge sent.
    pub(crate) async fn admit(&self, token: &RelayToken, key: &GatewayKey) -> Link {
        let mut link = self.open().await.unwrap();
        link.prove(token, key).await;
        link
    }

    /// An admitted link.
    pub(crate) async fn attach(&self, number: u8) -> Link {
        let key = gateway(number);
        let mut link = self.admit(&self.token(&key), &key).await;
        let bytes = link.recv().await.unwrap();
        assert!(matches!(RelayFrame::decode(&bytes), Ok(RelayFrame::Admitted { .. })), "gateway {number}: {bytes:?}");
        if self.ready.udp.is_some() {
            let bytes = link.recv().await.unwrap();
            let Ok(RelayFrame::UdpSession { session, secret, port }) = RelayFrame::decode(&bytes) else {
                panic!("a session follows the admission, got {bytes:?}");
            };
            link.udp = Some((session, secret, port));
        }
        link
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("http://{}{path}", self.ready.metrics)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The value of a metric; 0 if it was never counted.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("gateway_relay_{name} ")));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) async fn until_metric(&self, name: &str, reached: impl Fn(u64) -> bool) {
        within(async {
            while !reached(self.metric(name).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Link {
    /// Answers the challenge.
    pub(crate) async fn prove(&mut self, token: &RelayToken, key: &GatewayKey) {
        let token = token.sign(&control()).unwrap();
        let signature = sign_admission(key, self.relay, &self.nonce);
        self.send(ClientFrame::Admit { token: &token, signature }).await;
    }

    pub(crate) async fn send(&mut self, frame: ClientFrame<'_>) {
        self.send_raw(frame.encode()).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: Vec<u8>) {
        within(self.stream.send(Message::binary(bytes))).await.unwrap();
    }

    pub(crate) async fn datagram(&mut self, destination: u8, payload: &[u8]) {
        self.send(ClientFrame::SendDatagrams { destination: address(destination), segment_size: 0, payload }).await;
    }

    /// The bytes of the next frame; `None` when the relay has closed.
    pub(crate) async fn recv(&mut self) -> Option<Bytes> {
        loop {
            match within(self.stream.next()).await {
                Some(Ok(Message::Binary(bytes))) => return Some(bytes),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next frame must be datagrams: who they are from, and the bytes.
    pub(crate) async fn recv_datagrams(&mut self) -> (RelayAddress, Vec<u8>) {
        let bytes = self.recv().await.unwrap();
        match RelayFrame::decode(&bytes) {
            Ok(RelayFrame::RecvDatagrams { source, payload, .. }) => (source, payload.to_vec()),
            other => panic!("datagrams expected, got {other:?}"),
        }
    }

    /// The next frame must be a refusal, and the end of the link.
    pub(crate) async fn refused(&mut self) -> RefusalCode {
        let bytes = self.recv().await.unwrap();
        let Ok(RelayFrame::Refused { code, detail }) = RelayFrame::decode(&bytes) else {
            panic!("a refusal expected, got {bytes:?}");
        };
        assert!(!detail.is_empty());
        assert_eq!(self.recv().await, None, "a refused link is closed");
        code
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("this does not take so long")
}

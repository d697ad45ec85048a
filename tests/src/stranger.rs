//! Someone with keys of its own who knocks at relay and control plane, as an attacker or a broken gateway would.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    tls::{ServerTrust, TlsPin},
    ws::{self, HeaderMap, Message, WsOptions, WsStream},
};
use gateway_proto::{
    api::{
        Problem,
        gateway::{ENROLL_PATH, EnrollAnswer, EnrollRequest, EnrollmentCode},
    },
    id::RelayId,
    identity::{GatewayKey, NoiseBinding, NoiseKey},
    relay::{ClientFrame, MAX_FRAME, RefusalCode, RelayFrame, SUB_PROTOCOL, sign_admission},
};
use tokio::time::timeout;
use url::Url;

use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(15);

/// Keys that nobody else has.
#[derive(Debug)]
pub struct Stranger {
    /// Its gateway key.
    pub key: GatewayKey,
    noise: NoiseKey,
}

/// What the relay said in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knock {
    /// Let in.
    Admitted,
    /// Refused with this code.
    Refused(RefusalCode),
    /// The link was closed without a word.
    Closed,
}

/// A link to a relay that was challenged and has not answered yet.
#[derive(Debug)]
pub struct Challenged {
    stream: WsStream,
    relay: RelayId,
    nonce: [u8; 32],
}

impl Default for Stranger {
    fn default() -> Self {
        Self { key: GatewayKey::from_seed(&gateway_net::random()), noise: NoiseKey::from_bytes(gateway_net::random()) }
    }
}

impl Stranger {
    /// Enrols itself with a code, as a gateway does.
    pub async fn enroll(&self, code: &str) -> anyhow::Result<Result<EnrollAnswer, Problem>> {
        let code: EnrollmentCode = code.parse()?;
        let binding = NoiseBinding::new(&self.key, &self.noise);
        self.ask(&code, &EnrollRequest::new(code.secret.clone(), &self.key, binding, "test".into())).await
    }

    /// Sends an enrolment request, whatever it holds.
    pub async fn ask(
        &self,
        code: &EnrollmentCode,
        request: &EnrollRequest,
    ) -> anyhow::Result<Result<EnrollAnswer, Problem>> {
        let pin: TlsPin = code.pin.as_deref().context("the code pins the control plane")?.parse()?;
        let client = gateway_net::http::client(ServerTrust::Pin(pin), None)?;
        let url = Url::parse(&code.control)?.join(ENROLL_PATH)?;
        let answer = client.post(url).json(request).send().await?;
        if answer.status().is_success() { Ok(Ok(answer.json().await?)) } else { Ok(Err(answer.json().await?)) }
    }

    /// The proof of this key for a challenge.
    pub fn proof(&self, challenged: &Challenged) -> [u8; 64] {
        sign_admission(&self.key, challenged.relay, &challenged.nonce)
    }
}

impl Challenged {
    /// Connects to the relay and waits for its challenge.
    pub async fn by(relay: &Process) -> anyhow::Result<Self> {
        let options = WsOptions {
            url: Url::parse(&format!("wss://{}/relay", relay.ready("listen")?))?,
            trust: ServerTrust::Pin(relay.ready("tls_pin")?.parse()?),
            proxy: None,
            protocol: SUB_PROTOCOL,
            headers: HeaderMap::new(),
            max_message: MAX_FRAME,
        };
        let mut stream = ws::connect(&options).await?;
        let bytes = binary(&mut stream).await?.context("the relay closed before it challenged")?;
        let RelayFrame::Challenge { relay, nonce, .. } = RelayFrame::decode(&bytes)? else {
            bail!("the relay's first frame is no challenge")
        };
        Ok(Self { stream, relay, nonce })
    }

    /// The id the relay gave itself.
    pub fn relay(&self) -> RelayId {
        self.relay
    }

    /// Answers the challenge.
    pub async fn admit(self, token: &str, signature: [u8; 64]) -> anyhow::Result<Knock> {
        self.say(ClientFrame::Admit { token, signature }.encode()).await
    }

    /// Says something else.
    pub async fn say(mut self, bytes: Vec<u8>) -> anyhow::Result<Knock> {
        self.stream.send(Message::binary(bytes)).await?;
        let Some(bytes) = binary(&mut self.stream).await? else { return Ok(Knock::Closed) };
        match RelayFrame::decode(&bytes)? {
            RelayFrame::Admitted { .. } => Ok(Knock::Admitted),
            RelayFrame::Refused { code, .. } => {
                let rest = binary(&mut self.stream).await?;
                ensure!(rest.is_none(), "the relay goes on talking after a refusal");
                Ok(Knock::Refused(code))
            }
            RelayFrame::Challenge { .. }
            | RelayFrame::RecvDatagrams { .. }
            | RelayFrame::RecvSignal { .. }
            | RelayFrame::Ping(_)
            | RelayFrame::Pong(_)
            | RelayFrame::PeerAbsent { .. }
            | RelayFrame::Restarting { .. }
            | RelayFrame::UdpSession { .. }
            | RelayFrame::SlotBound(_)
            | RelayFrame::LimitReached(_) => bail!("neither admitted nor refused"),
        }
    }

    /// Says nothing and waits for the end.
    pub async fn stay_silent(mut self) -> anyhow::Result<Knock> {
        match binary(&mut self.stream).await? {
            Some(bytes) => {
                let RelayFrame::Refused { code, .. } = RelayFrame::decode(&bytes)? else {
                    bail!("the relay let a silent client in")
                };
                Ok(Knock::Refused(code))
            }
            None => Ok(Knock::Closed),
        }
    }
}

/// The next binary message; none at the end of the link.
async fn binary(stream: &mut WsStream) -> anyhow::Result<Option<Vec<u8>>> {
    loop {
        match timeout(LIMIT, stream.next()).await.context("the relay neither answers nor closes")? {
            Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes.to_vec())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Ok(None),
        }
    }
}

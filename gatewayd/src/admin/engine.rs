//! The connection to the engine's admin API: HTTP/1.1 in TLS, one for each admin stream.

use std::{io, sync::Arc, time::Duration};

use gateway_net::tls::engine_client_config;
use gateway_proto::admin::{
    answer::AnswerHead,
    body::{BodyDecoder, BodyError},
    head::{Framing, HeadError, MAX_HEAD_LEN},
    operation::Method,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::config::EngineConfig;

/// From the dial to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The engine may think this long before it answers: a deployment of many channels takes minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Silence inside an answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// How the engine is reached.
#[derive(Debug, Clone)]
pub struct EngineApi {
    config: Arc<EngineConfig>,
    tls: TlsConnectorDebug,
}

#[derive(Clone)]
struct TlsConnectorDebug(TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// Why the engine did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("the engine's admin API cannot be reached")]
    Connect(#[source] io::Error),
    #[error("the engine's admin API does not answer in time")]
    Timeout,
    #[error("the connection to the engine's admin API broke")]
    Io(#[from] io::Error),
    #[error("the engine's answer is malformed")]
    Head(#[from] HeadError),
    #[error("the engine's answer is malformed")]
    Body(#[from] BodyError),
}

/// An open connection; answers are read in the order of the requests.
#[derive(Debug)]
pub(super) struct EngineConnection {
    pub(super) reader: EngineReader,
    pub(super) writer: WriteHalf<TlsStream<TcpStream>>,
    /// Whether a request went over it already: then it may have been closed in the meantime.
    pub(super) used: bool,
}

#[derive(Debug)]
pub(super) struct EngineReader {
    stream: ReadHalf<TlsStream<TcpStream>>,
    buffer: Vec<u8>,
}

impl EngineApi {
    /// For the engine of the configuration.
    pub fn new(config: EngineConfig) -> Self {
        let tls = TlsConnectorDebug(TlsConnector::from(Arc::new(engine_client_config(config.tls_pin))));
        Self { config: Arc::new(config), tls }
    }

    /// The prefix of the engine's paths.
    pub fn context_path(&self) -> &str {
        self.config.context_path()
    }

    pub(super) async fn connect(&self) -> Result<EngineConnection, EngineError> {
        let (host, port) = self.config.host_and_port();
        let dial = async {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let socket = TcpStream::connect((host, port)).await?;
            socket.set_nodelay(true)?;
            self.tls.0.connect(name, socket).await
        };
        let stream =
            timeout(CONNECT_TIMEOUT, dial).await.map_err(|_| EngineError::Timeout)?.map_err(EngineError::Connect)?;
        let (reader, writer) = split(stream);
        Ok(EngineConnection { reader: EngineReader { stream: reader, buffer: Vec::new() }, writer, used: false })
    }
}

impl EngineConnection {
    /// Whether it is still open, as far as is known here: after a restart of the engine it is not.
    pub(super) async fn is_alive(&mut self) -> bool {
        let silent = timeout(Duration::ZERO, self.reader.fill()).await.is_err();
        // Nothing was asked, so nothing may come.
        silent && self.reader.buffer.is_empty()
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.writer.write_all(bytes).await?;
        Ok(self.writer.flush().await?)
    }
}

impl EngineReader {
    /// The next head that is more than an interim one.
    pub(super) async fn head(&mut self, method: Method) -> Result<AnswerHead, EngineError> {
        timeout(ANSWER_TIMEOUT, async {
            loop {
                if let Some(length) = AnswerHead::len(&self.buffer)? {
                    let head = AnswerHead::parse(&self.buffer[..length], method)?;
                    self.buffer.drain(..length);
                    if head.status >= 200 {
                        return Ok(head);
                    }
                    continue;
                }
                if self.fill().await? == 0 {
                    return Err(EngineError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        })
        .await
        .map_err(|_| EngineError::Timeout)?
    }

    /// The next part of a body into `content`; `false`: the body is complete.
    pub(super) async fn body(&mut self, decoder: &mut BodyDecoder, content: &mut Vec<u8>) -> Result<bool, EngineError> {
        content.clear();
        while !decoder.is_done() && content.is_empty() {
            if self.buffer.is_empty() {
                let read = timeout(BODY_TIMEOUT, self.fill()).await.map_err(|_| EngineError::Timeout)??;
                if read == 0 {
                    return if decoder.may_close() {
                        Ok(false)
                    } else {
                        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                    };
                }
            }
            let used = decoder.decode(&self.buffer, content)?;
            self.buffer.drain(..used);
        }
        Ok(!content.is_empty())
    }

    /// A whole body of at most `limit` bytes; none: it is longer.
    pub(super) async fn whole_body(&mut self, framing: Framing, limit: usize) -> Result<Option<Vec<u8>>, EngineError> {
        let (mut decoder, mut part, mut whole) = (BodyDecoder::new(framing), Vec::new(), Vec::new());
        while self.body(&mut decoder, &mut part).await? {
            whole.append(&mut part);
            if whole.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(whole))
    }

    async fn fill(&mut self) -> Result<usize, EngineError> {
        self.buffer.reserve(MAX_HEAD_LEN);
        Ok(self.stream.read_buf(&mut self.buffer).await?)
    }
}

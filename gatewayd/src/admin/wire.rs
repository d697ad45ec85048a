//! The client's side of an admin stream: heads and bodies out of the tunnel, answers into it.

use std::{sync::Arc, time::Duration};

use gateway_proto::{
    admin::{
        body::{BodyDecoder, BodyError},
        head::{HeadError, MAX_HEAD_LEN, RequestHead, head_len},
        operation::Method,
    },
    stream::ResetCode,
};
use quinn::{RecvStream, VarInt};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout, timeout_at},
};

use crate::{audit::StreamRecord, send_half::SendHalf, traffic::Traffic};

/// From the first byte of a head to its last, and silence inside a body.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// An Administrator polls every 20 s; a connection that asks nothing for this long is ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Why the client's side ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the client or the tunnel went away")]
    Gone,
    #[error("the client is silent in the middle of a request")]
    Timeout,
    #[error("the request is malformed")]
    Head {
        #[source]
        error: HeadError,
        /// As the audit log names it.
        method: &'static str,
    },
    #[error("the audit log is closed, so nothing can be recorded")]
    NoLog,
    #[error("the body is malformed")]
    Body(#[from] BodyError),
}

impl ClientError {
    fn head(error: HeadError, head: &[u8]) -> Self {
        Self::Head { error, method: Method::name_of_refused(head) }
    }
}

pub(super) struct ClientReader {
    recv: RecvStream,
    buffer: Vec<u8>,
    traffic: Arc<Traffic>,
    record: Arc<StreamRecord>,
}

pub(super) struct ClientWriter {
    send: SendHalf,
    traffic: Arc<Traffic>,
    record: Arc<StreamRecord>,
}

impl ClientReader {
    pub(super) fn new(recv: RecvStream, traffic: Arc<Traffic>, record: Arc<StreamRecord>) -> Self {
        Self { recv, buffer: Vec::new(), traffic, record }
    }

    /// The next request's head; none: the client ended between two requests.
    pub(super) async fn head(&mut self) -> Result<Option<RequestHead>, ClientError> {
        // One that drips does not hold the stream for longer than one that is silent.
        let mut deadline = Instant::now() + if self.buffer.is_empty() { IDLE_TIMEOUT } else { CLIENT_TIMEOUT };
        loop {
            let refused = |error| ClientError::head(error, &self.buffer);
            if let Some(length) = head_len(&self.buffer).map_err(refused)? {
                let head = RequestHead::parse(&self.buffer[..length]).map_err(refused)?;
                self.buffer.drain(..length);
                return Ok(Some(head));
            }
            let was_empty = self.buffer.is_empty();
            let read = match timeout_at(deadline, self.fill()).await {
                Ok(read) => read?,
                Err(_) if was_empty => return Ok(None),
                Err(_) => return Err(ClientError::Timeout),
            };
            if was_empty {
                deadline = Instant::now() + CLIENT_TIMEOUT;
            }
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ClientError::Gone) };
            }
        }
    }

    /// The next part of a body into `content`; `false`: the body is complete.
    pub(super) async fn body(&mut self, decoder: &mut BodyDecoder, content: &mut Vec<u8>) -> Result<bool, ClientError> {
        content.clear();
        while !decoder.is_done() && content.is_empty() {
            if self.buffer.is_empty()
                && timeout(CLIENT_TIMEOUT, self.fill()).await.map_err(|_| ClientError::Timeout)?? == 0
            {
                return Err(ClientError::Gone);
            }
            let used = decoder.decode(&self.buffer, content)?;
            self.buffer.drain(..used);
        }
        Ok(!content.is_empty())
    }

    /// Tells the client that nothing more is read.
    pub(super) fn stop(&mut self, code: ResetCode) {
        let _ = self.recv.stop(VarInt::from_u32(code as u32));
    }

    async fn fill(&mut self) -> Result<usize, ClientError> {
        self.buffer.reserve(MAX_HEAD_LEN);
        let read = self.recv.read_buf(&mut self.buffer).await.map_err(|_| ClientError::Gone)?;
        self.traffic.received(read);
        self.record.received(read);
        Ok(read)
    }
}

impl ClientWriter {
    pub(super) fn new(send: SendHalf, traffic: Arc<Traffic>, record: Arc<StreamRecord>) -> Self {
        Self { send, traffic, record }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.send.write_all(bytes).await.map_err(|_| ClientError::Gone)?;
        self.traffic.sent(bytes.len());
        self.record.sent(bytes.len());
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        self.send.finish();
    }

    pub(super) fn reset_as(&mut self, code: ResetCode) {
        self.send.reset_as(code);
    }
}

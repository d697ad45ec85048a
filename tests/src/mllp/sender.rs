//! The engine's TCP Sender, and the judge of what a gateway does to it.
//!
//! Reading and writing run at the same time, because only the first thing a socket reports is the truth: a reset that
//! arrives while we write shows up once, on whichever call comes first.

use std::{
    fmt,
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{acknowledgement, control_id, frame, take_frame};
use crate::{netns::tcp_socket, platform::Placement};

/// How a conversation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens.
    Refused,
    /// The connect did not end in time.
    ConnectTimeout,
    /// RST.
    Reset,
    /// FIN. `partial`: part of an answer had arrived.
    Fin {
        /// Part of an answer had arrived.
        partial: bool,
    },
    /// Neither an answer nor an end within the response timeout.
    NoAnswer,
}

/// What became of a message, in the sending engine's eyes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// `AA` with the right control id.
    Acknowledged,
    /// An acknowledgement with this code, or for this other control id.
    Refused {
        /// MSA-1.
        code: String,
        /// MSA-2.
        control_id: String,
    },
    /// No complete answer.
    Broken(Broken),
}

/// One TCP connection of the engine.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    from: usize,
}

/// A sender channel of the engine.
#[derive(Debug)]
pub struct Sender {
    address: SocketAddr,
    namespace: Option<String>,
    keep_open: bool,
    response_timeout: Duration,
    connection: Option<Connection>,
}

/// What the engine writes down about a message of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MessageStatus {
    /// Done, in the engine's eyes; the message is never sent again.
    Sent,
    /// Waits in the queue and is sent again on a new connection.
    Queued,
    /// Failed for good; nobody sends it again.
    Error,
}

impl Verdict {
    /// What the engine makes of it, case by case. Where the engine was seen to do both, the
    /// worse one is taken: a FIN without an answer is "sent" while Validate Response is off.
    pub fn status(&self, queue: bool, validate_response: bool) -> MessageStatus {
        let failed = if queue { MessageStatus::Queued } else { MessageStatus::Error };
        match self {
            Self::Acknowledged => MessageStatus::Sent,
            // Never tried again, queue or not.
            Self::Refused { .. } if validate_response => MessageStatus::Error,
            Self::Refused { .. } => MessageStatus::Sent,
            Self::Broken(_) if !validate_response && self.marked_sent_without_validation() => MessageStatus::Sent,
            Self::Broken(_) => failed,
        }
    }

    /// Whether an engine with Validate Response off marks the message as sent: everything that
    /// is not visibly a failure. Sent without an acknowledgement is a lost message.
    pub fn marked_sent_without_validation(&self) -> bool {
        match self {
            Self::Acknowledged | Self::Refused { .. } => true,
            Self::Broken(Broken::Fin { partial }) => !partial,
            Self::Broken(Broken::Refused | Broken::ConnectTimeout | Broken::Reset | Broken::NoAnswer) => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged => f.write_str("acknowledged"),
            Self::Refused { code, control_id } => write!(f, "answered {code} for {control_id}"),
            Self::Broken(broken) => write!(f, "broken: {broken:?}"),
        }
    }
}

impl Sender {
    /// A channel with the engine's defaults: a response timeout of five seconds.
    pub fn new(address: SocketAddr, keep_open: bool) -> Self {
        Self { address, namespace: None, keep_open, response_timeout: Duration::from_secs(5), connection: None }
    }

    /// The same with another response timeout.
    pub fn with_response_timeout(self, response_timeout: Duration) -> Self {
        Self { response_timeout, ..self }
    }

    /// The same on the machine at `placement`.
    pub fn at(self, placement: &Placement) -> Self {
        Self { namespace: placement.namespace.clone(), ..self }
    }

    /// Sends a message and waits for what becomes of it.
    pub async fn send(&mut self, message: &[u8]) -> Verdict {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match Connection::open_in(self.namespace.as_deref(), self.address).await {
                Ok(connection) => connection,
                Err(broken) => return Verdict::Broken(broken),
            },
        };
        let verdict = connection.exchange(message, self.response_timeout).await;
        if self.keep_open && !matches!(verdict, Verdict::Broken(_)) {
            self.connection = Some(connection);
        }
        verdict
    }

    /// Closes the kept-open connection in order, as the engine does with one that was idle for its send timeout.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// The kept-open connection, to look at it between messages.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }
}

impl Connection {
    /// Connects; the engine's connect timeout is its response timeout of five seconds.
    pub async fn open(address: SocketAddr) -> Result<Self, Broken> {
        Self::open_in(None, address).await
    }

    /// Connects inside a network namespace.
    pub async fn open_in(namespace: Option<&str>, address: SocketAddr) -> Result<Self, Broken> {
        let socket = tcp_socket(namespace).map_err(|_| Broken::Refused)?;
        match timeout(Duration::from_secs(5), socket.connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).ok();
                Ok(Self { stream, buffer: Vec::new(), from: 0 })
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Err(Broken::Refused),
            Ok(Err(_)) => Err(Broken::Reset),
            Err(_) => Err(Broken::ConnectTimeout),
        }
    }

    /// Sends a message in its frame and waits for the answer.
    pub async fn exchange(&mut self, message: &[u8], limit: Duration) -> Verdict {
        let id = control_id(message).unwrap_or_default();
        match timeout(limit, self.write_then_read(&frame(message))).await {
            Err(_) => Verdict::Broken(Broken::NoAnswer),
            Ok(Err(broken)) => Verdict::Broken(broken),
            Ok(Ok(answer)) => match acknowledgement(&answer) {
                Some((code, of)) if code == "AA" && of == id => Verdict::Acknowledged,
                Some((code, control_id)) => Verdict::Refused { code, control_id },
                None => Verdict::Refused { code: String::new(), control_id: String::new() },
            },
        }
    }

    /// Writes bytes as they are, framed or not.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes).await.map_err(|error| broken(error.kind(), false))
    }

    /// Half-closes: FIN towards the gateway, still reading.
    pub async fn finish_writing(&mut self) -> Result<(), Broken> {
        self.stream.shutdown().await.map_err(|error| broken(error.kind(), false))
    }

    /// Ends the connection with an RST.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
    }

    /// Waits for the next answer.
    pub async fn answer(&mut self, limit: Duration) -> Result<Vec<u8>, Broken> {
        timeout(limit, self.write_then_read(&[])).await.unwrap_or(Err(Broken::NoAnswer))
    }

    /// Waits for the end of the connection, and tells which it was and when.
    pub async fn end(&mut self, limit: Duration) -> (Broken, Instant) {
        let deadline = tokio::time::Instant::now() + limit;
        let ended = loop {
            match tokio::time::timeout_at(deadline, self.write_then_read(&[])).await {
                Err(_) => break Broken::NoAnswer,
                Ok(Err(broken)) => break broken,
                Ok(Ok(_)) => {}
            }
        };
        (ended, Instant::now())
    }

    /// Keeps writing until the connection ends, and tells which end it was and when: bytes flow while it is cut.
    pub async fn write_until_end(&mut self, chunk: &[u8], limit: Duration) -> (Broken, Instant) {
        let deadline = tokio::time::Instant::now() + limit;
        let ended = loop {
            match tokio::time::timeout_at(deadline, self.write_and_watch(chunk)).await {
                Err(_) => break Broken::NoAnswer,
                Ok(Err(broken)) => break broken,
                Ok(Ok(())) => {}
            }
        };
        (ended, Instant::now())
    }

    async fn write_and_watch(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        let mut written = 0;
        let (mut reader, mut writer) = self.stream.split();
        while written < chunk.len() {
            tokio::select! {
                biased;
                read = reader.read_buf(&mut self.buffer) => match read {
                    Ok(0) => return Err(Broken::Fin { partial: !self.buffer.is_empty() }),
                    Ok(_) => {}
                    Err(error) => return Err(broken(error.kind(), !self.buffer.is_empty())),
                },
                wrote = writer.write(&chunk[written..]) => match wrote {
                    Ok(length) => written += length,
                    Err(error) => return Err(broken(error.kind(), !self.buffer.is_empty())),
                },
            }
        }
        Ok(())
    }

    async fn write_then_read(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut written = 0;
        let (mut reader, mut writer) = self.stream.split();
        loop {
            if let Some(answer) = take_frame(&mut self.buffer, &mut self.from) {
                return Ok(answer);
            }
            tokio::select! {
                biased;
                read = reader.read_buf(&mut self.buffer) => match read {
                    Ok(0) => return Err(Broken::Fin { partial: !self.buffer.is_empty() }),
                    Ok(_) => {}
                    Err(error) => return Err(broken(error.kind(), !self.buffer.is_empty())),
                },
                wrote = writer.write(&bytes[written..]), if written < bytes.len() => match wrote {
                    Ok(length) => written += length,
                    Err(error) => return Err(broken(error.kind(), !self.buffer.is_empty())),
                },
            }
        }
    }
}

/// Linux reports an RST once as ECONNRESET. EPIPE without it means that a FIN had been received before: the far end
/// closed in an orderly way and answered our bytes with an RST.
fn broken(kind: ErrorKind, partial: bool) -> Broken {
    if kind == ErrorKind::BrokenPipe { Broken::Fin { partial } } else { Broken::Reset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mllp::{Ending, Engine, Manners};

    const MESSAGE: &[u8] = b"MSH|^~\\&|A|B|C|D|20250301||ADT^A01|ID1|T|2.5.1\rEVN|A01\r";

    async fn verdict(manners: Manners) -> Verdict {
        let engine = Engine::start(manners).unwrap();
        let patience = Duration::from_millis(if manners == Manners::Silent { 300 } else { 10_000 });
        Sender::new(engine.address(), false).with_response_timeout(patience).send(MESSAGE).await
    }

    #[tokio::test]
    async fn the_stand_in_shows_every_row_of_the_engine_table() {
        use Manners::{EndAfterReading, EndBeforeReading, HalfAnswer, Polite, Refuse, Silent, WrongControlId};
        let refused = |code: &str, id: &str| Verdict::Refused { code: code.into(), control_id: id.into() };
        let fin = |partial| Verdict::Broken(Broken::Fin { partial });
        let reset = Verdict::Broken(Broken::Reset);
        assert_eq!(verdict(Polite).await, Verdict::Acknowledged);
        assert_eq!(verdict(Refuse).await, refused("AE", "ID1"));
        assert_eq!(verdict(WrongControlId).await, refused("AA", "SOMEBODY-ELSE"));
        assert_eq!(verdict(Silent).await, Verdict::Broken(Broken::NoAnswer));
        assert_eq!(verdict(EndAfterReading(Ending::Fin)).await, fin(false));
        assert_eq!(verdict(EndAfterReading(Ending::Reset)).await, reset);
        assert_eq!(verdict(HalfAnswer(Ending::Fin)).await, fin(true));
        assert_eq!(verdict(EndBeforeReading(Ending::Reset)).await, reset);
        assert!(fin(false).marked_sent_without_validation());
        assert!(!reset.marked_sent_without_validation());
    }

    #[test]
    fn queue_and_validate_response_decide_what_becomes_of_a_message() {
        use MessageStatus::{Error, Queued, Sent};
        let fin = |partial| Verdict::Broken(Broken::Fin { partial });
        let nak = Verdict::Refused { code: "AE".into(), control_id: "ID1".into() };
        let queued: Vec<_> = [Broken::Refused, Broken::Reset, Broken::NoAnswer].map(Verdict::Broken).into();
        for verdict in queued.iter().chain([&fin(true)]) {
            assert_eq!([true, false].map(|validate| verdict.status(true, validate)), [Queued, Queued], "{verdict}");
            assert_eq!([true, false].map(|validate| verdict.status(false, validate)), [Error, Error], "{verdict}");
        }
        assert_eq!([true, false].map(|validate| fin(false).status(true, validate)), [Queued, Sent]);
        assert_eq!([true, false].map(|validate| nak.status(true, validate)), [Error, Sent]);
        assert_eq!(Verdict::Acknowledged.status(false, true), Sent);
    }

    #[tokio::test]
    async fn a_stopped_channel_ends_its_connections_in_order_and_refuses_new_ones() {
        let mut engine = Engine::start(Manners::Polite).unwrap();
        let mut sender = Sender::new(engine.address(), true);
        assert_eq!(sender.send(MESSAGE).await, Verdict::Acknowledged);
        engine.close().await;
        let (ended, _) = sender.connection().unwrap().end(Duration::from_secs(2)).await;
        assert_eq!(ended, Broken::Fin { partial: false });
        assert_eq!(Sender::new(engine.address(), false).send(MESSAGE).await, Verdict::Broken(Broken::Refused));
        engine.resume().unwrap();
        assert_eq!(Sender::new(engine.address(), false).send(MESSAGE).await, Verdict::Acknowledged);
    }

    #[tokio::test]
    async fn a_stopped_engine_refuses_and_resets_what_was_open() {
        let mut engine = Engine::start(Manners::Polite).unwrap();
        let mut sender = Sender::new(engine.address(), true);
        assert_eq!(sender.send(MESSAGE).await, Verdict::Acknowledged);
        engine.stop().await;
        let (ended, _) = sender.connection().unwrap().end(Duration::from_secs(2)).await;
        assert_eq!(ended, Broken::Reset);
        assert_eq!(Sender::new(engine.address(), false).send(MESSAGE).await, Verdict::Broken(Broken::Refused));
        engine.resume().unwrap();
        assert_eq!(Sender::new(engine.address(), false).send(MESSAGE).await, Verdict::Acknowledged);
    }

    #[tokio::test]
    async fn the_eleventh_connection_is_closed_without_a_byte() {
        let engine = Engine::start(Manners::Polite).unwrap();
        let mut connections = Vec::new();
        for _ in 0..11 {
            connections.push(Connection::open(engine.address()).await.unwrap());
        }
        let (ended, _) = connections[10].end(Duration::from_secs(2)).await;
        assert_eq!(ended, Broken::Fin { partial: false });
    }
}

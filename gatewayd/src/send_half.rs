//! The sending half of a tunnel's stream.

use bytes::Bytes;
use gateway_proto::{stream::ResetCode, turns::Place};
use quinn::{SendStream, StoppedError, VarInt, WriteError};

use crate::tunnel::Tunnel;

/// Sends in turn with the tunnel's other streams; resets the stream unless it was finished, because quinn would finish it.
#[derive(Debug)]
pub struct SendHalf {
    stream: SendStream,
    tunnel: Tunnel,
    place: Place,
    code: ResetCode,
    finished: bool,
}

impl SendHalf {
    /// Takes the half over; `tunnel`: whose stream it is.
    pub fn new(stream: SendStream, tunnel: &Tunnel) -> Self {
        let (tunnel, place) = (tunnel.clone(), Place::default());
        Self { stream, tunnel, place, code: ResetCode::SocketReset, finished: false }
    }

    /// Sends all of it; cancelled, an unknown part.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.take_turn(bytes.len());
        self.stream.write_all(bytes).await
    }

    /// The same without a copy.
    pub async fn write_chunk(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.take_turn(bytes.len());
        self.stream.write_chunk(bytes).await
    }

    fn take_turn(&mut self, bytes: usize) {
        if !self.place.sends(bytes) {
            return;
        }
        let before = self.place.priority();
        self.tunnel.take_turn(&mut self.place, bytes);
        if self.place.priority() != before {
            // Fails only when the peer stopped the stream already; that end is handled where it is seen.
            let _ = self.stream.set_priority(self.place.priority());
        }
    }

    /// Resolves when the peer stops the stream, or has got all of it (no code).
    pub fn stopped(&self) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync + use<> {
        self.stream.stopped()
    }

    /// Finishes: everything was sent.
    pub fn finish(&mut self) {
        // Fails only when the peer stopped the stream already; that end is handled where it is seen.
        let _ = self.stream.finish();
        self.finished = true;
    }

    /// Whether [`finish`](Self::finish) was called.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Says why it will be reset when it is dropped unfinished.
    pub fn reset_as(&mut self, code: ResetCode) {
        self.code = code;
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(VarInt::from_u32(self.code as u32));
        }
    }
}

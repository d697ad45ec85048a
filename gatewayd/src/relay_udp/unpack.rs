//! A received train, taken apart.

use std::net::SocketAddr;

use gateway_proto::relay::RelayAddress;

/// A train as it was received, its headers taken out in place.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Whose datagrams stand at the front of the buffer.
    pub(crate) source: Option<(SocketAddr, RelayAddress)>,
    /// How many bytes of them.
    pub(crate) kept: usize,
    /// Datagrams of other peers in the same train.
    pub(crate) others: Vec<(SocketAddr, Vec<u8>)>,
    /// Datagrams without a relay's header, which the kernel has joined to the train: its STUN answers come from the same address.
    pub(crate) bare: Vec<Vec<u8>>,
    /// Datagrams that were dropped.
    pub(crate) refused: u64,
}

impl Unpacked {
    /// Keeps the bytes from `at` to `end`, moved to where the kept ones end.
    pub(super) fn keep(&mut self, source: (SocketAddr, RelayAddress), buffer: &mut [u8], at: usize, end: usize) {
        if self.source.is_none_or(|first| first == source) {
            self.source = Some(source);
            buffer.copy_within(at..end, self.kept);
            self.kept += end - at;
            return;
        }
        match self.others.last_mut() {
            Some((last, bytes)) if *last == source.0 => bytes.extend_from_slice(&buffer[at..end]),
            Some(_) | None => self.others.push((source.0, buffer[at..end].to_vec())),
        }
    }
}

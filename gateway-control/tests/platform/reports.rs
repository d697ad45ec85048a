//! What gateways report of their connections.

use gateway_proto::{
    api::gateway::{ConnectionReport, Connectivity, Report, WatchRequest},
    balance::EndCounts,
};

/// A connection that is connected, with nothing else to tell.
pub(crate) fn connected(id: &str) -> ConnectionReport {
    ConnectionReport {
        id: id.parse().unwrap(),
        connectivity: Connectivity::Connected,
        path: None,
        rtt_ms: None,
        last_message_at: None,
        bytes_sent: 0,
        bytes_received: 0,
        streams: 1,
        problem: None,
        counts: None,
        details: None,
    }
}

/// The same with what passed.
pub(crate) fn counted(id: &str, counts: EndCounts) -> ConnectionReport {
    ConnectionReport { counts: Some(counts), ..connected(id) }
}

/// A report of these connections.
pub(crate) fn told(connections: Vec<ConnectionReport>) -> WatchRequest {
    WatchRequest::Report(Report { connections, ..Report::default() })
}

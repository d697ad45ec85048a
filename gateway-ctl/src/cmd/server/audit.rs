//! How the heads of a gateway's audit log are shown.

use gateway_proto::{
    api::platform::{GatewayAudit, KeptHead},
    audit::heads::ReportedHead,
};

use crate::output::{View, time};

/// What a list of servers says.
pub(super) const ALARM: &str = "NOT THE ONE THAT WAS REPORTED: `gateway-ctl server audit SERVER`";

impl View for GatewayAudit {
    const HEADERS: &'static [&'static str] = &["GATEWAY", "RECORD", "REPORTED", "ALARM"];

    fn row(&self, now: u64) -> Vec<String> {
        let newest = self.newest.as_ref();
        vec![
            self.gateway.map_or_else(|| "-".to_owned(), |key| key.short()),
            newest.map_or_else(|| "-".to_owned(), |head| head.sequence.to_string()),
            newest.map_or_else(|| "never".to_owned(), |head| time::relative(now, head.received_at)),
            self.alarm.as_ref().map_or_else(|| "no".to_owned(), |alarm| alarm.fault.what().to_owned()),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(alarm) = &self.alarm {
            lines.push(("ALARM", format!("{}, {}", alarm.fault.what(), time::relative(now, alarm.since))));
            lines.push(("Reported", told(&alarm.known, now)));
            if let Some(found) = &alarm.found {
                lines.push(("Found", told(found, now)));
            }
            lines.push(("Times", alarm.times.to_string()));
            lines.push(("Of gateway", alarm.gateway.to_string()));
        }
        lines.push(("Gateway", self.gateway.map_or_else(|| "none has reported".to_owned(), |key| key.to_string())));
        if let Some(newest) = &self.newest {
            lines.push(("Newest", told(newest, now)));
        }
        lines
    }
}

impl View for KeptHead {
    const HEADERS: &'static [&'static str] = &["REPORTED", "RECORD", "HASH", "CURRENT", "GATEWAY"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![
            time::absolute(self.head.received_at),
            self.head.sequence.to_string(),
            self.head.hash.clone(),
            if self.current { "yes" } else { "no" }.to_owned(),
            self.gateway.short(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        Self::HEADERS.iter().copied().zip(self.row(now)).collect()
    }
}

/// `SEQUENCE:HASH`, as `gateway audit verify --head` takes it, and when it was reported.
fn told(head: &ReportedHead, now: u64) -> String {
    format!("{}:{} ({})", head.sequence, head.hash, time::relative(now, head.received_at))
}

//! How grants are named and shown.

use gateway_proto::{api::platform::Grant, id::GrantId, peering::GrantStatus};

use crate::{
    output::{View, or_dash, time, word},
    resolve::Named,
};

/// Not over.
pub(super) fn is_living(grant: &Grant) -> bool {
    match grant.status {
        GrantStatus::Pending | GrantStatus::Requested | GrantStatus::Active => true,
        GrantStatus::Revoked
        | GrantStatus::Surrendered
        | GrantStatus::Expired
        | GrantStatus::Denied
        | GrantStatus::Withdrawn => false,
    }
}

impl Named for Grant {
    type Id = GrantId;
    const KIND: &'static str = "grant";
    const LIST: &'static str = "grant list";

    fn id(&self) -> GrantId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.endpoint.clone()]
    }

    fn peer(&self) -> Option<&str> {
        Some(&self.peer_name)
    }

    fn describe(&self) -> String {
        format!("{}/{}, {}, {}", self.peer_name, self.endpoint, self.direction, word(&self.status))
    }
}

impl View for Grant {
    const HEADERS: &'static [&'static str] = &["ENDPOINT", "PEER", "DIRECTION", "STATUS", "EXPIRES", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.endpoint.clone(),
            self.peer_name.clone(),
            self.direction.clone(),
            word(&self.status),
            time::or_never(now, self.expires_at),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("Endpoint", self.endpoint.clone()),
            ("Behavior", self.behavior.clone()),
            ("Peer", self.peer_name.clone()),
            ("Direction", self.direction.clone()),
            ("Status", word(&self.status)),
            ("Connection", or_dash(self.connection_id)),
            ("Expires", time::or_never(now, self.expires_at)),
            ("Max. streams", self.max_streams.to_string()),
            ("Max. rate", self.bytes_per_second.map_or_else(unlimited, |rate| format!("{rate} B/s in each direction"))),
            ("Receive timeout", self.receive_timeout_secs.map_or_else(unlimited, |secs| format!("{secs} s"))),
            ("Limited to", if self.behaviors.is_empty() { unlimited() } else { self.behaviors.join(", ") }),
            ("Without control", format!("{} h at most", self.staleness_secs.div_ceil(3600))),
            ("Post-quantum", if self.require_post_quantum { "required" } else { "not required" }.to_owned()),
            ("Agreement", self.agreement_id.to_string()),
            ("Channel", self.channel_id.to_string()),
            ("Created", time::relative(now, self.created_at)),
            ("Approved", self.approved_at.map_or_else(|| "-".to_owned(), |at| time::relative(now, at))),
        ]
    }
}

fn unlimited() -> String {
    "no limit".to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use gateway_proto::id::{AgreementId, ChannelId};

    use super::*;

    pub(in super::super) fn grant(status: GrantStatus, direction: &str) -> Grant {
        Grant {
            id: GrantId::new(1, [0; 10]),
            agreement_id: AgreementId::new(1, [0; 10]),
            channel_id: ChannelId::new(1, [0; 10]),
            endpoint: "ADT".into(),
            direction: direction.into(),
            peer_name: "Clinic B".into(),
            behavior: "hl7v2-mllp".into(),
            status,
            connection_id: None,
            expires_at: None,
            max_streams: 64,
            bytes_per_second: None,
            receive_timeout_secs: None,
            behaviors: Vec::new(),
            staleness_secs: 259_200,
            require_post_quantum: false,
            created_at: 0,
            approved_at: None,
        }
    }

    #[test]
    fn a_grant_is_called_by_its_endpoint_and_is_with_its_peer() {
        let active = grant(GrantStatus::Active, "given");
        assert_eq!((active.names(), active.peer()), (vec!["ADT".to_owned()], Some("Clinic B")));
        assert!(is_living(&grant(GrantStatus::Pending, "given")));
        assert!(!is_living(&grant(GrantStatus::Denied, "given")));
    }

    #[test]
    fn what_a_grant_limits_is_shown_and_so_is_what_it_does_not() {
        let shown = |grant: &Grant| {
            let lines = grant.block(0);
            ["Max. rate", "Receive timeout", "Limited to"]
                .map(|name| lines.iter().find(|(label, _)| *label == name).map(|(_, text)| text.clone()).unwrap())
        };
        let plain = grant(GrantStatus::Active, "given");
        assert_eq!(shown(&plain), ["no limit", "no limit", "no limit"]);
        let narrow = Grant {
            bytes_per_second: Some(50_000),
            receive_timeout_secs: Some(600),
            behaviors: vec!["http".into(), "hl7v2-mllp".into()],
            ..plain
        };
        assert_eq!(shown(&narrow), ["50000 B/s in each direction", "600 s", "http, hl7v2-mllp"]);
    }
}

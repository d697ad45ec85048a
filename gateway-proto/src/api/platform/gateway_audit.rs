//! What the control plane knows of the audit logs of gateways.

use serde::{Deserialize, Serialize};

use crate::{
    audit::heads::{HeadAlarm, ReportedHead},
    identity::GatewayPublicKey,
};

api_types! {
    /// What is known of the audit log of a server's gateway.
    GatewayAudit {
        /// Key of the gateway that reported last; none: none has.
        #[schema(value_type = Option<String>)]
        gateway: Option<GatewayPublicKey>,
        /// The newest head that was reported and entered: at most a minute or two behind what the gateway reported.
        newest: Option<ReportedHead>,
        /// The log is not the one that was reported.
        alarm: Option<HeadAlarm>,
    }
    /// A head of the history: one an hour, and the first of each series.
    KeptHead {
        /// Counts up for each server.
        entry: u64,
        /// The gateway that reported it.
        #[schema(value_type = String)]
        gateway: GatewayPublicKey,
        /// The head.
        #[serde(flatten)]
        head: ReportedHead,
        /// Whether the log as it is now must hold it, or have removed it when its time was over.
        current: bool,
    }
    /// Acknowledge an alarm.
    #[serde(deny_unknown_fields)]
    AcknowledgeAudit {
        /// What was found, for the audit log.
        #[serde(default)]
        note: String,
    }
}

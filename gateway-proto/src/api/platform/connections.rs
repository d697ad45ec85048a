//! Connections, their two ends, and what was delivered between them.

use serde::{Deserialize, Serialize};

use super::AdminTerms;
use crate::{
    api::gateway::ConnectionReport,
    balance::{DeliveryAlarm, Difference},
    id::{AgreementId, ConnectionId, GrantId, ServerId},
    peering::ConnectionStatus,
    policy::ConnectionKind,
};

api_types! {
    /// What the two gateways of a connection counted, compared (docs/observers.md).
    Delivery {
        /// Messages the sender's gateway handed on.
        sender_messages: u64,
        /// Messages the listener's gateway handed to its engine.
        listener_messages: u64,
        /// Answers that reached the sender's gateway.
        sender_answers: u64,
        /// Answers of the listener's engine.
        listener_answers: u64,
        /// The difference, if there is one that lasts.
        alarm: Option<DeliveryAlarm>,
        /// Differences that were written off.
        written_off: Difference,
        /// By how much the counts differ though nothing is missing: messages that the listener's gateway did not count and of which an
        /// answer came, or that came again, and (negative) such answers.
        #[serde(default)]
        explained: Difference,
        /// Whether they are not compared: a gateway does not count all that passes, or both do so again and no pause came since.
        #[serde(default)]
        uncompared: bool,
    }
    /// One end of a connection.
    ConnectionEnd {
        /// Server; none: an offered admin connection, whose user has not named one yet.
        server_id: Option<ServerId>,
        /// Its name; empty without a server.
        server_name: String,
        /// Its organization's name, `Self` for the own one.
        organization_name: String,
        /// `sender` or `listener`, of admin connections `admin_user` or `admin_owner`.
        role: String,
        /// Whether this side holds a pause.
        paused: bool,
        /// Whether the newest policy that concerns this connection is in force at this end.
        policy_in_force: bool,
        /// Since when this end has it in force, Unix seconds; none: not yet.
        #[serde(default)]
        policy_in_force_since: Option<u64>,
        /// When this end's gateway is last known to have had its policy confirmed by the control plane, Unix seconds; none: it is not
        /// known (an older gateway, or one that has not reported yet), or the connection is over.
        #[serde(default)]
        policy_confirmed_at: Option<u64>,
        /// Whether that is longer ago than the connection allows: then this end carries no data; none: it is not known.
        #[serde(default)]
        policy_stale: Option<bool>,
        /// What this end's gateway last reported.
        report: Option<ConnectionReport>,
        /// When, Unix seconds.
        reported_at: Option<u64>,
    }
    /// Replace the secret of a connection.
    #[serde(deny_unknown_fields)]
    RotateSecret {
        /// For how long the old one is accepted beside the new one, 60 s to 60 days; the sending gateway turns to the new one in the
        /// middle. Default: twice the staleness budget, so that a gateway that has not heard of it by the middle carries no data anyway;
        /// less is taken only while both gateways watch and have their newest policies in force (`wrong_state`).
        #[serde(default)]
        overlap_secs: Option<u64>,
        /// The old one counts no more from now on, nor does one of a rotation that runs: it became known to others. Streams may be
        /// refused until both gateways have their policies.
        #[serde(default)]
        at_once: bool,
    }
    /// A secret that is being replaced, Unix seconds.
    SecretRotation {
        /// From then on streams are opened with the new one.
        new_from: u64,
        /// From then on the old one is not accepted any more.
        old_until: u64,
    }
    /// A connection.
    Connection {
        /// Id.
        id: ConnectionId,
        /// The grant it was made from; none: an admin connection.
        grant_id: Option<GrantId>,
        /// Agreement.
        agreement_id: AgreementId,
        /// What it carries.
        kind: ConnectionKind,
        /// What an admin connection was offered with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        admin: Option<AdminTerms>,
        /// Public name of the published endpoint; of an admin connection: the name of the administered server.
        endpoint: String,
        /// Kind of exchange.
        behavior: String,
        /// Status.
        status: ConnectionStatus,
        /// Whether the agreement is suspended: then it carries no data whatever its status.
        suspended: bool,
        /// Becomes active by itself.
        auto_activate: bool,
        /// Since when both gateways have what this shows in force, Unix seconds; none: not both of them yet.
        #[serde(default)]
        policy_in_force_since: Option<u64>,
        /// The end that sends; of an admin connection: the one it is used from.
        sender: ConnectionEnd,
        /// The end that receives; of an admin connection: the one whose engine is administered.
        listener: ConnectionEnd,
        /// The rotation of its secret that runs; none: no other secret than the current one is accepted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret_rotation: Option<SecretRotation>,
        /// What both ends counted; none where messages are not counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delivery: Option<Delivery>,
        /// Creation, Unix seconds.
        created_at: u64,
        /// End, Unix seconds.
        ended_at: Option<u64>,
    }
    /// A page of connections.
    ConnectionPage {
        /// The entries.
        items: Vec<Connection>,
        /// Ask again with `?cursor=` this for the next page; none: this was the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
        /// How many ended ones there are, which are left out; on the first page of the list without filters only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<EndedCount>,
    }
    /// How many connections have ended, as far as they were counted. What time ends is counted within seconds.
    EndedCount {
        /// So many; 1,000 at most.
        number: u64,
        /// There may be more.
        and_more: bool,
    }
}

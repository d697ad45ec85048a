//! The form of the file. Leaves are texts and integers, so that the values of all of them can be checked together.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) relay_id: Option<String>,
    pub(super) listen: Option<String>,
    pub(super) stun_listen: Option<Vec<String>>,
    pub(super) udp_listen: Option<String>,
    pub(super) metrics_listen: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) control_keys: Option<Vec<String>>,
    pub(super) control: Control,
    pub(super) tls: Tls,
    pub(super) acme: Acme,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
    pub(super) log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Control {
    pub(super) url: Option<String>,
    pub(super) tls_pin: Option<String>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) names: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Acme {
    pub(super) domains: Option<Vec<String>>,
    pub(super) contact: Option<Vec<String>>,
    pub(super) directory: Option<String>,
    pub(super) terms_agreed: Option<bool>,
    pub(super) root: Option<PathBuf>,
    pub(super) http_listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) max_clients: Option<i64>,
    pub(super) client_bytes_per_second: Option<i64>,
    pub(super) client_burst_bytes: Option<i64>,
    pub(super) organization_bytes_per_second: Option<i64>,
    pub(super) organization_burst_bytes: Option<i64>,
    pub(super) organization_clients: Option<i64>,
    pub(super) queue_datagrams: Option<i64>,
    pub(super) queue_bytes: Option<i64>,
    pub(super) signals_per_second: Option<i64>,
    pub(super) accept_per_second: Option<i64>,
    pub(super) accept_per_second_per_source: Option<i64>,
    pub(super) connections_per_source: Option<i64>,
    pub(super) stun_per_second_per_source: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timing {
    pub(super) admission: Option<String>,
    pub(super) heartbeat: Option<String>,
    pub(super) drain_grace: Option<String>,
    pub(super) expired_link_grace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Option<String>,
    pub(super) filter: Option<String>,
}

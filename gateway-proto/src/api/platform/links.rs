//! Links between devices, and the metering of what devices do.

use serde::{Deserialize, Serialize};

use super::DeviceKind;
use crate::id::{DeviceId, LinkId, OrganizationId, ServerId};

api_types! {
    /// Link an own device to another one: the behaviors of the target are switched on for it.
    #[serde(deny_unknown_fields)]
    CreateLink {
        /// The own device that asks.
        source_device_id: DeviceId,
        /// The device that is asked: an own one, one that is linkable, or one of the platform.
        target_device_id: DeviceId,
    }
    /// A link.
    Link {
        /// Id.
        id: LinkId,
        /// The device that asks.
        source_device_id: DeviceId,
        /// Its name.
        source_name: String,
        /// Its organization.
        source_organization_id: OrganizationId,
        /// The device that is asked.
        target_device_id: DeviceId,
        /// Its name.
        target_name: String,
        /// Its kind.
        target_kind: DeviceKind,
        /// Its organization; none: it belongs to the platform.
        target_organization_id: Option<OrganizationId>,
        /// What the link switches on.
        behaviors: Vec<String>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A device that others may link to.
    LinkableDevice {
        /// Id.
        id: DeviceId,
        /// Organization; none: it belongs to the platform.
        organization_id: Option<OrganizationId>,
        /// Name of that organization.
        organization_name: Option<String>,
        /// Kind.
        kind: DeviceKind,
        /// Name.
        name: String,
        /// Description.
        description: String,
        /// What it performs when it is asked.
        behaviors: Vec<String>,
    }
    /// A device that a token's device is linked to.
    LinkedDevice {
        /// Id.
        id: DeviceId,
        /// Organization; none: it belongs to the platform.
        organization_id: Option<OrganizationId>,
        /// Kind.
        kind: DeviceKind,
        /// Name.
        name: String,
        /// What the link switches on.
        behaviors: Vec<String>,
        /// The server it is, or whose gateway reaches it.
        server_id: Option<ServerId>,
    }
    /// How often a device took part in a behavior on a day.
    Executions {
        /// Day, UTC, `2026-01-31`.
        day: String,
        /// Device.
        device_id: DeviceId,
        /// Its name.
        device_name: String,
        /// Behavior.
        behavior: String,
        /// How often.
        number: u64,
    }
}

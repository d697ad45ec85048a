//! Devices, what they can do, and their tokens.

use serde::{Deserialize, Serialize};

use super::{Hidden, LinkedDevice};
use crate::{
    device_token::DeviceClaims,
    id::{DeviceId, DeviceTokenId, OrganizationId, ServerId},
};

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// An integration engine with a gateway beside it. It comes and goes with its server.
    Server,
    /// A source of FHIR resources.
    FhirEndpoint,
    /// The way into a document-sharing network.
    DocumentGateway,
    /// A program that asks others.
    Application,
}

/// Who may link to a device.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LinkableBy {
    /// Devices of its own organization.
    #[default]
    Organization,
    /// Those of every organization of its tenant.
    Tenant,
    /// Those of its tenant, and of the partners of its organization.
    Partners,
    /// Everybody's: it belongs to the platform.
    Everyone,
}

api_types! {
    /// A new device of the own organization.
    #[serde(deny_unknown_fields)]
    CreateDevice {
        /// Kind; a device of the kind `server` is made with its server.
        kind: DeviceKind,
        /// Name, 1–120 characters, unique among the organization's devices of that kind.
        name: String,
        /// Description, up to 500 characters.
        #[serde(default)]
        description: String,
        /// The own server whose gateway reaches it; default: none yet.
        #[serde(default)]
        server_id: Option<ServerId>,
        /// What it performs when it is asked.
        #[serde(default)]
        behaviors: Vec<String>,
        /// Who may link to it; default: devices of the own organization.
        #[serde(default)]
        linkable_by: LinkableBy,
    }
    /// Change a device; what is left out stays. Links that are not allowed any more go.
    #[serde(deny_unknown_fields)]
    UpdateDevice {
        /// Another name; that of a server's device is the server's.
        #[serde(default)]
        name: Option<String>,
        /// Another description.
        #[serde(default)]
        description: Option<String>,
        /// Another own server whose gateway reaches it.
        #[serde(default)]
        server_id: Option<ServerId>,
        /// What it performs, all of it.
        #[serde(default)]
        behaviors: Option<Vec<String>>,
        /// Who may link to it.
        #[serde(default)]
        linkable_by: Option<LinkableBy>,
    }
    /// A new device of the platform, that everybody may link to.
    #[serde(deny_unknown_fields)]
    CreateSystemDevice {
        /// Kind, not `server`.
        kind: DeviceKind,
        /// Name, 1–120 characters, unique among the platform's devices.
        name: String,
        /// Description, up to 500 characters.
        #[serde(default)]
        description: String,
        /// What it performs when it is asked.
        #[serde(default)]
        behaviors: Vec<String>,
    }
    /// A system with an identity of its own.
    Device {
        /// Id.
        id: DeviceId,
        /// Organization; none: it belongs to the platform.
        organization_id: Option<OrganizationId>,
        /// Kind.
        kind: DeviceKind,
        /// Name.
        name: String,
        /// Description.
        description: String,
        /// The server it is, or whose gateway reaches it; shown to its own organization.
        server_id: Option<ServerId>,
        /// What it performs when it is asked.
        behaviors: Vec<String>,
        /// Who may link to it.
        linkable_by: LinkableBy,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A kind of exchange.
    Behavior {
        /// Name, like `fhir-query`.
        name: String,
        /// What it is, in words.
        description: String,
    }
    /// Add a behavior, or describe one anew.
    #[serde(deny_unknown_fields)]
    PutBehavior {
        /// What it is, in words, up to 500 characters.
        description: String,
    }
    /// A new token of a device.
    #[serde(deny_unknown_fields)]
    CreateDeviceToken {
        /// Whom it is for, 1–120 visible characters; default `gateway`: the integrator endpoints of gateways.
        #[serde(default)]
        audience: Option<String>,
        /// Valid for so many seconds, 60 up to the platform's maximum; default: the platform's (`GET /token-terms`).
        #[serde(default)]
        valid_secs: Option<u64>,
        /// The device's own Ed25519 public key (the `x` of its JWK): the token is worth nothing without a proof of it.
        #[serde(default)]
        key: Option<String>,
    }
    /// What is known of a token.
    DeviceToken {
        /// Id, the token's `jti`.
        id: DeviceTokenId,
        /// Device.
        device_id: DeviceId,
        /// Whom it is for.
        audience: String,
        /// Thumbprint of the key it is bound to.
        key_thumbprint: Option<String>,
        /// Who asked for it.
        issued_by: String,
        /// When it ends, Unix seconds.
        expires_at: u64,
        /// When it was revoked, Unix seconds.
        revoked_at: Option<u64>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A token, shown once.
    CreatedDeviceToken {
        /// The JWT.
        token: Hidden,
        /// What is known of it from now on.
        device_token: DeviceToken,
    }
    /// Ask whether a token counts now. A gateway signs an assertion for this request instead of signing in.
    #[serde(deny_unknown_fields)]
    IntrospectToken {
        /// The token.
        token: Hidden,
        /// Whom it is to be for; default `gateway`.
        #[serde(default)]
        audience: Option<String>,
        /// What came with it, when it is bound to a key.
        #[serde(default)]
        proof: Option<ShownProof>,
    }
    /// A proof, and the request it came with.
    #[serde(deny_unknown_fields)]
    ShownProof {
        /// The proof (RFC 9449).
        proof: String,
        /// Method of that request.
        method: String,
        /// URL of that request, without query and fragment.
        url: String,
    }
    /// Whether a token counts now, for whoever asks.
    Introspection {
        /// Whether it does.
        active: bool,
        /// What it says, when it does.
        claims: Option<DeviceClaims>,
        /// Kind of the device, when it does.
        device_kind: Option<DeviceKind>,
        /// What the device is linked to, when it does: to the gateway of another organization, that organization's devices
        /// only. What is linked by an agreement alone is left out while the agreement is suspended.
        #[serde(default)]
        linked: Vec<LinkedDevice>,
        /// Why it does not, in words.
        problem: Option<String>,
    }
    /// A key that signs tokens.
    TokenKey {
        /// Its id: the thumbprint of RFC 7638.
        kid: String,
        /// What it does now.
        state: TokenKeyState,
        /// When it begins to sign, or began, Unix seconds.
        signs_from: u64,
        /// Until when tokens it signed may count, Unix seconds; none: it signs, or will.
        verifies_until: Option<u64>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// Make a new key.
    #[serde(deny_unknown_fields)]
    RotateTokenKeys {
        /// The old keys are forgotten at once, with every token they signed: for a key that became known to others.
        #[serde(default)]
        at_once: bool,
    }
    /// How long tokens live.
    #[serde(deny_unknown_fields)]
    TokenTerms {
        /// When nothing else is asked for, seconds.
        default_secs: u64,
        /// At most, seconds; no more than 86,400.
        max_secs: u64,
    }
}

/// What a key that signs tokens does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKeyState {
    /// Published, so that verifiers know it when it begins to sign.
    Next,
    /// Signs.
    Signing,
    /// Signs no more; what it signed is still verified.
    Retired,
}

//! The second factor of a user: one-time codes by time (RFC 6238).

use serde::{Deserialize, Serialize};

use super::Hidden;

api_types! {
    /// Begin with a second factor; it counts from its confirmation on.
    #[serde(deny_unknown_fields)]
    EnrollTotp {
        /// The own password.
        password: Hidden,
    }
    /// What the authenticator needs, shown once.
    TotpEnrollment {
        /// The secret, base32.
        secret: Hidden,
        /// The same as a URI for a QR code (`otpauth://totp/…`).
        uri: Hidden,
    }
    /// Show that the authenticator works.
    #[serde(deny_unknown_fields)]
    ConfirmTotp {
        /// The code it shows now.
        code: Hidden,
    }
    /// The second factor is in force from now on.
    ConfirmedTotp {
        /// For whoever loses the authenticator: each replaces a code once. Shown once.
        recovery_codes: Vec<Hidden>,
    }
    /// Give the own second factor up.
    #[serde(deny_unknown_fields)]
    DisableTotp {
        /// The own password.
        password: Hidden,
        /// The code of now, or a recovery code.
        code: Hidden,
    }
    /// The own second factor.
    TotpStatus {
        /// Whether signing in needs a code.
        enabled: bool,
        /// Recovery codes that are left.
        recovery_codes: u32,
    }
}

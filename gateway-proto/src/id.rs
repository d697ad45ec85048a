//! Typed ids: a prefix that names the kind, and a UUIDv7 (RFC 9562) that sorts by creation time.
//!
//! Text form `con_` + 32 hex digits; wire form the 16 raw bytes. A wrong prefix is a parse error, so an id of one
//! kind is never taken for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid id: expected '{prefix}_' followed by 32 hex digits")]
pub struct IdError {
    text: String,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The prefix of the text form, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from the time in Unix milliseconds and ten random bytes.
            pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }

            /// The wire form.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// Reads the wire form; every 16 bytes are an id.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-f]{32}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )*};
}

ids! {
    /// A tenant: the top-level segment of the platform.
    TenantId = "ten";
    /// An organization inside a tenant.
    OrganizationId = "org";
    /// A person who signs in.
    UserId = "usr";
    /// A server: an integration engine with a gateway beside it.
    ServerId = "srv";
    /// A message route on a server.
    ChannelId = "chn";
    /// An invitation from one organization to another.
    PeeringRequestId = "prq";
    /// The relationship an accepted peering request creates.
    AgreementId = "agr";
    /// Permission for one peer to use one channel.
    GrantId = "grt";
    /// A secure tunnel between two servers made from a grant.
    ConnectionId = "con";
    /// A token of automation.
    ApiTokenId = "tok";
    /// An invitation of a user.
    InvitationId = "inv";
    /// A one-time code that enrols the gateway of a server.
    EnrollmentCodeId = "enc";
    /// A person's account at a provider of OpenID Connect, linked to a user.
    IdentityId = "idn";
    /// A server shared with a partner.
    ShareId = "shr";
    /// A relay of the relay map.
    RelayId = "rly";
    /// A system inside an organization that has an identity of its own.
    DeviceId = "dev";
    /// A token of a device.
    DeviceTokenId = "dtk";
    /// What switches a device on for another one.
    LinkId = "lnk";
    /// An entry of the audit log.
    AuditId = "aud";
}

fn parse(text: &str, prefix: &'static str) -> Result<Uuid, IdError> {
    let error = || IdError { text: text.chars().take(64).collect(), prefix };
    let digits = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or_else(error)?;
    let canonical = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !canonical {
        return Err(error());
    }
    Uuid::try_parse(digits).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_through_its_text_and_wire_forms() {
        let id = ConnectionId::new(1_760_000_000_000, [7; 10]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ConnectionId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let text = ServerId::new(1, [0; 10]).to_string();
        assert!(text.parse::<ConnectionId>().is_err());
    }

    #[test]
    fn ids_made_later_sort_later() {
        assert!(GrantId::new(1, [0xff; 10]) < GrantId::new(2, [0; 10]));
    }

    #[test]
    fn upper_case_and_short_texts_are_refused() {
        let text = ServerId::new(1, [0xab; 10]).to_string();
        assert!(text.to_uppercase().parse::<ServerId>().is_err());
        assert!(text[..30].parse::<ServerId>().is_err());
    }
}

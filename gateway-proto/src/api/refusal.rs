//! Why the control plane does not let a gateway in: said with the HTTP status 401, in the header `WWW-Authenticate`, for the people
//! who have to mend it. Nothing is decided by it but which words they read, and which of its clocks a gateway tries next.

use std::fmt;

const SCHEME: &str = "Gateway ";

/// Why a gateway is not let in, and what time it is at the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayRefusal {
    /// Why.
    pub reason: RefusalReason,
    /// The clock of the control plane, Unix seconds.
    pub now: u64,
}

/// What the control plane does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The gateway means the control plane by a policy key that this one does not know.
    PolicyKey,
    /// No gateway with this key is enrolled here, nor was removed here.
    NotEnrolled,
    /// The assertion is not valid at this time.
    Clock,
}

impl RefusalReason {
    const ALL: [Self; 3] = [Self::PolicyKey, Self::NotEnrolled, Self::Clock];

    const fn word(self) -> &'static str {
        match self {
            Self::PolicyKey => "policy_key",
            Self::NotEnrolled => "not_enrolled",
            Self::Clock => "clock",
        }
    }
}

impl GatewayRefusal {
    /// Reads the value of the header; none: it says something else, as one of another version may.
    pub fn parse(text: &str) -> Option<Self> {
        let parameters = text.strip_prefix(SCHEME)?;
        let value = |name: &str| {
            let quoted =
                |part: &str| part.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"').map(str::to_owned);
            parameters.split(',').find_map(quoted)
        };
        let word = value("error")?;
        let reason = RefusalReason::ALL.into_iter().find(|reason| reason.word() == word)?;
        Some(Self { reason, now: value("now")?.parse().ok()? })
    }
}

/// The value of the header.
impl fmt::Display for GatewayRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}error=\"{}\", now=\"{}\"", self.reason.word(), self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_was_written_and_anything_else_is_none() {
        for reason in RefusalReason::ALL {
            let refusal = GatewayRefusal { reason, now: 1_795_392_996 };
            assert_eq!(GatewayRefusal::parse(&refusal.to_string()), Some(refusal));
        }
        let vector = "Gateway error=\"policy_key\", now=\"5\"";
        assert_eq!(GatewayRefusal { reason: RefusalReason::PolicyKey, now: 5 }.to_string(), vector);
        for text in [
            "",
            "Bearer",
            "Gateway ",
            "Gateway error=\"clock\"",
            "Gateway now=\"5\"",
            "Gateway error=\"of a later version\", now=\"5\"",
            "Gateway error=\"clock\", now=\"soon\"",
        ] {
            assert_eq!(GatewayRefusal::parse(text), None, "{text}");
        }
    }
}

//! What a value must look like before it is kept. Each check names the field, the value's fault and what is accepted.

use std::net::{IpAddr, SocketAddr};

use super::{ServiceError, ServiceResult};
use crate::names;

/// The last second of the year 9999, Unix seconds: no time of a client is later.
const LAST_MOMENT: u64 = 253_402_300_799;

/// A name: 1–120 characters, trimmed, that can be seen and do not look like something else (see [`names`]).
pub(super) fn name(field: &str, text: &str) -> ServiceResult<String> {
    let text = single_line(field, text, 120)?;
    if text.is_empty() {
        return Err(ServiceError::Invalid(format!("{field} is empty: it needs 1–120 characters")));
    }
    names::check_name(&text).map_err(|fault| ServiceError::Invalid(format!("{field} {fault}")))?;
    // Lists show the own organization as "Self": nobody else may look like it.
    if names::fold(&text) == "self" {
        return Err(ServiceError::Invalid(format!("{field} may not be \"Self\"")));
    }
    Ok(text)
}

/// A text of one line.
pub(super) fn single_line(field: &str, text: &str, max: usize) -> ServiceResult<String> {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(ServiceError::Invalid(format!("{field} holds control characters or line breaks")));
    }
    let length = text.chars().count();
    if length > max {
        return Err(ServiceError::Invalid(format!("{field} has {length} characters: at most {max} are accepted")));
    }
    names::check_text(text).map_err(|fault| ServiceError::Invalid(format!("{field} {fault}")))?;
    Ok(text.to_owned())
}

/// A text that may have line breaks.
pub(super) fn text(field: &str, text: &str, max: usize) -> ServiceResult<String> {
    let text = text.trim();
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(ServiceError::Invalid(format!("{field} holds control characters")));
    }
    let length = text.chars().count();
    if length > max {
        return Err(ServiceError::Invalid(format!("{field} has {length} characters: at most {max} are accepted")));
    }
    names::check_text(text).map_err(|fault| ServiceError::Invalid(format!("{field} {fault}")))?;
    Ok(text.to_owned())
}

/// A sign-in name: an e-mail address in lower case.
pub(super) fn email(text: &str) -> ServiceResult<String> {
    let text = text.trim().to_lowercase();
    let sound = text.len() <= 254
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && names::check_text(&text).is_ok()
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if sound { Ok(text) } else { Err(ServiceError::Invalid("email is not an e-mail address".to_owned())) }
}

/// A new password: length is what counts.
pub(super) fn password(text: &str) -> ServiceResult<()> {
    if text.chars().count() < 12 {
        return Err(ServiceError::Invalid("the password is too short: at least 12 characters are needed".to_owned()));
    }
    if text.len() > 1024 {
        return Err(ServiceError::Invalid("the password is longer than 1024 bytes".to_owned()));
    }
    Ok(())
}

/// The engine's port: one address and port that can be dialled.
pub(super) fn engine(text: &str) -> ServiceResult<String> {
    let fault = |fault: &str| ServiceError::Invalid(format!("engine {fault}: expected ip:port, like 127.0.0.1:6661"));
    let address: SocketAddr = text.trim().parse().map_err(|_| fault("is not an address"))?;
    if address.port() == 0 {
        return Err(fault("has port 0"));
    }
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        return Err(fault("is an address nobody can be dialled at"));
    }
    Ok(address.to_string())
}

/// A kind of exchange: a word like `hl7v2-mllp`.
pub(super) fn behavior(text: &str) -> ServiceResult<String> {
    let sound = (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if sound {
        Ok(text.to_owned())
    } else {
        Err(ServiceError::Invalid("behavior is a word of a-z, 0-9 and '-', like hl7v2-mllp".to_owned()))
    }
}

/// A time that a client sends, Unix seconds.
pub(super) fn moment(field: &str, secs: u64) -> ServiceResult<u64> {
    if secs > LAST_MOMENT {
        return Err(ServiceError::Invalid(format!("{field} is later than the year 9999: Unix seconds are expected")));
    }
    Ok(secs)
}

/// A number within bounds.
pub(super) fn range<T: PartialOrd + std::fmt::Display>(field: &str, value: T, min: T, max: T) -> ServiceResult<T> {
    if value < min || value > max {
        return Err(ServiceError::Invalid(format!("{field} is {value}: {min} to {max} is accepted")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_are_refused_with_the_field_named() {
        assert!(name("name", " ").unwrap_err().to_string().contains("name"));
        assert!(name("name", "a\u{1b}[2J").is_err());
        assert!(name("name", &"x".repeat(121)).is_err());
        assert!(email("a@b@c").is_err() && email("a b@c").is_err() && email("@c").is_err());
        assert!(engine("127.0.0.1:0").is_err() && engine("localhost:1").is_err() && engine("0.0.0.0:1").is_err());
        assert!(engine("224.0.0.1:1").is_err() && engine("[::]:1").is_err());
        assert!(behavior("HL7").is_err() && behavior("").is_err());
        assert!(range("n", 0, 1, 2).is_err());
        assert!(moment("expires_at", u64::MAX).is_err() && moment("expires_at", LAST_MOMENT + 1).is_err());
        for own in ["self", "SELF", "ſelf", "Self\u{200b}", "Ｓｅｌｆ", "S\u{435}lf", "\u{202e}fleS", "\u{200b}"] {
            assert!(name("name", own).is_err(), "{own:?}");
        }
        assert!(text("text", "a\u{202e}b", 10).is_err() && single_line("q", "a\u{200b}", 10).is_err());
        assert!(email("a\u{200b}@example.org").is_err());
    }

    #[test]
    fn sound_values_come_back_in_their_stored_form() {
        assert_eq!(name("name", " St. Mary ").unwrap(), "St. Mary");
        assert_eq!(email(" A@Example.org ").unwrap(), "a@example.org");
        assert_eq!(engine("[::1]:6661").unwrap(), "[::1]:6661");
        assert_eq!(text("text", "a\nb", 3).unwrap(), "a\nb");
        assert_eq!(moment("expires_at", LAST_MOMENT).unwrap(), LAST_MOMENT);
    }
}

//! What a value must look like before it is kept ([`values`]). Each refusal names the field, the value's fault and what is
//! accepted.

use gateway_proto::{
    api::values::{self, ValueFault},
    names,
};

use super::{ServiceError, ServiceResult, bounds};

/// A name: 1–120 characters, trimmed, that can be seen and do not look like something else (see [`names`]).
pub(super) fn name(field: &str, text: &str) -> ServiceResult<String> {
    values::name(text).map_err(of(field))
}

/// The name of something that has one. Sent as it is, it stays: names that are refused today were given before they were.
pub(super) fn renamed(field: &str, before: &str, text: &str) -> ServiceResult<String> {
    if text.trim() == before { Ok(before.to_owned()) } else { name(field, text) }
}

/// A text of one line.
pub(super) fn single_line(field: &str, text: &str, max: usize) -> ServiceResult<String> {
    values::single_line(text, max).map_err(of(field))
}

/// A text that may have line breaks.
pub(super) fn text(field: &str, text: &str, max: usize) -> ServiceResult<String> {
    values::text(text, max).map_err(of(field))
}

/// The same for what has a text already, which stays like a name.
pub(super) fn reworded(field: &str, before: &str, words: &str, max: usize) -> ServiceResult<String> {
    if words.trim() == before { Ok(before.to_owned()) } else { text(field, words, max) }
}

/// A sign-in name: an e-mail address in lower case.
pub(super) fn email(text: &str) -> ServiceResult<String> {
    let text = text.trim().to_lowercase();
    let sound = text.len() <= bounds::MAX_EMAIL
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && names::check_text(&text).is_ok()
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if sound { Ok(text) } else { Err(ServiceError::Invalid("email is not an e-mail address".to_owned())) }
}

/// A new password: length is what counts.
pub(super) fn password(text: &str) -> ServiceResult<()> {
    let (least, most) = bounds::PASSWORD;
    if text.chars().count() < least {
        let told = format!("the password is too short: at least {least} characters are needed");
        return Err(ServiceError::Invalid(told));
    }
    if text.len() > most {
        return Err(ServiceError::Invalid(format!("the password is longer than {most} bytes")));
    }
    Ok(())
}

/// The engine's port: one address and port that can be dialled.
pub(super) fn engine(text: &str) -> ServiceResult<String> {
    values::engine(text).map_err(of("engine"))
}

/// A kind of exchange: a word like `hl7v2-mllp`.
pub(super) fn behavior(text: &str) -> ServiceResult<String> {
    values::behavior(text).map_err(of("behavior"))
}

/// A time that a client sends, Unix seconds.
pub(super) fn moment(field: &str, secs: u64) -> ServiceResult<u64> {
    values::moment(secs).map_err(of(field))
}

/// Refuses an end that is over already, and one that no calendar has.
pub(super) fn in_future(end: Option<u64>, now: u64) -> ServiceResult<()> {
    let Some(end) = end else { return Ok(()) };
    if moment("expires_at", end)? <= now {
        return Err(ServiceError::Invalid("expires_at is in the past".to_owned()));
    }
    Ok(())
}

/// A number within bounds.
pub(super) fn range<T: PartialOrd + std::fmt::Display>(field: &str, value: T, min: T, max: T) -> ServiceResult<T> {
    if value < min || value > max {
        return Err(ServiceError::Invalid(format!("{field} is {value}: {min} to {max} is accepted")));
    }
    Ok(value)
}

fn of(field: &str) -> impl FnOnce(ValueFault) -> ServiceError {
    move |fault| ServiceError::Invalid(format!("{field} {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_are_refused_with_the_field_named() {
        assert_eq!(name("name", " ").unwrap_err().to_string(), "name is empty: it needs 1–120 characters");
        assert!(email("a@b@c").is_err() && email("a b@c").is_err() && email("@c").is_err());
        assert!(email("a\u{200b}@example.org").is_err());
        assert!(engine("x").unwrap_err().to_string().starts_with("engine is not an address"));
        assert!(range("n", 0, 1, 2).is_err());
    }

    #[test]
    fn sound_values_come_back_in_their_stored_form() {
        assert_eq!(name("name", " St. Mary ").unwrap(), "St. Mary");
        assert_eq!(email(" A@Example.org ").unwrap(), "a@example.org");
    }

    #[test]
    fn what_would_be_refused_today_may_stay_as_it_is_and_nothing_else_may_become_so() {
        for old in ["K\u{43b}иника", "Self", "a\u{200b}b"] {
            assert_eq!(renamed("name", old, old).unwrap(), old);
            assert_eq!(reworded("text", old, old, 1).unwrap(), old);
            assert!(name("name", old).is_err() && renamed("name", "Lab", old).is_err());
        }
        assert!(reworded("text", "", "a\u{200b}b", 10).is_err());
        assert_eq!(renamed("name", "Lab", " Ward ").unwrap(), "Ward");
        assert_eq!(reworded("text", "", " x ", 1).unwrap(), "x");
    }
}

//! What the values of the platform's API have to look like, and the form in which they are kept. The control plane refuses by
//! it; whoever prepares what is to be asked for (`gateway-ctl apply`) knows by it what would be refused, and compares in the
//! form that is kept: asked for twice, nothing differs.
//!
//! A fault begins where the name of the field ends: "`name` is empty: …".

use std::net::{IpAddr, SocketAddr};

use crate::names;

/// Characters of a name at most.
pub const MAX_NAME: usize = 120;
/// Characters of a description or of a message to a partner at most.
pub const MAX_TEXT: usize = 500;
/// Streams that a grant allows at the same time, at most.
pub const MAX_STREAMS: u32 = 10_000;
/// The last second of the year 9999, Unix seconds: no time of a client is later.
pub const LAST_MOMENT: u64 = 253_402_300_799;
/// The most that two ends of a grant can be apart and be the same, in seconds.
const MAX_BETWEEN_CLOCKS: u64 = 3600;
/// How the own organization is called, as [`names::fold`] has it: nobody has this name.
pub const SELF: &str = "self";

/// How far the ends of a grant that lasts for `secs` can be apart and be the same, in seconds; of a short one a tenth of its length.
/// People name how long it lasts, and whoever asks again counts from a later moment, or by another clock.
pub fn between_clocks(secs: u64) -> u64 {
    (secs / 10).min(MAX_BETWEEN_CLOCKS)
}

/// Why a value is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// Nothing but spaces.
    #[error("is empty: it needs 1–{max} characters", max = MAX_NAME)]
    Empty,
    /// Control characters in what has one line.
    #[error("holds control characters or line breaks")]
    ControlOrBreak,
    /// Control characters other than line break and tabulator.
    #[error("holds control characters")]
    Control,
    /// Too long.
    #[error("has {length} characters: at most {max} are accepted")]
    Long {
        /// Its characters.
        length: usize,
        /// How many it may have.
        max: usize,
    },
    /// Nobody should be shown it.
    #[error(transparent)]
    Shown(#[from] names::Fault),
    /// It is how the own organization is shown.
    #[error("may not be \"Self\"")]
    Own,
    /// Not `ip:port`.
    #[error("is not an address: expected ip:port, like 127.0.0.1:6661")]
    NoAddress,
    /// A port that nothing listens on.
    #[error("has port 0: expected ip:port, like 127.0.0.1:6661")]
    NoPort,
    /// No address of one machine.
    #[error("is an address nobody can be dialled at: expected ip:port, like 127.0.0.1:6661")]
    Undialled,
    /// Not a word.
    #[error("is not a word of a-z, 0-9 and '-', like hl7v2-mllp")]
    NoWord,
    /// Later than any time.
    #[error("is later than the year 9999: Unix seconds are expected")]
    Late,
}

/// A name: 1–120 characters, trimmed, that can be seen and do not look like something else (see [`names`]).
pub fn name(text: &str) -> Result<String, ValueFault> {
    let text = single_line(text, MAX_NAME)?;
    if text.is_empty() {
        return Err(ValueFault::Empty);
    }
    names::check_name(&text)?;
    // Lists show the own organization as "Self": nobody else may look like it.
    if names::fold(&text) == SELF {
        return Err(ValueFault::Own);
    }
    Ok(text)
}

/// A text of one line, trimmed.
pub fn single_line(text: &str, max: usize) -> Result<String, ValueFault> {
    bounded(text, max, |c| !c.is_control(), ValueFault::ControlOrBreak)
}

/// A text that may have line breaks, trimmed.
pub fn text(text: &str, max: usize) -> Result<String, ValueFault> {
    bounded(text, max, |c| !c.is_control() || matches!(c, '\n' | '\t'), ValueFault::Control)
}

fn bounded(text: &str, max: usize, accepts: fn(char) -> bool, otherwise: ValueFault) -> Result<String, ValueFault> {
    let text = text.trim();
    if !text.chars().all(accepts) {
        return Err(otherwise);
    }
    let length = text.chars().count();
    if length > max {
        return Err(ValueFault::Long { length, max });
    }
    names::check_text(text)?;
    Ok(text.to_owned())
}

/// The engine's port: one address and port that can be dialled.
pub fn engine(text: &str) -> Result<String, ValueFault> {
    let address: SocketAddr = text.trim().parse().map_err(|_| ValueFault::NoAddress)?;
    if address.port() == 0 {
        return Err(ValueFault::NoPort);
    }
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        return Err(ValueFault::Undialled);
    }
    Ok(address.to_string())
}

/// A kind of exchange: a word like `hl7v2-mllp`.
pub fn behavior(text: &str) -> Result<String, ValueFault> {
    let is_word = (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_word { Ok(text.to_owned()) } else { Err(ValueFault::NoWord) }
}

/// A time that a client sends, Unix seconds.
pub fn moment(secs: u64) -> Result<u64, ValueFault> {
    if secs > LAST_MOMENT { Err(ValueFault::Late) } else { Ok(secs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_are_refused() {
        assert_eq!(name(" "), Err(ValueFault::Empty));
        assert!(name("a\u{1b}[2J").is_err() && name(&"x".repeat(MAX_NAME + 1)).is_err());
        assert!(engine("127.0.0.1:0").is_err() && engine("localhost:1").is_err() && engine("0.0.0.0:1").is_err());
        assert!(engine("224.0.0.1:1").is_err() && engine("[::]:1").is_err());
        assert!(behavior("HL7").is_err() && behavior("").is_err());
        assert!(moment(u64::MAX).is_err() && moment(LAST_MOMENT + 1).is_err());
        for own in ["self", "SELF", "ſelf", "Self\u{200b}", "Ｓｅｌｆ", "S\u{435}lf", "\u{202e}fleS", "\u{200b}"] {
            assert!(name(own).is_err(), "{own:?}");
        }
        assert!(text("a\u{202e}b", 10).is_err() && single_line("a\u{200b}", 10).is_err());
        assert!(single_line("a\nb", 10).is_err() && text("a\u{7}b", 10).is_err());
    }

    #[test]
    fn what_was_kept_once_is_kept_as_it_is() {
        for (given, kept) in [(" St. Mary ", "St. Mary"), ("Six  ", "Six"), ("a  b", "a  b")] {
            assert_eq!(name(given).unwrap(), kept);
            assert_eq!(name(kept).unwrap(), kept);
        }
        for (given, kept) in [("[0:0:0:0:0:0:0:1]:06661", "[::1]:6661"), (" 127.0.0.1:6661 ", "127.0.0.1:6661")] {
            assert_eq!(engine(given).unwrap(), kept);
            assert_eq!(engine(kept).unwrap(), kept);
        }
        assert_eq!(text(" a\nb ", 3).unwrap(), "a\nb");
        assert_eq!(moment(LAST_MOMENT).unwrap(), LAST_MOMENT);
    }

    #[test]
    fn a_fault_is_told_in_words_that_follow_the_name_of_the_field() {
        assert_eq!(ValueFault::Empty.to_string(), "is empty: it needs 1–120 characters");
        assert_eq!(text("abc", 2).unwrap_err().to_string(), "has 3 characters: at most 2 are accepted");
    }
}

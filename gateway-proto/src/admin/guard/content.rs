//! What answers tell: secrets, and of patients. What of it is masked, what is withheld, and which questions would find it out
//! all the same.

use super::super::{
    form::percent_decoded,
    operation::{Class, Operation},
    redact::{Redaction, is_secret_name},
};

pub(super) const PROPERTY: &str = "/server/property";
const COUNT: &str = "/channels/{channelId}/messages/count";
const COUNT_SEARCH: &str = "/channels/{channelId}/messages/count/_search";
const EVENTS: &str = "/events";
const EVENT: &str = "/events/{eventId}";
pub(super) const EVENT_SEARCH: &str = "/events/_search";
const EVENT_COUNT: &str = "/events/count";
const EVENT_COUNT_SEARCH: &str = "/events/count/_search";

/// What is masked in the answer of a read that exposes secrets; none: there would be nothing left, so it is withheld.
pub(super) fn redaction(operation: &Operation) -> Option<Redaction> {
    // What plug-ins have stored is among the properties: whole objects, each as one text.
    if operation.template == PROPERTY {
        return Some(Redaction::Text);
    }
    if operation.class != Class::ReadSecrets {
        return None;
    }
    match operation.template {
        // A backup with masked passwords looks whole and restores a broken engine.
        "/server/encryption" | "/server/configuration" => None,
        "/server/configurationMap" => Some(Redaction::Values),
        template if template.starts_with("/extensions/globalmapviewer/") => Some(Redaction::Values),
        _ => Some(Redaction::Passwords),
    }
}

/// Whether an answer has events of the engine: whose messages somebody looked at, and what was searched for.
pub(super) fn has_events(operation: &Operation) -> bool {
    matches!(operation.template, EVENTS | EVENT | EVENT_SEARCH)
}

/// Whether a question finds out what is in messages or events: how many of them hold a name tells of a patient. What the body
/// of a count asks for is not looked at.
pub(super) fn asks_about_content(operation: &Operation, query: Option<&str>) -> bool {
    match operation.template {
        COUNT_SEARCH | EVENT_COUNT_SEARCH => true,
        COUNT | EVENTS | EVENT_COUNT => match query.map(percent_decoded) {
            None => false,
            Some(Some(query)) if !query.contains('%') => query.to_ascii_lowercase().contains("search"),
            Some(_) => true,
        },
        _ => false,
    }
}

/// Whether a filter of events, XML or JSON, may ask for a text in what they tell (`attributeSearch`). Also where that cannot be
/// ruled out: the name may be escaped, come from a declaration, or be in another encoding.
pub fn may_search_events(filter: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(filter) else { return true };
    let text = text.to_ascii_lowercase();
    // `_.` is how the engine's library escapes characters in the names of elements.
    ["search", "_.", "<!", "encoding", "\\", "\0"].into_iter().any(|part| text.contains(part))
}

/// `GET /server/property` reads any stored property by name, the password of the mail server among them.
pub(super) fn names_a_secret(operation: &Operation, query: Option<&str>) -> bool {
    if operation.template != PROPERTY {
        return false;
    }
    // Decoded once, as the engine does; what could be decoded again hides its name.
    match percent_decoded(query.unwrap_or_default()) {
        Some(query) if !query.contains('%') => query.split(['&', '=', ';']).any(is_secret_name),
        Some(_) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_events_that_may_search_in_what_they_tell_is_known_however_it_is_written() {
        for filter in [
            "<eventFilter/>",
            "<eventFilter>\n  <maxEventId>99</maxEventId>\n  <levels><level>ERROR</level></levels>\n  <name>Login</name>\n</eventFilter>",
            "{\"eventFilter\":{\"maxEventId\":99,\"name\":\"M\u{fc}ller\"}}",
            "",
        ] {
            assert!(!may_search_events(filter.as_bytes()), "{filter}");
        }
        for filter in [
            "<eventFilter><attributeSearch>DOE</attributeSearch></eventFilter>",
            "<eventFilter attributeSearch=\"DOE\"/>",
            "<eventFilter><_.0061ttribute_.0053earch>DOE</_.0061ttribute_.0053earch></eventFilter>",
            "<!DOCTYPE a [<!ENTITY b \"x\">]><eventFilter>&b;</eventFilter>",
            "{\"eventFilter\":{\"attributeS\\u0065arch\":\"DOE\"}}",
            "<?xml version=\"1.0\" encoding=\"UTF-7\"?><eventFilter>+ADw-</eventFilter>",
        ] {
            assert!(may_search_events(filter.as_bytes()), "{filter}");
        }
        let wide: Vec<u8> = "<eventFilter/>".bytes().flat_map(|byte| [byte, 0]).collect();
        assert!(may_search_events(&wide) && may_search_events(b"\xff"));
    }
}

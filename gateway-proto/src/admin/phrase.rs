//! What the Administrator shows when a call is refused: the action in words, made from the operation.

use super::operation::{Method, Operation};

/// The action of an operation, for example `stop channel`.
pub(super) fn action(operation: &Operation) -> String {
    let mut noun = "engine";
    let mut verb = None;
    for segment in operation.template.split('/').filter(|segment| !segment.is_empty() && !segment.starts_with('{')) {
        match segment.strip_prefix('_') {
            Some(action) => verb = Some(action),
            None => noun = segment,
        }
    }
    let noun = singular(&words(noun));
    let verb = match (verb, operation.method) {
        (Some(verb), _) => words(verb),
        (None, Method::Get | Method::Head) => "read".into(),
        (None, Method::Post) => "create".into(),
        (None, Method::Put) => "change".into(),
        (None, Method::Delete) => "delete".into(),
    };
    if verb.split(' ').any(|word| singular(word) == noun) { verb } else { format!("{verb} {noun}") }
}

/// `bulkUpdate` → `bulk update`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for (at, c) in name.char_indices() {
        let begins = c.is_ascii_uppercase() && at > 0 && !name[..at].ends_with(|p: char| p.is_ascii_uppercase());
        if begins {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn singular(noun: &str) -> String {
    match noun.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None if noun.ends_with("settings") => noun.to_owned(),
        None => noun.strip_suffix('s').unwrap_or(noun).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::operation::operations, *};

    #[test]
    fn the_action_reads_like_a_sentence() {
        for (method, template, expected) in [
            (Method::Post, "/channels/{channelId}/_stop", "stop channel"),
            (Method::Post, "/channels/_stop", "stop channel"),
            (Method::Post, "/channels/_deploy", "deploy channel"),
            (Method::Delete, "/channels/{channelId}", "delete channel"),
            (Method::Put, "/server/settings", "change settings"),
            (Method::Post, "/codeTemplateLibraries/_bulkUpdate", "bulk update code template library"),
            (Method::Post, "/channels/{channelId}/messages/_reprocess", "reprocess message"),
            (Method::Post, "/channels/_removeChannels", "remove channels"),
            (Method::Get, "/server/encryption", "read encryption"),
        ] {
            let found = operations().iter().find(|o| o.method == method && o.template == template).unwrap();
            assert_eq!(action(found), expected, "{template}");
        }
    }
}

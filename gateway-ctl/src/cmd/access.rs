//! Who has access to a server or a channel: the verb `access` of both nouns.

use gateway_proto::api::platform::AccessEntry;

use crate::output::{View, time, word, yes_no};

impl View for AccessEntry {
    const HEADERS: &'static [&'static str] = &["ORGANIZATION", "BY", "WHAT", "IN FORCE", "EXPIRES", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.organization_name.clone(),
            word(&self.kind),
            self.what.clone(),
            yes_no(self.in_force),
            time::or_never(now, self.expires_at),
            self.id.clone(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Organization", "By", "What", "In force", "Expires", "Id"].into_iter().zip(self.row(now)).collect()
    }
}

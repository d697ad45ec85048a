//! The file: what a site should have.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::{args::Span, error::CtlError};

/// A site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    /// Servers.
    #[serde(default, rename = "server")]
    pub(super) servers: Vec<SiteServer>,
    /// Listener channels.
    #[serde(default, rename = "channel")]
    pub(super) channels: Vec<SiteChannel>,
    /// Partners.
    #[serde(default, rename = "peer")]
    pub(super) peers: Vec<SitePeer>,
    /// Grants offered to partners.
    #[serde(default, rename = "grant")]
    pub(super) grants: Vec<SiteGrant>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteServer {
    /// Name.
    pub(super) name: String,
}

/// A listener channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteChannel {
    /// Name of its server.
    pub(super) server: String,
    /// Internal name.
    pub(super) name: String,
    /// The engine's port, `ip:port`.
    pub(super) engine: String,
    /// Kind of exchange; default `hl7v2-mllp`.
    pub(super) behavior: Option<String>,
    /// Published under this public name; left out: not published.
    pub(super) publish: Option<String>,
    /// Public description.
    pub(super) description: Option<String>,
}

/// A partner to have an agreement with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SitePeer {
    /// Name in the directory, or `self`.
    pub(super) organization: String,
    /// A word with the request.
    #[serde(default)]
    pub(super) message: String,
}

/// A grant offered to a partner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteGrant {
    /// `SERVER/NAME` of the channel.
    pub(super) channel: String,
    /// Name of the peer.
    pub(super) to: String,
    /// Ends after this time, counted from the offer.
    pub(super) expires: Option<String>,
    /// Open streams at most.
    pub(super) max_streams: Option<u32>,
    /// Require a post-quantum tunnel.
    #[serde(default)]
    pub(super) require_post_quantum: bool,
}

impl Site {
    /// Reads and checks a file: every mistake is told, not only the first.
    pub(super) fn load(path: &Path) -> Result<Self, CtlError> {
        let text = fs::read_to_string(path).map_err(|source| CtlError::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|mistakes| {
            CtlError::Usage(format!("{} is not usable:\n  - {}", path.display(), mistakes.join("\n  - ")))
        })
    }

    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let site: Self = toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
        let mut mistakes = Vec::new();
        for grant in &site.grants {
            if !grant.channel.contains('/') {
                mistakes.push(format!("grant.channel = \"{}\": expected SERVER/NAME of a channel", grant.channel));
            }
            if let Some(expires) = grant.expires.as_ref().filter(|text| text.parse::<Span>().is_err()) {
                mistakes.push(format!("grant.expires = \"{expires}\": expected a length of time such as 90d"));
            }
        }
        if mistakes.is_empty() { Ok(site) } else { Err(mistakes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_a_file_is_told() {
        let text = "[[grant]]\nchannel = 'adt'\nto = 'B'\nexpires = 'soon'\n";
        assert_eq!(Site::parse(text).unwrap_err().len(), 2);
        assert!(Site::parse("[[server]]\nnmae = 'x'\n").unwrap_err()[0].contains("nmae"));
        assert_eq!(Site::parse("").unwrap(), Site::default());
    }
}

//! `[network]`: the proxy between this machine and the control plane and relays.

use std::path::PathBuf;

pub use gateway_net::proxy::{ProxyChoice, ProxyConfig as NetworkConfig, ProxyConfigError as NetworkError};
use gateway_net::{
    document::Section,
    proxy::{Exemptions, PROXY_ACCEPTED, PROXY_FILE_ACCEPTED},
};

/// Reads the section.
pub(super) fn read(mut section: Section<'_, '_>) -> NetworkConfig {
    let written = section.value("proxy", PROXY_ACCEPTED, None, |value| value.text().map(Some));
    let mut proxy = match written.map(ProxyChoice::from_text) {
        None => ProxyChoice::Environment,
        Some(Ok(choice)) => choice,
        Some(Err(shown)) => {
            section.mistake("proxy", &shown, PROXY_ACCEPTED);
            ProxyChoice::Environment
        }
    };
    let file = section.value("proxy_file", PROXY_FILE_ACCEPTED, None, |value| {
        value.text().map(PathBuf::from).filter(|path| path.is_absolute()).map(Some)
    });
    if let Some(file) = file {
        if written.is_some() {
            section.mistake("proxy_file", &file.display().to_string(), "one of proxy and proxy_file, not both");
        }
        proxy = ProxyChoice::File(file);
    }
    let accepted = "host names, addresses and networks, for example \"clinic.example, 10.0.0.0/8\"";
    let no_proxy =
        section.value("no_proxy", accepted, None, |value| value.text().map(|text| Some(Exemptions::parse(text))));
    section.finish();
    NetworkConfig { proxy, no_proxy }
}

//! `[network]`: the proxy between this machine and the certificate authority and control plane. Gateways come to the
//! relay by themselves.

use std::path::PathBuf;

use gateway_net::{
    document::{Section, Value},
    proxy::{Exemptions, PROXY_ACCEPTED, PROXY_FILE_ACCEPTED, ProxyChoice, ProxyConfig},
};

pub(super) fn read(mut section: Section<'_, '_>) -> ProxyConfig {
    const HOSTS: &str = "host names, addresses and networks, for example \"clinic.example, 10.0.0.0/8\"";
    let written = section.optional("proxy", PROXY_ACCEPTED, Value::text);
    let mut proxy = match written.map(ProxyChoice::from_text) {
        None => ProxyChoice::Environment,
        Some(Ok(choice)) => choice,
        Some(Err(shown)) => {
            section.mistake("proxy", &shown, PROXY_ACCEPTED);
            ProxyChoice::Environment
        }
    };
    let file = section.optional("proxy_file", PROXY_FILE_ACCEPTED, |value| value.text().map(PathBuf::from));
    if let Some(file) = file {
        if !file.is_absolute() {
            // It may be the proxy itself, with its password.
            section.reject_unseen("proxy_file", PROXY_FILE_ACCEPTED);
        } else if section.has("proxy") {
            section.reject("proxy_file", "one of proxy and proxy_file, not both");
        }
        proxy = ProxyChoice::File(file);
    }
    let no_proxy = section.optional("no_proxy", HOSTS, |value| value.text().map(Exemptions::parse));
    section.finish();
    ProxyConfig { proxy, no_proxy }
}

//! Every fixture of the configuration, and the example in deploy/.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use gateway_net::{secret_file, tls::ServerIdentity};
use gateway_relay::config::{Config, ConfigError, TlsSource};

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new("tests/config").join(kind)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    assert!(!paths.is_empty(), "no fixtures means nothing is tested");
    paths
}

#[test]
fn every_valid_file_is_accepted() {
    for path in fixtures("valid") {
        if let Err(error) = Config::load(&path) {
            panic!("{}: {error}", path.display());
        }
    }
}

#[test]
fn the_full_file_means_what_it_says() {
    let config = Config::load(Path::new("tests/config/valid/full.toml")).unwrap();
    assert_eq!(config.limits.client_bytes_per_second, None);
    assert_eq!(config.timing.heartbeat, Duration::from_millis(100));
    assert!(matches!(&config.tls, TlsSource::Generated { names } if names == &["relay.example.org"]));
    assert!(config.relay_id.is_some());
    let proxy = config.network.proxy().unwrap().unwrap();
    assert_eq!(proxy.to_string(), "proxy.example.org:3128");
    assert!(!proxy.covers_url(&"https://10.0.0.7/".parse().unwrap()));
    let control = config.control.unwrap();
    assert_eq!(
        (control.url.as_str(), control.interval),
        ("https://control.example.org:8443", Duration::from_secs(3600))
    );
}

/// Each invalid file stands beside the message it gets, all mistakes together.
#[test]
fn every_invalid_file_gets_its_message() {
    for path in fixtures("invalid") {
        let error = Config::load(&path).unwrap_err();
        let mut message = error.to_string();
        if let Some(source) = error.source() {
            message = format!("{message}\n{source}");
        }
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        assert_eq!(message.trim(), expected.trim(), "{}", path.display());
    }
}

/// A key in the data of the test, and what `[acme]` says of it.
fn with_key(content: Option<&str>, more: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("eab.key");
    if let Some(content) = content {
        secret_file::write(&file, content.as_bytes()).unwrap();
    }
    let minimal = fs::read_to_string("tests/config/valid/minimal.toml").unwrap();
    let text = format!(
        "{minimal}\n[acme]\ndomains = [\"relay.example.org\"]\nterms_agreed = true\neab_key_file = {file:?}\n{more}"
    );
    Config::parse(&text, Path::new("relay.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_key_that_binds_the_account_is_looked_at_with_everything_else_and_shown_nowhere() {
    let id = "eab_key_id = \"key-1\"\n";
    let config = with_key(Some("c2VzYW1lIHNlc2FtZSBzZXNhbWU=\n"), id).unwrap();
    let TlsSource::Acme(acme) = &config.tls else { panic!("{:?}", config.tls) };
    assert_eq!(acme.external_account.as_ref().unwrap().key_id, "key-1");
    assert!(!format!("{config:?}").contains("sesame"));

    let wrong = with_key(Some("c2VzYW1lIHNlc2FtZS!"), &format!("{id}directory = \"http://a\"\n")).unwrap_err();
    assert!(wrong.contains("2 mistakes") && wrong.contains("does not hold base64"), "{wrong}");
    assert!(wrong.contains("acme.eab_key_file") && !wrong.contains("c2VzYW1l"), "{wrong}");
    let missing = with_key(None, id).unwrap_err();
    assert!(missing.contains("eab.key does not exist"), "{missing}");
    let alone = with_key(Some("c2VzYW1lIHNlc2FtZSBzZXNhbWU"), "").unwrap_err();
    assert!(alone.contains("acme.eab_key_id is missing"), "{alone}");
}

#[test]
fn certificate_files_are_looked_into_before_the_relay_starts() {
    let directory = tempfile::tempdir().unwrap();
    ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
    let (certificate, key) = (directory.path().join("tls-certificate.pem"), directory.path().join("tls-key.pem"));
    let minimal = fs::read_to_string("tests/config/valid/minimal.toml").unwrap();
    let text = format!("{minimal}\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let parse = || Config::parse(&text, Path::new("relay.toml"));
    assert!(matches!(parse().unwrap().tls, TlsSource::Files { .. }));

    let other = tempfile::tempdir().unwrap();
    ServerIdentity::load_or_generate(other.path(), &[]).unwrap();
    fs::copy(other.path().join("tls-key.pem"), &key).unwrap();
    let foreign = parse().unwrap_err().to_string();
    assert!(foreign.contains("1 mistake") && foreign.contains("do not make a usable pair"), "{foreign}");

    fs::remove_file(&key).unwrap();
    fs::remove_file(&certificate).unwrap();
    let missing = parse().unwrap_err().to_string();
    assert!(missing.contains("line 7: tls.certificate") && missing.contains("line 8: tls.key"), "{missing}");
}

#[test]
fn a_missing_file_is_an_error_and_not_the_defaults() {
    let error = Config::load(Path::new("tests/config/none.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert!(error.to_string().contains("tests/config/none.toml"));
}

#[test]
fn the_example_is_valid_and_states_the_defaults() {
    let path = Path::new("../deploy/relay.example.toml");
    let example = Config::load(path).unwrap();
    let text = fs::read_to_string(path).unwrap();
    // Every optional setting is shown commented out with its default.
    let uncommented: String =
        text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    assert_ne!(uncommented, text);
    assert_eq!(Config::parse(&uncommented, path).unwrap(), example);
}

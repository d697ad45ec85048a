//! Every fixture of the configuration, and the example in deploy/.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

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
    assert!(matches!(config.tls, TlsSource::Files { .. }));
    assert!(config.relay_id.is_some());
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

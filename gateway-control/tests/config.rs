//! The configuration against its fixtures.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use gateway_control::config::Config;

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind);
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    assert!(!files.is_empty(), "no fixtures of kind {kind}");
    files
}

#[test]
fn valid_files_are_accepted() {
    for path in fixtures("valid") {
        Config::load(&path).unwrap();
    }
}

#[test]
fn every_mistake_of_an_invalid_file_is_reported() {
    for path in fixtures("invalid") {
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        for line in expected.lines() {
            assert!(error.contains(line), "{}: '{line}' is missing in\n{error}", path.display());
        }
    }
}

#[test]
fn the_example_is_accepted_and_shows_the_defaults() {
    let example =
        Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/control.example.toml"))).unwrap();
    let minimal = Config::parse("listen = '127.0.0.1:0'\ndata_dir = 'x'").unwrap();
    assert_eq!(example.relay_token_secs, minimal.relay_token_secs);
    assert_eq!(example.registration, minimal.registration);
    assert_eq!(example.limits.max_connections, minimal.limits.max_connections);
    assert_eq!(example.limits.requests_per_second, minimal.limits.requests_per_second);
    assert_eq!(example.limits.logins_per_minute, minimal.limits.logins_per_minute);
}

#[test]
fn a_missing_file_is_an_error() {
    assert!(Config::load(Path::new("/nonexistent/control.toml")).unwrap_err().to_string().contains("control.toml"));
}

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
fn an_invalid_file_is_refused_with_all_its_mistakes_and_no_others() {
    for path in fixtures("invalid") {
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let expected: String = expected.lines().map(|line| format!("\n  - {line}")).collect();
        let error = Config::load(&path).unwrap_err().to_string();
        assert_eq!(error, format!("the configuration {} is not usable:{expected}", path.display()));
    }
}

#[test]
fn a_password_that_does_not_belong_there_is_not_repeated() {
    let text = "listen = '127.0.0.1:0'\ndata_dir = 'x'\n[storage]\nurl = 'postgres://control:sesame@db.example/x'";
    let mistakes = Config::parse(text).unwrap_err();
    let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("storage.password_file"), "{told:?}");
    assert!(!told[0].contains("sesame"), "{told:?}");
}

#[test]
fn a_parameter_of_the_database_that_is_wrong_is_named_with_the_value_found_and_no_secret() {
    let told = |parameter: &str| {
        let text = format!(
            "listen = '127.0.0.1:0'\ndata_dir = 'x'\n[storage]\nurl = 'postgres:///x?host=/run/postgresql&{parameter}'"
        );
        let mistakes = Config::parse(&text).unwrap_err();
        mistakes.iter().map(ToString::to_string).collect::<String>()
    };
    let mode = told("sslmode=maybe");
    assert!(mode.contains("line 4: storage.url = ") && mode.contains("sslmode=maybe"), "{mode}");
    assert!(mode.contains("accepted: sslmode as one of disable"), "{mode}");
    let password = told("password=sesame");
    assert!(password.contains("'password' is none of them") && !password.contains("sesame"), "{password}");
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

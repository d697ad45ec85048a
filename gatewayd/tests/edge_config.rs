//! The configuration file: every fixture that must be accepted is, and every other one is refused with the text beside it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use gateway_net::{log::LogFormat, secret_file};
use gatewayd::config::{Config, ConfigError, DEFAULT_SOCKET, NetworkError, ProxyChoice};

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(kind);
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no {kind} fixtures");
    files
}

#[test]
fn every_valid_file_is_accepted() {
    for file in fixtures("valid") {
        Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_invalid_file_is_refused_with_all_its_mistakes() {
    for file in fixtures("invalid") {
        let name = Path::new("invalid").join(file.file_name().unwrap());
        let error = Config::parse(&name, &fs::read_to_string(&file).unwrap()).unwrap_err();
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
        assert_eq!(error.to_string(), expected.trim_end(), "{}", name.display());
    }
}

#[test]
fn the_example_is_accepted_and_says_what_the_defaults_are() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/gatewayd.example.toml");
    let text = fs::read_to_string(&example).unwrap();
    let defaults = Config::parse(&example, "state_dir = \"/var/lib/gatewayd\"").unwrap();
    assert_eq!(Config::parse(&example, &text).unwrap(), defaults);
    assert_eq!(defaults.socket, Path::new(DEFAULT_SOCKET), "where gateway-ctl and `gatewayd enroll` look");
    // With every comment sign of a setting taken away, it still says the defaults, apart from what is off by default.
    let uncommented: String =
        text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    let complete = Config::parse(&example, &uncommented).unwrap();
    assert!(complete.metrics_listen.is_some() && complete.engine.is_some());
    assert_eq!(Config { metrics_listen: None, engine: None, ..complete }, defaults);
}

#[test]
fn a_stream_waits_for_a_place_for_less_time_than_its_sender_waits_for_the_answer() {
    let listener = |hold| Config::parse(Path::new("f"), &format!("state_dir = \"/s\"\n[listener]\nhold = \"{hold}\""));
    assert_eq!(listener("4s").unwrap().listener.hold, Duration::from_secs(4));
    let refused = listener("4100ms").unwrap_err().to_string();
    assert!(refused.contains("from \"0s\" to \"4s\""), "{refused}");
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::parse(Path::new("f"), "state_dir = \"/s\"").unwrap();
    assert_eq!(config.socket, Path::new("/s/gatewayd.sock"));
    assert_eq!(config.sender.bind, IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(config.sender.hold, Duration::from_secs(3));
    assert_eq!(config.limits.streams, 4096);
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(config.tunnel.direct && !config.tunnel.allow_loopback);
    assert_eq!(config.network.proxy, ProxyChoice::Environment);
    let order: Vec<_> = config.tunnel.bind_order().map(|address| address.to_string()).collect();
    assert_eq!(order, ["[::]:0", "0.0.0.0:0"]);
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/gatewayd.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert!(error.to_string().contains("/nonexistent/gatewayd.toml"));
}

#[test]
fn a_proxy_with_a_password_comes_from_a_file_of_mode_0600_and_shows_it_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy");
    let text = format!("state_dir = \"/s\"\n[network]\nproxy_file = {file:?}\nno_proxy = \"clinic.example\"");
    let network = Config::parse(Path::new("f"), &text).unwrap().network;
    assert!(matches!(network.proxy(), Err(NetworkError::Read(_))));

    secret_file::write(&file, b"http://gateway:sesame@proxy.example:3128\n").unwrap();
    let proxy = network.proxy().unwrap().unwrap();
    assert_eq!(proxy.to_string(), "proxy.example:3128");
    assert!(proxy.has_credentials() && !format!("{proxy:?}").contains("sesame"));
    assert!(!proxy.covers_url(&"https://control.clinic.example".parse().unwrap()));
    assert!(proxy.covers_url(&"https://control.example".parse().unwrap()));

    secret_file::write_public(&file, b"http://gateway:sesame@proxy.example:3128").unwrap();
    assert!(matches!(network.proxy(), Err(NetworkError::Read(_))));
    secret_file::write(&file, b"gateway:sesame@proxy.example").unwrap();
    let error = network.proxy().unwrap_err();
    assert!(matches!(error, NetworkError::Format { .. }) && !format!("{error:?}").contains("sesame"), "{error:?}");
}

#[test]
fn no_proxy_at_all_is_a_choice() {
    let config = Config::parse(Path::new("f"), "state_dir = \"/s\"\n[network]\nproxy = \"none\"").unwrap();
    assert_eq!(config.network.proxy().unwrap(), None);
}

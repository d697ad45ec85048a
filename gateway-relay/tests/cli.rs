//! The program itself: what it prints, what it leaves, how it ends.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway-relay"));
    command.env_remove("RUST_LOG").env_remove("GATEWAY_RELAY_CONFIG");
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn configure(directory: &Path) -> String {
    let text = fs::read_to_string("tests/config/valid/minimal.toml").unwrap();
    let text = text.replace("/var/lib/gateway-relay", directory.join("data").to_str().unwrap());
    let path = directory.join("relay.toml");
    fs::write(&path, format!("metrics_listen = \"127.0.0.1:0\"\n{text}")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_relay_tells_where_it_is_and_ends_in_order_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let config = configure(directory.path());
    let mut relay = program().args(["--config", &config]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(relay.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["event"], "ready");
    for address in [&ready["listen"], &ready["stun"][0], &ready["stun"][1], &ready["metrics"]] {
        let address: std::net::SocketAddr = address.as_str().unwrap().parse().unwrap();
        assert_ne!(address.port(), 0, "the bound port is told, not the configured one");
    }
    let kept = fs::read_to_string(directory.path().join("data/ready.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), ready);

    kill(Pid::from_raw(relay.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));

    let id: Value = serde_json::from_slice(&run(&["--config", &config, "id"]).stdout).unwrap();
    assert_eq!((&id["relay_id"], &id["tls_pin"]), (&ready["relay_id"], &ready["tls_pin"]), "both are kept");
}

#[test]
fn check_reports_every_mistake_and_starts_nothing() {
    let output = run(&["check", "--config", "tests/config/invalid/many.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    for key in ["relay_id", "listen", "stun_listen", "metrics_listen", "data_dir", "limits.max_clients", "log.format"] {
        assert!(message.contains(key), "{key} is missing in: {message}");
    }
    let directory = tempfile::tempdir().unwrap();
    let config = configure(directory.path());
    assert_eq!(run(&["check", "--config", &config]).status.code(), Some(0));
    assert!(!directory.path().join("data").exists());
}

#[test]
fn wrong_usage_and_failure_have_their_own_exit_codes() {
    assert_eq!(run(&["--no-such-option"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    let directory = tempfile::tempdir().unwrap();
    let config = configure(directory.path());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(directory.path().join("data"), "a file in the way").unwrap();
    fs::write(&config, text).unwrap();
    let output = run(&["--config", &config]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot make the data directory"));
}

#[test]
fn completions_and_the_manual_are_printed() {
    assert!(!run(&["completions", "bash"]).stdout.is_empty());
    assert!(String::from_utf8(run(&["man"]).stdout).unwrap().contains(".TH"));
}

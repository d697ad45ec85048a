//! gatewayd as a process: exit codes, the lock of the state directory, damaged state.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use gateway_proto::api::local::Status;

struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        let text = format!("state_dir = {:?}\n[tunnel]\nlisten = \"127.0.0.1:0\"\n", site.state());
        fs::write(site.config(), text).unwrap();
        site
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("gatewayd.toml")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn start(&self) -> Daemon {
        let mut child =
            gatewayd().arg("run").arg("--config").arg(self.config()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line}");
        Daemon(child)
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn gatewayd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gatewayd"))
}

fn run(arguments: &[&str]) -> Output {
    gatewayd().args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn exit_codes_tell_a_wrong_command_line_a_wrong_configuration_and_a_failure_apart() {
    let site = Site::new();
    assert_eq!(run(&["check", "--config", site.config().to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["fly"]).status.code(), Some(64));
    assert_eq!(run(&[]).status.code(), Some(64));

    fs::write(site.config(), "limits = 1\nstate = 2\n").unwrap();
    for command in ["check", "run"] {
        let output = run(&[command, "--config", site.config().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("3 mistakes"), "{}", stderr(&output));
    }

    let output = run(&["enroll", "--socket", "/nonexistent/gatewayd.sock", "gwe1_abc"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is gatewayd running"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("gwe1_abc"));
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    assert!(String::from_utf8(run(&["completions", "bash"]).stdout).unwrap().contains("enroll"));
    assert!(String::from_utf8(run(&["man"]).stdout).unwrap().contains(".TH gatewayd"));
}

#[test]
fn a_second_daemon_on_the_state_directory_is_refused_and_the_first_is_not_disturbed() {
    let site = Site::new();
    let _first = site.start();
    let second = gatewayd().arg("run").arg("--config").arg(site.config()).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).contains("another gatewayd is running with the state directory"), "{}", stderr(&second));
    assert!(status(&site.state()).server.is_none());

    let socket = site.state().join("gatewayd.sock");
    let refused = run(&["enroll", "--socket", socket.to_str().unwrap(), "gwe1_cut"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("copy it again"), "{}", stderr(&refused));
}

#[test]
fn after_kill_9_the_daemon_starts_again_with_the_same_identity() {
    let site = Site::new();
    let first = site.start();
    let key = status(&site.state()).key;
    drop(first);
    let _second = site.start();
    assert_eq!(status(&site.state()).key, key);
}

#[test]
fn a_damaged_policy_is_shown_in_the_status_of_a_daemon_that_stays_up() {
    let site = Site::new();
    drop(site.start());
    let enrollment = r#"{"control":"https://127.0.0.1:1","pin":null,
        "policy_key":"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a","trusted_keys":[],
        "server_id":"srv","server_name":"Engine 1","organization_name":"Clinic","enrolled_at":1}"#;
    write_private(&site.state().join("enrollment.json"), enrollment);
    write_private(&site.state().join("policy.json"), "garbage");
    let _daemon = site.start();
    let status = status(&site.state());
    assert_eq!(status.policy.revision, 0);
    assert!(status.policy.problem.unwrap().contains("policy.json is damaged"));
}

fn write_private(path: &Path, content: &str) {
    gateway_net::secret_file::write(path, content.as_bytes()).unwrap();
}

fn status(state: &Path) -> Status {
    let client = gateway_net::http::unix_client(&state.join("gatewayd.sock")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { client.get("http://localhost/v1/status").send().await.unwrap().json().await.unwrap() })
}

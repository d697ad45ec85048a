use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use gateway_net::{http, tls::ServerTrust};
use serde_json::{Value, json};

use super::database::{is_postgres, storage_section};

const BINARY: &str = env!("CARGO_BIN_EXE_gateway-control");

pub(crate) struct Process {
    child: Child,
    pub(crate) ready: Value,
    client: reqwest::Client,
}

impl Process {
    pub(crate) fn start(directory: &Path) -> Self {
        let config = directory.join("control.toml");
        let (data, storage) = (directory.join("data"), storage_section(directory));
        let text = format!(
            "listen = '127.0.0.1:0'\ndata_dir = '{}'\n[limits]\nrequests_per_second = 1000000\n{storage}",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(BINARY)
            .args(["run", "--log", "error", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let pin = ready["tls_pin"].as_str().unwrap().parse().unwrap();
        let client = http::client(ServerTrust::Pin(pin), None).unwrap();
        Self { child, ready, client }
    }

    pub(crate) fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    /// Ends it without a word.
    pub(crate) fn kill(&self) {
        Command::new("kill").args(["-9", &self.child.id().to_string()]).status().unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.ready["url"].as_str().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_acknowledged_write_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Process::start(directory.path());
    let token = std::fs::read_to_string(first.ready["operator_token_file"].as_str().unwrap()).unwrap();
    let body = json!({"name": "Hospital", "owner_email": "o@x.example", "owner_name": "O",
        "owner_password": "correct horse battery", "registration_token": token.trim()});
    let answer = first.client().post(first.url("/api/v1/organizations")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    first.child.kill().unwrap();
    first.child.wait().unwrap();

    let second = Process::start(directory.path());
    assert_eq!(first.ready["tls_pin"], second.ready["tls_pin"], "the identity stays");
    assert_eq!(first.ready["policy_key"], second.ready["policy_key"]);
    let written: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("data/ready.json")).unwrap()).unwrap();
    assert_eq!(written, second.ready);
    let login = json!({"email": "o@x.example", "password": "correct horse battery"});
    let answer = second.client().post(second.url("/api/v1/sessions")).json(&login).send().await.unwrap();
    assert_eq!(answer.status(), 201);
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Process::start(directory.path());
    let output =
        Command::new(BINARY).args(["run", "--config"]).arg(directory.path().join("control.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another gateway-control"));
}

/// A file of SQLite serves one process: the other one would go on vouching for what the first has revoked.
#[test]
fn a_second_process_on_the_same_database_file_is_refused_whatever_its_data_directory_is() {
    if is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let first = Process::start(directory.path());
    let database = directory.path().join("data/control.sqlite");
    let link = directory.path().join("link.sqlite");
    std::os::unix::fs::symlink(&database, &link).unwrap();
    let config = directory.path().join("second.toml");
    let act = |act: &str, file: &Path| {
        let data = directory.path().join("second");
        let storage = format!("[storage]\nurl = 'sqlite:{}'\n", file.display());
        std::fs::write(&config, format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n{storage}", data.display())).unwrap();
        let mut command = Command::new(BINARY);
        command.arg(act).arg("--config").arg(&config);
        if act == "restore" {
            command.arg(directory.path().join("backup"));
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(
        directory.path().join("backup"),
        b"not looked into as long as another process works on the database",
    )
    .unwrap();
    for (name, file) in [("run", &database), ("run", &link), ("restore", &database)] {
        let (code, said) = act(name, file);
        assert_eq!(code, Some(1), "{name} {}", file.display());
        assert!(said.contains("another gateway-control works on the database file"), "{said}");
    }
    // It goes with the process, however that ends.
    first.kill();
    drop(first);
    let (code, said) = act("restore", &database);
    assert!(code == Some(1) && said.contains("nothing is overwritten"), "{said}");
}

#[test]
fn sigterm_ends_the_process_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    Command::new("kill").arg(process.child.id().to_string()).status().unwrap();
    assert!(process.child.wait().unwrap().success());
    assert!(!directory.path().join("data/control.sqlite-wal").exists(), "the database was closed");
}

#[test]
fn the_command_line_says_what_it_means() {
    let run = |args: &[&str]| Command::new(BINARY).args(args).output().unwrap();
    assert_eq!(run(&["nonsense"]).status.code(), Some(64));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    let output = run(&["check", "--config", "/nonexistent.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent.toml"));
    let output = run(&["openapi"]);
    serde_json::from_slice::<Value>(&output.stdout).unwrap();
    assert!(run(&["man"]).stdout.starts_with(b".ie"));
    let mut text = String::new();
    run(&["completions", "bash"]).stdout.as_slice().read_to_string(&mut text).unwrap();
    assert!(text.contains("_gateway"));
}

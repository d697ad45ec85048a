//! A data directory that lost something, or that is not as it should be.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use super::{database::storage_section, harness::Control};

/// With which words the control plane does not start.
fn refused(directory: &Path) -> String {
    let config = directory.join("refused.toml");
    let (data, storage) = (directory.join("data"), storage_section(directory));
    fs::write(&config, format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n{storage}", data.display())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway-control"));
    let output = command.args(["run", "--log", "error", "--config"]).arg(config).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn keys_that_a_database_has_been_used_with_have_to_be_found_and_are_never_made_anew() {
    let control = Control::start().await;
    let pair = control.pair().await;
    drop(pair);
    let ready = control.ready.clone();
    let directory = control.stop().await;
    let (data, away) = (directory.path().join("data"), directory.path().join("away"));
    for key in ["policy-key", "storage-key", "tls-key.pem"] {
        fs::rename(data.join(key), &away).unwrap();
        let said = refused(directory.path());
        assert!(said.contains(key) && said.contains("bring them back"), "{said}");
        assert!(!data.join(key).exists(), "a wrong one in the place of {key}");
        fs::rename(&away, data.join(key)).unwrap();
    }
    let control = Control::start_in(directory, "").await;
    assert_eq!((&control.ready.policy_key, &control.ready.tls_pin), (&ready.policy_key, &ready.tls_pin));
}

#[tokio::test]
async fn a_tls_key_that_no_gateway_knows_is_made_anew() {
    let control = Control::start().await;
    let before = control.ready.tls_pin.clone();
    let directory = control.stop().await;
    fs::remove_file(directory.path().join("data/tls-key.pem")).unwrap();
    let control = Control::start_in(directory, "").await;
    assert_ne!(control.ready.tls_pin, before);
}

#[tokio::test]
async fn a_token_that_is_none_and_a_directory_that_others_may_change_are_refused_with_what_to_do() {
    let control = Control::start().await;
    let directory = control.stop().await;
    let (data, token) = (directory.path().join("data"), directory.path().join("data/operator-token"));
    let kept = fs::read(&token).unwrap();
    fs::write(&token, "short").unwrap();
    let said = refused(directory.path());
    assert!(said.contains("operator-token") && said.contains("write another one"), "{said}");
    fs::write(&token, kept).unwrap();

    fs::set_permissions(&data, PermissionsExt::from_mode(0o777)).unwrap();
    let said = refused(directory.path());
    assert!(said.contains("chmod 700"), "{said}");
    fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    drop(Control::start_in(directory, "").await);
}

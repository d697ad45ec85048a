use std::{fs, os::unix::fs::PermissionsExt};

use gateway_proto::identity::Context;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_keys_are_made_once_and_only_their_owner_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let first = StateDir::open(&path).unwrap();
    let keys = (first.gateway_key().public(), first.noise_key().public());
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(KEY_FILE)), 0o600);
    drop(first);
    let second = StateDir::open(&path).unwrap();
    assert_eq!((second.gateway_key().public(), second.noise_key().public()), keys);
}

#[test]
fn a_second_daemon_on_the_directory_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let _first = StateDir::open(directory.path()).unwrap();
    let error = StateDir::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }));
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
}

#[test]
fn a_damaged_or_readable_key_file_is_an_error_and_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    drop(StateDir::open(directory.path()).unwrap());
    let path = directory.path().join(KEY_FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(StateDir::open(directory.path()), Err(StoreError::File(SecretFileError::Exposed { .. }))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "{}").unwrap();
    assert!(matches!(StateDir::open(directory.path()), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"{}");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(StateDir::open(directory.path()), Err(StoreError::Exposed { mode: 0o777, .. })));
}

#[test]
fn what_was_saved_is_loaded_and_a_crash_leaves_no_leftovers() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(directory.path()).unwrap();
    assert_eq!(state.load_policy().unwrap(), None);
    let envelope = Envelope::sign(state.gateway_key(), Context::Policy, &"text").unwrap();
    state.save_policy(&envelope).unwrap();
    assert_eq!(state.load_guesses().unwrap(), None);
    let mut guesses = GuessLedger::default();
    guesses.note(state.gateway_key().public(), 1_800_000_000);
    state.save_guesses(&guesses).unwrap();
    assert_eq!(state.load_guesses().unwrap(), Some(guesses));
    let contact = Contact { confirmed_at: 1, clock_floor: 2, removed: false };
    state.save_contact(&contact).unwrap();
    let ports = BTreeMap::from([(ConnectionId::new(1, [0; 10]), 6661)]);
    state.save_ports(&ports).unwrap();
    state.save_relay_token("token").unwrap();
    drop(state);
    fs::write(directory.path().join(".policy.json.0123456789abcdef"), "half a pol").unwrap();
    fs::write(directory.path().join(".notes"), "not ours").unwrap();

    let state = StateDir::open(directory.path()).unwrap();
    assert_eq!(state.load_policy().unwrap(), Some(envelope));
    assert_eq!(state.load_contact().unwrap(), Some(contact));
    assert_eq!(state.load_ports().unwrap(), (PortOwners::new(&ports), Some(ports)));
    assert_eq!(state.load_relay_token().unwrap().as_deref(), Some("token"));
    assert!(!directory.path().join(".policy.json.0123456789abcdef").exists());
    assert!(directory.path().join(".notes").exists());
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(directory.path()).unwrap();
    let file = fs::read_to_string(directory.path().join(KEY_FILE)).unwrap();
    let seed = file.split('"').nth(3).unwrap();
    assert_eq!(seed.len(), 64);
    assert!(!format!("{state:?}").contains(seed));
}

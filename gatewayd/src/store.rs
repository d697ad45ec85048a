//! The state directory: everything that must survive a restart, and nothing else.
//!
//! | file | content |
//! |---|---|
//! | `gatewayd.lock` | locked as long as a daemon lives; a second daemon refuses to start |
//! | `keys.json` | the two private keys, made on the first start, never replaced |
//! | `enrollment.json` | the control plane, what we trust it by, and which server we are |
//! | `policy.json` | the newest signed policy accepted |
//! | `policy.json.rejected`, `policy.json.retired` | a refused policy file kept for a look; the policy before an enrolment |
//! | `relay-token` | the newest relay token |
//! | `contact.json` | when the control plane last confirmed the policy, and the clock floor |
//! | `ports.json` | which local port belongs to which sender |
//! | `schedules.json` | how long each connection is usually silent, learned from its traffic |
//! | `offers.json` | up to which generation our offers of addresses to partners were used up |
//! | `guesses.json` | for which partners ports were guessed in the last 24 hours, and when |
//!
//! Every file has mode 0600 and is replaced atomically (written, synced, renamed, directory synced), so `kill -9` or a
//! power cut leaves the old or the new content. All calls block for the time of a disk write.

mod files;

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub(crate) use files::trust;
pub use files::{Contact, Enrollment};
use files::{KeyFile, Offers, Ports};
use gateway_net::secret_file::{self, SecretFileError};
use gateway_proto::{
    id::ConnectionId,
    identity::{GatewayKey, NoiseKey},
    observe::Schedule,
    path::GuessLedger,
    policy::PortOwners,
    signed::Envelope,
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

const LOCK_FILE: &str = "gatewayd.lock";
const KEY_FILE: &str = "keys.json";
const ENROLLMENT_FILE: &str = "enrollment.json";
const POLICY_FILE: &str = "policy.json";
const REJECTED_POLICY_FILE: &str = "policy.json.rejected";
const RETIRED_POLICY_FILE: &str = "policy.json.retired";
const RELAY_TOKEN_FILE: &str = "relay-token";
const CONTACT_FILE: &str = "contact.json";
const PORTS_FILE: &str = "ports.json";
const SCHEDULES_FILE: &str = "schedules.json";
const OFFERS_FILE: &str = "offers.json";
const GUESSES_FILE: &str = "guesses.json";
const FILES: [&str; 9] = [
    KEY_FILE,
    ENROLLMENT_FILE,
    POLICY_FILE,
    RELAY_TOKEN_FILE,
    CONTACT_FILE,
    PORTS_FILE,
    SCHEDULES_FILE,
    OFFERS_FILE,
    GUESSES_FILE,
];

/// The state directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    gateway_key: GatewayKey,
    noise_key: NoiseKey,
    _lock: File,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or looked at.
    #[error("cannot use the state directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may replace the files in it.
    #[error("others may change files in the state directory {} (mode {mode:o}): run `chmod 700 {}`", path.display(), path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another daemon runs on it.
    #[error(
        "another gatewayd is running with the state directory {}: stop it first, or give this one a state_dir of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A file is there but not what it should be.
    #[error("{} is damaged: {advice}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file could not be renamed.
    #[error("cannot rename {} to {to}", path.display())]
    Rename {
        /// The file.
        path: PathBuf,
        /// The new name.
        to: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDir {
    /// Makes the directory if it is missing, locks it, and reads the keys or makes them on the first start.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let error = |source| StoreError::Directory { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
        let mode = std::fs::metadata(path).map_err(error)?.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(StoreError::Exposed { path: path.to_owned(), mode });
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        remove_leftovers(path);
        let keys = load_or_make_keys(&path.join(KEY_FILE))?;
        let (gateway_key, noise_key) = keys.keys();
        Ok(Self { path: path.to_owned(), gateway_key, noise_key, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Our identity.
    pub fn gateway_key(&self) -> &GatewayKey {
        &self.gateway_key
    }

    /// Our Noise key.
    pub fn noise_key(&self) -> &NoiseKey {
        &self.noise_key
    }

    /// The enrolment; `None` before the first one.
    pub fn load_enrollment(&self) -> Result<Option<Enrollment>, StoreError> {
        self.load(ENROLLMENT_FILE, "restore it from a backup, or remove it and enrol this gateway again")
    }

    /// Replaces the enrolment.
    pub fn save_enrollment(&self, enrollment: &Enrollment) -> Result<(), StoreError> {
        self.save(ENROLLMENT_FILE, enrollment)
    }

    /// The newest policy saved, not verified yet.
    pub fn load_policy(&self) -> Result<Option<Envelope>, StoreError> {
        self.load(POLICY_FILE, "the control plane sends the policy again once it can be reached")
    }

    /// Replaces the policy.
    pub fn save_policy(&self, envelope: &Envelope) -> Result<(), StoreError> {
        self.save(POLICY_FILE, envelope)
    }

    /// Sets a refused policy file aside, before a good one takes its place.
    pub fn reject_policy(&self) -> Result<(), StoreError> {
        self.rename(POLICY_FILE, REJECTED_POLICY_FILE)
    }

    /// Sets the policy aside, before another enrolment starts a new row of revisions.
    pub fn retire_policy(&self) -> Result<(), StoreError> {
        self.rename(POLICY_FILE, RETIRED_POLICY_FILE)
    }

    /// The newest relay token.
    pub fn load_relay_token(&self) -> Result<Option<String>, StoreError> {
        let content = optional(secret_file::read(&self.path.join(RELAY_TOKEN_FILE)))?;
        Ok(content.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Replaces the relay token.
    pub fn save_relay_token(&self, token: &str) -> Result<(), StoreError> {
        Ok(secret_file::write(&self.path.join(RELAY_TOKEN_FILE), token.as_bytes())?)
    }

    /// The last contact with the control plane.
    pub fn load_contact(&self) -> Result<Option<Contact>, StoreError> {
        self.load(CONTACT_FILE, "it is made again at the next contact with the control plane")
    }

    /// Replaces the last contact.
    pub fn save_contact(&self, contact: &Contact) -> Result<(), StoreError> {
        self.save(CONTACT_FILE, contact)
    }

    /// The local ports of senders: those chosen where the policy names none, and those that were open. None: they are
    /// kept in the form of an earlier build.
    pub fn load_ports(&self) -> Result<(PortOwners, Option<BTreeMap<ConnectionId, u16>>), StoreError> {
        let kept: Option<Ports> =
            self.load(PORTS_FILE, "remove it; new local ports are chosen, and the engine's senders must be told")?;
        Ok(match kept {
            None => (PortOwners::default(), Some(BTreeMap::new())),
            Some(Ports { ports, with_asked: false }) => (PortOwners::of_picked(&ports), None),
            Some(Ports { ports, with_asked: true }) => (PortOwners::new(&ports), Some(ports)),
        })
    }

    /// Replaces them; leave out connections that ended.
    pub fn save_ports(&self, ports: &BTreeMap<ConnectionId, u16>) -> Result<(), StoreError> {
        self.save(PORTS_FILE, &Ports { ports: ports.clone(), with_asked: true })
    }

    /// What was learned of each end's silence; the key is opaque here.
    pub fn load_schedules(&self) -> Result<BTreeMap<String, Schedule>, StoreError> {
        let schedules: Option<BTreeMap<String, Schedule>> =
            self.load(SCHEDULES_FILE, "remove it; it is learned anew")?;
        Ok(schedules.unwrap_or_default())
    }

    /// Replaces what was learned.
    pub fn save_schedules(&self, schedules: &BTreeMap<String, Schedule>) -> Result<(), StoreError> {
        self.save(SCHEDULES_FILE, schedules)
    }

    /// Up to which generation our offers may have been used up; `None` before the first one.
    pub fn load_generation(&self) -> Result<Option<u64>, StoreError> {
        let offers: Option<Offers> = self.load(OFFERS_FILE, "remove it; it is made again with the next offer")?;
        Ok(offers.map(|offers| offers.generation))
    }

    /// Replaces it.
    pub fn save_generation(&self, generation: u64) -> Result<(), StoreError> {
        self.save(OFFERS_FILE, &Offers { generation })
    }

    /// The runs of port guessing of the last 24 hours; `None` before the first one.
    pub fn load_guesses(&self) -> Result<Option<GuessLedger>, StoreError> {
        self.load(GUESSES_FILE, "remove it; two runs of port guessing for each partner are free then")
    }

    /// Replaces them.
    pub fn save_guesses(&self, guesses: &GuessLedger) -> Result<(), StoreError> {
        self.save(GUESSES_FILE, guesses)
    }

    fn load<T: DeserializeOwned>(&self, name: &str, advice: &'static str) -> Result<Option<T>, StoreError> {
        read_json(&self.path.join(name), advice)
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        write_json(&self.path.join(name), value)
    }

    fn rename(&self, from: &'static str, to: &'static str) -> Result<(), StoreError> {
        let path = self.path.join(from);
        let result = match std::fs::rename(&path, self.path.join(to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.and_then(|()| File::open(&self.path)?.sync_all()),
        };
        result.map_err(|source| StoreError::Rename { path, to, source })
    }
}

/// Temporary files of writes that a crash cut off; under the lock nobody is writing. Best effort: they do no harm.
fn remove_leftovers(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix('.')) else { continue };
        if FILES.iter().any(|file| name.strip_prefix(file).is_some_and(|rest| rest.len() == 17)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A damaged or missing key file is never replaced: the identity it held may be enrolled.
fn load_or_make_keys(path: &Path) -> Result<KeyFile, StoreError> {
    let advice = "restore it from a backup; without it this gateway has no identity and must be enrolled anew in an \
                  empty state directory";
    if let Some(keys) = read_json(path, advice)? {
        return Ok(keys);
    }
    let keys = KeyFile::from_random(gateway_net::random(), gateway_net::random());
    write_json(path, &keys)?;
    Ok(keys)
}

fn read_json<T: DeserializeOwned>(path: &Path, advice: &'static str) -> Result<Option<T>, StoreError> {
    let Some(bytes) = optional(secret_file::read(path))? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| StoreError::Damaged { path: path.to_owned(), advice, source })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value).map(Zeroizing::new);
    let bytes = bytes.map_err(|source| SecretFileError::Write { path: path.to_owned(), source: source.into() })?;
    Ok(secret_file::write(path, &bytes)?)
}

fn optional<T>(result: Result<T, SecretFileError>) -> Result<Option<T>, SecretFileError> {
    match result {
        Err(SecretFileError::Missing { .. }) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;

//! The data directory: made on first start, owner-only, with the database, the policy key, the TLS identity and the
//! operator token. Nothing secret is ever printed: the operator token is told by its path.

mod locks;

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use gateway_net::{
    secret_file::{self, SecretFileError},
    tls::{IdentityError, ServerIdentity},
};
use gateway_proto::{api::platform::Hidden, identity::GatewayKey};
use zeroize::Zeroizing;

pub(crate) use self::locks::{Locks, lock};
use crate::{config::Config, storage::Location, vault::Vault};

/// File of the database.
const DATABASE_FILE: &str = "control.sqlite";
/// File of the policy signing key: 64 hex digits.
const POLICY_KEY_FILE: &str = "policy-key";
/// File of the operator token.
const OPERATOR_TOKEN_FILE: &str = "operator-token";
/// File of the registration token.
const REGISTRATION_TOKEN_FILE: &str = "registration-token";
/// File of the key that seals secrets in the database: 64 hex digits.
const STORAGE_KEY_FILE: &str = "storage-key";
/// File of what was printed when the control plane became ready.
const READY_FILE: &str = "ready.json";

const TLS_KEY_FILE: &str = "tls-key.pem";
const TLS_CERTIFICATE_FILE: &str = "tls-certificate.pem";

/// A file that a backup keeps beside the database.
#[derive(Debug)]
pub(crate) struct KeptFile {
    /// Its name in the backup.
    pub(crate) name: &'static str,
    /// Where the configuration has it.
    pub(crate) path: PathBuf,
    /// A backup without it could not be started.
    pub(crate) needed: bool,
}

impl KeptFile {
    pub(crate) fn is_tls(&self) -> bool {
        [TLS_KEY_FILE, TLS_CERTIFICATE_FILE].contains(&self.name)
    }
}

/// What a backup keeps, and where it is.
pub(crate) fn kept_files(config: &Config) -> Vec<KeptFile> {
    let own = |name: &'static str, needed| KeptFile { name, path: config.data_dir.join(name), needed };
    let mut files = vec![
        own(POLICY_KEY_FILE, true),
        own(STORAGE_KEY_FILE, true),
        own(OPERATOR_TOKEN_FILE, true),
        own(REGISTRATION_TOKEN_FILE, false),
        own(TLS_KEY_FILE, true),
        own(TLS_CERTIFICATE_FILE, true),
    ];
    for file in &mut files {
        let elsewhere = match (file.name, &config.tls) {
            (POLICY_KEY_FILE, _) => config.policy_key_file.as_ref(),
            (TLS_KEY_FILE, Some(tls)) => Some(&tls.key),
            (TLS_CERTIFICATE_FILE, Some(tls)) => Some(&tls.certificate),
            _ => None,
        };
        if let Some(path) = elsewhere {
            file.path.clone_from(path);
        }
    }
    files
}

/// What the data directory holds.
#[derive(Debug)]
pub struct DataDir {
    /// The policy key.
    pub signer: GatewayKey,
    /// Seals secrets in the database.
    pub vault: Arc<Vault>,
    /// The operator token.
    pub operator_token: Hidden,
    /// Where the operator token is.
    pub operator_token_file: PathBuf,
    /// The registration token.
    pub registration_token: Hidden,
    /// Where the registration token is.
    pub registration_token_file: PathBuf,
    /// Where to write what was printed when ready.
    pub ready_file: PathBuf,
    /// The TLS identity.
    pub identity: ServerIdentity,
    /// The pin for gateways; none: the web PKI vouches for the identity.
    pub tls_pin: Option<String>,
    _locks: Locks,
}

/// The data directory, locked, and where the database is. No key is made yet: one that the database has been in use with must be
/// found, not made.
#[derive(Debug)]
pub struct Opened {
    /// The database, with the password it needs.
    pub database: Location,
    locks: Locks,
}

/// What the database knows already.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Nobody has used it yet.
    pub is_new: bool,
    /// Gateways are enrolled, which may pin the TLS key.
    pub has_gateways: bool,
}

/// Why the data directory is not usable.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It cannot be made or opened.
    #[error("cannot use the data directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of the database cannot be made or opened.
    #[error("cannot use the database file {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("another gateway-control runs on the data directory {}", .0.display())]
    Locked(PathBuf),
    /// Another process has the database.
    #[error(
        "another gateway-control works on the database file {}: a file is for one process, which would not hear of what the \
         other one revokes; for several replicas use PostgreSQL (docs/control-plane.md)",
        .0.display()
    )]
    DatabaseLocked(PathBuf),
    /// A secret file.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Others may change what is in it.
    #[error("others may change files in the data directory {} (mode {mode:o}): run `chmod 700 {}`", path.display(), path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Keys that belong to the database are gone.
    #[error(
        "the database has been in use, and these files that belong to it are not there: {}; bring them back from a backup or from \
         another replica: new ones would lock every gateway out (docs/control-plane.md, Lost keys)",
        listed(.0)
    )]
    Lost(Vec<PathBuf>),
    /// A secret file holds something else.
    #[error("{} does not hold {what}; {remedy}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The TLS identity.
    #[error("the TLS identity is not usable")]
    Identity(#[from] IdentityError),
}

fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Opens the data directory.
pub fn open(config: &Config) -> Result<Opened, BootstrapError> {
    let locks = lock(config)?;
    Ok(Opened { database: database(config)?, locks })
}

impl Opened {
    /// Reads the keys and tokens, and makes those that are missing and that the database does not know.
    pub fn keys(self, config: &Config, known: Known) -> Result<DataDir, BootstrapError> {
        let lost = lost(config, known);
        if !lost.is_empty() {
            return Err(BootstrapError::Lost(lost));
        }
        let directory = &config.data_dir;
        let operator_token_file = directory.join(OPERATOR_TOKEN_FILE);
        let registration_token_file = directory.join(REGISTRATION_TOKEN_FILE);
        let (identity, tls_pin) = match &config.tls {
            Some(files) => {
                let identity = ServerIdentity::load(&files.certificate, &files.key)?;
                let pin = files.pin.then(|| identity.pin().to_string());
                (identity, pin)
            }
            None => {
                let identity = ServerIdentity::load_or_generate(directory, &names(config))?;
                let pin = identity.pin().to_string();
                (identity, Some(pin))
            }
        };
        let registration = "the registration token (at least 32 characters)";
        Ok(DataDir {
            signer: signer(config)?,
            vault: vault(&directory.join(STORAGE_KEY_FILE))?,
            operator_token: token(&operator_token_file, "gwo_", "the operator token (at least 32 characters)")?,
            operator_token_file,
            registration_token: token(&registration_token_file, "gwr_", registration)?,
            registration_token_file,
            ready_file: directory.join(READY_FILE),
            identity,
            tls_pin,
            _locks: self.locks,
        })
    }
}

/// Files of keys that the database has been in use with, and that are not there. Those that the configuration names elsewhere are
/// never made.
fn lost(config: &Config, known: Known) -> Vec<PathBuf> {
    let needed = [
        (POLICY_KEY_FILE, !known.is_new && config.policy_key_file.is_none()),
        (STORAGE_KEY_FILE, !known.is_new),
        (TLS_KEY_FILE, known.has_gateways && config.tls.is_none()),
    ];
    let needed = needed.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| config.data_dir.join(name));
    needed.filter(|path| !path.exists()).collect()
}

/// Where the database is, without the password it may need.
pub(crate) fn location(config: &Config) -> Location {
    let own = || Location::Sqlite(config.data_dir.join(DATABASE_FILE));
    config.storage.location.clone().unwrap_or_else(own)
}

fn database(config: &Config) -> Result<Location, BootstrapError> {
    let mut location = location(config);
    if let Some(file) = &config.storage.password_file {
        let text = secret_file::read(file)?;
        let what = "the password of the database";
        let content =
            || BootstrapError::Content { path: file.clone(), what, remedy: "write it there as text, in UTF-8" };
        let password = std::str::from_utf8(&text).map_err(|_| content())?.trim_end_matches(['\r', '\n']);
        location = location.with_password(password);
    }
    if let Some(path) = location.file() {
        make_private(path).map_err(|source| BootstrapError::Database { path: path.to_owned(), source })?;
    }
    Ok(location)
}

/// The database holds secrets: only its owner may read it, from the first byte on.
fn make_private(path: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().create(true).truncate(false).append(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

/// Names in a self-signed certificate: clients pin its key, so they are for people.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let url = config.public_url.as_deref().and_then(|url| url::Url::parse(url).ok());
    if let Some(host) = url.as_ref().and_then(|url| url.host_str()) {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !names.contains(&host) {
            names.push(host);
        }
    }
    names
}

fn signer(config: &Config) -> Result<GatewayKey, BootstrapError> {
    match &config.policy_key_file {
        Some(path) => policy_key(path, false),
        None => policy_key(&config.data_dir.join(POLICY_KEY_FILE), true),
    }
}

fn policy_key(path: &Path, make: bool) -> Result<GatewayKey, BootstrapError> {
    Ok(GatewayKey::from_seed(&*key_bytes(path, make, "the policy key (64 hex digits)")?))
}

fn vault(path: &Path) -> Result<Arc<Vault>, BootstrapError> {
    Ok(Arc::new(Vault::new(*key_bytes(path, true, "the storage key (64 hex digits)")?)))
}

/// The 32 bytes in a file, made when there is none and `make` says so.
fn key_bytes(path: &Path, make: bool, what: &'static str) -> Result<Zeroizing<[u8; 32]>, BootstrapError> {
    let text = match secret_file::read(path) {
        Ok(text) => text,
        Err(SecretFileError::Missing { .. }) if make => {
            let seed = Zeroizing::new(gateway_net::random::<32>());
            let text = Zeroizing::new(HEXLOWER.encode(seed.as_slice()).into_bytes());
            secret_file::write(path, &text)?;
            text
        }
        Err(error) => return Err(error.into()),
    };
    let remedy = "restore it from a backup (a new one would lock every gateway out)";
    let content = || BootstrapError::Content { path: path.to_owned(), what, remedy };
    let bytes = Zeroizing::new(HEXLOWER.decode(text.trim_ascii()).map_err(|_| content())?);
    Ok(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| content())?))
}

/// The token in a file, made when there is none.
fn token(path: &Path, prefix: &str, what: &'static str) -> Result<Hidden, BootstrapError> {
    let text = match secret_file::read(path) {
        Ok(text) => text,
        Err(SecretFileError::Missing { .. }) => {
            let token = format!("{prefix}{}\n", HEXLOWER.encode(&gateway_net::random::<32>()));
            secret_file::write(path, token.as_bytes())?;
            Zeroizing::new(token.into_bytes())
        }
        Err(error) => return Err(error.into()),
    };
    let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
    if token.len() < 32 {
        let remedy = "write another one into it, or remove the file: then the next start makes one";
        return Err(BootstrapError::Content { path: path.to_owned(), what, remedy });
    }
    Ok(Hidden(token.to_owned()))
}

//! `gateway-control backup` and `restore`: the database and the keys that belong to it, in one file.
//!
//! A restored control plane goes on where gateways are by now: revisions are times, so those it gives out are higher
//! than what it has forgotten, and a gateway that knows more says so with its hello.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gateway_net::secret_file::{self, SecretFileError};
use zeroize::Zeroizing;

use crate::{
    bootstrap::{self, BootstrapError, KeptFile, kept_files},
    config::Config,
    storage::{BackupError, Location, back_up, unpack},
};

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum BackupRunError {
    /// The data directory.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A file of the data directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key that belongs to the database is not where the configuration says.
    #[error(
        "{} is not there: a backup without the {name} could not be used; is this the configuration that the control plane \
         runs with?",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it is.
        name: &'static str,
    },
    /// A file of the data directory cannot be written.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The copy.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// PostgreSQL has programs of its own for it.
    #[error(
        "the database is {0}: back it up with `pg_dump --format=custom --file=FILE DATABASE`, bring it back with \
         `pg_restore --dbname=DATABASE FILE`, and keep policy-key, storage-key, operator-token, registration-token and the TLS files of the data \
         directory beside it"
    )]
    Postgres(Location),
    /// A restored key would take the place of another one.
    #[error("{} holds something else than the backup; restore into an empty data directory", .0.display())]
    OtherKey(PathBuf),
}

/// Writes a backup, which the control plane may be running meanwhile, and answers what is in it beside the database.
pub async fn run(config: &Config, to: &Path) -> Result<Vec<String>, BackupRunError> {
    let location = bootstrap::location(config);
    let Some(database) = location.file() else { return Err(BackupRunError::Postgres(location)) };
    let mut files = Vec::new();
    for KeptFile { name, path, needed } in kept_files(config) {
        match read(&path)? {
            Some(content) => files.push((name.to_owned(), content)),
            None if needed => return Err(BackupRunError::Missing { path, name }),
            None => {}
        }
    }
    back_up(database, &files, to).await?;
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

/// Brings a backup back into an empty place; the control plane must not run. The keys first: a database that is there
/// without them could not be started, and would be in the way of the next try.
pub async fn restore(config: &Config, from: &Path) -> Result<(), BackupRunError> {
    let location = bootstrap::location(config);
    let Some(database) = location.file() else { return Err(BackupRunError::Postgres(location)) };
    let _locks = bootstrap::lock(config)?;
    let unpacked = unpack(from, database).await?;
    let mut missing = Vec::new();
    for (name, content) in &unpacked.files {
        // A file of a later version is not ours to place.
        let Some(kept) = kept_files(config).into_iter().find(|kept| kept.name == name) else { continue };
        match read(&kept.path)? {
            Some(present) if present == *content => {}
            // Certificates are renewed: the one that the operator keeps is newer than any backup.
            Some(_) if config.tls.is_some() && kept.is_tls() => {}
            Some(_) => return Err(BackupRunError::OtherKey(kept.path)),
            None => missing.push((kept.path, content)),
        }
    }
    for (path, content) in missing {
        secret_file::write(&path, content)?;
    }
    Ok(unpacked.finish()?)
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, BackupRunError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(Zeroizing::new(content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BackupRunError::Read { path: path.to_owned(), source }),
    }
}

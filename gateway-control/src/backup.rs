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
    bootstrap::{self, BootstrapError, KEPT_FILES},
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
    /// A file of the data directory cannot be written.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The copy.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// PostgreSQL has programs of its own for it.
    #[error(
        "the database is {0}: back it up with `pg_dump --format=custom --file=FILE DATABASE`, bring it back with \
         `pg_restore --dbname=DATABASE FILE`, and keep policy-key, operator-token and the TLS files of the data \
         directory beside it"
    )]
    Postgres(Location),
    /// A restored key would take the place of another one.
    #[error("{} holds something else than the backup; restore into an empty data directory", .0.display())]
    OtherKey(PathBuf),
}

/// Writes a backup; the control plane may run meanwhile.
pub async fn run(config: &Config, to: &Path) -> Result<(), BackupRunError> {
    let location = bootstrap::location(config);
    let Some(database) = location.file() else { return Err(BackupRunError::Postgres(location)) };
    let mut files = Vec::new();
    for name in KEPT_FILES {
        if let Some(content) = kept(&config.data_dir.join(name))? {
            files.push((name.to_owned(), content));
        }
    }
    Ok(back_up(database, &files, to).await?)
}

/// Brings a backup back into an empty place; the control plane must not run.
pub async fn restore(config: &Config, from: &Path) -> Result<(), BackupRunError> {
    let location = bootstrap::location(config);
    let Some(database) = location.file() else { return Err(BackupRunError::Postgres(location)) };
    let _lock = bootstrap::directory(config)?;
    let files = unpack(from, database).await?;
    for (name, content) in files.iter().filter(|(name, _)| KEPT_FILES.contains(&name.as_str())) {
        let path = config.data_dir.join(name);
        match kept(&path)? {
            Some(present) if present == *content => {}
            Some(_) => return Err(BackupRunError::OtherKey(path)),
            None => secret_file::write(&path, content)?,
        }
    }
    Ok(())
}

/// A file of the data directory; none: the operator keeps it elsewhere. (The certificate is no secret, so its mode is
/// not looked at.)
fn kept(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, BackupRunError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(Zeroizing::new(content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BackupRunError::Read { path: path.to_owned(), source }),
    }
}

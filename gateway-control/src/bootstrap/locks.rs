//! The locks of a running control plane: of its data directory, and of a database that is a file.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::BootstrapError;
use crate::config::Config;

/// Kept as long as the process lives: a second one is refused. The directory is not enough, because what two processes must
/// not share is the database: each would vouch for policies that the other one has changed.
#[derive(Debug)]
pub(crate) struct Locks {
    _directory: fs::File,
    /// Of a database that is a file; PostgreSQL is for several processes.
    _database: Option<fs::File>,
}

/// Makes the data directory if there is none, and locks it and the file of the database as long as the answer lives.
pub(crate) fn lock(config: &Config) -> Result<Locks, BootstrapError> {
    let directory = &config.data_dir;
    let failed = |source| BootstrapError::Directory { path: directory.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mode = fs::metadata(directory).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(BootstrapError::Exposed { path: directory.clone(), mode });
    }
    let locked = take(&directory.join("lock")).map_err(failed)?;
    let locked = locked.ok_or_else(|| BootstrapError::Locked(directory.clone()))?;
    let location = super::location(config);
    let database = location.file().map(lock_database).transpose()?;
    Ok(Locks { _directory: locked, _database: database })
}

/// The lock beside the file of a database, whichever way leads there.
fn lock_database(file: &Path) -> Result<fs::File, BootstrapError> {
    let failed = |source| BootstrapError::Database { path: file.to_owned(), source };
    let mut path = real(file).map_err(failed)?.into_os_string();
    path.push(".lock");
    take(Path::new(&path)).map_err(failed)?.ok_or_else(|| BootstrapError::DatabaseLocked(file.to_owned()))
}

/// The file behind symbolic links; where there is none yet, its name in its real directory.
fn real(file: &Path) -> io::Result<PathBuf> {
    if file.exists() {
        return fs::canonicalize(file);
    }
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(fs::canonicalize(directory)?.join(name))
}

/// The lock that a file is; none: somebody else has it.
fn take(path: &Path) -> io::Result<Option<fs::File>> {
    // Others who may read it could hold it.
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(source),
    }
}

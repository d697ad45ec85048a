//! Files that hold secrets or state nobody else may change: written so that a crash leaves the old or the new content,
//! never a mixture, and readable by their owner only.
//!
//! A write goes to a temporary file in the same directory, is synced, takes the place of the old file by a rename, and the directory
//! is synced too: after `Ok` the content survives a power cut.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Why a secret file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write it.
    #[error("{} may be read or changed by others (mode {mode:o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Larger than any file of this kind.
    #[error("{} is larger than {limit} bytes and cannot be what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size accepted.
        limit: u64,
    },
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed; the old content is still there.
    #[error("cannot write {} (the old content is unchanged)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// No key, token or policy comes near this; it keeps a mistaken path from filling the memory.
const MAX_SIZE: u64 = 64 << 20;

/// Replaces the content of `path` atomically; the file gets mode 0600.
pub fn write(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    replace(path, content, 0o600)
}

/// The same for content that others may read (mode 0644): certificates, addresses.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    replace(path, content, 0o644)
}

/// Reads a file that nobody but its owner may read or change.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let error = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return SecretFileError::Missing { path };
        }
        SecretFileError::Read { path, source }
    };
    let file = File::open(path).map_err(error)?;
    // The mode of the opened file, not of the name: a swap in between changes nothing.
    let metadata = file.metadata().map_err(error)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Exposed { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_SIZE {
        return Err(SecretFileError::TooLarge { path: path.to_owned(), limit: MAX_SIZE });
    }
    // Enough room from the start: a growing buffer would leave copies of the secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(MAX_SIZE).read_to_end(&mut content).map_err(error)?;
    Ok(content)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), SecretFileError> {
    replace_io(path, content, mode).map_err(|source| SecretFileError::Write { path: path.to_owned(), source })
}

fn replace_io(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{:016x}", u64::from_ne_bytes(crate::random())));
    let temporary = directory.join(temporary_name);
    let result = write_new(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        // Best effort: the error of the write is the one to report.
        let _ = std::fs::remove_file(&temporary);
        return result;
    }
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_only_the_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file may stay behind");
    }

    #[test]
    fn a_file_others_may_read_is_refused_with_the_command_that_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
        assert!(!message.contains("secret"));
    }

    #[test]
    fn a_missing_file_is_told_from_an_unreadable_one() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read(&directory.path().join("none")), Err(SecretFileError::Missing { .. })));
        assert!(matches!(write(&directory.path().join("no/such/dir"), b""), Err(SecretFileError::Write { .. })));
    }
}

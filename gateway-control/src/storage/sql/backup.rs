//! A backup of a SQLite database is one SQLite file: a consistent copy made while the control plane runs, and beside its
//! tables one more with the files of the data directory, because a database without its policy key is of no use.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sqlx::{
    ConnectOptions, Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use zeroize::Zeroizing;

/// A file of the data directory: its name and what is in it.
pub type KeptFile = (String, Zeroizing<Vec<u8>>);

/// Why there is no backup, or nothing was restored from it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already.
    #[error("{} exists; nothing is overwritten, choose another name or move it away", .0.display())]
    Exists(PathBuf),
    /// A file.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database.
    #[error("the database {} cannot be read, or its copy not written", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The backup.
    #[error("cannot read the backup {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be read as a backup.
    #[error("{} is not a backup of the control plane", path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: sqlx::Error,
    },
    /// It was a backup.
    #[error("the backup {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database said.
        what: String,
    },
}

/// Writes a consistent copy of a database, which may be in use, with the files into a new file.
pub async fn back_up(database: &Path, files: &[KeptFile], to: &Path) -> Result<(), BackupError> {
    create(to)?;
    let result = copy(database, files, to).await;
    if result.is_err() {
        // What was begun is no backup.
        let _ = fs::remove_file(to);
    }
    result
}

async fn copy(database: &Path, files: &[KeptFile], to: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::Database { path: database.to_owned(), source };
    let mut source = SqliteConnectOptions::new().filename(database).connect().await.map_err(failed)?;
    let copied = sqlx::query("VACUUM INTO $1").bind(to.to_string_lossy()).execute(&mut source).await;
    copied.map_err(failed)?;
    source.close().await.map_err(failed)?;
    let failed = |source| BackupError::Database { path: to.to_owned(), source };
    let mut copy = open(to).await.map_err(failed)?;
    let table = "CREATE TABLE backup_files (name TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL)";
    sqlx::query(table).execute(&mut copy).await.map_err(failed)?;
    for (name, content) in files {
        let insert = sqlx::query("INSERT INTO backup_files (name, content) VALUES ($1, $2)");
        insert.bind(name).bind(content.as_slice()).execute(&mut copy).await.map_err(failed)?;
    }
    copy.close().await.map_err(failed)?;
    sync(to)?;
    sync(parent(to))
}

/// A backup that was read and found whole: its database is ready beside the place it belongs to, and gets its name with
/// [`Unpacked::finish`], after the keys are in their places; dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct Unpacked {
    /// The files that were kept with the database.
    pub files: Vec<KeptFile>,
    half: PathBuf,
    database: PathBuf,
    finished: bool,
}

impl Unpacked {
    /// Gives the database its name.
    pub fn finish(mut self) -> Result<(), BackupError> {
        let failed = |source| BackupError::Write { path: self.database.clone(), source };
        fs::rename(&self.half, &self.database).map_err(failed)?;
        self.finished = true;
        sync(parent(&self.database))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if !self.finished {
            // What was begun is no database.
            let _ = fs::remove_file(&self.half);
        }
    }
}

/// Reads a backup, if nothing is in the place of its database.
pub async fn unpack(backup: &Path, database: &Path) -> Result<Unpacked, BackupError> {
    // What the database would say of a file that it cannot open says nothing of why.
    fs::File::open(backup).map_err(|source| BackupError::Read { path: backup.to_owned(), source })?;
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", database.display()));
        if path.exists() {
            return Err(BackupError::Exists(path));
        }
    }
    // A half-made database must never be taken for one: it gets its name when it is complete.
    let half = database.with_extension("restoring");
    create(&half)?;
    let mut unpacked =
        Unpacked { files: Vec::new(), half: half.clone(), database: database.to_owned(), finished: false };
    unpacked.files = unpack_to(backup, &half).await?;
    Ok(unpacked)
}

/// The directory of a file; that of a bare name is the current one.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

async fn unpack_to(backup: &Path, to: &Path) -> Result<Vec<KeptFile>, BackupError> {
    let unusable = |source| BackupError::NotABackup { path: backup.to_owned(), source };
    let options = SqliteConnectOptions::new().filename(backup).read_only(true);
    let mut source = options.connect().await.map_err(unusable)?;
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut source).await.map_err(unusable)?;
    if check != "ok" {
        return Err(BackupError::Damaged { path: backup.to_owned(), what: check });
    }
    let rows = sqlx::query("SELECT name, content FROM backup_files ORDER BY name");
    let rows = rows.fetch_all(&mut source).await.map_err(unusable)?;
    let mut files = Vec::with_capacity(rows.len());
    for row in rows {
        let name: String = row.try_get("name").map_err(unusable)?;
        let content: Vec<u8> = row.try_get("content").map_err(unusable)?;
        files.push((name, Zeroizing::new(content)));
    }
    source.close().await.map_err(unusable)?;
    // A copy takes over the mode of the backup, which may have been stored where others read.
    let copied = fs::copy(backup, to).and_then(|_| fs::set_permissions(to, fs::Permissions::from_mode(0o600)));
    copied.map_err(|source| BackupError::Write { path: to.to_owned(), source })?;
    let failed = |source| BackupError::Database { path: to.to_owned(), source };
    let mut copy = open(to).await.map_err(failed)?;
    for statement in ["PRAGMA secure_delete = ON", "DROP TABLE backup_files"] {
        sqlx::query(statement).execute(&mut copy).await.map_err(failed)?;
    }
    copy.close().await.map_err(failed)?;
    sync(to)?;
    Ok(files)
}

/// Without a WAL: the file alone is everything.
async fn open(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Delete).connect().await
}

fn create(path: &Path) -> Result<(), BackupError> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(BackupError::Exists(path.to_owned())),
        Err(source) => Err(BackupError::Write { path: path.to_owned(), source }),
    }
}

fn sync(path: &Path) -> Result<(), BackupError> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| BackupError::Write { path: path.to_owned(), source })
}

//! The database of a test: a SQLite file in its data directory, or a fresh database of the PostgreSQL server that
//! `GATEWAY_TEST_POSTGRES` names (`postgres:///postgres?host=DIRECTORY&user=NAME`; tests/run starts one).

use std::{
    ffi::OsStr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use data_encoding::HEXLOWER;
use gateway_control::storage::{Location, SqlStorage, Storage};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};
use url::Url;

const VARIABLE: &str = "GATEWAY_TEST_POSTGRES";

/// Whether the tests run on PostgreSQL.
pub(crate) fn is_postgres() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The lines of a configuration that name the database of a test; the same for every start in one directory.
pub(crate) fn storage_section(directory: &Path) -> String {
    match url(directory) {
        Some(url) => format!("[storage]\nurl = '{url}'\n"),
        None => String::new(),
    }
}

/// Prepares a data directory for another process on the same database; false: SQLite serves one process only.
pub(crate) fn share(from: &Path, to: &Path) -> bool {
    if url(from).is_none() {
        return false;
    }
    copy_keys(from, to);
    std::fs::copy(from.join("database-url"), to.join("database-url")).unwrap();
    true
}

/// Copies the files that stand beside a database of PostgreSQL into a new data directory.
pub(crate) fn copy_keys(from: &Path, to: &Path) {
    std::fs::DirBuilder::new().mode(0o700).create(to.join("data")).unwrap();
    let keys =
        ["policy-key", "storage-key", "operator-token", "registration-token", "tls-key.pem", "tls-certificate.pem"];
    for key in keys.map(|key| format!("data/{key}")) {
        std::fs::copy(from.join(&key), to.join(&key)).unwrap();
    }
}

/// Where Debian keeps the programs of PostgreSQL, those of its newest version: not in PATH.
pub(crate) fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path());
    versions.max_by_key(|path| version(path)).unwrap().join("bin")
}

/// The numbers of a version: as text, 9.6 would be newer than 17.
fn version(path: &Path) -> Vec<u32> {
    let name = path.file_name().unwrap().to_string_lossy();
    name.split('.').map_while(|number| number.parse().ok()).collect()
}

#[test]
fn the_newest_programs_of_postgresql_are_those_of_the_highest_number() {
    let newest = ["9.6", "17", "lost+found", "16"].into_iter().max_by_key(|name| version(Path::new(name)));
    assert_eq!(newest, Some("17"));
}

/// Backs up the database of a test on PostgreSQL, as docs/control-plane.md says.
pub(crate) fn dump(directory: &Path, backup: &Path) {
    let file = format!("--file={}", backup.display());
    run("pg_dump", &["--format=custom".as_ref(), file.as_ref(), url(directory).unwrap().as_ref()]);
}

/// Brings a backup back into a database of its own, which is that of the directory from now on.
pub(crate) fn restore(backup: &Path, directory: &Path) {
    let database = format!("--dbname={}", url(directory).unwrap());
    run("pg_restore", &[database.as_ref(), backup.as_ref()]);
}

fn run(program: &str, args: &[&OsStr]) {
    let output = Command::new(programs().join(program)).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lets nobody reach the database of a test for a while: its connections are cut, new ones refused, as in a restart of
/// the server (which would hit every other test, too).
pub(crate) async fn cut_off(directory: &Path, meanwhile: impl Future<Output = ()>) {
    let name = url(directory).unwrap().parse::<PgConnectOptions>().unwrap().get_database().unwrap().to_owned();
    let server = std::env::var(VARIABLE).unwrap().parse::<PgConnectOptions>().unwrap();
    let mut connection = server.connect().await.unwrap();
    let mut run = async |text: String| sqlx::query(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    run(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    run(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
    meanwhile.await;
    run(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
}

/// Everything that the database of a test holds, as text.
pub(crate) fn contents(directory: &Path) -> Vec<u8> {
    match url(directory) {
        None => std::fs::read(directory.join("data/control.sqlite")).unwrap(),
        Some(url) => blocking(async move {
            let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
            let tables = sqlx::query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'");
            let mut all = Vec::new();
            for table in tables.fetch_all(&mut connection).await.unwrap() {
                let table: String = table.get(0);
                let rows = sqlx::query(AssertSqlSafe(format!("SELECT t::text FROM {table} t")));
                for row in rows.fetch_all(&mut connection).await.unwrap() {
                    all.extend(row.get::<String, _>(0).into_bytes());
                }
            }
            all
        }),
    }
}

/// Runs statements on the database of a test while no control plane does.
pub(crate) fn execute(directory: &Path, statements: &'static [&'static str]) {
    match url(directory) {
        None => {
            let file = directory.join("data/control.sqlite");
            blocking(async move {
                let options = SqliteConnectOptions::new().filename(file).foreign_keys(false);
                let mut connection = options.connect().await.unwrap();
                for statement in statements {
                    sqlx::query(*statement).execute(&mut connection).await.unwrap();
                }
                connection.close().await.unwrap();
            });
        }
        Some(url) => blocking(async move {
            let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
            for statement in statements {
                sqlx::query(*statement).execute(&mut connection).await.unwrap();
            }
            connection.close().await.unwrap();
        }),
    }
}

/// Opens the database of a test beside the control plane.
pub(crate) async fn open(directory: &Path) -> impl Storage {
    let location = match url(directory) {
        Some(url) => url.parse().unwrap(),
        None => Location::Sqlite(directory.join("data/control.sqlite")),
    };
    SqlStorage::open(&location).await.unwrap()
}

/// The database of a directory, made when it is asked for first; none: SQLite.
fn url(directory: &Path) -> Option<String> {
    let server = std::env::var(VARIABLE).ok()?;
    let note = directory.join("database-url");
    if let Ok(url) = std::fs::read_to_string(&note) {
        return Some(url);
    }
    let name = format!("control_{}", HEXLOWER.encode(&gateway_net::random::<8>()));
    let mut url: Url = server.parse().unwrap();
    url.set_path(&name);
    std::fs::write(&note, url.as_str()).unwrap();
    blocking(async move {
        let mut connection = server.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    Some(url.into())
}

/// For tests with and without a runtime of their own.
fn blocking<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    std::thread::spawn(run).join().unwrap()
}

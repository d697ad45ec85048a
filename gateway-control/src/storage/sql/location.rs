//! Where the database is: what `storage.url` of the configuration says.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::postgres::PgConnectOptions;
use url::Url;

/// Parameters of a PostgreSQL URL that mean something here.
const PARAMETERS: [&str; 7] = ["host", "port", "user", "sslmode", "sslrootcert", "sslcert", "sslkey"];

/// What `sslmode` may be.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// Characters of an unknown parameter's name that are repeated.
const MAX_SHOWN: usize = 32;

/// Where the database is.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(PostgresServer),
}

/// How to reach a PostgreSQL server; masked in `Debug`, because it holds the password.
#[derive(Clone)]
pub struct PostgresServer(Box<PgConnectOptions>);

/// Why a text does not say where the database is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another kind of database, or no URL at all.
    #[error("sqlite:/path/to/file or postgres://user@host:port/database")]
    Form,
    /// No file, or no database.
    #[error("the {0} to be named")]
    Missing(&'static str),
    /// A secret in a file that many read.
    #[error("no password in the URL; name a file with it in storage.password_file")]
    Password,
    /// A parameter that means nothing.
    #[error("only these parameters: {known}; '{0}' is none of them", known = PARAMETERS.join(", "))]
    Parameter(String),
    /// A parameter that cannot be what it is set to.
    #[error("{0}")]
    Value(String),
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('?') {
                return Err(LocationError::Missing("file"));
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        let url = Url::parse(text).map_err(|_| LocationError::Form)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(LocationError::Form);
        }
        if url.password().is_some() {
            return Err(LocationError::Password);
        }
        for (key, value) in url.query_pairs() {
            check_parameter(&key, &value)?;
        }
        if url.path().trim_start_matches('/').is_empty() {
            return Err(LocationError::Missing("database"));
        }
        let options = text.parse().map_err(|_| LocationError::Form)?;
        Ok(Self::Postgres(PostgresServer(Box::new(options))))
    }
}

fn check_parameter(key: &str, value: &str) -> Result<(), LocationError> {
    match key {
        "sslmode" if !MODES.contains(&value) => {
            Err(LocationError::Value(format!("sslmode as one of {}", MODES.join(", "))))
        }
        "port" if value.parse::<u16>().is_err() => {
            Err(LocationError::Value("port as a whole number up to 65535".to_owned()))
        }
        key if !PARAMETERS.contains(&key) => Err(LocationError::Parameter(key.chars().take(MAX_SHOWN).collect())),
        _ => Ok(()),
    }
}

impl Location {
    /// The same with a password, which only PostgreSQL knows.
    pub fn with_password(self, password: &str) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(path),
            Self::Postgres(server) => Self::Postgres(PostgresServer(Box::new(server.0.password(password)))),
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

/// For people: no password in it.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(server) => fmt::Debug::fmt(server, f),
        }
    }
}

impl PostgresServer {
    pub(super) fn options(&self) -> PgConnectOptions {
        (*self.0).clone()
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.get_socket().map_or_else(|| self.0.get_host().into(), |path| path.display().to_string());
        let database = self.0.get_database().unwrap_or_default();
        write!(f, "postgres://{}@{host}:{}/{database}", self.0.get_username(), self.0.get_port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> LocationError {
        text.parse::<Location>().unwrap_err()
    }

    #[test]
    fn files_and_servers_are_told_apart() {
        for text in ["sqlite:/var/lib/x.sqlite", "sqlite:///var/lib/x.sqlite"] {
            assert_eq!(text.parse::<Location>().unwrap().file().unwrap(), Path::new("/var/lib/x.sqlite"));
        }
        let server: Location = "postgres://control@db.example:5433/gateways?sslmode=verify-full".parse().unwrap();
        assert_eq!(server.to_string(), "postgres://control@db.example:5433/gateways");
        let socket: Location = "postgresql:///gateways?host=/run/postgresql&user=control".parse().unwrap();
        assert!(socket.to_string().starts_with("postgres://control@/run/postgresql:"), "{socket}");
    }

    #[test]
    fn what_cannot_be_opened_is_refused() {
        assert_eq!(refused("control.sqlite"), LocationError::Form);
        assert_eq!(refused("mysql://x@y/z"), LocationError::Form);
        assert_eq!(refused("sqlite:"), LocationError::Missing("file"));
        assert_eq!(refused("postgres://control@db.example"), LocationError::Missing("database"));
        assert_eq!(refused("postgres://control:secret@db.example/x"), LocationError::Password);
        let password = LocationError::Parameter("password".to_owned());
        assert_eq!(refused("postgres://control@db.example/x?password=secret"), password);
        let mode = refused("postgres://control@db.example/x?sslmode=maybe").to_string();
        assert!(mode.starts_with("sslmode as one of disable, ") && mode.ends_with("verify-full"), "{mode}");
        assert!(refused("postgres:///x?port=many").to_string().contains("port as"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let server: Location = "postgres://control@db.example/gateways".parse().unwrap();
        let server = server.with_password("open sesame");
        assert!(!format!("{server:?} {server}").contains("sesame"));
    }
}

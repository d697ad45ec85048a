//! Profiles: which control plane, and the session there. One TOML file per profile, readable by its owner only.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use gateway_net::{
    secret_file::{self, SecretFileError},
    tls::{ServerTrust, TlsPin},
};
use gateway_proto::api::platform::{Hidden, Session};
use serde::{Deserialize, Serialize};
use url::Url;

/// A name that is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProfileName(String);

/// The text is no profile name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a profile name is 1 to 64 letters, digits, '.', '_' or '-', and does not start with a dot")]
pub(crate) struct ProfileNameError;

impl FromStr for ProfileName {
    type Err = ProfileNameError;

    fn from_str(text: &str) -> Result<Self, ProfileNameError> {
        let characters = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let good = (1..=64).contains(&text.len()) && characters && !text.starts_with('.');
        if good { Ok(Self(text.to_owned())) } else { Err(ProfileNameError) }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A control plane and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Base URL, `https://…`.
    pub(crate) url: Url,
    /// How to know that it is the right one.
    pub(crate) pin: Option<TlsPin>,
}

impl Target {
    /// Accepts `https` URLs only: a session token travels there.
    pub(crate) fn new(url: Url, pin: Option<TlsPin>) -> Result<Self, TargetError> {
        if url.scheme() != "https" || url.host_str().is_none() || !url.username().is_empty() || url.password().is_some()
        {
            return Err(TargetError);
        }
        Ok(Self { url, pin })
    }

    /// What the TLS client checks.
    pub(crate) fn trust(&self) -> ServerTrust {
        self.pin.map_or(ServerTrust::WebPki, ServerTrust::Pin)
    }
}

/// The URL is none a session token may travel to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL of the control plane has the form https://HOST:PORT")]
pub(crate) struct TargetError;

/// The content of a profile file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Base URL of the control plane.
    control: String,
    /// SHA-256 of its TLS public key.
    pin: Option<String>,
    /// Session token; none after signing out.
    token: Option<Hidden>,
    /// When the session ends, Unix seconds; for people who look into the file.
    expires_at: Option<u64>,
    /// E-mail address of the user.
    email: Option<String>,
}

/// Why a profile could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// Nothing in the environment says where profiles are kept.
    #[error("there is no place for profiles: set GATEWAY_CTL_HOME to a directory of your own")]
    NoHome,
    /// Nobody signed in with this profile yet.
    #[error(
        "profile '{0}' knows no control plane yet: `gateway-ctl login --control https://HOST:PORT --email …` first"
    )]
    NoControl(ProfileName),
    /// Signed out.
    #[error("nobody is signed in with profile '{0}': `gateway-ctl login --email …` first")]
    SignedOut(ProfileName),
    /// The file.
    #[error("the profile cannot be used")]
    File(#[source] SecretFileError),
    /// The directory.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content of the file.
    #[error("{} is not a profile: mend or remove it", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl Profile {
    /// A profile with a fresh session.
    pub(crate) fn signed_in(target: &Target, session: &Session) -> Self {
        Self {
            control: target.url.to_string(),
            pin: target.pin.map(|pin| pin.to_string()),
            token: Some(session.token.clone()),
            expires_at: Some(session.expires_at),
            email: Some(session.user.email.clone()),
        }
    }

    /// The same after signing out: the control plane stays known.
    pub(crate) fn signed_out(self) -> Self {
        Self { token: None, expires_at: None, ..self }
    }

    /// The session token.
    pub(crate) fn token(&self) -> Option<&Hidden> {
        self.token.as_ref()
    }

    fn target(&self) -> Option<Target> {
        let pin = self.pin.as_deref().map(str::parse).transpose().ok()?;
        Target::new(self.control.parse().ok()?, pin).ok()
    }
}

/// The directory of the profiles.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    directory: PathBuf,
}

impl Profiles {
    /// Where the environment says: `GATEWAY_CTL_HOME`, `XDG_CONFIG_HOME`, `HOME`, in this order. `variable` looks one up.
    pub(crate) fn locate(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, ProfileError> {
        let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
        let directory = set("GATEWAY_CTL_HOME")
            .or_else(|| set("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).map(|path| path.join("gateway-ctl")))
            .or_else(|| set("HOME").map(|path| path.join(".config/gateway-ctl")))
            .ok_or(ProfileError::NoHome)?;
        Ok(Self { directory })
    }

    /// Reads a profile with the control plane it is for.
    pub(crate) fn load(&self, name: &ProfileName) -> Result<(Profile, Target), ProfileError> {
        let path = self.path(name);
        let content = match secret_file::read(&path) {
            Ok(content) => content,
            Err(SecretFileError::Missing { .. }) => return Err(ProfileError::NoControl(name.clone())),
            Err(error) => return Err(ProfileError::File(error)),
        };
        // The parser's own words could quote the token: they are left out on purpose.
        let profile = std::str::from_utf8(&content).ok().and_then(|text| toml::from_str::<Profile>(text).ok());
        profile
            .and_then(|profile| profile.target().map(|target| (profile, target)))
            .ok_or(ProfileError::Content { path })
    }

    /// Writes a profile.
    pub(crate) fn save(&self, name: &ProfileName, profile: &Profile) -> Result<(), ProfileError> {
        make_private(&self.directory)
            .map_err(|source| ProfileError::Directory { path: self.directory.clone(), source })?;
        let path = self.path(name);
        let text = zeroize::Zeroizing::new(
            toml::to_string(profile).map_err(|_| ProfileError::Content { path: path.clone() })?,
        );
        secret_file::write(&path, text.as_bytes()).map_err(ProfileError::File)
    }

    fn path(&self, name: &ProfileName) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn profile() -> Profile {
        Profile {
            control: "https://control.example:8443/".into(),
            pin: Some("ab".repeat(32)),
            token: Some(Hidden("topsecret".into())),
            expires_at: Some(5),
            email: Some("owner@clinic.example".into()),
        }
    }

    #[test]
    fn a_profile_survives_the_disk_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let profiles = Profiles { directory: directory.path().join("deep/er") };
        let name: ProfileName = "work".parse().unwrap();
        profiles.save(&name, &profile()).unwrap();
        let (read, target) = profiles.load(&name).unwrap();
        assert_eq!(read, profile());
        assert_eq!(target.pin, Some(TlsPin::from_bytes([0xab; 32])));
        let mode = std::fs::metadata(profiles.path(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        profiles.save(&name, &read.signed_out()).unwrap();
        assert_eq!(profiles.load(&name).unwrap().0.token(), None);
    }

    #[test]
    fn a_broken_profile_is_refused_without_quoting_it() {
        let directory = tempfile::tempdir().unwrap();
        let profiles = Profiles { directory: directory.path().to_owned() };
        let name: ProfileName = "default".parse().unwrap();
        assert!(matches!(profiles.load(&name), Err(ProfileError::NoControl(_))));
        for text in ["token = \"topsecret\"\nxx", "control = \"http://plain.example/\"\ntoken = \"topsecret\""] {
            secret_file::write(&profiles.path(&name), text.as_bytes()).unwrap();
            let error = profiles.load(&name).unwrap_err();
            assert!(matches!(error, ProfileError::Content { .. }));
            assert!(!crate::error::chain(&error).contains("topsecret"));
        }
        assert!(!format!("{:?}", profile()).contains("topsecret"));
    }

    #[test]
    fn the_directory_follows_the_environment() {
        let locate = |set: &[(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            Profiles::locate(found).map(|profiles| profiles.directory)
        };
        let all = [("GATEWAY_CTL_HOME", "/g"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(locate(&all).unwrap(), Path::new("/g"));
        assert_eq!(locate(&all[1..]).unwrap(), Path::new("/x/gateway-ctl"));
        assert_eq!(locate(&all[2..]).unwrap(), Path::new("/h/.config/gateway-ctl"));
        assert!(matches!(locate(&[("HOME", "")]), Err(ProfileError::NoHome)));
    }

    #[test]
    fn a_profile_name_cannot_leave_the_directory() {
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a b"] {
            assert!(name.parse::<ProfileName>().is_err(), "{name}");
        }
        assert!("clinic-a.test_1".parse::<ProfileName>().is_ok());
    }

    #[test]
    fn a_control_plane_without_tls_or_with_a_password_in_its_url_is_refused() {
        for url in ["http://a.example/", "https://user:word@a.example/", "ftp://a/"] {
            assert!(Target::new(url.parse().unwrap(), None).is_err(), "{url}");
        }
    }
}

//! What the command line remembers between commands: the server, its authority and the login, in
//! `$SALLYPORT_HOME` or `~/.config/sallyport`, readable by their owner alone.
//!
//! `SALLYPORT_SERVER`, `SALLYPORT_TOKEN` and `SALLYPORT_CA` go before what is remembered. A remembered
//! token and authority are only ever used with the server that they are for.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::{Exit, Failure};
use crate::crypto;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

const STATE_FILE: &str = "client.json";

/// A login that is remembered.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    pub server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("server", &self.server)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The directory, and the environment that goes before it.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub dir: PathBuf,
    server: Option<String>,
    token: Option<Secret<String>>,
    ca: Option<PathBuf>,
}

/// Which server to speak to, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub server: String,
    /// `None`: the system's authorities.
    pub ca_pem: Option<String>,
    pub token: Option<Secret<String>>,
    /// The token's end, as far as it is known.
    pub expires_at: Option<Timestamp>,
}

impl Home {
    pub(super) fn from_environment() -> Result<Self, Failure> {
        Self::new(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()), std::env::home_dir())
    }

    pub(super) fn new(
        variable: &dyn Fn(&str) -> Option<String>,
        user_home: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let dir = match (variable("SALLYPORT_HOME"), user_home) {
            (Some(dir), _) => PathBuf::from(dir),
            (None, Some(home)) => home.join(".config/sallyport"),
            (None, None) => {
                return Err(Failure::failed("your home directory is not known").hint("set SALLYPORT_HOME"));
            }
        };
        Ok(Self {
            dir,
            server: variable("SALLYPORT_SERVER"),
            token: variable("SALLYPORT_TOKEN").map(Secret::new),
            ca: variable("SALLYPORT_CA").map(PathBuf::from),
        })
    }

    /// The remembered login, if there is one.
    pub(super) fn login(&self) -> Result<Option<Login>, Failure> {
        let path = self.dir.join(STATE_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::of(format!("cannot read `{}`", path.display()), &error)),
        };
        let mode = fs::metadata(&path).map(|metadata| metadata.mode()).unwrap_or_default();
        if mode & 0o077 != 0 {
            return Err(Failure::failed(format!(
                "`{}` holds your login and others may open it",
                path.display()
            ))
            .hint(format!("chmod 600 {} && sallyport login", path.display())));
        }
        let login = serde_json::from_str(text.expose());
        login.map(Some).map_err(|error| {
            Failure::of(format!("`{}` is not what `sallyport login` writes", path.display()), &error)
                .hint("remove it and log in again")
        })
    }

    pub(super) fn remember(&self, login: &Login) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(login);
        let text = text.map_err(|error| Failure::of("cannot write the login as JSON", &error))?;
        write_private(&self.dir.join(STATE_FILE), text.as_bytes())
    }

    /// Which server to speak to: an argument goes before the environment, that before what is
    /// remembered.
    pub(super) fn settings(&self, server: Option<&str>, ca: Option<&Path>) -> Result<Settings, Failure> {
        let login = self.login()?;
        let named = server.or(self.server.as_deref()).map(normal_url).transpose()?;
        let Some(server) = named.or_else(|| login.as_ref().map(|login| login.server.clone())) else {
            return Err(Failure::new(Exit::Unauthenticated, "you are not logged in")
                .hint("sallyport login --server https://HOST:PORT --ca CA.crt --user NAME"));
        };
        let login = login.filter(|login| login.server == server);
        let ca_pem = match ca.or(self.ca.as_deref()) {
            Some(path) => Some(read_ca(path)?),
            None => login.as_ref().and_then(|login| login.ca_pem.clone()),
        };
        let (token, expires_at) = match (&self.token, login) {
            (Some(token), _) => (Some(token.clone()), None),
            (None, Some(login)) => (login.token.map(Secret::new), login.expires_at),
            (None, None) => (None, None),
        };
        Ok(Settings { server, ca_pem, token, expires_at })
    }
}

/// `https://host:port`, and nothing else.
pub(super) fn normal_url(text: &str) -> Result<String, Failure> {
    let malformed = || {
        Failure::usage(format!("`{text}` is not a server's address"))
            .hint("give it as https://HOST or https://HOST:PORT")
    };
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url: reqwest::Url = whole.parse().map_err(|_| malformed())?;
    let plain = url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none();
    let host = url.host_str().filter(|_| plain).ok_or_else(malformed)?;
    Ok(match url.port() {
        Some(port) => format!("https://{host}:{port}"),
        None => format!("https://{host}"),
    })
}

fn read_ca(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::of(format!("cannot read the authority's certificate `{}`", path.display()), &error)
    })
}

/// Replaces the file as a whole, readable by its owner alone.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::of(format!("cannot write `{}`", path.display()), error);
    // A link (to a dotfile kept elsewhere) stays a link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(&error))?;
    let new = dir.join(format!(".sallyport-{}", crypto::hex(&crypto::random::<8>())));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        // What was begun is of no use; that it cannot be removed changes nothing for the caller.
        let _ = fs::remove_file(&new);
        failed(&error)
    })
}

/// Removes the file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::of(format!("cannot remove `{}`", path.display()), &error))
        }
        _ => Ok(()),
    }
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::of(format!("cannot tell where `{}` is", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(dir: &Path, variables: &[(&str, &str)]) -> Home {
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Home::new(&lookup, Some(dir.to_owned())).unwrap()
    }

    fn login() -> Login {
        Login {
            server: "https://bastion:8443".to_owned(),
            ca_pem: Some("PEM".to_owned()),
            user: "alice".to_owned(),
            token: Some("spt_x".to_owned()),
            expires_at: None,
        }
    }

    #[test]
    fn a_login_is_remembered_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path(), &[]);
        home.remember(&login()).unwrap();
        home.remember(&login()).unwrap();
        let path = dir.path().join(".config/sallyport/client.json");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(home.settings(None, None).unwrap().token.unwrap().expose(), "spt_x");
    }

    #[test]
    fn a_login_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path(), &[]);
        home.remember(&login()).unwrap();
        let path = home.dir.join(STATE_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(home.settings(None, None).is_err());
    }

    #[test]
    fn a_remembered_token_goes_to_its_own_server_only() {
        let dir = tempfile::tempdir().unwrap();
        home(dir.path(), &[]).remember(&login()).unwrap();
        let elsewhere = home(dir.path(), &[("SALLYPORT_SERVER", "https://evil:8443")]);
        let settings = elsewhere.settings(None, None).unwrap();
        assert!(settings.token.is_none() && settings.ca_pem.is_none());
        let settings = home(dir.path(), &[]).settings(Some("https://evil"), None).unwrap();
        assert!(settings.token.is_none());
    }

    #[test]
    fn the_environment_goes_before_what_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        home(dir.path(), &[]).remember(&login()).unwrap();
        let settings = home(dir.path(), &[("SALLYPORT_TOKEN", "spt_y")]).settings(None, None).unwrap();
        assert_eq!(settings.token.unwrap().expose(), "spt_y");
        assert_eq!(settings.ca_pem.as_deref(), Some("PEM"));
    }

    #[test]
    fn without_a_login_one_is_told_how_to_log_in() {
        let dir = tempfile::tempdir().unwrap();
        let failure = home(dir.path(), &[]).settings(None, None).unwrap_err();
        assert_eq!(failure.exit, Exit::Unauthenticated);
        assert!(failure.hint.unwrap().contains("sallyport login"));
    }

    #[test]
    fn only_https_addresses_name_a_server() {
        assert_eq!(normal_url("bastion:8443").unwrap(), "https://bastion:8443");
        assert_eq!(normal_url("https://bastion/").unwrap(), "https://bastion");
        for text in ["http://bastion", "https://u:p@bastion", "https://bastion/x", "https://", "a b"] {
            assert!(normal_url(text).is_err(), "{text}");
        }
    }
}

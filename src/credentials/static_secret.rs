//! A password that Sallyport keeps, for a target that allows nothing else: encrypted on the disk, injected, never shown.
//!
//! With a rotation command it is changed after each session: the next password is durable before the command is run, so
//! that a crash leaves none that only the target knows; then the new one is tried, and the old one has to be refused.

use std::collections::HashMap;
use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::keep::{Keep, KeepError, Kept};
use super::postgres_admin::opens;
use super::{Credential, CredentialSource, Destruction, How, Opened, Sent, SourceError, SourceRequest};
use crate::config::{PostgresTarget, Source};
use crate::crypto;
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;
use crate::failpoint;

/// How long a rotation command may take.
const COMMAND_WITHIN: Duration = Duration::from_mins(1);
/// What is told of a command's complaint, in characters.
const COMPLAINT: usize = 300;

/// Why a kept password cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the password `{name}` is half changed: it opens nothing until its rotation has succeeded")]
    HalfChanged { name: String },
    #[error("cannot run the rotation command `{program}`: {source}")]
    NotRun {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the rotation command `{program}` failed ({status}){complaint}")]
    Failed { program: String, status: String, complaint: String },
    #[error("the rotation command `{program}` has not ended within {} s", COMMAND_WITHIN.as_secs())]
    Slow { program: String },
    #[error("the rotation command `{program}` succeeded, and the target refuses the new password")]
    NotChanged { program: String },
    #[error("the rotation command `{program}` succeeded, and the old password still opens the target")]
    StillOpens { program: String },
}

pub struct StaticSecrets {
    keep: Keep,
    /// Held by whoever changes a password.
    changing: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for StaticSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticSecrets").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl StaticSecrets {
    pub fn new(keep: Keep) -> Self {
        Self { keep, changing: Mutex::default() }
    }

    fn changing(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// Changes the password and proves that it was.
    async fn rotate(
        &self,
        request: &SourceRequest<'_>,
        command: &[String],
    ) -> Result<Destruction, SourceError> {
        let name = request.access_role;
        let changing = self.changing(name);
        let busy = || Destruction::UnderWay { what: format!("the password `{name}` is being changed") };
        let Ok(_held) = changing.try_lock() else { return Ok(busy()) };
        let Some(_locked) = self.keep.lock().map_err(StaticError::from)? else { return Ok(busy()) };
        let mut kept = self.keep.load(name).await.map_err(StaticError::from)?;
        let is_begun = kept.next.is_some();
        if !is_begun {
            let next = BASE64URL_NOPAD.encode(&crypto::random::<24>());
            kept.next = Some(Secret::new(next));
            self.keep.store(name, &kept).await.map_err(StaticError::from)?;
        }
        failpoint::reached("static_next");
        let Some(next) = kept.next.take() else { return Ok(busy()) };
        let program = command.first().cloned().unwrap_or_default();
        // It may have been changed before somebody died.
        if !is_begun || !opens(request.target, &kept.user, &next).await? {
            run(command, request.target, &kept, &next).await?;
            failpoint::reached("static_changed");
            if !opens(request.target, &kept.user, &next).await? {
                return Err(StaticError::NotChanged { program }.into());
            }
        }
        if opens(request.target, &kept.user, &kept.password).await? {
            return Err(StaticError::StillOpens { program }.into());
        }
        let changed = Kept { user: kept.user, password: next, next: None };
        self.keep.store(name, &changed).await.map_err(StaticError::from)?;
        failpoint::reached("static_kept");
        Ok(Destruction::Done(How::Rotated.into()))
    }
}

#[async_trait]
impl CredentialSource for StaticSecrets {
    fn handle(&self, _session: &SessionId, access_role: &str) -> String {
        format!("static:{access_role}")
    }

    async fn open(
        &self,
        request: &SourceRequest<'_>,
        _is_issued: bool,
        ended: &CancellationToken,
    ) -> Result<Opened, SourceError> {
        let name = request.access_role;
        let changing = self.changing(name);
        // Another session's end may change it, which takes a command's time.
        let _held = tokio::select! {
            biased;
            () = ended.cancelled() => return Err(SourceError::Ended),
            held = changing.lock() => held,
        };
        let kept = self.keep.load(name).await.map_err(StaticError::from)?;
        if kept.next.is_some() {
            return Err(StaticError::HalfChanged { name: name.to_owned() }.into());
        }
        let Kept { user, password, next: _ } = kept;
        let allow_md5 = matches!(&request.target.source, Source::Static(how) if how.allow_md5);
        let sent = if allow_md5 { Sent::ProvedOrHashed } else { Sent::Proved };
        let credential = Credential { user, password, sent, valid_until: None };
        Ok(Opened { credential, admin: None })
    }

    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<Destruction, SourceError> {
        let Source::Static(how) = &request.target.source else {
            let target = request.target.target.name.clone();
            return Err(SourceError::OtherKind { target, handle: request.handle.to_owned() });
        };
        match &how.rotate {
            Some(command) => self.rotate(request, command).await,
            None => Ok(Destruction::Done(How::Kept.into())),
        }
    }
}

/// Runs the command. It is told by its input: one JSON object with `target`, `address`, `user`, `password` and
/// `new_password`; neither its arguments nor its environment have a secret.
async fn run(
    command: &[String],
    target: &PostgresTarget,
    kept: &Kept,
    next: &Secret,
) -> Result<(), StaticError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let not_run = |source| StaticError::NotRun { program: program.clone(), source };
    let task = Secret::new(
        serde_json::json!({
            "target": target.target.name,
            "address": target.hosts.preferred().address.to_string(),
            "user": kept.user,
            "password": kept.password.expose(),
            "new_password": next.expose(),
        })
        .to_string(),
    );
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_run)?;
    let input = child.stdin.take();
    let running = async {
        if let Some(mut input) = input {
            // One that does not read it says so by its status.
            let _told = input.write_all(task.expose().as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let ended = tokio::time::timeout(COMMAND_WITHIN, running).await;
    let output = ended.map_err(|_| StaticError::Slow { program: program.clone() })?.map_err(not_run)?;
    if output.status.success() {
        return Ok(());
    }
    let (program, status) = (program.clone(), output.status.to_string());
    Err(StaticError::Failed { program, status, complaint: complaint(&output.stderr, kept, next) })
}

/// What the command complains of, without the passwords.
fn complaint(told: &[u8], kept: &Kept, next: &Secret) -> String {
    let text = String::from_utf8_lossy(told);
    let text = [kept.password.expose(), next.expose()].into_iter().fold(text.into_owned(), |text, secret| {
        // As it is, and as the command was given it: within JSON.
        let in_json = serde_json::Value::from(secret.as_str()).to_string();
        let in_json = in_json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(secret);
        text.replace(in_json, "[secret]").replace(secret.as_str(), "[secret]")
    });
    let text: String = text.trim().chars().take(COMPLAINT).collect();
    if text.is_empty() { text } else { format!(": {}", text.replace(char::is_control, " ")) }
}

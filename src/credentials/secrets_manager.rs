//! A password in AWS Secrets Manager, rotated before a session uses it and rotated away at its end.
//!
//! The rotation is done by the secret's own function, for as long as that takes: a version is waited for until it is
//! `AWSCURRENT`, never for a time that was guessed. The version is named after the session's lease, so that asking again
//! asks for the same. At the end the version before it is tried at the database, and has to be refused.
//!
//! A secret is one user's (the *single user* strategy); sessions that run at the same time share it, and each gets what
//! is current when it connects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::rotate_secret::RotateSecretError;
use aws_sdk_secretsmanager::primitives::DateTime;
use aws_sdk_secretsmanager::types::SecretVersionsListEntry;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;
use super::postgres_admin::opens;
use super::{
    AssumedRole, Credential, CredentialSource, Destruction, How, Opened, Sent, SourceError, SourceRequest,
};
use crate::amazon::explain_answer;
use crate::clock::Clock;
use crate::config::Source;
use crate::crypto;
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::failpoint;

/// How long a session's first connection waits for the rotation.
const OPEN_WITHIN: Duration = Duration::from_mins(5);
/// How long the rotation at its end may take before that is a failure.
const DESTROY_WITHIN: Duration = Duration::from_mins(5);
/// How long a further connection waits for another session's rotation; one that is stuck need not have changed anything.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// How often a rotation that somebody gave up is asked for anew at once,
const ATTEMPTS: u32 = 20;
/// and how long it is waited after that, for ever: Amazon wants no more versions than one in ten minutes (AWS Secrets
/// Manager API Reference, `PutSecretValue`).
const AGAIN_AFTER: Duration = Duration::from_mins(10);
/// Between two looks: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

const CURRENT: &str = "AWSCURRENT";
const PENDING: &str = "AWSPENDING";
const PREVIOUS: &str = "AWSPREVIOUS";

/// Why a secret was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("the rotation of `{secret}` is under way: its rotation function has not finished (version {version}{})", also(told.as_deref()))]
    UnderWay { secret: String, version: String, told: Option<String> },
    #[error("the rotation of `{secret}` has not ended within {} s: see what its rotation function says (version {version}{})",
        DESTROY_WITHIN.as_secs(), also(told.as_deref()))]
    Stuck { secret: String, version: String, told: Option<String> },
    #[error("the rotation of `{secret}` was given up again and again: see what its rotation function says; it is asked for anew every {} min",
        AGAIN_AFTER.as_secs() / 60)]
    GivenUp { secret: String },
    #[error(
        "`{secret}` was rotated, and the password before it still opens the target: its rotation function has to change \
         the password of the one user (the single-user strategy)"
    )]
    StillOpens { secret: String },
    #[error("`{secret}` holds no JSON object with `username` and `password`")]
    NotAPassword { secret: String },
}

/// What Amazon said besides.
fn also(told: Option<&str>) -> String {
    told.map(|told| format!("; {told}")).unwrap_or_default()
}

#[derive(Debug)]
pub struct SecretsManager {
    clock: Clock,
    accounts: Accounts,
    /// When the rotation at a session's end was first asked for, by lease.
    begun: Mutex<HashMap<String, Timestamp>>,
    /// When a rotation that does not come to its end was last asked for again, by secret.
    asked_again: Mutex<HashMap<String, Timestamp>>,
}

/// What Amazon's rotation functions for databases keep in a secret.
#[derive(Deserialize)]
struct Kept {
    username: String,
    password: String,
}

impl SecretsManager {
    pub fn new(clock: Clock) -> Self {
        Self { clock, accounts: Accounts::default(), begun: Mutex::default(), asked_again: Mutex::default() }
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a rotation function has failed at stays under way until it is asked for once more (AWS Secrets Manager User
    /// Guide, *Troubleshoot AWS Secrets Manager rotation*). Gives what Amazon said against it.
    async fn ask_again(&self, vault: &Vault<'_>, version: &str) -> Option<String> {
        let now = self.clock.now();
        {
            let mut asked = self.asked_again.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.get(vault.secret).is_some_and(|at| now.since(*at) < AGAIN_AFTER) {
                return None;
            }
            asked.retain(|_, at| now.since(*at) < AGAIN_AFTER);
            asked.insert(vault.secret.to_owned(), now);
        }
        match vault.ask(version).await {
            Ok(()) => None,
            Err(Trouble::Passing(told) | Trouble::ForGood(told)) => {
                tracing::warn!(
                    secret = vault.secret,
                    told,
                    "a rotation that is under way was asked for again"
                );
                Some(told)
            }
        }
    }

    fn is_over(&self, lease: &str) {
        self.begun().remove(lease);
        self.accounts.forget(lease);
    }

    async fn vault<'a>(&'a self, request: &SourceRequest<'a>) -> Result<Vault<'a>, SourceError> {
        let Source::SecretsManager(aws) = &request.target.source else {
            let target = request.target.target.name.clone();
            return Err(SourceError::OtherKind { target, handle: request.handle.to_owned() });
        };
        let config = self.accounts.config(aws, request, self.clock.now()).await?;
        let client = Client::new(&config);
        Ok(Vault { client, clock: &self.clock, secret: request.access_role })
    }
}

#[async_trait]
impl CredentialSource for SecretsManager {
    fn handle(&self, _session: &SessionId, access_role: &str) -> String {
        format!("secrets-manager:{access_role}")
    }

    async fn open(
        &self,
        request: &SourceRequest<'_>,
        is_issued: bool,
        ended: &CancellationToken,
    ) -> Result<Opened, SourceError> {
        let vault = self.vault(request).await?;
        let now = self.clock.now();
        if is_issued {
            // Amid another session's rotation the database may have its next password already.
            vault.settle(now.plus(SETTLE_WITHIN).min(request.ends_at), ended).await?;
        } else {
            let until = now.plus(OPEN_WITHIN).min(request.ends_at);
            let rotated = vault.rotate(request.lease, "issue", until, ended).await;
            if let Err(SourceError::Rotation(RotationError::UnderWay { version, .. })) = &rotated {
                self.ask_again(&vault, version).await;
            }
            rotated?;
            failpoint::reached("secret_rotated");
        }
        let kept = vault.value(CURRENT).await?;
        let password = Secret::new(kept.password);
        let credential = Credential { user: kept.username, password, sent: Sent::Proved, valid_until: None };
        Ok(Opened { credential, admin: None })
    }

    fn unrecorded(&self, lease: &str) -> Vec<Arc<AssumedRole>> {
        self.accounts.unrecorded(lease)
    }

    fn recorded(&self, lease: &str) {
        self.accounts.recorded(lease);
    }

    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<Destruction, SourceError> {
        let outcome = self.destroy_now(request).await;
        if outcome.is_err() {
            // What was assumed may be the reason.
            self.accounts.forget(request.lease);
        }
        outcome
    }
}

impl SecretsManager {
    async fn destroy_now(&self, request: &SourceRequest<'_>) -> Result<Destruction, SourceError> {
        let vault = self.vault(request).await?;
        let now = self.clock.now();
        let since = *self.begun().entry(request.lease.to_owned()).or_insert(now);
        match vault.rotate(request.lease, "end", now, &CancellationToken::new()).await {
            Ok(()) => {}
            Err(SourceError::Rotation(RotationError::UnderWay { secret, version, told })) => {
                if now.since(since) >= DESTROY_WITHIN {
                    let told = self.ask_again(&vault, &version).await.or(told);
                    return Err(RotationError::Stuck { secret, version, told }.into());
                }
                let what = RotationError::UnderWay { secret, version, told }.to_string();
                return Ok(Destruction::UnderWay { what });
            }
            Err(error) => return Err(error),
        }
        failpoint::reached("secret_rotated_away");
        let before = vault.value(PREVIOUS).await?;
        if opens(request.target, &before.username, &Secret::new(before.password)).await? {
            return Err(RotationError::StillOpens { secret: vault.secret.to_owned() }.into());
        }
        self.is_over(request.lease);
        Ok(Destruction::Done(How::Rotated.into()))
    }
}

/// The version that stands for a step in a lease's life, and for the attempts after those that were given up (32 to 64
/// characters: `ClientRequestToken`).
fn version(lease: &str, step: &str, attempt: u32) -> String {
    let hash = crypto::hex(&crypto::sha256(&[format!("{lease}\n{step}\n{attempt}").as_bytes()]));
    hash.chars().take(36).collect()
}

/// One secret.
struct Vault<'a> {
    client: Client,
    /// As whom it asks.
    clock: &'a Clock,
    secret: &'a str,
}

/// How far a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is current, or was.
    Done,
    /// It is being made, or another is.
    UnderWay,
    /// It was being made, and no longer is.
    GivenUp,
    Unknown,
}

impl Vault<'_> {
    async fn value(&self, stage: &str) -> Result<Kept, SourceError> {
        let asked = self.client.get_secret_value().secret_id(self.secret).version_stage(stage).send().await;
        let value = asked.map_err(|error| SourceError::Amazon(explain_answer(&error)))?;
        let kept = value.secret_string().and_then(|text| serde_json::from_str(text).ok());
        kept.ok_or_else(|| RotationError::NotAPassword { secret: self.secret.to_owned() }.into())
    }

    /// Has the secret rotated for this step, unless it was already, and waits until that is done.
    async fn rotate(
        &self,
        lease: &str,
        step: &str,
        until: Timestamp,
        ended: &CancellationToken,
    ) -> Result<(), SourceError> {
        let (mut version, mut asked, mut told, mut pause) =
            (version(lease, step, 0), None, None, FIRST_PAUSE);
        loop {
            let progress = self.progress(lease, step).await.map(|(of, progress)| {
                version = of;
                progress
            });
            match progress {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::GivenUp) => {
                    return Err(RotationError::GivenUp { secret: self.secret.to_owned() }.into());
                }
                Ok(Progress::Unknown) if asked.as_ref() != Some(&version) => {
                    match self.ask(&version).await {
                        Ok(()) => {
                            // Looked at once more before the first pause: it may be done by now.
                            asked = Some(version.clone());
                            continue;
                        }
                        Err(error) => told = Some(error.said_for_good()?),
                    }
                }
                // What was asked for shows up when the rotation function has begun.
                Ok(Progress::Unknown | Progress::UnderWay) => {}
                Err(error) => told = Some(error.said_for_good()?),
            }
            if self.clock.now() >= until {
                let secret = self.secret.to_owned();
                return Err(RotationError::UnderWay { secret, version, told }.into());
            }
            pause = self.pause(pause, until, ended).await?;
        }
    }

    /// Waits until no rotation is under way, as long as that is worth it.
    async fn settle(&self, until: Timestamp, ended: &CancellationToken) -> Result<(), SourceError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.stages().await {
                Ok(stages) if !is_rotating(&stages) => return Ok(()),
                Ok(_) => {}
                Err(error) => _ = error.said_for_good()?,
            }
            if self.clock.now() >= until {
                return Ok(());
            }
            pause = self.pause(pause, until, ended).await?;
        }
    }

    /// Gives the next pause.
    async fn pause(
        &self,
        pause: Duration,
        until: Timestamp,
        ended: &CancellationToken,
    ) -> Result<Duration, SourceError> {
        tokio::select! {
            () = self.clock.sleep_until(self.clock.now().plus(pause).min(until)) => {}
            () = ended.cancelled() => return Err(SourceError::Ended),
        }
        Ok((pause * 2).min(LONGEST_PAUSE))
    }

    async fn stages(&self) -> Result<HashMap<String, Vec<String>>, Trouble> {
        let described = self.client.describe_secret().secret_id(self.secret).send().await;
        let described = described.map_err(|error| Trouble::of(&error))?;
        Ok(described.version_ids_to_stages.unwrap_or_default())
    }

    /// How far the step is, and the version that stands for it: those of the attempts before were given up.
    async fn progress(&self, lease: &str, step: &str) -> Result<(String, Progress), Trouble> {
        let stages = self.stages().await?;
        let is_rotating = is_rotating(&stages);
        let mut all = None;
        for attempt in 0.. {
            let version = version(lease, step, attempt);
            match stages.get(&version) {
                Some(stages) if has(stages, CURRENT) || has(stages, PREVIOUS) => {
                    return Ok((version, Progress::Done));
                }
                Some(stages) if has(stages, PENDING) => return Ok((version, Progress::UnderWay)),
                Some(_) | None => {}
            }
            if is_rotating {
                return Ok((version, Progress::UnderWay));
            }
            // Versions without a stage are told of on request.
            let all = match &mut all {
                Some(all) => all,
                none => none.insert(self.versions().await?),
            };
            let since = match given_up(&version, &stages, all) {
                GivenUp::Since(since) => since,
                GivenUp::Not => return Ok((version, Progress::Done)),
                GivenUp::Unknown => return Ok((version, Progress::Unknown)),
            };
            if attempt >= ATTEMPTS && self.clock.now().since(since) < AGAIN_AFTER {
                return Ok((version, Progress::GivenUp));
            }
        }
        Err(Trouble::Passing("so many attempts were given up that there is no further one".to_owned()))
    }

    /// All versions, of all pages.
    async fn versions(&self) -> Result<Vec<SecretVersionsListEntry>, Trouble> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let page = self.client.list_secret_version_ids().secret_id(self.secret).include_deprecated(true);
            let page = page.set_next_token(next).send().await.map_err(|error| Trouble::of(&error))?;
            // Some emulators give an empty one where there is no more.
            next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            all.extend(page.versions.unwrap_or_default());
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    async fn ask(&self, version: &str) -> Result<(), Trouble> {
        let asking = self.client.rotate_secret().secret_id(self.secret).client_request_token(version);
        match asking.rotate_immediately(true).send().await {
            Ok(_) => Ok(()),
            // Another rotation is under way: looked at again.
            Err(error)
                if matches!(
                    error.as_service_error(),
                    Some(RotateSecretError::InvalidRequestException(_))
                ) =>
            {
                Err(Trouble::Passing(explain_answer(&error)))
            }
            Err(error) => Err(Trouble::of(&error)),
        }
    }
}

/// Whether a version that is not on its way was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    /// It was begun then.
    Since(Timestamp),
    /// It was current, and was followed by others.
    Not,
    /// There is none.
    Unknown,
}

fn given_up(
    version: &str,
    stages: &HashMap<String, Vec<String>>,
    all: &[SecretVersionsListEntry],
) -> GivenUp {
    let of = |version: &str| all.iter().find(|one| one.version_id() == Some(version));
    let Some(ours) = of(version) else { return GivenUp::Unknown };
    let current = stages.iter().find(|(_, stages)| has(stages, CURRENT)).and_then(|(id, _)| of(id));
    // One that was current was followed by others; one that was given up left those before it in place. Where they are of
    // one moment, to rotate once more does no harm.
    if current.is_some_and(|current| current.created_date() > ours.created_date()) {
        return GivenUp::Not;
    }
    let created = ours.created_date().map_or(0, DateTime::secs);
    GivenUp::Since(Timestamp::from_micros(created.saturating_mul(1_000_000)))
}

fn has(stages: &[String], stage: &str) -> bool {
    stages.iter().any(|one| one == stage)
}

/// Whether a version is on its way.
fn is_rotating(stages: &HashMap<String, Vec<String>>) -> bool {
    stages.values().any(|stages| has(stages, PENDING) && !has(stages, CURRENT))
}

/// Why Amazon did not do what it was asked to.
enum Trouble {
    /// It may do it later, or may have done it.
    Passing(String),
    ForGood(String),
}

impl Trouble {
    fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let told = explain_answer(error);
        let refused = error.raw_response().is_some_and(|answer| answer.status().as_u16() < 500);
        let throttled = error.code().is_some_and(|code| code.contains("Throttl"));
        if refused && !throttled { Self::ForGood(told) } else { Self::Passing(told) }
    }

    /// What was said, of what may pass.
    fn said_for_good(self) -> Result<String, SourceError> {
        match self {
            Self::Passing(told) => Ok(told),
            Self::ForGood(told) => Err(SourceError::Amazon(told)),
        }
    }
}

//! Who comes by SSH: with a key that is registered for them, or with a certificate that their login
//! obtained from this server's user authority.
//!
//! Both take a name that a stranger claims. A name that nobody has takes the same course as another
//! and gets the same answer. That the key is theirs who come is proved by the protocol, not here.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto;
use crate::crypto::ssh::authority::Keyring;
use crate::crypto::ssh::certificate::{CertificateOrder, SignError, sign_user};
use crate::crypto::ssh::{self, Algorithm, Certificate};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::PrincipalId;
use crate::domain::name::UserName;
use crate::domain::principal::Principal;
use crate::domain::ssh_key::SshKey;
use crate::domain::time::Timestamp;
use crate::identity::key_id::KeyId;
use crate::identity::login::with_token;
use crate::policy;

use super::credential::error_chain;
use super::login::Authenticated;
use super::refusal::Refusal;
use super::users::Users;
use super::{Access, Caller};

/// What a user's certificate allows at the gateway; what it really may is the policy's to say.
const EXTENSIONS: [&str; 3] = ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];
/// So many keys one person may have.
const MOST_KEYS: usize = 50;
/// So much of a key's comment is kept, in characters.
const LONGEST_COMMENT: usize = 100;

/// The authority of users' certificates.
#[derive(Debug, Clone)]
pub struct UserCa {
    pub keys: Arc<Keyring>,
    /// No certificate is valid for longer.
    pub longest: Duration,
}

/// A certificate that was just made.
#[derive(Debug, Clone)]
pub struct SshCertificate {
    /// The line of a `-cert.pub` file.
    pub line: String,
    pub ends_at: Timestamp,
}

/// What a certificate says that was checked to be of this server's user authority, for the claimed
/// user, and valid now.
#[derive(Debug, Clone, Copy)]
pub struct PresentedCertificate<'a> {
    pub key_id: &'a str,
    /// Seconds since the epoch: when it was issued.
    pub valid_after: u64,
}

impl<'a> From<&'a Certificate> for PresentedCertificate<'a> {
    fn from(certificate: &'a Certificate) -> Self {
        Self { key_id: certificate.key_id(), valid_after: certificate.valid_after() }
    }
}

impl Access {
    /// Registers a key: one's own, or with the right to administer anybody's.
    pub async fn add_ssh_key(
        &self,
        caller: &Caller,
        user: Option<&UserName>,
        line: &str,
    ) -> Result<SshKey, Refusal> {
        let outcome = async {
            let (name, id) = self.owner(caller, user).await?;
            let by = caller.principal.name.as_str();
            let key = new_key(line, id, by, self.now())?;
            self.room_for_key(&key.principal).await?;
            let event = key_event(Action::SshKeyAdded, &name, &key.principal, &key.fingerprint)
                .by(&caller.principal)
                .from(caller.client)
                .with("comment", key.comment.as_str());
            self.store.add_ssh_key(&key, &[event]).await?;
            self.publish().await?;
            Ok(key)
        };
        self.recorded_if_refused(caller, Action::SshKeyAdded, outcome.await).await
    }

    pub async fn remove_ssh_key(
        &self,
        caller: &Caller,
        user: Option<&UserName>,
        fingerprint: &str,
    ) -> Result<(), Refusal> {
        let outcome = async {
            let (name, id) = self.owner(caller, user).await?;
            let event = key_event(Action::SshKeyRemoved, &name, &id, fingerprint)
                .by(&caller.principal)
                .from(caller.client);
            if !self.store.remove_ssh_key(fingerprint, &id, self.now(), &[event]).await? {
                return Err(no_such_key(&name));
            }
            self.publish().await
        };
        self.recorded_if_refused(caller, Action::SshKeyRemoved, outcome.await).await
    }

    pub async fn ssh_keys(&self, caller: &Caller, user: Option<&UserName>) -> Result<Vec<SshKey>, Refusal> {
        let outcome = async {
            let (_, id) = self.owner(caller, user).await?;
            Ok(self.store.ssh_keys_of(&id).await?)
        };
        let keys = self.recorded_if_refused(caller, Action::Read, outcome.await).await?;
        self.read(caller, "ssh_keys", keys.len()).await?;
        Ok(keys)
    }

    /// Whose keys are meant, if the caller may touch them.
    async fn owner(
        &self,
        caller: &Caller,
        user: Option<&UserName>,
    ) -> Result<(UserName, PrincipalId), Refusal> {
        let own = &caller.principal;
        let Some(user) = user.filter(|user| **user != own.name) else {
            return Ok((own.name.clone(), own.id.clone()));
        };
        self.may(caller, policy::Action::Administer)?;
        let account = self.store.user_by_name(user).await?;
        let account = account.ok_or_else(|| Refusal::NotFound { what: format!("user `{user}`") })?;
        Ok((account.principal.name, account.principal.id))
    }

    async fn room_for_key(&self, id: &PrincipalId) -> Result<(), Refusal> {
        if self.store.ssh_keys_of(id).await?.len() < MOST_KEYS {
            return Ok(());
        }
        Err(Refusal::Malformed(format!("{MOST_KEYS} keys are registered already: remove one first")))
    }

    async fn recorded_if_refused<T>(
        &self,
        caller: &Caller,
        action: Action,
        outcome: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Err(refusal) = &outcome {
            let event = Event::new(action, Outcome::Refused)
                .by(&caller.principal)
                .from(caller.client)
                .with("what", "ssh")
                .with("refusal", refusal.to_string())
                .with("code", refusal.code());
            self.record(event).await?;
        }
        outcome
    }

    /// Whose key it is: registered for exactly the user that is claimed, whose account is enabled.
    pub async fn principal_by_ssh_key(
        &self,
        user: &UserName,
        fingerprint: &str,
    ) -> Result<Principal, Refusal> {
        // Both are looked up, whichever is there: how long the answer takes must not tell.
        let account = self.store.user_by_name(user).await?;
        let key = self.store.ssh_key(fingerprint).await?;
        match (account, key) {
            (Some(account), Some(key)) if key.principal == account.principal.id && !account.disabled => {
                Ok(account.principal)
            }
            _ => {
                let told = "this key is not registered for that user: `sallyport key add FILE` registers one";
                Err(Refusal::Unauthenticated(told.to_owned()))
            }
        }
    }

    /// Certifies a key of the caller's for as long as their login lasts, or shorter.
    pub async fn issue_ssh_certificate(
        &self,
        who: &Authenticated,
        line: &str,
    ) -> Result<SshCertificate, Refusal> {
        let outcome = self.certify(who, line).await;
        self.recorded_if_refused(&who.caller, Action::SshCertificateIssued, outcome).await
    }

    async fn certify(&self, who: &Authenticated, line: &str) -> Result<SshCertificate, Refusal> {
        let ca = self.logins.ssh_user_ca.as_ref().ok_or(Refusal::NoSshGateway)?;
        let malformed = |error: &dyn std::error::Error| Refusal::Malformed(error.to_string());
        let key = ssh::parse_public(line).map_err(|error| malformed(&error))?;
        // Of other kinds the gateway could not tell an offered key from an offered certificate.
        if key.algorithm() != Algorithm::Ed25519 {
            let why = "only Ed25519 keys are certified: make one with `ssh-keygen -t ed25519`";
            return Err(Refusal::Malformed(why.to_owned()));
        }
        let principal = &who.caller.principal;
        let key_id =
            KeyId { principal: principal.id.clone(), name: principal.name.clone(), token: who.token.clone() };
        let key_id = key_id.to_string();
        let now = self.now();
        let valid_before = seconds(who.expires_at.min(now.plus(ca.longest)));
        let order = CertificateOrder {
            key: &key,
            key_id: &key_id,
            principals: &[principal.name.as_str()],
            // Not earlier: it is checked by nobody but this server, and tells what voids it.
            valid_after: seconds(now),
            valid_before,
            serial: u64::from_be_bytes(crypto::random()),
            source_address: None,
            extensions: &EXTENSIONS,
        };
        let certificate = sign_user(&*ca.keys.now().signer, &order).await.map_err(|error| match error {
            SignError::NotSigned(_) | SignError::OtherKey => {
                Refusal::AuthorityUnavailable { detail: error_chain(&error) }
            }
            _ => malformed(&error),
        })?;
        let line = certificate.to_openssh().map_err(|error| malformed(&error))?;
        let ends_at = instant(valid_before);
        let event = Event::done(Action::SshCertificateIssued)
            .by(principal)
            .from(who.caller.client)
            .with("serial", order.serial.to_string())
            .with("key", ssh::fingerprint(&key))
            .with("token", who.token.as_str())
            .with("ends_at", ends_at.to_string());
        self.record(event).await?;
        Ok(SshCertificate { line, ends_at })
    }

    /// Whom a certificate stands for: somebody who is still here, by a login that still holds.
    pub async fn principal_by_certificate(
        &self,
        user: &UserName,
        presented: PresentedCertificate<'_>,
    ) -> Result<Principal, Refusal> {
        let unauthenticated = |error: &dyn std::error::Error| Refusal::Unauthenticated(error.to_string());
        let key_id: KeyId = presented.key_id.parse().map_err(|error| unauthenticated(&error))?;
        let account = self.store.user_by_name(user).await?;
        let token = self.store.token(&key_id.token).await?;
        let void_before = account.as_ref().and_then(|account| account.ssh_certificates_void_before);
        let principal =
            with_token(token.as_ref(), account, self.now()).map_err(|error| unauthenticated(&error))?;
        // It was issued within the second that it says.
        let issued_by = instant(presented.valid_after).plus(Duration::from_secs(1));
        if principal.id != key_id.principal || void_before.is_some_and(|void| issued_by <= void) {
            return Err(Refusal::Unauthenticated("this certificate is void: log in again".to_owned()));
        }
        Ok(principal)
    }
}

impl Users<'_> {
    pub async fn add_ssh_key(&self, name: &UserName, line: &str, now: Timestamp) -> Result<SshKey, Refusal> {
        let id = self.id_of(name).await?;
        let key = new_key(line, id, &self.operator, now)?;
        let event = key_event(Action::SshKeyAdded, name, &key.principal, &key.fingerprint)
            .with("comment", key.comment.as_str())
            .with("operator", self.operator.as_str());
        self.store.add_ssh_key(&key, &[event]).await?;
        Ok(key)
    }

    pub async fn remove_ssh_key(
        &self,
        name: &UserName,
        fingerprint: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let id = self.id_of(name).await?;
        let event =
            key_event(Action::SshKeyRemoved, name, &id, fingerprint).with("operator", self.operator.as_str());
        if self.store.remove_ssh_key(fingerprint, &id, now, &[event]).await? {
            return Ok(());
        }
        Err(no_such_key(name))
    }

    pub async fn ssh_keys(&self, name: &UserName) -> Result<Vec<SshKey>, Refusal> {
        Ok(self.store.ssh_keys_of(&self.id_of(name).await?).await?)
    }
}

fn new_key(line: &str, principal: PrincipalId, by: &str, now: Timestamp) -> Result<SshKey, Refusal> {
    let key = ssh::parse_public(line).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let comment = line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    let comment = comment.chars().filter(|symbol| !symbol.is_control()).take(LONGEST_COMMENT).collect();
    Ok(SshKey {
        fingerprint: ssh::fingerprint(&key),
        principal,
        line: ssh::public_line(&key, ""),
        comment,
        added_at: now,
        added_by: by.to_owned(),
    })
}

fn key_event(action: Action, user: &UserName, id: &PrincipalId, fingerprint: &str) -> Event {
    Event::done(action)
        .with("user", user.as_str())
        .with("user_id", id.as_str())
        .with("key", fingerprint.chars().take(LONGEST_COMMENT).collect::<String>())
}

fn no_such_key(user: &UserName) -> Refusal {
    Refusal::NotFound { what: format!("a key of `{user}` with this fingerprint") }
}

fn seconds(instant: Timestamp) -> u64 {
    u64::try_from(instant.as_micros() / 1_000_000).unwrap_or(0)
}

fn instant(seconds: u64) -> Timestamp {
    Timestamp::default().plus(Duration::from_secs(seconds))
}

//! From what a client proves to a principal: a registered key, a certificate of our user authority,
//! or a password and, where they have one, a second factor.
//!
//! An offered key proves nothing; it is told to be worth proving. A plain key must be registered for
//! that; of a key of the kind that Sallyport certifies nothing is told, for the offer does not say
//! whether a certificate is behind it. Whoever does not exist is answered as everybody else.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::settings::Settings;
use crate::access::Access;
use crate::access::connect::Wanted;
use crate::access::refusal::Refusal;
use crate::access::ssh_identity::PresentedCertificate;
use crate::audit::ssh::SshClient;
use crate::crypto::ssh::certificate::check_user_certificate;
use crate::crypto::ssh::{self, Algorithm, Certificate, PublicKey};
use crate::domain::name::UserName;
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::gateway::login::Login;
use crate::identity::token::PREFIX as TOKEN;

/// Who a client has proved to be, and what they want.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub principal: Principal,
    /// The login name as it was given.
    pub claimed: String,
    /// `None`: not named yet.
    pub wanted: Option<Wanted>,
    pub way: Way,
    /// The fingerprint of the key that was proved.
    pub key: Option<String>,
    /// The connection that this one came through.
    pub jump: Option<SshClient>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Key,
    Certificate,
    Interactive,
}

impl Way {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "publickey",
            Self::Certificate => "certificate",
            Self::Interactive => "keyboard-interactive",
        }
    }
}

/// What a client that jumps is known for already, and where it jumps to.
#[derive(Debug, Clone)]
pub(super) struct Jump {
    pub principal: Principal,
    pub wanted: Wanted,
    /// How they came.
    pub through: SshClient,
}

/// The next step of a keyboard-interactive exchange.
#[derive(Debug)]
pub(super) enum Interactive {
    Accept,
    Reject,
    Ask {
        prompt: &'static str,
        /// What is told before: why an earlier attempt of this client failed.
        told: String,
    },
}

const ASK_PASSWORD: &str = "Password: ";
const NOT_REGISTERED: &str =
    "this key is not registered here, and no certificate of it is valid: `sallyport login` obtains one";
const ASK_CODE: &str = "Verification code: ";

/// Where an exchange stands.
#[derive(Debug, Default)]
enum Exchange {
    #[default]
    Start,
    Password,
    /// The password was right.
    Code(Principal),
}

/// Authenticates one client. Who it is comes out by [`Authenticator::known`].
#[derive(Debug)]
pub(super) struct Authenticator {
    access: Arc<Access>,
    settings: Arc<Settings>,
    client: SocketAddr,
    jump: Option<Jump>,
    exchange: Exchange,
    known: Arc<OnceLock<Known>>,
    /// Proofs that were not taken, for the record.
    failed: Arc<OnceLock<Failed>>,
    /// What the client is told at the next prompt: publickey has no words for why it fails.
    hint: String,
}

/// The first proof of a client that was not taken.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub claimed: String,
    pub why: String,
}

impl Authenticator {
    pub(super) fn new(
        access: Arc<Access>,
        settings: Arc<Settings>,
        client: SocketAddr,
        jump: Option<Jump>,
    ) -> Self {
        let (exchange, known, failed, hint) = Default::default();
        Self { access, settings, client, jump, exchange, known, failed, hint }
    }

    /// Where it stands who the client is, once it has been proved.
    pub(super) fn known(&self) -> Arc<OnceLock<Known>> {
        Arc::clone(&self.known)
    }

    /// Where it stands what was tried in vain.
    pub(super) fn failed(&self) -> Arc<OnceLock<Failed>> {
        Arc::clone(&self.failed)
    }

    /// The user that a key must belong to. Behind a jump the name is the host's login or anything
    /// else: the person is known, and must prove to be themselves. A name that cannot be one fails.
    fn user(&mut self, claimed: &str) -> Option<UserName> {
        if let Some(jump) = &self.jump {
            return Some(jump.principal.name.clone());
        }
        match Login::parse(claimed) {
            Ok(login) => Some(login.user),
            Err(malformed) => {
                self.hint = format!("{malformed}: log in as USER or USER+TARGET");
                self.fail(claimed, malformed.to_string());
                None
            }
        }
    }

    /// Behind a jump the target is known, and the name may still say which access is meant.
    fn wanted(&self, claimed: &str) -> Option<Wanted> {
        let named = Login::parse(claimed).ok().and_then(|login| login.wanted);
        let Some(jump) = &self.jump else { return named };
        let access = named.filter(|named| named.target == jump.wanted.target).and_then(|named| named.access);
        Some(Wanted { access, ..jump.wanted.clone() })
    }

    /// Whether proving this key can lead anywhere.
    pub(super) async fn may_be_proved(&mut self, claimed: &str, key: &PublicKey) -> bool {
        let Some(user) = self.user(claimed) else { return false };
        if key.algorithm() == Algorithm::Ed25519 {
            // It may be a certificate's: the offer looks the same.
            return true;
        }
        let fingerprint = ssh::fingerprint(key);
        match self.access.principal_by_ssh_key(&user, &fingerprint).await {
            Ok(_) => true,
            Err(refusal) => self.fail(claimed, format!("{refusal} ({fingerprint}, offered)")),
        }
    }

    /// The client has proved to have this key.
    pub(super) async fn key_proved(&mut self, claimed: &str, key: &PublicKey) -> bool {
        let Some(user) = self.user(claimed) else { return false };
        let fingerprint = ssh::fingerprint(key);
        match self.access.principal_by_ssh_key(&user, &fingerprint).await {
            Ok(principal) => self.settle(claimed, principal, Way::Key, Some(fingerprint)),
            Err(refusal) => {
                // Of a certificate that has ended the library shows us the key alone.
                if self.hint.is_empty() {
                    NOT_REGISTERED.clone_into(&mut self.hint);
                }
                self.fail(claimed, format!("{refusal} ({fingerprint})"))
            }
        }
    }

    /// The client has proved to have this certificate's key.
    pub(super) async fn certificate_proved(&mut self, claimed: &str, certificate: &Certificate) -> bool {
        let Some(user) = self.user(claimed) else { return false };
        match self.principal_of(&user, certificate).await {
            Ok((principal, fingerprint)) => {
                self.settle(claimed, principal, Way::Certificate, Some(fingerprint))
            }
            Err(why) => {
                self.hint.clone_from(&why);
                self.fail(claimed, why)
            }
        }
    }

    /// Whom the certificate stands for, and the fingerprint of its key.
    async fn principal_of(
        &self,
        user: &UserName,
        certificate: &Certificate,
    ) -> Result<(Principal, String), String> {
        let now = u64::try_from(self.access.now().as_micros() / 1_000_000).unwrap_or(u64::MAX);
        let trusted = self.settings.user_ca.now().trusted();
        let checked = check_user_certificate(certificate, &trusted, user.as_str(), self.client.ip(), now);
        let checked = checked.map_err(|refused| refused.to_string())?;
        let presented =
            PresentedCertificate { key_id: &checked.key_id, valid_after: certificate.valid_after() };
        let principal = self.access.principal_by_certificate(user, presented).await;
        let principal = principal.map_err(|refusal| refusal.to_string())?;
        Ok((principal, ssh::fingerprint(&checked.key)))
    }

    /// The client says something at a prompt, or begins. A login token is taken as a password is.
    pub(super) async fn interactive(&mut self, claimed: &str, said: Option<Secret<String>>) -> Interactive {
        let exchange = std::mem::take(&mut self.exchange);
        match (exchange, said) {
            (_, None) => {
                self.user(claimed);
                self.exchange = Exchange::Password;
                Interactive::Ask { prompt: ASK_PASSWORD, told: std::mem::take(&mut self.hint) }
            }
            (Exchange::Start, Some(_)) => Interactive::Reject,
            (Exchange::Password, Some(password)) => self.password(claimed, password).await,
            (Exchange::Code(principal), Some(code)) => self.code(claimed, principal, &code).await,
        }
    }

    async fn password(&mut self, claimed: &str, password: Secret<String>) -> Interactive {
        // Nobody's password is checked as long as anybody's.
        let user = self.user(claimed).map_or_else(|| claimed.to_owned(), |user| user.to_string());
        if password.expose().starts_with(TOKEN) {
            return self.token(claimed, &user, &password).await;
        }
        match self.access.authenticate_password(&user, password, Some(self.client)).await {
            Ok(principal) => match self.access.has_second_factor(&principal.id).await {
                Ok(false) => self.logged_in(claimed, principal, "password").await,
                Ok(true) => {
                    self.exchange = Exchange::Code(principal);
                    Interactive::Ask { prompt: ASK_CODE, told: String::new() }
                }
                Err(refusal) => self.reject(&refusal),
            },
            // On record already: whoever tries passwords is counted and written down there.
            Err(refusal) => self.reject(&refusal),
        }
    }

    fn reject(&mut self, refusal: &Refusal) -> Interactive {
        self.hint = refusal.to_string();
        Interactive::Reject
    }

    async fn token(&mut self, claimed: &str, user: &str, token: &Secret<String>) -> Interactive {
        let attempt = match self.access.admit_token_attempt(user, self.client.ip()) {
            Ok(attempt) => attempt,
            Err(refusal) => return self.reject(&refusal),
        };
        let refusal = match self.access.authenticate(token.expose(), Some(self.client)).await {
            Ok(who) if who.caller.principal.name.as_str() == user => {
                attempt.give_back();
                return self.decide(claimed, who.caller.principal);
            }
            Ok(_) => Refusal::Unauthenticated("this login token is somebody else's".to_owned()),
            Err(refusal) => refusal,
        };
        self.fail(claimed, refusal.to_string());
        self.reject(&refusal)
    }

    async fn code(&mut self, claimed: &str, principal: Principal, code: &Secret<String>) -> Interactive {
        match self.access.check_second_factor(&principal, code.expose().trim(), Some(self.client)).await {
            Ok(()) => self.logged_in(claimed, principal, "password and second factor").await,
            Err(refusal) => self.reject(&refusal),
        }
    }

    async fn logged_in(&mut self, claimed: &str, principal: Principal, way: &str) -> Interactive {
        match self.access.record_login(&principal, Some(self.client), way).await {
            Ok(()) => self.decide(claimed, principal),
            Err(refusal) => self.reject(&refusal),
        }
    }

    fn decide(&self, claimed: &str, principal: Principal) -> Interactive {
        if self.settle(claimed, principal, Way::Interactive, None) {
            Interactive::Accept
        } else {
            Interactive::Reject
        }
    }

    fn settle(&self, claimed: &str, principal: Principal, way: Way, key: Option<String>) -> bool {
        if self.jump.as_ref().is_some_and(|jump| jump.principal.id != principal.id) {
            return self.fail(claimed, "behind a jump one is who one jumped as".to_owned());
        }
        let wanted = self.wanted(claimed);
        let jump = self.jump.as_ref().map(|jump| jump.through.clone());
        let claimed = claimed.chars().take(200).collect();
        let known = Known { principal, claimed, wanted, way, key, jump };
        self.known.set(known).is_ok()
    }

    fn fail(&self, claimed: &str, why: String) -> bool {
        let claimed = claimed.chars().take(200).collect();
        let _first_stays = self.failed.set(Failed { claimed, why });
        false
    }
}

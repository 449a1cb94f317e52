//! Credentials of AWS roles: issued by STS, named by the session in every call that they make, and denied at the role
//! when they must end before they expire.
//!
//! AWS cannot take such a credential back. What it can do is to refuse whatever comes with a given source identity,
//! which is set when the role is assumed, cannot be changed afterwards and follows into roles that are assumed from
//! there. Each session has one of its own, so an inline policy on the role that denies it reaches all that was handed
//! out in the session and nothing else, whenever it was issued.

use std::fmt;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::config::{Credentials, IdentityCache};
use aws_sdk_sts::types::Tag;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::amazon::{explain_answer, sdk_config};
use crate::domain::id::{RequestId, SessionId};
use crate::domain::name::UserName;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

/// What AWS says of a call that an inline or attached policy denies in so many words, unlike of one that none allows
/// (IAM User Guide, "Troubleshoot access denied error messages").
const EXPLICITLY_DENIED: &str = "explicit deny in an identity-based policy";

/// AWS issues nothing shorter (AWS STS, `AssumeRole`, `DurationSeconds`).
pub const SHORTEST: Duration = Duration::from_mins(15);
/// The longest name of a role session, and source identity (AWS STS, `AssumeRole`).
const LONGEST_IDENTITY: usize = 64;

/// A credential that was handed out. Its two secrets are never written down.
pub struct RoleCredential {
    /// Names it in `CloudTrail`; no secret.
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Secret,
    pub expires_at: Timestamp,
}

impl fmt::Debug for RoleCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleCredential").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// What STS is asked for.
#[derive(Debug)]
pub struct AssumeOrder<'a> {
    pub region: &'a str,
    pub endpoint: Option<&'a str>,
    pub role: &'a str,
    /// Source identity and name of the role session in one.
    pub identity: &'a str,
    pub tags: &'a [(&'static str, String)],
    pub session_policy: Option<&'a str>,
    /// The session's end. AWS issues no less than a quarter of an hour: the policy has it end earlier.
    pub not_after: Timestamp,
    pub duration: Duration,
}

/// A role, and the policy on it by which one session's credentials are denied.
#[derive(Debug, Clone, Copy)]
pub struct Deny<'a> {
    pub region: &'a str,
    pub endpoint: Option<&'a str>,
    pub iam_endpoint: Option<&'a str>,
    /// The role to put it as; `None`: as this process itself.
    pub put_as: Option<&'a str>,
    pub role: &'a str,
    pub policy: &'a str,
    pub identity: &'a str,
}

/// What a call with a credential came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// A policy denied it in so many words.
    Denied,
    /// It was allowed, not allowed, or what came of it cannot be told.
    NotDenied,
}

#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// AWS answered, and did not do it.
    #[error("AWS refused to {doing} {role}: {detail}")]
    Refused { doing: &'static str, role: String, detail: String },
    /// It may have been done.
    #[error("AWS cannot be reached to {doing} {role}: {detail}")]
    Unreachable { doing: &'static str, role: String, detail: String },
    #[error("the session policy for {role} is no policy: nothing is handed out without it")]
    NotNarrowed { role: String },
    #[error("AWS issued no credential of {role} that can be used")]
    Unusable { role: String },
}

/// Asks STS and IAM, as whoever the SDK finds that this process is.
#[derive(Debug, Default)]
pub struct AwsRoles {
    /// Loaded when first needed: most installations have no such target.
    shared: OnceCell<SdkConfig>,
}

impl AwsRoles {
    pub async fn assume(&self, order: &AssumeOrder<'_>) -> Result<RoleCredential, RoleError> {
        let policy = bounded(order.session_policy, order.not_after)
            .ok_or_else(|| RoleError::NotNarrowed { role: order.role.to_owned() })?;
        let tags: Vec<Tag> = order
            .tags
            .iter()
            .filter_map(|(key, value)| Tag::builder().key(*key).value(value).build().ok())
            .collect();
        let keys: Vec<String> = order.tags.iter().map(|(key, _)| (*key).to_owned()).collect();
        let answer = self
            .sts(order.region, order.endpoint)
            .await
            .assume_role()
            .role_arn(order.role)
            .role_session_name(order.identity)
            .source_identity(order.identity)
            .duration_seconds(i32::try_from(order.duration.as_secs()).unwrap_or(i32::MAX))
            .policy(policy)
            .set_tags(Some(tags))
            .set_transitive_tag_keys(Some(keys))
            .send()
            .await
            .map_err(|error| failure("assume", order.role, &error))?;
        credential(answer.credentials, order.role)
    }

    /// Whether this process itself acts in a role: what it then assumes lasts an hour at most.
    pub async fn is_in_a_role(&self, region: &str, endpoint: Option<&str>) -> Result<bool, RoleError> {
        let answer = self.sts(region, endpoint).await.get_caller_identity().send().await;
        let answer = answer.map_err(|error| failure("ask who we are before assuming", "a role", &error))?;
        Ok(answer.arn.is_none_or(|arn| arn.contains(":assumed-role/")))
    }

    /// Puts the deny on the role; putting it again changes nothing.
    pub async fn deny(&self, deny: &Deny<'_>) -> Result<(), RoleError> {
        let put =
            self.iam(deny).await?.put_role_policy().role_name(role_name(deny.role)).policy_name(deny.policy);
        let put = put.policy_document(document(deny.identity)).send().await;
        put.map(drop).map_err(|error| failure("put the deny on", deny.role, &error))
    }

    /// Removes the deny from the role, if it is there.
    pub async fn lift(&self, deny: &Deny<'_>) -> Result<(), RoleError> {
        let delete = self.iam(deny).await?.delete_role_policy().role_name(role_name(deny.role));
        match delete.policy_name(deny.policy).send().await {
            Ok(_) => Ok(()),
            // The policy or the whole role.
            Err(error) if error.code() == Some("NoSuchEntity") => Ok(()),
            Err(error) => Err(failure("remove the deny from", deny.role, &error)),
        }
    }

    /// The names of the role's inline policies that begin so. Of the order, all but the policy counts.
    pub async fn policies(&self, of: &Deny<'_>, prefix: &str) -> Result<Vec<String>, RoleError> {
        let client = self.iam(of).await?;
        let pages = client.list_role_policies().role_name(role_name(of.role)).into_paginator();
        let names = pages.items().send().collect::<Result<Vec<String>, _>>().await;
        match names {
            Ok(names) => Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect()),
            Err(error) if error.code() == Some("NoSuchEntity") => Ok(Vec::new()),
            Err(error) => Err(failure("list the policies of", of.role, &error)),
        }
    }

    /// Makes a harmless call with the credential. `GetCallerIdentity` would not do: nothing can deny it. This one
    /// fails in any case, as there is nothing to decode; it depends on the policies how.
    pub async fn probe(&self, region: &str, endpoint: Option<&str>, credential: &RoleCredential) -> Probe {
        let config = sts_config(self.shared().await, region, endpoint)
            .credentials_provider(provided(credential))
            .identity_cache(IdentityCache::no_cache())
            .build();
        let client = aws_sdk_sts::Client::from_conf(config);
        match client.decode_authorization_message().encoded_message("nothing").send().await {
            Err(error) if is_explicitly_denied(error.code(), error.message()) => Probe::Denied,
            _ => Probe::NotDenied,
        }
    }

    async fn shared(&self) -> &SdkConfig {
        // On the heap: it is by far the largest of what is awaited here.
        self.shared.get_or_init(|| Box::pin(sdk_config(None, None))).await
    }

    async fn sts(&self, region: &str, endpoint: Option<&str>) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::from_conf(sts_config(self.shared().await, region, endpoint).build())
    }

    /// The region only says in which part of AWS its one IAM is.
    async fn iam(&self, deny: &Deny<'_>) -> Result<aws_sdk_iam::Client, RoleError> {
        let mut config = aws_sdk_iam::config::Builder::from(self.shared().await)
            .region(Region::new(deny.region.to_owned()));
        config.set_endpoint_url(deny.iam_endpoint.map(str::to_owned));
        if let Some(role) = deny.put_as {
            let credential = self.own(deny.region, deny.endpoint, role).await?;
            config =
                config.credentials_provider(provided(&credential)).identity_cache(IdentityCache::no_cache());
        }
        Ok(aws_sdk_iam::Client::from_conf(config.build()))
    }

    /// A credential of a role for this process itself, for as short as there is.
    async fn own(
        &self,
        region: &str,
        endpoint: Option<&str>,
        role: &str,
    ) -> Result<RoleCredential, RoleError> {
        let order = self.sts(region, endpoint).await.assume_role().role_arn(role);
        let order = order.role_session_name("sallyport").duration_seconds(900);
        let answer = order.send().await.map_err(|error| failure("assume", role, &error))?;
        credential(answer.credentials, role)
    }
}

fn sts_config(shared: &SdkConfig, region: &str, endpoint: Option<&str>) -> aws_sdk_sts::config::Builder {
    let mut config = aws_sdk_sts::config::Builder::from(shared).region(Region::new(region.to_owned()));
    config.set_endpoint_url(endpoint.map(str::to_owned));
    config
}

fn credential(
    issued: Option<aws_sdk_sts::types::Credentials>,
    role: &str,
) -> Result<RoleCredential, RoleError> {
    let unusable = || RoleError::Unusable { role: role.to_owned() };
    let issued = issued.ok_or_else(unusable)?;
    let expires_at = issued.expiration.secs().checked_mul(1_000_000).ok_or_else(unusable)?;
    Ok(RoleCredential {
        access_key_id: issued.access_key_id,
        secret_access_key: Secret::new(issued.secret_access_key),
        session_token: Secret::new(issued.session_token),
        expires_at: Timestamp::from_micros(expires_at),
    })
}

/// Says in AWS's own log who it was and in which session. No two sessions share one.
pub fn identity(who: &str, session: &SessionId) -> String {
    let room = LONGEST_IDENTITY.saturating_sub(session.as_str().len()).saturating_sub(1);
    let who: String = who.chars().take(room).collect();
    format!("{who}@{session}")
}

/// The tags of a session, and of who has it by which request.
pub fn tags(session: &SessionId, of: Option<(&RequestId, &UserName)>) -> Vec<(&'static str, String)> {
    let session = [("sallyport:session", session.to_string())];
    let of = of.map(|(request, principal)| {
        [("sallyport:request", request.to_string()), ("sallyport:principal", principal.to_string())]
    });
    session.into_iter().chain(of.into_iter().flatten()).collect()
}

/// As the SDK takes it.
pub(super) fn provided(credential: &RoleCredential) -> Credentials {
    let token = Some(credential.session_token.expose().clone());
    let (id, secret) = (&credential.access_key_id, credential.secret_access_key.expose());
    Credentials::new(id, secret, token, None, "role")
}

/// IAM's calls name a role without its path.
fn role_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// The session policy, which denies everything after the session's end, whatever becomes of the gateway. Without a
/// configured one it takes nothing else away. None when the configured one is no policy: it is not left out.
fn bounded(configured: Option<&str>, not_after: Timestamp) -> Option<String> {
    // Whole seconds, rounded down, as IAM reads them.
    let second: String =
        not_after.to_string().chars().take("2026-11-27T03:00:00".len()).chain(['Z']).collect();
    let deny = json!({
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": { "DateGreaterThan": { "aws:CurrentTime": second } },
    });
    let mut policy: Value = match configured {
        Some(text) => serde_json::from_str(text).ok()?,
        None => json!({
            "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }],
        }),
    };
    let statement = policy.get_mut("Statement")?;
    let statements = match statement.take() {
        Value::Array(statements) => statements,
        one => vec![one],
    };
    *statement = statements.into_iter().chain([deny]).collect();
    Some(policy.to_string())
}

/// Short, as all inline policies of a role share 10,240 characters.
fn document(identity: &str) -> String {
    let statement = json!({
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": { "StringEquals": { "aws:SourceIdentity": identity } },
    });
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

fn is_explicitly_denied(code: Option<&str>, message: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("AccessDenied"))
        && message.is_some_and(|message| message.contains(EXPLICITLY_DENIED))
}

/// What an error says. Never its `Debug` form, which may show an answer with what is secret in it.
fn failure<E, R>(doing: &'static str, role: &str, error: &SdkError<E, R>) -> RoleError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug + 'static,
{
    let role = role.to_owned();
    let detail = explain_answer(error);
    if let SdkError::ServiceError(_) = error {
        return RoleError::Refused { doing, role, detail };
    }
    RoleError::Unreachable { doing, role, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_person_and_session_in_what_aws_accepts() {
        let session: SessionId = "ses-0123456789abcdef".parse().unwrap();
        assert_eq!(identity("alice", &session), "alice@ses-0123456789abcdef");
        let long = identity(&"a".repeat(63), &session);
        assert_eq!(long.len(), LONGEST_IDENTITY);
        assert!(long.ends_with("@ses-0123456789abcdef"), "{long}");
    }

    #[test]
    fn a_session_policy_ends_with_the_session() {
        let end: Timestamp = "2026-11-27T03:00:00.5Z".parse().unwrap();
        let plain: Value = serde_json::from_str(&bounded(None, end).unwrap()).unwrap();
        assert_eq!(plain["Statement"][0]["Effect"], "Allow");
        let deny = &plain["Statement"][1];
        assert_eq!(deny["Effect"], "Deny");
        assert_eq!(deny["Condition"]["DateGreaterThan"]["aws:CurrentTime"], "2026-11-27T03:00:00Z");
        let configured =
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;
        let narrowed: Value = serde_json::from_str(&bounded(Some(configured), end).unwrap()).unwrap();
        assert_eq!(narrowed["Statement"][0]["Action"], "s3:*");
        assert_eq!(narrowed["Statement"].as_array().unwrap().len(), 2, "nothing is allowed beside it");
        // What `config` leaves room for.
        let added = bounded(Some(configured), end).unwrap().len() - configured.len();
        assert!(added <= 148, "{added}");
        for broken in ["", "{", "{}", "[]"] {
            assert_eq!(bounded(Some(broken), end), None, "{broken}");
        }
    }

    #[test]
    fn a_deny_names_one_session_and_denies_it_everything() {
        let document = document("alice@ses-0123456789abcdef");
        let expected = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": { "StringEquals": { "aws:SourceIdentity": "alice@ses-0123456789abcdef" } },
            }],
        });
        assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), expected);
        // So many sessions may end early in an hour before a role has no room left.
        assert!(document.len() < 10_240 / 50, "{}", document.len());
    }

    #[test]
    fn only_a_policys_own_words_confirm_a_deny() {
        let denied = "User: arn:aws:sts::123456789012:assumed-role/ReadOnly/alice@ses-1 is not authorized to perform: \
                      sts:DecodeAuthorizationMessage with an explicit deny in an identity-based policy";
        let not_allowed = "User: arn:aws:sts::123456789012:assumed-role/ReadOnly/alice@ses-1 is not authorized to \
                           perform: sts:DecodeAuthorizationMessage because no identity-based policy allows the \
                           sts:DecodeAuthorizationMessage action";
        assert!(is_explicitly_denied(Some("AccessDenied"), Some(denied)));
        assert!(is_explicitly_denied(Some("AccessDeniedException"), Some(denied)));
        assert!(!is_explicitly_denied(Some("AccessDenied"), Some(not_allowed)));
        assert!(!is_explicitly_denied(Some("InvalidAuthorizationMessageException"), Some(denied)));
        assert!(!is_explicitly_denied(Some("AccessDenied"), None));
    }

    #[test]
    fn a_role_is_named_to_iam_without_its_path() {
        assert_eq!(role_name("arn:aws:iam::123456789012:role/bank/core/ReadOnly"), "ReadOnly");
    }
}

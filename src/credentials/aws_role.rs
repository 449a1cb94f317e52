//! Credentials of AWS roles: issued by STS, named by the session in every call that they make, and denied at the role
//! when they must end before they expire.
//!
//! AWS cannot take such a credential back. What it can do is to refuse whatever comes with a given source identity,
//! which is set when the role is assumed, cannot be changed afterwards and follows into roles that are assumed from
//! there. Each session has one of its own, so an inline policy on the role that denies it reaches all that was handed
//! out in the session and nothing else, whenever it was issued.

use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::config::{Credentials, IdentityCache};
use aws_sdk_sts::types::Tag;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

/// One request may take so long. Whether it was done is then not known.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What AWS says of a call that an inline or attached policy denies in so many words, unlike of one that none allows
/// (IAM User Guide, "Troubleshoot access denied error messages").
const EXPLICITLY_DENIED: &str = "explicit deny in an identity-based policy";

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
            .set_policy(order.session_policy.map(str::to_owned))
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
        self.shared.get_or_init(|| Box::pin(load())).await
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

async fn load() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(REQUEST_TIMEOUT)
        .operation_timeout(REQUEST_TIMEOUT)
        .build();
    // Who asks retries, or says that it failed.
    let loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::disabled());
    loader.timeout_config(timeouts).load().await
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

/// As the SDK takes it.
fn provided(credential: &RoleCredential) -> Credentials {
    let token = Some(credential.session_token.expose().clone());
    let (id, secret) = (&credential.access_key_id, credential.secret_access_key.expose());
    Credentials::new(id, secret, token, None, "role")
}

/// IAM's calls name a role without its path.
fn role_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
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
    if let SdkError::ServiceError(answer) = error {
        let (code, message) = (answer.err().code(), answer.err().message());
        let detail = format!("{}: {}", code.unwrap_or("no code"), message.unwrap_or("no message"));
        return RoleError::Refused { doing, role, detail: detail.chars().take(600).collect() };
    }
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        detail = format!("{detail}: {error}");
        cause = error.source();
    }
    RoleError::Unreachable { doing, role, detail: detail.chars().take(600).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(serde_json::from_str::<serde_json::Value>(&document).unwrap(), expected);
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

//! A token by which Amazon RDS lets a user in (IAM database authentication): made here for each connection, by a
//! signature over host, port and user, and worth nothing after a quarter of an hour or at the session's end.
//!
//! There is nothing at the source to destroy: nobody but the gateway has a token, and it expires by itself. The connections
//! that it opened end with the session.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_sts::config::{Credentials, ProvideCredentials as _};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;
use super::{
    AssumedRole, Credential, CredentialSource, Destruction, How, Opened, Sent, SourceError, SourceRequest,
    bounded,
};
use crate::amazon::explain;
use crate::clock::Clock;
use crate::config::{Aws, Source};
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

/// The longest life that RDS grants a token (Amazon RDS User Guide, *IAM database authentication*).
const LONGEST: Duration = Duration::from_mins(15);

#[derive(Debug)]
pub struct RdsIam {
    clock: Clock,
    accounts: Accounts,
}

impl RdsIam {
    pub fn new(clock: Clock) -> Self {
        Self { clock, accounts: Accounts::default() }
    }

    async fn open_now(&self, request: &SourceRequest<'_>) -> Result<Opened, SourceError> {
        let target = request.target;
        let Source::RdsIam(aws) = &target.source else {
            let target = target.target.name.clone();
            return Err(SourceError::OtherKind { target, handle: request.handle.to_owned() });
        };
        let failed = SourceError::Amazon;
        let config = self.accounts.config(aws, request, self.clock.now()).await?;
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| failed("nothing says as whom to sign".to_owned()))?;
        let signer = provider.provide_credentials().await.map_err(|error| failed(explain(&error)))?;
        let now = self.clock.now();
        let valid_for = LONGEST.min(request.ends_at.since(now));
        let address = &target.hosts.preferred().address;
        let place = Place { host: &address.host, port: address.port, user: request.access_role };
        let token = token(&place, aws, signer, now, valid_for).map_err(failed)?;
        let credential = Credential {
            user: request.access_role.to_owned(),
            password: Secret::new(token),
            sent: Sent::AsItIs,
            valid_until: Some(now.plus(valid_for)),
        };
        Ok(Opened { credential, admin: None })
    }
}

#[async_trait]
impl CredentialSource for RdsIam {
    fn handle(&self, _session: &SessionId, access_role: &str) -> String {
        format!("rds-iam:{access_role}")
    }

    async fn open(
        &self,
        request: &SourceRequest<'_>,
        _is_issued: bool,
        _ended: &CancellationToken,
    ) -> Result<Opened, SourceError> {
        bounded(Box::pin(self.open_now(request))).await
    }

    fn unrecorded(&self, lease: &str) -> Vec<Arc<AssumedRole>> {
        self.accounts.unrecorded(lease)
    }

    fn recorded(&self, lease: &str) {
        self.accounts.recorded(lease);
    }

    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<Destruction, SourceError> {
        self.accounts.forget(request.lease);
        Ok(Destruction::Done(How::Expires.into()))
    }
}

/// Where a token lets whom in.
struct Place<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
}

/// The token: a presigned request (AWS Signature Version 4, query parameters) without its scheme.
fn token(
    place: &Place<'_>,
    aws: &Aws,
    signer: Credentials,
    now: Timestamp,
    valid_for: Duration,
) -> Result<String, String> {
    let mut settings = SigningSettings::default();
    // Whole seconds: rounded down.
    settings.expires_in = Some(Duration::from_secs(valid_for.as_secs()));
    settings.signature_location = SignatureLocation::QueryParams;
    let identity = signer.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&aws.region)
        .name("rds-db")
        .time(system_time(now))
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?;
    let mut url =
        Url::parse(&format!("https://{}:{}/", place.host, place.port)).map_err(|error| error.to_string())?;
    url.query_pairs_mut().append_pair("Action", "connect").append_pair("DBUser", place.user);
    let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]));
    let request = request.map_err(|error| explain(&error))?;
    let token = sign(request, &parameters.into()).map_err(|error| explain(&error))?;
    for (name, value) in token.output().params() {
        url.query_pairs_mut().append_pair(name, value);
    }
    let token = url.as_str();
    Ok(token.strip_prefix("https://").unwrap_or(token).to_owned())
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
}

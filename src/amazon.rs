//! How Amazon's services are reached, by Amazon's SDK.

pub mod kms;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

/// One request may take so long. Whether it was done is then not known.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is told of an error, in characters.
const LONGEST_TEXT: usize = 600;

/// Amazon's configuration; what is left out comes from the SDK's usual places. Without the SDK's own repetitions:
/// who needs an order keeps it.
pub async fn sdk_config(region: Option<&str>, endpoint: Option<&str>) -> aws_config::SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(REQUEST_TIMEOUT)
        .operation_timeout(REQUEST_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}

/// What an error says, with its causes. Never its `Debug` form, which may show an answer with what is secret in it, and
/// tells the same refusal in other words each time.
pub fn explain(error: &(impl std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.chars().take(LONGEST_TEXT).collect()
}

/// As [`explain`], of a request to a service: what a service refused, by its code and message alone.
pub fn explain_answer<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let SdkError::ServiceError(answer) = error else { return explain(error) };
    let (code, message) = (answer.err().code(), answer.err().message());
    let text = format!("{}: {}", code.unwrap_or("no code"), message.unwrap_or("no message"));
    text.chars().take(LONGEST_TEXT).collect()
}

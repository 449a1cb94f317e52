//! `sallyport aws`: a credential of an AWS role for whatever program asks: as `credential_process`, as variables of
//! the environment, as an address that opens the console. Nothing of it is written to a file.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::out;
use crate::domain::name::{AccessName, TargetName};
use crate::http::api::aws::AwsBody;
use crate::http::view_aws::AwsCredentialView;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    target: TargetName,
    /// Needed when you have sessions for several accesses
    #[arg(long)]
    access: Option<AccessName>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Process)]
    format: Format,
    /// Where sign-in addresses come from, instead of AWS's own (for private access to the console)
    #[arg(long, value_name = "URL")]
    sign_in: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// What `credential_process` in ~/.aws/config wants: the AWS CLI and SDKs ask again by themselves
    Process,
    /// Lines for a shell: eval "$(sallyport aws TARGET --format env)"
    Env,
    /// An address that opens the AWS console; whoever has it within 15 minutes is signed in
    ConsoleUrl,
    /// All that the server says
    Json,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let Arguments { target, access, format, sign_in } = arguments;
    let body = AwsBody { target, access };
    let credential: Result<AwsCredentialView, Failure> = client.post("/pam/aws-credentials", &body).await;
    let credential = credential.map_err(|mut failure| {
        if failure.code.as_deref() == Some("ambiguous_access") {
            failure.hint = Some(format!("name it: sallyport aws {} --access ACCESS", body.target));
        }
        failure
    })?;
    match format {
        Format::Process => out::json(&process(&credential))?,
        Format::Env => out::line(environment(&credential))?,
        Format::Json => out::json(&credential)?,
        Format::ConsoleUrl => out::line(console(&credential, sign_in.as_deref()).await?)?,
    }
    Ok(Exit::Done)
}

/// "Sourcing credentials with an external process" in the AWS SDKs and Tools Reference Guide.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Process<'a> {
    version: u8,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: &'a str,
    expiration: String,
}

fn process(credential: &AwsCredentialView) -> Process<'_> {
    Process {
        version: 1,
        access_key_id: &credential.access_key_id,
        secret_access_key: &credential.secret_access_key,
        session_token: &credential.session_token,
        // What is denied from the session's end on is not worth using until it expires.
        expiration: credential.expires_at.min(credential.session_ends_at).to_string(),
    }
}

fn environment(credential: &AwsCredentialView) -> String {
    let line = |name: &str, value: &str| format!("export {name}='{}'", value.replace('\'', "'\\''"));
    [
        line("AWS_ACCESS_KEY_ID", &credential.access_key_id),
        line("AWS_SECRET_ACCESS_KEY", &credential.secret_access_key),
        line("AWS_SESSION_TOKEN", &credential.session_token),
        line("AWS_REGION", &credential.region),
    ]
    .join("\n")
}

/// Where a partition's sign-in and console are.
struct Partition {
    sign_in: &'static str,
    console: &'static str,
}

/// "Enable custom identity broker access to the AWS console" in the IAM User Guide.
fn partition(role: &str) -> Partition {
    match role.split(':').nth(1) {
        Some("aws-us-gov") => Partition {
            sign_in: "https://signin.amazonaws-us-gov.com",
            console: "https://console.amazonaws-us-gov.com/",
        },
        Some("aws-cn") => {
            Partition { sign_in: "https://signin.amazonaws.cn", console: "https://console.amazonaws.cn/" }
        }
        _ => {
            Partition { sign_in: "https://signin.aws.amazon.com", console: "https://console.aws.amazon.com/" }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignInToken {
    signin_token: String,
}

/// Trades the credential for an address that signs in whoever opens it.
async fn console(credential: &AwsCredentialView, sign_in: Option<&str>) -> Result<String, Failure> {
    let partition = partition(&credential.role);
    let federation = format!("{}/federation", sign_in.unwrap_or(partition.sign_in).trim_end_matches('/'));
    let session = json!({
        "sessionId": credential.access_key_id,
        "sessionKey": credential.secret_access_key,
        "sessionToken": credential.session_token,
    });
    let session = session.to_string();
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let http = http.map_err(|error| Failure::of("cannot set up TLS", &error))?;
    let unreachable = |error: reqwest::Error| {
        // The address holds the credential.
        let error = error.without_url();
        let mut failure = Failure::of(format!("{federation} gives no sign-in token"), &error);
        failure.exit = Exit::Unreachable;
        failure.hint("check the network, or use --format env")
    };
    let at = |parameters: &[(&str, &str)]| {
        reqwest::Url::parse_with_params(&federation, parameters)
            .map_err(|error| Failure::of(format!("`{federation}` is not an address"), &error))
    };
    let ask = at(&[("Action", "getSigninToken"), ("Session", &session)])?;
    let answer =
        http.get(ask).send().await.and_then(reqwest::Response::error_for_status).map_err(unreachable)?;
    let token: SignInToken = answer.json().await.map_err(unreachable)?;
    at(&[
        ("Action", "login"),
        ("Issuer", "sallyport"),
        ("Destination", partition.console),
        ("SigninToken", &token.signin_token),
    ])
    .map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn credential() -> AwsCredentialView {
        AwsCredentialView {
            access_key_id: "ASIAX".to_owned(),
            secret_access_key: "se'cret".to_owned(),
            session_token: "token==".to_owned(),
            expires_at: "2026-11-27T10:15:00Z".parse().unwrap(),
            session_ends_at: "2026-11-27T10:10:00Z".parse().unwrap(),
            session: "ses-0123456789abcdef".parse().unwrap(),
            role: "arn:aws:iam::123456789012:role/ReadOnly".to_owned(),
            region: "eu-central-1".to_owned(),
        }
    }

    #[test]
    fn a_process_is_told_to_come_back_at_the_sessions_end() {
        let mut found = serde_json::to_value(process(&credential())).unwrap();
        let expiration = found["Expiration"].take();
        let expiration: Timestamp = expiration.as_str().unwrap().parse().unwrap();
        assert_eq!(expiration, credential().session_ends_at);
        let expected = json!({
            "Version": 1,
            "AccessKeyId": "ASIAX",
            "SecretAccessKey": "se'cret",
            "SessionToken": "token==",
            "Expiration": null,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_shell_reads_the_environment_as_it_is() {
        let lines = environment(&credential());
        let shell = format!("{lines}\nprintf '%s|%s' \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_SESSION_TOKEN\"");
        let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "se'cret|token==");
    }

    #[test]
    fn each_partition_has_its_own_console() {
        assert!(partition("arn:aws-us-gov:iam::1:role/x").console.contains("us-gov"));
        assert!(partition("arn:aws-cn:iam::1:role/x").sign_in.contains("amazonaws.cn"));
        assert!(partition("arn:aws:iam::1:role/x").sign_in.contains("signin.aws.amazon.com"));
    }
}

//! `kind = "aws"`: roles of AWS accounts, and how long and for what credentials of them are handed out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{Common, Section, files};
use crate::config::server::url;
use crate::domain::name::AccessName;
use crate::domain::target::{Target, TargetKind};

/// The shortest and the longest that AWS issues credentials of a role for.
const SHORTEST: Duration = Duration::from_mins(15);
pub const LONGEST_CREDENTIAL: Duration = Duration::from_hours(12);
/// What a role allows at most unless somebody changed it.
const DEFAULT_MAXIMUM: Duration = Duration::from_hours(1);
/// The longest session policy that AWS accepts, in characters.
const LONGEST_POLICY: usize = 2_048 - ENDING;
/// What is added to each: that it ends with the session.
const ENDING: usize = 148;
/// The longest name of a role (IAM's quotas).
const LONGEST_ROLE: usize = 64;

/// A role target: what policies see of it, and which roles its accesses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsTarget {
    pub target: Target,
    /// Whose STS issues the credentials.
    pub region: String,
    /// Instead of AWS's own address for STS: of a VPC endpoint, or an emulator.
    pub endpoint: Option<String>,
    /// As `endpoint`, for IAM, where what was handed out is denied.
    pub iam_endpoint: Option<String>,
    /// The role that the gateway assumes to put denies, where the roles are another account's than its own.
    pub deny_as: Option<String>,
    /// The ARN of the role that each access is.
    pub roles: BTreeMap<AccessName, String>,
    /// What further narrows each access, as compact JSON; those that are not here are narrowed by nothing.
    pub session_policies: BTreeMap<AccessName, String>,
    /// How long a credential may be good at most: no longer than what the roles allow.
    pub maximum: Duration,
}

/// `None` when something is wrong with it, which then is reported.
pub(super) fn read(section: &Section<'_>, common: Common) -> Option<AwsTarget> {
    let region = region(section);
    let (endpoint, iam_endpoint) = (url(section, "endpoint"), url(section, "iam_endpoint"));
    if endpoint.as_deref().is_some_and(is_emulator) && !section.has("iam_endpoint") {
        let what = "`endpoint` is no address of AWS: say where IAM is, so that what is handed out there can be \
                    denied there";
        section.missing("iam_endpoint", what);
    }
    let deny_as = section.text("deny_as");
    if let Some(Err(error)) = deny_as.map(role_arn) {
        section.blame("deny_as", error);
    }
    let what = "say which role each access is, for example \
                `{ readonly = \"arn:aws:iam::123456789012:role/ReadOnly\" }`";
    let roles = super::accesses(section, what, role_arn);
    let session_policies = session_policies(section, &roles);
    let maximum = section.duration("maximum", SHORTEST, LONGEST_CREDENTIAL).unwrap_or(DEFAULT_MAXIMUM);
    Some(AwsTarget {
        target: common.target(TargetKind::Aws, roles.keys().cloned().collect())?,
        region: region?,
        endpoint,
        iam_endpoint,
        deny_as: deny_as.map(str::to_owned),
        roles,
        session_policies,
        maximum,
    })
}

fn region(section: &Section<'_>) -> Option<String> {
    let text =
        section.required_text("region", "the AWS region whose STS is asked, for example `eu-central-1`")?;
    if text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Some(text.to_owned());
    }
    section.blame(
        "region",
        format!("`{text}` is not a region: write one as AWS does, for example `eu-central-1`"),
    );
    None
}

/// Whether an address is on this machine alone, where no endpoint of AWS is.
fn is_emulator(endpoint: &str) -> bool {
    ["http://127.", "http://localhost", "http://[::1]"].iter().any(|local| endpoint.starts_with(local))
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
fn role_arn(text: &str) -> Result<(), String> {
    let malformed = |why: &str| {
        format!(
            "`{}` is not a role's ARN ({why}): write it as IAM shows it, for example \
             `arn:aws:iam::123456789012:role/ReadOnly`",
            text.escape_debug()
        )
    };
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &["arn", partition, "iam", "", account, resource] = parts.as_slice() else {
        return Err(malformed("it must begin with `arn:aws:iam::`"));
    };
    if !partition.starts_with("aws") || !partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
        return Err(malformed("there is no such partition"));
    }
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed("an account has 12 digits"));
    }
    let Some(path) = resource.strip_prefix("role/") else { return Err(malformed("it is no role")) };
    let name = path.rsplit('/').next().unwrap_or(path);
    let names_one = !name.is_empty() && name.len() <= LONGEST_ROLE && name.bytes().all(is_of_a_name);
    // A path may hold more, and is only ever looked at by AWS.
    if names_one && path.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(malformed("that is not a role's name"))
}

const fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'=' | b',' | b'.' | b'@' | b'-')
}

/// The files under `session_policies`, by access.
fn session_policies(
    section: &Section<'_>,
    roles: &BTreeMap<AccessName, String>,
) -> BTreeMap<AccessName, String> {
    let read = |access: &str, file: &str| {
        let access: AccessName = access.parse().map_err(|error| format!("{error}"))?;
        if !roles.contains_key(&access) {
            return Err(format!("`{access}` is not among the `accesses`: name one that is"));
        }
        session_policy(&section.document.resolve(file)).map(|policy| (access, policy))
    };
    section.section("session_policies").entries(read).into_iter().collect()
}

/// A policy without the white space that AWS would count.
fn session_policy(path: &Path) -> Result<String, String> {
    let at = path.display();
    let text = files::text(path)?;
    let policy: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("`{at}` is not JSON: {error}"))?;
    if policy.get("Statement").is_none() {
        return Err(format!("`{at}` is not a policy: it has no `Statement`"));
    }
    let compact = policy.to_string();
    if let Some(foreign) = compact.chars().find(|c| !(' '..='\u{ff}').contains(c)) {
        return Err(format!(
            "`{at}` holds `{foreign}`: AWS accepts Latin-1 in a session policy and nothing else"
        ));
    }
    let length = compact.chars().count();
    if length > LONGEST_POLICY {
        return Err(format!(
            "`{at}` has {length} characters without its white space, {LONGEST_POLICY} fit into what AWS accepts: say less, or \
             narrow the role itself"
        ));
    }
    Ok(compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_by_its_arn() {
        for good in [
            "arn:aws:iam::123456789012:role/ReadOnly",
            "arn:aws-us-gov:iam::123456789012:role/bank/core/db.admin@x",
            "arn:aws-cn:iam::123456789012:role/a",
        ] {
            assert_eq!(role_arn(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "ReadOnly",
            "arn:aws:iam::12345678901:role/ReadOnly",
            "arn:aws:iam::123456789012:user/ReadOnly",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a b",
            "arn:aws:iam::123456789012:role/*",
            "arn:aws:iam:eu-central-1:123456789012:role/a",
            "arn:AWS:iam::123456789012:role/a",
            "arn:aws:sts::123456789012:assumed-role/a/b",
            &format!("arn:aws:iam::123456789012:role/{}", "x".repeat(65)),
        ] {
            assert!(role_arn(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_policy_is_counted_without_its_white_space() {
        let dir = tempfile::tempdir().unwrap();
        let written = |text: &str| {
            let path = dir.path().join("policy.json");
            std::fs::write(&path, text).unwrap();
            session_policy(&path)
        };
        let spread = format!("{{ \"Statement\":{}[ ] }}", "\n".repeat(3_000));
        assert_eq!(written(&spread).as_deref(), Ok("{\"Statement\":[]}"));
        let long = |length: usize| format!("{{\"Statement\":\"{}\"}}", "x".repeat(length));
        assert!(written(&long(LONGEST_POLICY - 16)).is_ok());
        assert!(
            written(&long(LONGEST_POLICY - 15))
                .unwrap_err()
                .contains(&format!("{} characters", LONGEST_POLICY + 1))
        );
        assert!(written("{}").unwrap_err().contains("no `Statement`"));
        assert!(written("[").unwrap_err().contains("is not JSON"));
        assert!(written("{\"Statement\":\"→\"}").unwrap_err().contains("Latin-1"));
    }
}

//! `[target.credential]`: where a database's credentials come from. Without it, a role is made for each session.

use super::Section;
use super::postgres::{self, Admin};
use crate::config::server::url;

/// Where a session's credential comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A role for each session, made by this admin. An access is a role that the session's role is a member of.
    Role(Admin),
    /// A secret in AWS Secrets Manager, rotated for each session. An access is a secret's name or ARN.
    SecretsManager(Aws),
    /// For each connection, a token by which RDS lets a user in. An access is a user.
    RdsIam(Aws),
    /// A password that Sallyport keeps, encrypted. An access is the name that it is kept under.
    Static(Static),
}

/// Which of Amazon's regions, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    pub region: String,
    /// Instead of Amazon's own address.
    pub endpoint: Option<String>,
    /// The role that is assumed for it, in the session's name; without it, what Amazon's SDK finds.
    pub role: Option<String>,
}

/// How a kept password is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    /// A program with its arguments, run after each session.
    pub rotate: Option<Vec<String>>,
    /// Whether a target that asks for the password as an MD5 hash gets it.
    pub allow_md5: bool,
}

/// The kinds, as the configuration names them.
const KINDS: &str = "`role`, `secrets-manager`, `rds-iam` or `static`";

impl Source {
    /// As whom roles are made, where they are.
    pub fn admin(&self) -> Option<&Admin> {
        match self {
            Self::Role(admin) => Some(admin),
            Self::SecretsManager(_) | Self::RdsIam(_) | Self::Static(_) => None,
        }
    }

    /// Whether both say the same, secrets included.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Role(one), Self::Role(other)) => one.same(other),
            (Self::SecretsManager(one), Self::SecretsManager(other))
            | (Self::RdsIam(one), Self::RdsIam(other)) => one == other,
            (Self::Static(one), Self::Static(other)) => one == other,
            _ => false,
        }
    }
}

/// `None` when something is wrong with it, which then is reported.
pub(super) fn read(
    section: &Section<'_>,
    default_database: Option<&String>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<Source> {
    let role = || postgres::admin(section, default_database, environment).map(Source::Role);
    if !section.has("credential") {
        return role();
    }
    let credential = section.section("credential");
    let kind = credential.required_text("kind", &format!("write {KINDS}"))?;
    let allow_md5 = credential.switch("allow_md5");
    if allow_md5 && (kind != "static" || credential.has("rotate")) {
        let what = "is for `static` credentials without `rotate`: others are proved by SCRAM or are tokens; leave it out";
        credential.blame("allow_md5", what);
    }
    let source = match kind {
        "role" => role(),
        "secrets-manager" => aws(&credential).map(Source::SecretsManager),
        "rds-iam" => aws(&credential).map(Source::RdsIam),
        "static" => rotation(&credential).map(|rotate| Source::Static(Static { rotate, allow_md5 })),
        other => {
            credential.blame("kind", format!("`{other}` is no kind of credential: there are {KINDS}"));
            return None;
        }
    };
    credential.finish();
    if kind != "role" && section.has("admin") {
        section.blame("admin", format!("is of no use with `{kind}` credentials: leave it out"));
    }
    source
}

fn aws(section: &Section<'_>) -> Option<Aws> {
    let region = section.required_text("region", "name Amazon's region, for example `eu-central-1`");
    let endpoint = url(section, "endpoint");
    let role = section.text("role");
    if let Some(role) = role.filter(|role| !is_role(role)) {
        section.blame("role", format!("`{role}` is no role: write `arn:aws:iam::123456789012:role/NAME`"));
    }
    Some(Aws { region: region?.to_owned(), endpoint, role: role.map(str::to_owned) })
}

/// Whether it has the form of a role's ARN.
fn is_role(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    matches!(parts.as_slice(), ["arn", _, "iam", "", account, name]
        if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
            && name.strip_prefix("role/").is_some_and(|name| !name.is_empty()))
}

/// `None` when it is wrong; `Some(None)` without one.
#[expect(clippy::option_option, reason = "the outer is the readers' convention, the inner is what was read")]
fn rotation(section: &Section<'_>) -> Option<Option<Vec<String>>> {
    if !section.has("rotate") {
        return Some(None);
    }
    let command: Vec<String> = section.list("rotate")?;
    match command.first() {
        Some(program) if program.starts_with('/') => Some(Some(command)),
        _ => {
            section.blame("rotate", "begins with the whole path of a program, its arguments follow");
            None
        }
    }
}

/// Refuses what cannot be the name of a file of its own.
pub fn kept_name(text: &str) -> Result<(), String> {
    let holds_well = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if text.is_empty() || text.len() > 100 || text.starts_with('.') || !text.chars().all(holds_well) {
        let rule = "letters, digits and `_-.`, 100 at most, no `.` first";
        return Err(format!("`{}` is no name to keep a password under: {rule}", text.escape_debug()));
    }
    Ok(())
}

/// Refuses what cannot be a secret's name or ARN (AWS Secrets Manager, `SecretId`).
pub(super) fn secret_name(text: &str) -> Result<(), String> {
    let holds_well = |c: char| c.is_ascii_alphanumeric() || "/_+=.@:-".contains(c);
    if text.is_empty() || text.len() > 2048 || !text.chars().all(holds_well) {
        return Err(format!("`{}` names no secret: letters, digits and `/_+=.@-`", text.escape_debug()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_by_its_arn() {
        assert!(is_role("arn:aws:iam::123456789012:role/service/ledger"));
        for other in [
            "ledger",
            "arn:aws:iam::12:role/x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::123456789012:role/",
        ] {
            assert!(!is_role(other), "{other}");
        }
    }
}

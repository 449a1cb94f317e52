//! `sallyport ca`: the SSH authorities' keys, on the server's own host, whether or not the server is up. The server
//! takes up what is changed when it is reloaded, and records it then.

use std::path::PathBuf;

use serde::Serialize;

use super::exit::{Exit, Failure, Outcome};
use super::{Form, audit, out};
use crate::config::authority::{self, RotateError, Step};
use crate::config::{AuthorityKeys, Signs, Ssh};
use crate::credentials::ssh_authority::{KnownKeys, SshAuthority};
use crate::crypto::ssh::{PublicKey, fingerprint, public_line};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Ca {
    /// Show the keys of the SSH authorities: those that sign, will sign, and did
    Show(Show),
    /// Give an SSH authority another key, in three steps
    #[command(subcommand)]
    Rotate(Rotate),
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Rotate {
    /// Make the next key; whoever trusts the authority is to trust it from now on
    Prepare(One),
    /// Have the next key sign, in the place of the current one, which is trusted still
    Activate(One),
    /// Forget the next key, before it signs: nobody is to trust it any more
    Abandon(One),
    /// Forget the key before the current one: nobody is to trust it any more
    Retire(One),
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// `host` vouches for the gateway, `user` for people, `login` for the gateway at its targets
    authority: Name,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
struct Where {
    /// The server's configuration, which names the keys
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Name {
    Host,
    User,
    Login,
}

impl Name {
    const ALL: [Self; 3] = [Self::Host, Self::User, Self::Login];

    const fn text(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User => "user",
            Self::Login => "login",
        }
    }

    /// What it is for.
    const fn vouches(self) -> &'static str {
        match self {
            Self::Host => "vouches for the gateway, to people's clients",
            Self::User => "vouches for people, to the gateway",
            Self::Login => "vouches for the gateway, to the targets",
        }
    }

    const fn configured(self, ssh: &Ssh) -> &AuthorityKeys {
        match self {
            Self::Host => &ssh.host_ca,
            Self::User => &ssh.user_ca,
            Self::Login => &ssh.login_ca,
        }
    }

    /// How those who trust it hear of other keys.
    const fn tell(self) -> &'static str {
        match self {
            Self::Host => "everybody runs `sallyport config ssh` again",
            Self::User => "nobody else need be told: the gateway alone trusts it",
            Self::Login => "every target gets the script of `sallyport target bootstrap ssh` again",
        }
    }

    /// What it takes for a key not to be needed any more.
    const fn wait(self) -> &'static str {
        match self {
            Self::Host => "every client of the gateway trusts the new key",
            Self::User => "the certificates of the key before have ended, or their people can log in again",
            Self::Login => "the server was reloaded, and logs in to every target",
        }
    }
}

#[derive(Debug, Serialize)]
struct Authority {
    name: Name,
    keys: Vec<Key>,
}

#[derive(Debug, Serialize)]
struct Key {
    role: &'static str,
    fingerprint: String,
    line: String,
}

pub(super) fn run(command: Ca) -> Outcome {
    match command {
        Ca::Show(arguments) => show(&arguments),
        Ca::Rotate(Rotate::Prepare(one)) => rotate(&one, authority::prepare, prepared),
        Ca::Rotate(Rotate::Activate(one)) => rotate(&one, authority::activate, activated),
        Ca::Rotate(Rotate::Abandon(one)) => rotate(&one, authority::abandon, abandoned),
        Ca::Rotate(Rotate::Retire(one)) => rotate(&one, authority::retire, retired),
    }
}

fn show(arguments: &Show) -> Outcome {
    let ssh = configured(&arguments.at)?;
    let authorities = Name::ALL.iter().map(|name| Ok(Authority { name: *name, keys: keys(*name, &ssh)? }));
    let authorities = authorities.collect::<Result<Vec<_>, Failure>>()?;
    if arguments.form.json {
        out::json(&serde_json::json!({ "authorities": authorities }))?;
        return Ok(Exit::Done);
    }
    for Authority { name, keys } in authorities {
        out::line(format!("{}: {}", name.text(), name.vouches()))?;
        list(&keys)?;
    }
    Ok(Exit::Done)
}

fn rotate(
    one: &One,
    step: fn(&std::path::Path) -> Result<Step, RotateError>,
    say: fn(Name, Step) -> [String; 2],
) -> Outcome {
    let name = one.authority;
    let ssh = configured(&one.at)?;
    let Signs::File(path) = &name.configured(&ssh).signs else { return Err(in_kms(name)) };
    let step = step(path).map_err(|error| refused(name, &error))?;
    let [done, next] = say(name, step);
    out::line(done)?;
    list(&keys(name, &ssh)?)?;
    out::line(next)?;
    Ok(Exit::Done)
}

fn list(keys: &[Key]) -> Result<(), Failure> {
    for Key { role, fingerprint, line } in keys {
        out::line(format!("  {role:<8}  {fingerprint}\n            {line}"))?;
    }
    Ok(())
}

/// What the steps are where the keys are somebody else's to keep.
fn in_kms(name: Name) -> Failure {
    let text = name.text();
    Failure::failed(format!("the {text} authority's key is in KMS: it has another by the configuration"))
        .why(format!("1. make a key in KMS, add it to `{text}_ca_trusted`, reload; then {}", name.tell()))
        .why(format!(
            "2. when all trust both: have `{text}_ca` name it, and `{text}_ca_trusted` the old one; reload"
        ))
        .why(format!("3. when {}: take the old one out of `{text}_ca_trusted`; reload", name.wait()))
}

fn prepared(name: Name, step: Step) -> [String; 2] {
    let (text, tell) = (name.text(), name.tell());
    [
        match step {
            Step::Done => format!("Made the next key of the {text} authority. It signs nothing yet."),
            Step::Already => {
                format!("The next key of the {text} authority is there already. It signs nothing yet.")
            }
        },
        format!(
            "Now: reload the server; then {tell}. When all trust both keys: \
             sallyport ca rotate activate {text}"
        ),
    ]
}

fn activated(name: Name, step: Step) -> [String; 2] {
    let (text, wait) = (name.text(), name.wait());
    [
        match step {
            Step::Done => format!(
                "The {text} authority has its new key. What signed before is gone, and trusted still."
            ),
            Step::Already => {
                format!("The {text} authority has its new key already; the one before is trusted still.")
            }
        },
        format!(
            "Now: reload the server, which signs with the new key from then on. When {wait}: \
             sallyport ca rotate retire {text}"
        ),
    ]
}

fn abandoned(name: Name, step: Step) -> [String; 2] {
    let (text, tell) = (name.text(), name.tell());
    [
        match step {
            Step::Done => format!("The {text} authority has forgotten its next key, which signed nothing."),
            Step::Already => format!("The {text} authority has no next key."),
        },
        format!("Now: reload the server; then {tell}."),
    ]
}

fn retired(name: Name, step: Step) -> [String; 2] {
    let (text, tell) = (name.text(), name.tell());
    [
        match step {
            Step::Done => format!("The {text} authority has forgotten the key before its current one."),
            Step::Already => format!("The {text} authority has no key before its current one."),
        },
        format!("Now: reload the server; then {tell}."),
    ]
}

fn refused(name: Name, error: &RotateError) -> Failure {
    let text = name.text();
    let failure = Failure::of(format!("the {text} authority's keys are as they were"), error);
    match error {
        RotateError::NotRetired => {
            failure.hint(format!("when {}: sallyport ca rotate retire {text}", name.wait()))
        }
        RotateError::NotPrepared => failure.hint(format!("make one: sallyport ca rotate prepare {text}")),
        RotateError::NotActivated => {
            failure.hint(format!("when all trust the next key: sallyport ca rotate activate {text}"))
        }
        RotateError::Activated => failure.hint(format!(
            "to have another: when {}: sallyport ca rotate retire {text}, then prepare",
            name.wait()
        )),
        RotateError::Unreadable(_) | RotateError::Key(_) => failure,
        RotateError::Write { .. } => failure.hint("run it as the user that the server runs as, or as root"),
    }
}

fn keys(name: Name, ssh: &Ssh) -> Result<Vec<Key>, Failure> {
    let found = SshAuthority::open(name.configured(ssh), &mut KnownKeys::new());
    let SshAuthority { signer, next, previous, trusted } = found
        .map_err(|error| Failure::of(format!("cannot look at the {} authority", name.text()), &error))?;
    let key = |role, key: &PublicKey| Key {
        role,
        fingerprint: fingerprint(key),
        line: public_line(key, &format!("sallyport-{}-ca", name.text())),
    };
    let mut keys = vec![key("current", signer.public_key())];
    keys.extend(next.iter().map(|next| key("next", next)));
    keys.extend(previous.iter().map(|previous| key("previous", previous)));
    keys.extend(trusted.iter().map(|trusted| key("trusted", trusted)));
    Ok(keys)
}

fn configured(at: &Where) -> Result<Ssh, Failure> {
    audit::load(&at.config)?.ssh.ok_or_else(|| {
        Failure::new(Exit::NotFound, "this server has no SSH gateway, and so no authorities")
            .hint("`sallyport init` shows how it is configured")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Cli;

    #[test]
    fn commands_read_as_they_are_documented() {
        for line in [
            "ca show --config c --json",
            "ca rotate prepare login --config c",
            "ca rotate activate host --config c",
            "ca rotate retire user --config c",
        ] {
            let words = std::iter::once("sallyport").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}

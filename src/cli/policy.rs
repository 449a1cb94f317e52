//! `sallyport policy`: checks, tests and asks the rules, without a server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Failure, Outcome};
use super::{audit, out};
use crate::crypto;
use crate::domain::approval::Quorum;
use crate::domain::id::PrincipalId;
use crate::domain::name::{AccessName, DomainName, GroupName, TargetName, UserName};
use crate::domain::principal::Principal;
use crate::domain::request::DEFAULT_DURATION;
use crate::domain::target::Target;
use crate::policy::cases;
use crate::policy::{Action, CedarPolicy, Detail, Facts, Policy as _, Query};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Policy {
    /// Report every mistake in a directory of policies
    Check(Check),
    /// Run the tables of cases beside the policies
    Test(Test),
    /// Tell which policies decide a question, and how
    Explain(Box<Explain>),
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The directory [default: the policies that Sallyport comes with]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// The directory [default: the policies that Sallyport comes with]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// What somebody wants to do: request, activate, approve, deny, cancel, revoke, block, unblock,
    /// connect, replay, watch, administer, shell, exec, sftp, subsystem, forward, listen or agent
    action: Action,
    /// Policies to ask [default: those of the configuration, else those that Sallyport comes with]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The server's configuration: where targets are from
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: Option<PathBuf>,
    /// Who wants to
    #[arg(long)]
    user: UserName,
    /// Their home domain
    #[arg(long)]
    domain: DomainName,
    /// A group of theirs; may be given several times, or with commas
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<GroupName>,
    /// On which target of the configuration
    #[arg(long, requires = "config")]
    target: Option<TargetName>,
    #[arg(long, requires = "target")]
    access: Option<AccessName>,
    /// What is acted upon is their own
    #[arg(long)]
    own: bool,
    #[arg(long)]
    break_glass: bool,
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    duration: Option<Duration>,
    /// How many distinct people approved
    #[arg(long, default_value_t = 0)]
    people: u32,
    /// How many of them are of the target's domain
    #[arg(long, default_value_t = 0)]
    from_target_domain: u32,
    /// The command line, for exec
    #[arg(long, conflicts_with_all = ["subsystem", "host"])]
    command: Option<String>,
    /// The subsystem's name
    #[arg(long, conflicts_with = "host")]
    subsystem: Option<String>,
    /// Where to, for forward and listen: a host or the path of a socket
    #[arg(long)]
    host: Option<String>,
    #[arg(long, requires = "host", default_value_t = 0)]
    port: u16,
}

pub(super) fn run(command: Policy) -> Outcome {
    match command {
        Policy::Check(arguments) => check(&arguments),
        Policy::Test(arguments) => test(&arguments),
        Policy::Explain(arguments) => explain(*arguments),
    }
}

/// The policies of a directory, or those that Sallyport comes with.
pub(super) fn load(dir: Option<&Path>) -> Result<CedarPolicy, Failure> {
    let loaded = match dir {
        Some(dir) => CedarPolicy::load(dir),
        None => CedarPolicy::builtin(),
    };
    loaded.map_err(|errors| mistakes(&errors))
}

fn mistakes(errors: &crate::policy::PolicyErrors) -> Failure {
    let mut failure = Failure::failed("the policies cannot be used");
    failure.why = errors.to_string().lines().map(str::to_owned).collect();
    failure
}

fn check(arguments: &Check) -> Outcome {
    let policy = load(arguments.dir.as_deref())?;
    let rows = policy.policies().map(|info| {
        let kind = if info.forbids { "forbid" } else { "permit" };
        let words = if info.needs.is_empty() { &info.about } else { &info.needs };
        [info.id.clone(), kind.to_owned(), words.clone(), info.file.clone()]
    });
    out::table(["id", "kind", "needs, or what it is for", "file"], rows, "no policy: nothing is permitted")?;
    out::line(format!("good; sha256 {}", policy.hash()))?;
    Ok(Exit::Done)
}

fn test(arguments: &Test) -> Outcome {
    let report = match &arguments.dir {
        Some(dir) => cases::run(dir),
        None => cases::run_builtin(),
    };
    let report = report.map_err(|errors| mistakes(&errors))?;
    out::line(report.to_string())?;
    Ok(if report.is_ok() { Exit::Done } else { Exit::Failed })
}

fn explain(arguments: Explain) -> Outcome {
    let config = arguments.config.as_deref().map(audit::load).transpose()?;
    let configured = config.as_ref().and_then(|config| config.reloadable.policies.as_deref());
    let policy = load(arguments.dir.as_deref().or(configured))?;
    let target: Option<&Target> = match &arguments.target {
        None => None,
        Some(name) => {
            let found = config.as_ref().and_then(|config| config.reloadable.targets.get(name));
            let missing =
                || Failure::new(Exit::NotFound, format!("the configuration has no target `{name}`"));
            Some(found.ok_or_else(missing)?.target())
        }
    };
    let principal = Principal {
        // Nobody's: rules compare ids, and this question is about nothing that has an owner.
        id: PrincipalId::from_random(crypto::random()),
        name: arguments.user,
        domain: arguments.domain,
        groups: arguments.groups.into_iter().collect::<BTreeSet<_>>(),
    };
    let facts = Facts {
        own: arguments.own,
        break_glass: arguments.break_glass,
        duration_seconds: arguments.duration.unwrap_or(DEFAULT_DURATION).as_secs(),
        quorum: Quorum { people: arguments.people, from_target_domain: arguments.from_target_domain },
    };
    let detail = match (&arguments.command, &arguments.subsystem, &arguments.host) {
        (Some(command), ..) => Detail::Command(command),
        (_, Some(name), _) => Detail::Subsystem(name),
        (.., Some(host)) => Detail::Destination { host, port: arguments.port.into() },
        _ => Detail::None,
    };
    let query = Query {
        action: arguments.action,
        principal: &principal,
        target,
        access: arguments.access.as_ref(),
        facts,
        detail,
    };
    out::line(policy.explain(&query))?;
    Ok(if policy.decide(&query).is_allow() { Exit::Done } else { Exit::Refused })
}

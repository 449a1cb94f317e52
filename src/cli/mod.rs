//! The command line: one file a subcommand. Arguments are parsed to plain data first; servers, files
//! and ids are resolved second.

mod audit;
mod audit_adopt;
mod audit_consume;
mod audit_report;
mod audit_witness;
mod aws;
mod block;
mod blocks;
mod ca;
mod check_config;
mod client;
mod completions;
mod config_psql;
mod config_ssh;
mod connections;
mod exit;
mod export;
mod home;
mod ids;
mod init;
mod key;
mod login;
mod logout;
mod marked;
mod out;
mod output;
mod pgfiles;
mod policy;
mod psql;
mod replay;
mod request;
mod requests;
mod revoke;
mod search;
mod secret;
mod serve;
mod sessions;
mod show;
mod ssh;
mod ssh_identity;
mod sshfiles;
mod target;
mod target_postgres;
mod targets;
mod user;
mod user_ssh;
mod verdict;
mod watch;
mod when;
mod whoami;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::domain::time::parse_duration;
use client::Client;
use exit::{Failure, Outcome};
use home::Home;

/// Approved, time-limited, recorded and revocable access to production.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask for an access to a target
    Request(request::Arguments),
    /// List requests: yours, those you may approve, and with the right to watch all
    Requests(requests::Arguments),
    /// Approve a request
    Approve(verdict::Approve),
    /// Deny a request
    Deny(verdict::Deny),
    /// Withdraw a request of yours
    Cancel(verdict::Cancel),
    /// List sessions: who may be where, until when
    Sessions(sessions::Arguments),
    /// List connections: what is live, and what was
    Connections(connections::Arguments),
    /// Take a session away: cut its connections, destroy its credential
    Revoke(revoke::Arguments),
    /// Bar somebody from now on, and cut what they have open
    Block(block::Block),
    /// Lift a block
    Unblock(block::Unblock),
    /// List blocks
    Blocks(blocks::Arguments),
    /// List targets, with what you may ask for
    Targets(targets::Arguments),
    /// Open psql on a target
    Psql(psql::Arguments),
    /// Open ssh on a target
    Ssh(ssh::Arguments),
    /// Get a credential of an AWS role
    Aws(aws::Arguments),
    /// Write client configuration
    #[command(subcommand)]
    Config(config_psql::Config),
    /// Show what was done over a connection
    Replay(replay::Arguments),
    /// Show what is done over a connection, as it is done
    Watch(watch::Arguments),
    /// Find who did what, where, when: across the recordings that you may read
    Search(search::Arguments),
    /// Write the audit log, as far as you may read it, in the forms that others read
    Export(export::Arguments),
    /// Put what the audit log holds of a session into one file that proves itself
    Bundle(export::Bundle),
    /// Manage your own SSH keys
    #[command(subcommand)]
    Key(key::Key),
    /// Prepare targets for the gateway
    #[command(subcommand)]
    Target(target::Target),
    /// Log in; the login lasts some hours
    Login(login::Arguments),
    /// Log out: the login is worth nothing any more, anywhere
    Logout,
    /// Show who you are logged in as
    Whoami(whoami::Arguments),
    /// Prove that the audit log is whole, or follow it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Check, test and ask policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Manage local users, on the server's own host
    #[command(subcommand)]
    User(user::User),
    /// Keep passwords for databases that allow nothing else, on the server's own host
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Show the SSH authorities' keys and change them, on the server's own host
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Make a data directory with certificates, keys and a first configuration
    Init(init::Arguments),
    /// Check a configuration file
    CheckConfig(check_config::Arguments),
    /// Run the server
    Serve(serve::Arguments),
    /// Write a completion script for a shell
    Completions(completions::Arguments),
}

/// For commands that show something.
#[derive(Debug, Clone, Copy, Args)]
struct Form {
    /// As JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::of("cannot start", &error))),
    };
    ended(runtime.block_on(run(cli.command)))
}

fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.what.is_empty() {
                failure.lines().iter().for_each(out::note);
            }
            failure.exit.into()
        }
    }
}

async fn run(command: Command) -> Outcome {
    let home = Home::from_environment;
    let client = || Client::from_home(&home()?);
    match command {
        Command::Request(arguments) => request::run(arguments, &client()?).await,
        Command::Requests(arguments) => requests::run(arguments, &client()?).await,
        Command::Approve(arguments) => verdict::approve(arguments, &client()?).await,
        Command::Deny(arguments) => verdict::deny(arguments, &client()?).await,
        Command::Cancel(arguments) => verdict::cancel(arguments, &client()?).await,
        Command::Sessions(arguments) => sessions::run(arguments, &client()?).await,
        Command::Connections(arguments) => connections::run(arguments, &client()?).await,
        Command::Revoke(arguments) => revoke::run(arguments, &client()?).await,
        Command::Block(arguments) => block::block(arguments, &client()?).await,
        Command::Unblock(arguments) => block::unblock(arguments, &client()?).await,
        Command::Blocks(arguments) => blocks::run(arguments, &client()?).await,
        Command::Targets(arguments) => targets::run(arguments, &client()?).await,
        Command::Psql(arguments) => psql::run(arguments, &home()?, &client()?).await,
        Command::Ssh(arguments) => ssh::run(arguments, &home()?, &client()?).await,
        Command::Aws(arguments) => aws::run(arguments, &client()?).await,
        Command::Config(config_psql::Config::Psql(arguments)) => {
            config_psql::run(arguments, &home()?, &client()?).await
        }
        Command::Config(config_psql::Config::Ssh(arguments)) => {
            config_ssh::run(arguments, &home()?, &client()?).await
        }
        Command::Key(command) => key::run(command, &client()?).await,
        Command::Target(command) => target::run(command, client).await,
        Command::Replay(arguments) => replay::run(arguments).await,
        Command::Search(arguments) => search::run(arguments, &client()?).await,
        Command::Watch(arguments) => watch::run(arguments, &client()?).await,
        Command::Export(arguments) => export::from_server(arguments, &client()?).await,
        Command::Bundle(arguments) => export::bundle(arguments, &client()?).await,
        Command::Login(arguments) => login::run(arguments, &home()?).await,
        Command::Logout => logout::run(&home()?).await,
        Command::Whoami(arguments) => whoami::run(arguments, &client()?).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Policy(command) => policy::run(command),
        Command::User(command) => user::run(command).await,
        Command::Secret(command) => secret::run(&command).await,
        Command::Ca(command) => ca::run(command),
        Command::Init(arguments) => init::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Serve(arguments) => serve::run(arguments).await,
        Command::Completions(arguments) => completions::run(&arguments, &mut Cli::command()),
    }
}

/// `45m`, `1h`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_every_command_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_read_as_they_are_documented() {
        for line in [
            "request ledger-prod readonly --reason why --for 1h --ticket T-1 --break-glass --wait",
            "requests --all --mine --json",
            "approve req-7f3 --comment fine",
            "deny 7f3 --why no",
            "cancel 7f3",
            "sessions --all",
            "connections --json",
            "revoke ses-1 --why leaving --block --block-for 1h --block-target",
            "block bob --target ledger-prod --for 2h --why leaving",
            "unblock blk-1",
            "psql ledger-prod --access dba -- -c 'select 1'",
            "config psql --print",
            "ssh web-1 --access root -- -L 8080:localhost:80 uptime",
            "config ssh --print",
            "aws ledger-logs --access readonly --format env",
            "aws ledger-logs --format console-url --sign-in https://signin.example",
            "key add id.pub",
            "key list --json",
            "key remove SHA256:x",
            "target bootstrap ssh",
            "target bootstrap ssh web-1",
            "user key add alice id.pub --config c",
            "user key list alice --config c --json",
            "user key remove alice SHA256:x --config c",
            "user totp alice --config c",
            "user totp alice --remove --config c",
            "login --code 123456",
            "policy explain forward --user a --domain d --host 10.0.0.7 --port 80",
            "replay con-1 --json",
            "replay con-1 --audit-dir audit",
            "replay con-1 --format terminal --channel 2 --speed 2 --idle 500ms --from 1m30s",
            "replay con-1 --format asciicast --channel 1",
            "search",
            "search needle --principal alice --target ledger-prod --session ses-0000000000000001 --from 2h --to 2026-11-26",
            "search needle --kind statement --limit 500 --before 17 --json",
            "audit search needle --audit-dir audit --principal alice --json",
            "login --server https://b --ca ca.crt --user alice --password-stdin",
            "audit verify audit --key k --pin p --pin q --json",
            "audit export --format jsonl --audit-dir audit --principal alice --from 2026-11-01 --to 2h",
            "audit export --format sql --config c --session ses-1 -o file",
            "export --format access-register --target ledger-prod",
            "export --format asciicast --connection con-1 --channel 2 -o cast",
            "bundle ses-1 -o file",
            "audit tail --audit-dir audit --follow",
            "policy check policies",
            "policy test policies",
            "policy explain request --user alice --group a,b --domain bank-core",
            "user add alice --domain bank-core --group a --group b,c --config c --password-stdin",
            "user set alice --group a --config c",
            "user set alice --no-groups --config c",
            "user disable alice --config c",
            "init dir --name bastion",
            "serve --config c --log info,sallyport::http=debug --log-format json",
            "check-config --config c",
            "completions bash",
        ] {
            let words = std::iter::once("sallyport").chain(line.split(' '));
            assert!(Cli::try_parse_from(words.clone()).is_ok(), "{line}: {:?}", Cli::try_parse_from(words));
        }
    }

    #[test]
    fn the_documentation_names_every_command_and_exit_code() {
        let text = include_str!("../../docs/cli.md");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let is_named = text.contains(&format!("`{name}`")) || text.contains(&format!("`{name} "));
            assert!(is_named, "`{name}` is not in docs/cli.md");
        }
        for code in [0, 1, 2, 3, 4, 5, 6, 7, 10] {
            assert!(text.contains(&format!("\n| {code} | ")), "exit code {code} is not in docs/cli.md");
        }
    }

    #[test]
    fn commands_that_say_too_little_are_refused() {
        for line in [
            "request ledger-prod readonly",
            "deny 7f3",
            "revoke ses-1",
            "block bob",
            "revoke s --why w --block-for 1h",
            "user set alice --config c",
            "request a b --reason r --for soon",
            "replay con-1 --json --format text",
            "replay con-1 --channel 0",
            "replay con-1 --speed 0",
            "search needle --limit 0",
            "search needle --target no/target",
            "audit search needle",
        ] {
            let words = std::iter::once("sallyport").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}

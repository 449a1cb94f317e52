//! `sallyport ssh`: becomes the user's own ssh, told where to connect and by which certificate.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::{Home, write_private};
use super::ssh_identity::{self, Files};
use super::{config_ssh, sshfiles};
use crate::clock::Clock;
use crate::domain::name::{AccessName, TargetName};
use crate::http::view::WhoamiView;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    target: TargetName,
    /// Needed when you have sessions for several accesses
    #[arg(long)]
    access: Option<AccessName>,
    /// Further arguments for ssh: options, then the command to run there
    #[arg(last = true)]
    ssh: Vec<OsString>,
}

pub(super) async fn run(arguments: Arguments, home: &Home, client: &Client) -> Outcome {
    let gateway = config_ssh::gateway(client).await?;
    let hosts = config_ssh::hosts(client).await?;
    if !hosts.iter().any(|host| host.name == arguments.target) {
        let what = format!("there is no SSH target `{}`", arguments.target);
        return Err(Failure::new(Exit::NotFound, what).hint("`sallyport targets` lists them"));
    }
    let who: WhoamiView = client.get("/whoami").await?;
    ssh_identity::ensure(home, client, Clock::system().now()).await?;
    let files = Files::of(home)?;
    write_private(&files.known_hosts, sshfiles::known_hosts(&gateway, &hosts).as_bytes())?;
    let login = sshfiles::login(who.principal.name.as_str(), &arguments.target, arguments.access.as_ref());
    let mut command = Command::new("ssh");
    for (keyword, value) in sshfiles::options(&gateway, &files, &login)? {
        command.arg("-o").arg(format!("{keyword} {value}"));
    }
    // Options may follow the host; what is none begins the command.
    command.arg(arguments.target.as_str()).args(arguments.ssh);
    // Returns only if ssh could not be started.
    let error = command.exec();
    Err(Failure::of("cannot start ssh", &error).hint("install OpenSSH's client, or correct PATH"))
}

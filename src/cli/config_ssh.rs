//! `sallyport config ssh`: after it, `ssh web-1.prod`, scp, rsync, ansible and whatever else starts
//! `ssh` reach the targets through the gateway.

use super::client::Client;
use super::config_psql::read;
use super::exit::{Exit, Failure, Outcome};
use super::home::{Home, write_private};
use super::ssh_identity::{self, Files};
use super::sshfiles::{self, Host};
use super::{marked, out};
use crate::clock::Clock;
use crate::domain::target::TargetKind;
use crate::http::view::{GatewayView, List, SshGatewayView, TargetView, WhoamiView};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only show what would be written
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(arguments: Arguments, home: &Home, client: &Client) -> Outcome {
    let who: WhoamiView = client.get("/whoami").await?;
    let gateway = gateway(client).await?;
    let hosts = hosts(client).await?;
    let files = Files::of(home)?;
    let config = sshfiles::config(&gateway, &files, who.principal.name.as_str(), &hosts)?;
    let known_hosts = sshfiles::known_hosts(&gateway, &hosts);
    let include = sshfiles::include(&files)?;
    let user_config = std::env::home_dir()
        .map(|home| home.join(".ssh/config"))
        .ok_or_else(|| Failure::failed("your home directory is not known").hint("set HOME"))?;
    let written = [(&files.known_hosts, known_hosts), (&files.config, config)];
    if arguments.print {
        for (path, text) in &written {
            out::line(format!("# {}", path.display()))?;
            out::line(text.trim_end())?;
        }
        out::line(format!("# {}", user_config.display()))?;
        out::line(include.trim_end())?;
        return Ok(Exit::Done);
    }
    ssh_identity::ensure(home, client, Clock::system().now()).await?;
    for (path, text) in &written {
        write_private(path, text.as_bytes())?;
    }
    let old = read(&user_config)?;
    write_private(&user_config, marked::with_block(&old, "config ssh", &include).as_bytes())?;
    out::line(format!("wrote {} and {}", files.config.display(), user_config.display()))?;
    if let Some(host) = hosts.first() {
        out::line(format!("connect: ssh {}", host.name))?;
    }
    Ok(Exit::Done)
}

/// The SSH gateway, if the server has one.
pub(super) async fn gateway(client: &Client) -> Result<SshGatewayView, Failure> {
    let view: GatewayView = client.get("/pam/gateway").await?;
    view.ssh.ok_or_else(|| {
        Failure::new(Exit::NotFound, "this server has no SSH gateway").hint("ask the operator for one")
    })
}

pub(super) async fn hosts(client: &Client) -> Result<Vec<Host>, Failure> {
    let targets: List<TargetView> = client.get("/pam/targets").await?;
    let is_ssh = |target: &TargetView| target.kind == TargetKind::Ssh;
    let host = |target: TargetView| Host { name: target.name, environment: target.environment };
    Ok(targets.items.into_iter().filter(is_ssh).map(host).collect())
}

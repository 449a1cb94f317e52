//! `sallyport target bootstrap`: what has to be done on a host, once, so that the gateway gets in.

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{config_ssh, out};
use crate::domain::name::TargetName;

const CA_FILE: &str = "/etc/ssh/sallyport_login_ca.pub";
const CONFIG_FILE: &str = "/etc/ssh/sshd_config.d/sallyport.conf";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Target {
    /// Print what prepares a target for the gateway
    #[command(subcommand)]
    Bootstrap(Bootstrap),
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Bootstrap {
    /// A script for an SSH target: it has sshd trust the gateway's login authority
    Ssh(Arguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// For the headline; the script is the same for every target
    target: Option<TargetName>,
}

pub(super) async fn run(command: Target, client: &Client) -> Outcome {
    let Target::Bootstrap(Bootstrap::Ssh(arguments)) = command;
    let gateway = config_ssh::gateway(client).await?;
    if let Some(name) = &arguments.target {
        let hosts = config_ssh::hosts(client).await?;
        if !hosts.iter().any(|host| host.name == *name) {
            let what = format!("there is no SSH target `{name}`");
            return Err(Failure::new(Exit::NotFound, what).hint("`sallyport targets` lists them"));
        }
    }
    out::line(script(arguments.target.as_ref(), &gateway.login_ca).trim_end())?;
    Ok(Exit::Done)
}

/// A certificate has the user on the host as its one principal, so sshd needs no file of principals:
/// without one it takes a certificate for the user whom it names (`sshd_config(5)`, `TrustedUserCAKeys`).
fn script(target: Option<&TargetName>, login_ca: &str) -> String {
    let host = target.map_or("the host", TargetName::as_str);
    format!(
        "#!/bin/sh -e\n\
         # Run this as root on {host}. From then on its sshd lets in whoever has a certificate of the\n\
         # gateway's login authority, as the one user that the certificate names, for a minute from when it\n\
         # was made. Nothing else changes: other keys that sshd accepts today it goes on accepting.\n\
         # AuthorizedPrincipalsFile, if it is set there, must list each such user's own name.\n\
         cat > {CA_FILE} <<'END'\n\
         {login_ca}\n\
         END\n\
         chmod 644 {CA_FILE}\n\
         # Where sshd_config does not include this directory, put these lines into it, before any Match.\n\
         cat > {CONFIG_FILE} <<'END'\n\
         TrustedUserCAKeys {CA_FILE}\n\
         PubkeyAuthentication yes\n\
         END\n\
         sshd -t\n\
         systemctl reload ssh 2>/dev/null || systemctl reload sshd\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_trusts_the_login_authority_and_nothing_more() {
        let name = "web-1".parse().unwrap();
        let text = script(Some(&name), "ssh-ed25519 AAAA sallyport");
        assert!(text.contains("as root on web-1"), "{text}");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "cat > /etc/ssh/sallyport_login_ca.pub <<'END'",
                "ssh-ed25519 AAAA sallyport",
                "END",
                "chmod 644 /etc/ssh/sallyport_login_ca.pub",
                "cat > /etc/ssh/sshd_config.d/sallyport.conf <<'END'",
                "TrustedUserCAKeys /etc/ssh/sallyport_login_ca.pub",
                "PubkeyAuthentication yes",
                "END",
                "sshd -t",
                "systemctl reload ssh 2>/dev/null || systemctl reload sshd",
            ]
        );
    }
}

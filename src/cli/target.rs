//! `sallyport target bootstrap`: what has to be done at a target, once, so that the gateway gets in.

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{config_ssh, out, target_postgres};
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
    /// SQL for a database server: the role as which the gateway makes sessions' roles, and those of the accesses
    Postgres(target_postgres::Arguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// For the headline; the script is the same for every target
    target: Option<TargetName>,
}

pub(super) async fn run(command: Target, client: impl FnOnce() -> Result<Client, Failure>) -> Outcome {
    let Target::Bootstrap(bootstrap) = command;
    match bootstrap {
        Bootstrap::Ssh(arguments) => ssh(&arguments, &client()?).await,
        Bootstrap::Postgres(arguments) => target_postgres::run(&arguments),
    }
}

async fn ssh(arguments: &Arguments, client: &Client) -> Outcome {
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
fn script(target: Option<&TargetName>, login_ca: &[String]) -> String {
    let authorities = login_ca.join("\n");
    let host = target.map_or("the host", TargetName::as_str);
    format!(
        "#!/bin/sh -e\n\
         # Run this as root on {host}. From then on its sshd lets in whoever has a certificate of the\n\
         # gateway's login authority, as the one user that the certificate names, for a minute from when it\n\
         # was made. Nothing else changes: other keys that sshd accepts today it goes on accepting.\n\
         # AuthorizedPrincipalsFile, if it is set there, must list each such user's own name.\n\
         trusted() {{ sshd -T | sed -n 's/^trustedusercakeys //p'; }}\n\
         # sshd reads one such file only: a second would take the place of the first.\n\
         case \"$(trusted)\" in\n\
         '' | none | {CA_FILE}) ;;\n\
         *)\n\
         echo \"nothing was changed: sshd has its authorities in $(trusted). Add this to that file:\" >&2\n\
         echo '{authorities}' >&2\n\
         exit 1\n\
         ;;\n\
         esac\n\
         cat > {CA_FILE} <<'END'\n\
         {authorities}\n\
         END\n\
         chmod 644 {CA_FILE}\n\
         cat > {CONFIG_FILE} <<'END'\n\
         TrustedUserCAKeys {CA_FILE}\n\
         PubkeyAuthentication yes\n\
         END\n\
         sshd -t\n\
         if [ \"$(trusted)\" != {CA_FILE} ]; then\n\
         echo 'sshd does not read {CONFIG_FILE}: put its lines into sshd_config, before any Match' >&2\n\
         exit 1\n\
         fi\n\
         systemctl reload ssh 2>/dev/null || systemctl reload sshd\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_trusts_the_login_authority_and_nothing_more() {
        let name = "web-1".parse().unwrap();
        let text =
            script(Some(&name), &["ssh-ed25519 AAAA now".to_owned(), "ssh-ed25519 BBBB next".to_owned()]);
        assert!(text.contains("as root on web-1"), "{text}");
        let written = |file: &str| text.split_once(&format!("cat > {file} <<'END'\n")).unwrap().1;
        let until_end = |text: &str| text.split_once("END\n").unwrap().0.to_owned();
        assert_eq!(until_end(written(CA_FILE)), "ssh-ed25519 AAAA now\nssh-ed25519 BBBB next\n");
        let config = format!("TrustedUserCAKeys {CA_FILE}\nPubkeyAuthentication yes\n");
        assert_eq!(until_end(written(CONFIG_FILE)), config);
        assert_eq!(text.matches("cat > ").count(), 2);
    }
}

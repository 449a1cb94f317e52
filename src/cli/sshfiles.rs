//! What OpenSSH's client reads (`ssh_config(5)`, sshd(8) on `known_hosts`): a block for the gateway, one
//! for each target, and the authority by which the gateway proves itself. Plain `ssh web-1` then reaches
//! the target through the gateway, with the login's certificate.

use std::fmt::Write as _;
use std::path::Path;

use super::exit::Failure;
use super::ssh_identity::Files;
use crate::domain::name::{AccessName, TargetName};
use crate::domain::target::Environment;
use crate::http::view::SshGatewayView;

/// The gateway's own name in the configuration.
pub(super) const ALIAS: &str = "sallyport";

/// A target, as its name on the command line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub name: TargetName,
    pub environment: Environment,
}

impl Host {
    /// `web-1` and `web-1.prod`.
    fn names(&self) -> [String; 2] {
        [self.name.to_string(), format!("{}.{}", self.name, self.environment)]
    }
}

/// Keywords and values that lead `ssh` to the gateway as `user`.
pub(super) fn options(
    gateway: &SshGatewayView,
    files: &Files,
    user: &str,
) -> Result<Vec<(&'static str, String)>, Failure> {
    Ok(vec![
        ("HostName", gateway.host.clone()),
        ("Port", gateway.port.to_string()),
        ("User", user.to_owned()),
        // One name for all that come through the gateway, whatever they are called.
        ("HostKeyAlias", gateway.host.clone()),
        ("IdentityFile", quoted(&files.key)?),
        ("CertificateFile", quoted(&files.certificate)?),
        ("IdentitiesOnly", "yes".to_owned()),
        ("UserKnownHostsFile", quoted(&files.known_hosts)?),
        // The authority is known: there is never anything to ask.
        ("StrictHostKeyChecking", "yes".to_owned()),
    ])
}

/// The configuration's text for all targets of `user`.
pub(super) fn config(
    gateway: &SshGatewayView,
    files: &Files,
    user: &str,
    hosts: &[Host],
) -> Result<String, Failure> {
    let mut text = "# Written by `sallyport config ssh`: it writes this file anew.\n".to_owned();
    let mut block = |names: &str, user: &str| -> Result<(), Failure> {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\nHost {names}");
        for (keyword, value) in options(gateway, files, user)? {
            let _ = writeln!(text, "    {keyword} {value}");
        }
        Ok(())
    };
    block(ALIAS, user)?;
    for host in hosts {
        block(&host.names().join(" "), &login(user, &host.name, None))?;
    }
    Ok(text)
}

/// The authority of the gateway's certificates with all its keys, for the gateway's names and the targets' (which the
/// gateway answers for, when it is a jump host), and its plain keys for clients without certificates.
pub(super) fn known_hosts(gateway: &SshGatewayView, hosts: &[Host]) -> String {
    let own = [gateway.host.clone(), format!("[{}]:{}", gateway.host, gateway.port)];
    let names: Vec<String> = own.iter().cloned().chain(hosts.iter().flat_map(Host::names)).collect();
    let mut text = String::new();
    for authority in &gateway.host_ca {
        // Writing to a string does not fail.
        let _ = writeln!(text, "@cert-authority {} {authority}", names.join(","));
    }
    for key in &gateway.host_keys {
        let _ = writeln!(text, "{} {key}", own.join(","));
    }
    text
}

/// The line for `~/.ssh/config`.
pub(super) fn include(files: &Files) -> Result<String, Failure> {
    Ok(format!("Include {}\n", quoted(&files.config)?))
}

/// `alice+web-1`, or with the access where it must be named.
pub(super) fn login(user: &str, target: &TargetName, access: Option<&AccessName>) -> String {
    super::psql::user(user, target, access)
}

/// In quotes, and with `%` doubled, which begins a token there.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.display().to_string();
    if text.contains(['"', '\\', '\n']) || path.to_str().is_none() {
        return Err(Failure::failed(format!("`{text}` cannot be written in an OpenSSH configuration"))
            .hint("set SALLYPORT_HOME to a directory with a plain name"));
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> SshGatewayView {
        SshGatewayView {
            host: "bastion.example".to_owned(),
            port: 2222,
            host_ca: vec!["ssh-ed25519 CA".to_owned(), "ssh-ed25519 NEXT".to_owned()],
            host_keys: vec!["ssh-ed25519 KEY".to_owned()],
            login_ca: vec!["ssh-ed25519 LOGIN".to_owned()],
        }
    }

    fn files(dir: &str) -> Files {
        let dir = Path::new(dir);
        Files {
            key: dir.join("id"),
            public_key: dir.join("id.pub"),
            certificate: dir.join("id-cert.pub"),
            known_hosts: dir.join("known_hosts"),
            config: dir.join("config"),
        }
    }

    fn hosts() -> Vec<Host> {
        vec![Host { name: "web-1".parse().unwrap(), environment: Environment::Prod }]
    }

    #[test]
    fn each_target_is_reached_through_the_gateway_by_its_name() {
        let text = config(&gateway(), &files("/home/a/ssh"), "alice", &hosts()).unwrap();
        let block = |names: &str, user: &str| {
            format!(
                "\nHost {names}\n    HostName bastion.example\n    Port 2222\n    User {user}\n    \
                 HostKeyAlias bastion.example\n    IdentityFile \"/home/a/ssh/id\"\n    \
                 CertificateFile \"/home/a/ssh/id-cert.pub\"\n    IdentitiesOnly yes\n    \
                 UserKnownHostsFile \"/home/a/ssh/known_hosts\"\n    StrictHostKeyChecking yes\n"
            )
        };
        let (_, blocks) = text.split_once('\n').unwrap();
        assert_eq!(blocks, block("sallyport", "alice") + &block("web-1 web-1.prod", "alice+web-1"));
    }

    #[test]
    fn the_gateways_authority_is_trusted_for_its_own_names_and_the_targets() {
        assert_eq!(
            known_hosts(&gateway(), &hosts()),
            "@cert-authority bastion.example,[bastion.example]:2222,web-1,web-1.prod ssh-ed25519 CA\n\
             @cert-authority bastion.example,[bastion.example]:2222,web-1,web-1.prod ssh-ed25519 NEXT\n\
             bastion.example,[bastion.example]:2222 ssh-ed25519 KEY\n"
        );
    }

    /// OpenSSH itself says how it reads what we write.
    #[test]
    fn openssh_reads_the_configuration_as_it_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path().join("a b").to_str().unwrap());
        let path = dir.path().join("config");
        std::fs::write(&path, config(&gateway(), &files, "alice", &hosts()).unwrap()).unwrap();
        let read = |host: &str| {
            let output = std::process::Command::new("ssh").arg("-F").arg(&path).args(["-G", host]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        for (host, user) in [("web-1", "alice+web-1"), ("web-1.prod", "alice+web-1"), ("sallyport", "alice")]
        {
            let read = read(host);
            for line in [
                &format!("user {user}\n"),
                "hostname bastion.example\n",
                "port 2222\n",
                "hostkeyalias bastion.example\n",
                "identitiesonly yes\n",
                &format!("identityfile {}\n", files.key.display()),
                &format!("certificatefile {}\n", files.certificate.display()),
            ] {
                assert!(read.contains(line), "{line} is not in\n{read}");
            }
        }
        assert!(read("web-2").contains("hostname web-2\n"));
    }

    #[test]
    fn paths_are_written_so_that_ssh_reads_them_as_they_are() {
        assert_eq!(include(&files("/home/a b/100%")).unwrap(), "Include \"/home/a b/100%%/config\"\n");
        assert!(include(&files("/home/a\"b")).is_err());
        assert!(include(&files("/home/a\nHost *")).is_err());
    }
}

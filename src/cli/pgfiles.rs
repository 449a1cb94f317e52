//! The files that libpq reads: `.pg_service.conf` and `.pgpass`, in each a [marked block](super::marked).

use std::fmt::Write as _;
use std::path::PathBuf;

use super::exit::Failure;
use super::marked;

/// The command that writes our blocks.
pub(super) const WRITER: &str = "config psql";

/// What both files say of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gateway {
    pub host: String,
    pub port: u16,
    /// `system`, or the path of the authority's certificate.
    pub root_certificate: String,
}

/// A target as a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub name: String,
    pub user: String,
    pub database: Option<String>,
}

/// Where libpq looks for its service file.
pub(super) fn service_file(
    variable: &dyn Fn(&str) -> Option<String>,
    home: Option<PathBuf>,
) -> Result<PathBuf, Failure> {
    place(variable("PGSERVICEFILE"), home, ".pg_service.conf")
}

/// Where libpq looks for passwords.
pub(super) fn password_file(
    variable: &dyn Fn(&str) -> Option<String>,
    home: Option<PathBuf>,
) -> Result<PathBuf, Failure> {
    place(variable("PGPASSFILE"), home, ".pgpass")
}

fn place(named: Option<String>, home: Option<PathBuf>, name: &str) -> Result<PathBuf, Failure> {
    named
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(name)))
        .ok_or_else(|| Failure::failed("your home directory is not known").hint("set HOME"))
}

/// The sections for `psql service=TARGET`.
pub(super) fn services(gateway: &Gateway, services: &[Service]) -> String {
    // Writing to a string does not fail.
    let mut text = String::new();
    for service in services {
        let Gateway { host, port, root_certificate } = gateway;
        let _ = write!(text, "[{}]\nhost={host}\nport={port}\nuser={}\n", service.name, service.user);
        if let Some(database) = &service.database {
            let _ = writeln!(text, "dbname={database}");
        }
        let _ =
            write!(text, "sslmode=verify-full\nsslrootcert={root_certificate}\nchannel_binding=require\n\n");
    }
    text
}

/// The one line that gives libpq the token: for the gateway, whatever target and access the user
/// name says.
pub(super) fn password_line(gateway: &Gateway, token: &str) -> String {
    format!("{}:{}:*:*:{}\n", escaped(&gateway.host), gateway.port, escaped(token))
}

/// `:` and `\` are escaped with `\` (as libpq documents for its password file).
fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

/// Names of sections outside of our block that our block has as well: libpq takes the first.
pub(super) fn foreign_sections<'a>(text: &str, services: &'a [Service]) -> Vec<&'a str> {
    let (before, after) = marked::around_block(text);
    let is_foreign = |service: &&Service| {
        let header = format!("[{}]", service.name);
        before.lines().chain(after.lines()).any(|line| line.trim() == header)
    };
    services.iter().filter(is_foreign).map(|service| service.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        Gateway { host: "bastion".to_owned(), port: 6432, root_certificate: "/home/a/ca.pem".to_owned() }
    }

    fn service(name: &str) -> Service {
        Service { name: name.to_owned(), user: format!("alice+{name}"), database: Some("ledger".to_owned()) }
    }

    #[test]
    fn separators_in_a_password_line_are_escaped() {
        let gateway = Gateway { host: "fd00::1".to_owned(), ..gateway() };
        assert_eq!(password_line(&gateway, r"a:b\c"), "fd00\\:\\:1:6432:*:*:a\\:b\\\\c\n");
    }

    #[test]
    fn a_service_verifies_the_server_and_binds_the_channel() {
        let text = services(&gateway(), &[service("ledger-prod")]);
        assert_eq!(
            text,
            "[ledger-prod]\nhost=bastion\nport=6432\nuser=alice+ledger-prod\ndbname=ledger\n\
             sslmode=verify-full\nsslrootcert=/home/a/ca.pem\nchannel_binding=require\n\n"
        );
    }

    #[test]
    fn a_service_of_ones_own_with_the_same_name_is_found() {
        let text =
            marked::with_block("[ledger-prod]\nhost=x\n", WRITER, &services(&gateway(), &[service("kyc")]));
        let services = [service("ledger-prod"), service("kyc")];
        assert_eq!(foreign_sections(&text, &services), ["ledger-prod"]);
    }
}

//! The files that libpq reads: `.pg_service.conf` and `.pgpass`. Sallyport keeps one marked block in
//! each and leaves every other line as it is.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::exit::Failure;

const BEGIN: &str = "# BEGIN sallyport (written by `sallyport config psql`)";
const END: &str = "# END sallyport";
const BEGIN_MARK: &str = "# BEGIN sallyport";

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

/// Whether the file has a block of ours.
pub(super) fn has_block(text: &str) -> bool {
    text.lines().any(|line| line.starts_with(BEGIN_MARK))
}

/// Names of sections outside of our block that our block has as well: libpq takes the first.
pub(super) fn foreign_sections<'a>(text: &str, services: &'a [Service]) -> Vec<&'a str> {
    let (before, after) = around_block(text);
    let is_foreign = |service: &&Service| {
        let header = format!("[{}]", service.name);
        before.lines().chain(after.lines()).any(|line| line.trim() == header)
    };
    services.iter().filter(is_foreign).map(|service| service.name.as_str()).collect()
}

/// `text` with `block` in place of our block, or before everything else when there was none: libpq
/// takes the first line that fits.
pub(super) fn with_block(text: &str, block: &str) -> String {
    let (before, after) = around_block(text);
    let body = block.trim_end_matches('\n');
    format!("{before}{BEGIN}\n{body}\n{END}\n{after}")
}

/// What stands before and after our block. A block without its end reaches to where the next line
/// begins that cannot be ours: nothing foreign is taken away, at worst old lines of ours stay.
fn around_block(text: &str) -> (&str, &str) {
    let Some(start) = line_starting(text, BEGIN_MARK) else { return ("", text) };
    let (before, rest) = text.split_at(start);
    let first_line = rest.find('\n').map_or(rest.len(), |end| end + 1);
    match line_starting(rest, END) {
        Some(end) => {
            let (_, tail) = rest.split_at(end);
            let end_line = tail.find('\n').map_or(tail.len(), |end| end + 1);
            (before, tail.split_at(end_line).1)
        }
        None => (before, rest.split_at(first_line).1),
    }
}

/// Where the first line begins that starts with `mark`.
fn line_starting(text: &str, mark: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with(mark) {
            return Some(at);
        }
        at += line.len();
    }
    None
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
    fn a_block_is_replaced_in_place_and_foreign_lines_stay() {
        let foreign = "mine:5432:*:me:secret\n# a note";
        let once = with_block(foreign, "a:1:*:*:t1\n");
        assert_eq!(once, format!("{BEGIN}\na:1:*:*:t1\n{END}\nmine:5432:*:me:secret\n# a note"));
        let moved = format!("first\n{once}");
        let twice = with_block(&moved, "a:1:*:*:t2\n");
        assert_eq!(twice, format!("first\n{BEGIN}\na:1:*:*:t2\n{END}\nmine:5432:*:me:secret\n# a note"));
    }

    #[test]
    fn writing_the_same_block_again_changes_nothing() {
        let once = with_block("x\n", &services(&gateway(), &[service("ledger-prod")]));
        assert_eq!(with_block(&once, &services(&gateway(), &[service("ledger-prod")])), once);
    }

    #[test]
    fn a_block_that_lost_its_end_takes_no_foreign_line_with_it() {
        let text = with_block(&format!("{BEGIN}\nold\nmine\n"), "new\n");
        assert_eq!(text, format!("{BEGIN}\nnew\n{END}\nold\nmine\n"));
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
        let text = with_block("[ledger-prod]\nhost=x\n", &services(&gateway(), &[service("kyc")]));
        let services = [service("ledger-prod"), service("kyc")];
        assert_eq!(foreign_sections(&text, &services), ["ledger-prod"]);
    }

    #[test]
    fn a_file_without_a_block_has_none() {
        assert!(!has_block("# sallyport\n"));
        assert!(has_block(&with_block("", "x")));
    }
}

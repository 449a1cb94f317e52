//! `address`: a database's servers. Of several, one is the primary, and which one may change; the others are its
//! standbys, on which nothing can be changed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::{Address, Section};

const EXAMPLE: &str = "ledger.db.example:5432";

/// One server.
#[derive(Debug, Clone)]
pub struct Host {
    pub address: Address,
    /// What its certificate must name.
    pub server_name: ServerName<'static>,
}

/// All servers of a database.
#[derive(Debug, Clone)]
pub struct Hosts {
    first: Host,
    others: Vec<Host>,
    /// Which one worked last, from 0. The same for all who look at this configuration.
    last: Arc<AtomicUsize>,
}

impl PartialEq for Hosts {
    fn eq(&self, other: &Self) -> bool {
        self.listed().map(|host| &host.address).eq(other.listed().map(|host| &host.address))
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first.address)?;
        self.others.iter().try_for_each(|host| write!(f, ", {}", host.address))
    }
}

impl Hosts {
    fn listed(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub fn is_one(&self) -> bool {
        self.others.is_empty()
    }

    /// Each once: the one that worked last, then the others as they are listed.
    pub fn in_order(&self) -> impl Iterator<Item = &Host> {
        let preferred = self.preferred();
        let others = self.listed().filter(move |host| host.address != preferred.address);
        std::iter::once(preferred).chain(others)
    }

    /// The one that worked last, or else the first.
    pub fn preferred(&self) -> &Host {
        self.listed().nth(self.last.load(Ordering::Relaxed)).unwrap_or(&self.first)
    }

    /// Remembers that `host` works.
    pub fn worked(&self, host: &Host) {
        if let Some(index) = self.listed().position(|listed| listed.address == host.address) {
            self.last.store(index, Ordering::Relaxed);
        }
    }

    /// What each gets of the time that all may take.
    pub fn share_of(&self, all: Duration) -> Duration {
        all / u32::try_from(1 + self.others.len()).unwrap_or(u32::MAX)
    }

    /// Whether one of them is among those that were written as `text` at another time: then they are the same
    /// database, to whose list a server was added, or from which one was taken.
    pub fn include(&self, text: &str) -> bool {
        text.split(", ").any(|other| self.listed().any(|host| host.address.to_string() == other))
    }
}

/// `None` when something is wrong, which then is reported.
pub(super) fn read(section: &Section<'_>) -> Option<Hosts> {
    let is_list = section.value("address").is_some_and(|value| value.get_ref().as_array().is_some());
    let addresses: Vec<Address> =
        if is_list { section.list("address")? } else { vec![super::address(section, EXAMPLE)?] };
    if is_list && addresses.is_empty() {
        section.blame("address", format!("names no server: write `host:port`, for example `{EXAMPLE}`"));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = addresses.iter().find(|address| !seen.insert(address.to_string())) {
        section.blame("address", format!("`{twice}` is listed twice"));
    }
    let mut hosts = addresses.into_iter().filter_map(|address| host(section, address));
    let first = hosts.next()?;
    Some(Hosts { first, others: hosts.collect(), last: Arc::default() })
}

fn host(section: &Section<'_>, address: Address) -> Option<Host> {
    let Ok(server_name) = ServerName::try_from(address.host.clone()) else {
        section.blame("address", format!("`{}` is not a host name or IP address", address.host));
        return None;
    };
    Some(Host { address, server_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(addresses: &[&str]) -> Hosts {
        let mut hosts = addresses.iter().map(|text| {
            let address: Address = text.parse().unwrap();
            Host { server_name: address.host.clone().try_into().unwrap(), address }
        });
        Hosts { first: hosts.next().unwrap(), others: hosts.collect(), last: Arc::default() }
    }

    fn order(hosts: &Hosts) -> Vec<String> {
        hosts.in_order().map(|host| host.address.to_string()).collect()
    }

    #[test]
    fn the_one_that_worked_last_is_tried_first() {
        let three = hosts(&["a:1", "b:1", "c:1"]);
        assert_eq!(order(&three), ["a:1", "b:1", "c:1"]);
        let second = three.in_order().nth(1).unwrap().clone();
        three.clone().worked(&second);
        assert_eq!(order(&three), ["b:1", "a:1", "c:1"], "whoever saw it");
        assert_eq!(three.to_string(), "a:1, b:1, c:1");
        assert_eq!(three.share_of(Duration::from_secs(15)), Duration::from_secs(5));
    }

    #[test]
    fn a_database_is_known_again_by_any_of_its_servers() {
        let two = hosts(&["a:1", "b:1"]);
        for (text, same) in
            [("a:1", true), ("b:1, c:1", true), ("a:2", false), ("c:1, d:1", false), ("", false)]
        {
            assert_eq!(two.include(text), same, "{text}");
        }
    }
}

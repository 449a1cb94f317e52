//! The login name: `USER+TARGET`, or `USER+TARGET+ACCESS` where several sessions fit. Where a protocol
//! can name the target in another way, `USER` alone: by the host `TARGET.GATEWAY` that was connected to.

use crate::access::connect::Wanted;
use crate::domain::name::{MalformedName, UserName};

/// Why a login name names nobody or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedLogin {
    #[error("no user was given")]
    Empty,
    #[error("the user name `{user}` does not say which target")]
    NoTarget { user: String },
    #[error("the user name has more than three parts")]
    TooManyParts,
    #[error("the user name says target `{user}`, the host that was connected to says `{host}`")]
    TwoTargets { user: String, host: String },
    #[error(transparent)]
    Name(#[from] MalformedName),
}

/// Who somebody says they are, and what they want; `None` where they have not said yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: UserName,
    pub wanted: Option<Wanted>,
}

impl Login {
    pub fn parse(text: &str) -> Result<Self, MalformedLogin> {
        if text.is_empty() {
            return Err(MalformedLogin::Empty);
        }
        let mut parts = text.split('+');
        let user = parts.next().unwrap_or_default().parse()?;
        let Some(target) = parts.next() else { return Ok(Self { user, wanted: None }) };
        let access = parts.next();
        if parts.next().is_some() {
            return Err(MalformedLogin::TooManyParts);
        }
        let access = access.map(str::parse).transpose()?;
        Ok(Self { user, wanted: Some(Wanted { target: target.parse()?, access }) })
    }

    /// With what the host that the client connected to says, where it says something. Both may name
    /// the target if they agree.
    pub fn on_host(self, named: Option<&str>) -> Result<Self, MalformedLogin> {
        let Some(named) = named else { return Ok(self) };
        let wanted = match self.wanted {
            Some(wanted) if wanted.target.as_str() == named => wanted,
            Some(wanted) => {
                let (user, host) = (wanted.target.to_string(), named.chars().take(80).collect());
                return Err(MalformedLogin::TwoTargets { user, host });
            }
            None => Wanted { target: named.parse()?, access: None },
        };
        Ok(Self { user: self.user, wanted: Some(wanted) })
    }

    /// Who and what, for a protocol in which the client must say both.
    pub fn with_target(self) -> Result<(UserName, Wanted), MalformedLogin> {
        match self.wanted {
            Some(wanted) => Ok((self.user, wanted)),
            None => Err(MalformedLogin::NoTarget { user: self.user.to_string() }),
        }
    }
}

/// What stands before the gateway's own name in the host that a client connected to; `None` for any other
/// host. Both in lower case: names of hosts do not differ by case.
pub fn below<'a>(host: &'a str, gateway: &str) -> Option<&'a str> {
    let named = host.strip_suffix(gateway)?.strip_suffix('.')?;
    (!named.is_empty() && !gateway.is_empty()).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_user_target_and_perhaps_access() {
        let (user, wanted) = Login::parse("alice+ledger-prod").unwrap().with_target().unwrap();
        assert_eq!((user.as_str(), wanted.target.as_str()), ("alice", "ledger-prod"));
        assert_eq!(wanted.access, None);
        let (_, wanted) = Login::parse("alice+ledger-prod+dba").unwrap().with_target().unwrap();
        assert_eq!(wanted.access.unwrap().as_str(), "dba");
    }

    #[test]
    fn a_login_without_a_target_is_refused_where_it_must_name_one() {
        let login = Login::parse("alice").unwrap();
        assert_eq!(login.wanted, None);
        assert_eq!(login.with_target(), Err(MalformedLogin::NoTarget { user: "alice".to_owned() }));
    }

    #[test]
    fn the_host_names_the_target_and_the_user_name_may_agree() {
        let on = |user: &str, host: Option<&str>| Login::parse(user).unwrap().on_host(host);
        let (user, wanted) = on("alice", Some("ledger-dev")).unwrap().with_target().unwrap();
        assert_eq!((user.as_str(), wanted.target.as_str()), ("alice", "ledger-dev"));
        for agreed in ["alice+ledger-dev", "alice+ledger-dev+dba"] {
            assert_eq!(on(agreed, Some("ledger-dev")).unwrap(), Login::parse(agreed).unwrap());
            assert_eq!(on(agreed, None).unwrap(), Login::parse(agreed).unwrap());
        }
        let two = on("alice+ledger-prod", Some("ledger-dev")).unwrap_err();
        assert!(matches!(&two, MalformedLogin::TwoTargets { user, host }
            if user == "ledger-prod" && host == "ledger-dev"));
        assert!(matches!(on("alice", Some("-x")), Err(MalformedLogin::Name(_))));
    }

    #[test]
    fn only_a_host_below_the_gateways_names_a_target() {
        for (host, named) in [
            ("ledger-dev.bastion.example", Some("ledger-dev")),
            ("a.b.bastion.example", Some("a.b")),
            ("bastion.example", None),
            (".bastion.example", None),
            ("xbastion.example", None),
            ("ledger-dev.other.example", None),
            ("ledger-dev.bastion.example.org", None),
        ] {
            assert_eq!(below(host, "bastion.example"), named, "{host}");
        }
        assert_eq!(below("ledger-dev.", ""), None);
    }

    #[test]
    fn what_could_be_mistaken_is_refused() {
        for text in ["", "+ledger-prod", "alice+", "alice+x+", "a+b+c+d", "alice+led ger", "Alice"] {
            assert!(Login::parse(text).is_err(), "{text}");
        }
    }
}

//! The login name: `USER+TARGET`, or `USER+TARGET+ACCESS` where several sessions fit. Where a protocol
//! can name the target in another way, `USER` alone.

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

    /// Who and what, for a protocol in which the name must say both.
    pub fn with_target(self) -> Result<(UserName, Wanted), MalformedLogin> {
        match self.wanted {
            Some(wanted) => Ok((self.user, wanted)),
            None => Err(MalformedLogin::NoTarget { user: self.user.to_string() }),
        }
    }
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
    fn what_could_be_mistaken_is_refused() {
        for text in ["", "+ledger-prod", "alice+", "alice+x+", "a+b+c+d", "alice+led ger", "Alice"] {
            assert!(Login::parse(text).is_err(), "{text}");
        }
    }
}

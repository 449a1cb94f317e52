//! The login name: `USER+TARGET`, or `USER+TARGET+ACCESS` where several sessions fit.

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

/// Who somebody says they are, and what they want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: UserName,
    pub wanted: Wanted,
}

impl Login {
    pub fn parse(text: &str) -> Result<Self, MalformedLogin> {
        if text.is_empty() {
            return Err(MalformedLogin::Empty);
        }
        let mut parts = text.split('+');
        let user = parts.next().unwrap_or_default();
        let Some(target) = parts.next() else {
            return Err(MalformedLogin::NoTarget { user: user.chars().take(80).collect() });
        };
        let access = parts.next();
        if parts.next().is_some() {
            return Err(MalformedLogin::TooManyParts);
        }
        let access = access.map(str::parse).transpose()?;
        Ok(Self { user: user.parse()?, wanted: Wanted { target: target.parse()?, access } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_user_target_and_perhaps_access() {
        let login = Login::parse("alice+ledger-prod").unwrap();
        assert_eq!((login.user.as_str(), login.wanted.target.as_str()), ("alice", "ledger-prod"));
        assert_eq!(login.wanted.access, None);
        let login = Login::parse("alice+ledger-prod+dba").unwrap();
        assert_eq!(login.wanted.access.unwrap().as_str(), "dba");
    }

    #[test]
    fn what_names_no_target_is_refused() {
        for text in ["", "alice", "+ledger-prod", "alice+", "alice+x+", "a+b+c+d", "alice+led ger"] {
            assert!(Login::parse(text).is_err(), "{text}");
        }
    }
}

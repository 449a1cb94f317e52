//! What an SSH certificate of ours says of its holder: who they are and which login it came from, in
//! its key id (`usr-…/alice/tok-…`). It dies with that login.

use std::fmt;
use std::str::FromStr;

use crate::domain::id::{PrincipalId, TokenId};
use crate::domain::name::UserName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId {
    pub principal: PrincipalId,
    /// For people who read logs; never compared.
    pub name: UserName,
    pub token: TokenId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate's key id is none of this server's: log in again")]
pub struct ForeignKeyId;

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.principal, self.name, self.token)
    }
}

impl FromStr for KeyId {
    type Err = ForeignKeyId;

    fn from_str(text: &str) -> Result<Self, ForeignKeyId> {
        let mut parts = text.split('/');
        let (Some(principal), Some(name), Some(token), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ForeignKeyId);
        };
        Ok(Self {
            principal: principal.parse().map_err(|_| ForeignKeyId)?,
            name: name.parse().map_err(|_| ForeignKeyId)?,
            token: token.parse().map_err(|_| ForeignKeyId)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_round_trips_and_nothing_else_is_one() {
        let key_id = KeyId {
            principal: PrincipalId::from_random([1; 10]),
            name: "alice".parse().unwrap(),
            token: TokenId::from_random([2; 10]),
        };
        let text = key_id.to_string();
        assert_eq!(text.parse(), Ok(key_id));
        for foreign in [
            String::new(),
            "alice".to_owned(),
            format!("{text}/"),
            format!("/{text}"),
            text.replace("tok-", "usr-"),
            text.replace("alice", "Alice"),
            text.replace('/', " "),
        ] {
            assert_eq!(foreign.parse::<KeyId>(), Err(ForeignKeyId), "{foreign}");
        }
    }
}

//! Who is it? Passwords, login tokens, and what keeps strangers from guessing either.
//!
//! 1. Before anything is looked up, [`limiter::Attempts::admit`] counts the attempt against the
//!    name and the client's address.
//! 2. [`login::with_password`] checks a password against the account, in the same time whether or
//!    not there is one; [`token::issue`] then makes the token that everything else takes.
//! 3. A token arrives as an API bearer ([`token::PresentedToken`], [`login::with_token`]) or as a
//!    Postgres password, which SCRAM checks against [`mock::verifiers`] without ever seeing it.
//!
//! Nothing here reads the store: accounts and tokens are arguments, fetched by `access`.

pub mod key_id;
pub mod limiter;
pub mod login;
pub mod mock;
pub mod password;
pub mod token;
pub mod totp;

//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel binding
//! `tls-server-end-point`, RFC 5929), as a state machine without I/O.
//!
//! 1. The client chooses a mechanism and sends client-first: [`Exchange::start`] gives server-first.
//! 2. The client sends client-final with its proof: [`Exchange::finish`] tries the proof against
//!    every candidate and gives server-final, or [`ScramError::Refused`].
//!
//! For a user who does not exist the caller passes a salt made up for that name and no candidate:
//! the exchange takes the same course and ends in the same error. The user name inside the
//! messages is ignored, as PostgreSQL does.

use std::num::NonZeroU32;

use data_encoding::BASE64;

use crate::crypto::scram::{Salt, Verifier};
use crate::crypto::{self, HASH_LENGTH};

pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Longer messages are refused: a client's nonce is some 24 characters.
const LONGEST_MESSAGE: usize = 4096;

/// The mechanisms to offer; with channel binding where there is TLS and its certificate allows it.
pub fn mechanisms(channel_binding: Option<&[u8]>) -> &'static [&'static str] {
    match channel_binding {
        Some(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
        None => &[SCRAM_SHA_256],
    }
}

/// Why an exchange ended without a match. Only [`Self::Refused`] is about the password (28P01);
/// the others are violations of the protocol (08P01).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("the client chose an authentication mechanism that was not offered")]
    UnknownMechanism,
    #[error("the client's SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    #[error("the client asked to act as another identity, which is not possible here")]
    OtherIdentity,
    #[error("the client demands an extension of SCRAM that is not known here")]
    MandatoryExtension,
    #[error(
        "the client supports channel binding but was not told that it is offered: somebody altered the messages"
    )]
    Downgrade,
    #[error("the client's channel binding type is not `tls-server-end-point`")]
    BindingType,
    #[error("the client's channel binding does not fit this connection: somebody may be in between")]
    BindingMismatch,
    #[error("the client answered with another nonce")]
    Nonce,
    #[error("the password is wrong or has expired")]
    Refused,
}

/// An exchange after its first message.
pub struct Exchange {
    client_first_bare: String,
    server_first: String,
    nonce: String,
    /// What the client must repeat: its gs2 header and the channel binding's data.
    binding: Vec<u8>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchange")
    }
}

impl Exchange {
    /// Answers client-first with server-first. `channel_binding` is this connection's
    /// `tls-server-end-point` data if, and only if, PLUS was offered; `server_nonce` is random.
    pub fn start(
        mechanism: &[u8],
        client_first: &[u8],
        channel_binding: Option<&[u8]>,
        server_nonce: [u8; 18],
        salt: &Salt,
        iterations: NonZeroU32,
    ) -> Result<(Self, Vec<u8>), ScramError> {
        let plus = match (mechanism, channel_binding) {
            (chosen, _) if chosen == SCRAM_SHA_256.as_bytes() => None,
            (chosen, Some(data)) if chosen == SCRAM_SHA_256_PLUS.as_bytes() => Some(data),
            _ => return Err(ScramError::UnknownMechanism),
        };
        let (header, bare) = split_header(text(client_first)?)?;
        check_flag(header.flag, plus.is_some(), channel_binding.is_some())?;
        let client_nonce = client_nonce(bare)?;
        let nonce = format!("{client_nonce}{}", BASE64.encode(&server_nonce));
        let server_first = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt));
        let binding = [header.raw.as_bytes(), plus.unwrap_or_default()].concat();
        let reply = server_first.clone().into_bytes();
        Ok((Self { client_first_bare: bare.to_owned(), server_first, nonce, binding }, reply))
    }

    /// Checks client-final against every candidate, without stopping at a match, and gives the
    /// one that matched with server-final. All candidates share the salt and iteration count that
    /// the exchange was started with.
    pub fn finish<'a, T>(
        self,
        client_final: &[u8],
        candidates: impl IntoIterator<Item = (T, &'a Verifier)>,
    ) -> Result<(T, Vec<u8>), ScramError> {
        let (without_proof, proof) = self.check_final(text(client_final)?)?;
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let mut matched = None;
        for (candidate, verifier) in candidates {
            if let Some(signature) = verifier.check(message.as_bytes(), &proof) {
                matched = Some((candidate, signature));
            }
        }
        let (candidate, signature) = matched.ok_or(ScramError::Refused)?;
        Ok((candidate, format!("v={}", BASE64.encode(&signature)).into_bytes()))
    }

    /// Checks everything but the proof; gives the part that the proof signs, and the proof.
    fn check_final<'m>(&self, message: &'m str) -> Result<(&'m str, Vec<u8>), ScramError> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), "c=", "no channel binding")?;
        let nonce = attribute(attributes.next(), "r=", "no nonce")?;
        let binding = BASE64.decode(binding.as_bytes()).map_err(|_| ScramError::Malformed("not base64"))?;
        if !crypto::equal(&binding, &self.binding) {
            return Err(ScramError::BindingMismatch);
        }
        if !crypto::equal(nonce.as_bytes(), self.nonce.as_bytes()) {
            return Err(ScramError::Nonce);
        }
        let proof = BASE64.decode(proof.as_bytes()).map_err(|_| ScramError::Malformed("not base64"))?;
        if proof.len() != HASH_LENGTH {
            return Err(ScramError::Malformed("a proof of another length"));
        }
        Ok((without_proof, proof))
    }
}

#[derive(Clone, Copy)]
struct Header<'a> {
    /// With both commas.
    raw: &'a str,
    flag: &'a str,
}

/// `gs2-cbind-flag "," [authzid] ","` and the rest (RFC 5802 section 7).
fn split_header(message: &str) -> Result<(Header<'_>, &str), ScramError> {
    let no_header = ScramError::Malformed("no header");
    let (flag, rest) = message.split_once(',').ok_or(no_header)?;
    let (identity, bare) = rest.split_once(',').ok_or(no_header)?;
    if !identity.is_empty() {
        return Err(ScramError::OtherIdentity);
    }
    let raw = message.strip_suffix(bare).ok_or(no_header)?;
    Ok((Header { raw, flag }, bare))
}

fn check_flag(flag: &str, plus_chosen: bool, plus_offered: bool) -> Result<(), ScramError> {
    match (flag, plus_chosen) {
        // The client would have used PLUS had it been told: what we offered was taken away.
        ("y", false) if plus_offered => Err(ScramError::Downgrade),
        ("n" | "y", false) | ("p=tls-server-end-point", true) => Ok(()),
        (flag, true) if flag.starts_with("p=") => Err(ScramError::BindingType),
        _ => Err(ScramError::Malformed("the header does not fit the mechanism")),
    }
}

/// `n=user,r=nonce` and extensions, which are ignored unless mandatory.
fn client_nonce(bare: &str) -> Result<&str, ScramError> {
    let mut attributes = bare.split(',');
    let first = attributes.next();
    if first.is_some_and(|first| first.starts_with("m=")) {
        return Err(ScramError::MandatoryExtension);
    }
    attribute(first, "n=", "no user name")?;
    let nonce = attribute(attributes.next(), "r=", "no nonce")?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ScramError::Malformed("a nonce with other than printable characters"));
    }
    Ok(nonce)
}

fn attribute<'a>(part: Option<&'a str>, name: &str, missing: &'static str) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name)).ok_or(ScramError::Malformed(missing))
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > LONGEST_MESSAGE {
        return Err(ScramError::Malformed("too long"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::scram::ITERATIONS;

    const SALT: Salt = [7; 16];
    const NONCE: [u8; 18] = [9; 18];

    fn verifier(password: &str) -> Verifier {
        Verifier::derive(password, SALT, ITERATIONS)
    }

    fn start(
        mechanism: &str,
        first: &[u8],
        binding: Option<&[u8]>,
    ) -> Result<(Exchange, Vec<u8>), ScramError> {
        Exchange::start(mechanism.as_bytes(), first, binding, NONCE, &SALT, ITERATIONS)
    }

    /// A whole exchange with `postgres-protocol`'s client.
    fn log_in(
        password: &str,
        client_binding: ChannelBinding,
        server_binding: Option<&[u8]>,
        candidates: &[(u8, Verifier)],
    ) -> Result<u8, ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), client_binding);
        let plus = client.message().starts_with(b"p=");
        let mechanism = if plus { SCRAM_SHA_256_PLUS } else { SCRAM_SHA_256 };
        let (exchange, server_first) = start(mechanism, client.message(), server_binding)?;
        client.update(&server_first).unwrap();
        let (matched, server_final) =
            exchange.finish(client.message(), candidates.iter().map(|(id, verifier)| (*id, verifier)))?;
        client.finish(&server_final).expect("the client accepts our signature");
        Ok(matched)
    }

    #[test]
    fn the_candidate_whose_password_it_is_matches() {
        let candidates = [(1, verifier("one")), (2, verifier("two")), (3, verifier("three"))];
        for (password, id) in [("one", 1), ("two", 2), ("three", 3)] {
            assert_eq!(log_in(password, ChannelBinding::unsupported(), None, &candidates), Ok(id));
        }
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_end_in_the_same_error() {
        let candidates = [(1, verifier("one"))];
        let wrong = log_in("two", ChannelBinding::unsupported(), None, &candidates);
        let unknown = log_in("two", ChannelBinding::unsupported(), None, &[]);
        assert_eq!((wrong, unknown), (Err(ScramError::Refused), Err(ScramError::Refused)));
    }

    #[test]
    fn channel_binding_to_this_certificate_is_accepted_and_to_another_refused() {
        let candidates = [(1, verifier("one"))];
        let bound = |data: &[u8]| ChannelBinding::tls_server_end_point(data.to_vec());
        assert_eq!(log_in("one", bound(b"here"), Some(b"here"), &candidates), Ok(1));
        let elsewhere = log_in("one", bound(b"elsewhere"), Some(b"here"), &candidates);
        assert_eq!(elsewhere, Err(ScramError::BindingMismatch));
        assert_eq!(log_in("one", bound(b"here"), None, &candidates), Err(ScramError::UnknownMechanism));
    }

    #[test]
    fn an_offer_that_was_taken_away_is_noticed() {
        let candidates = [(1, verifier("one"))];
        let unrequested = || ChannelBinding::unrequested(); // "y": the client could, but was not offered it
        assert_eq!(log_in("one", unrequested(), None, &candidates), Ok(1));
        assert_eq!(log_in("one", unrequested(), Some(b"here"), &candidates), Err(ScramError::Downgrade));
        assert_eq!(log_in("one", ChannelBinding::unsupported(), Some(b"here"), &candidates), Ok(1));
    }

    #[test]
    fn malformed_first_messages_are_refused() {
        for (mechanism, first, error) in [
            (SCRAM_SHA_256, "n,,n=", ScramError::Malformed("no nonce")),
            (SCRAM_SHA_256, "n,a=root,n=,r=abc", ScramError::OtherIdentity),
            (SCRAM_SHA_256, "n,,m=x,n=,r=abc", ScramError::MandatoryExtension),
            (SCRAM_SHA_256, "", ScramError::Malformed("no header")),
            (SCRAM_SHA_256, "n,", ScramError::Malformed("no header")),
            (SCRAM_SHA_256_PLUS, "p=tls-unique,,n=,r=abc", ScramError::BindingType),
            ("SCRAM-SHA-1", "n,,n=,r=abc", ScramError::UnknownMechanism),
        ] {
            assert_eq!(start(mechanism, first.as_bytes(), Some(b"x")).unwrap_err(), error, "{first}");
        }
        for (mechanism, first) in [
            (SCRAM_SHA_256, "p=tls-server-end-point,,n=,r=abc"),
            (SCRAM_SHA_256_PLUS, "n,,n=,r=abc"),
            (SCRAM_SHA_256, "n,,n=,r="),
            (SCRAM_SHA_256, "n,,n=,r=a\u{7f}b"),
        ] {
            assert!(matches!(start(mechanism, first.as_bytes(), Some(b"x")), Err(ScramError::Malformed(_))));
        }
    }

    #[test]
    fn malformed_final_messages_are_refused() {
        let proof = BASE64.encode(&[0; 32]);
        let nonce = format!("abc{}", BASE64.encode(&NONCE));
        for (last, error) in [
            (format!("c=biws,r={nonce},p={proof}"), ScramError::Refused),
            (format!("c=biws,r={nonce},x=y,p={proof}"), ScramError::Refused),
            (format!("c=biws,r=abc,p={proof}"), ScramError::Nonce),
            (format!("c=eSws,r={nonce},p={proof}"), ScramError::BindingMismatch),
            (format!("c=biws,r={nonce}"), ScramError::Malformed("no proof")),
            (format!("r={nonce},p={proof}"), ScramError::Malformed("no channel binding")),
            (format!("c=biws,r={nonce},p=AAAA"), ScramError::Malformed("a proof of another length")),
            (format!("c=biws,r={nonce},p=***"), ScramError::Malformed("not base64")),
        ] {
            let (exchange, _) = start(SCRAM_SHA_256, b"n,,n=,r=abc", None).unwrap();
            let verifier = verifier("one");
            assert_eq!(exchange.finish(last.as_bytes(), [((), &verifier)]).unwrap_err(), error, "{last}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(first in ".{0,60}", last in ".{0,90}", raw in any::<Vec<u8>>()) {
            drop(start(SCRAM_SHA_256, &raw, None).map_err(|_| ()));
            drop(start(SCRAM_SHA_256, first.as_bytes(), Some(b"x")).map_err(|_| ()));
            let (exchange, _) = start(SCRAM_SHA_256, b"n,,n=,r=abc", None).unwrap();
            prop_assert!(exchange.finish::<()>(last.as_bytes(), []).is_err());
        }
    }
}

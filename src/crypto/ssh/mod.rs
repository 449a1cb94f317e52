//! SSH keys and certificates: the one door to `russh::keys` for everything that is no SSH protocol.
//!
//! Keys are compared by their key data: two [`PublicKey`]s that differ in their comment alone are
//! unequal to `==`. Times are seconds since the epoch, as certificates have them.

pub mod authority;
pub mod certificate;
pub mod nist_p256;
pub mod source_address;

#[cfg(test)]
mod tests;

use russh::keys::signature::{Error as SignatureError, Signer};
use russh::keys::ssh_key::certificate::Builder;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::public::{EcdsaPublicKey, KeyData, RsaPublicKey};
use russh::keys::ssh_key::{self, EcdsaCurve, LineEnding};
use zeroize::Zeroizing;

pub use russh::keys::ssh_key::Signature;
pub use russh::keys::ssh_key::certificate::CertType;
pub use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey};

/// No key that is accepted has a longer line.
const LONGEST_LINE: usize = 16 * 1024;
/// NIST SP 800-57 counts fewer than 3072 bits as less than 128 bits of security.
const SHORTEST_RSA: usize = 3072;
/// What a signature's check costs grows with the square of this.
const LONGEST_RSA: usize = 8192;
const CERTIFICATE_SUFFIX: &str = "-cert-v01@openssh.com";
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    #[error("the private key has a passphrase: take it off with `ssh-keygen -p -N '' -f FILE`")]
    Encrypted,
    #[error(
        "not a private key in OpenSSH's format: make one with `ssh-keygen -t ed25519 -N ''`, or convert with `ssh-keygen -p -f FILE`"
    )]
    NotPrivate,
    #[error("the private key is damaged")]
    MalformedPrivate(#[source] ssh_key::Error),
    #[error("the private key cannot be written")]
    Encode(#[source] ssh_key::Error),
    #[error("the key is in a security key, which must be touched: give one that is in the file itself")]
    SecurityKey,
    #[error("longer than {LONGEST_LINE} bytes: give one public key, as in a file that ends in `.pub`")]
    TooLong,
    #[error("not one line: give one public key, as in a file that ends in `.pub`")]
    NotOneLine,
    #[error("this is a private key: keep it to yourself, and give the one in the file that ends in `.pub`")]
    NotPublic,
    #[error(
        "a public key begins with its type: one of {}, without options before it",
        TYPES.join(", ")
    )]
    UnknownType,
    #[error("DSA keys are not accepted: make another with `ssh-keygen -t ed25519`")]
    Dsa,
    #[error("this is a certificate: give the public key that it was made for")]
    Certificate,
    #[error(
        "an RSA key of {bits} bits is too short, {SHORTEST_RSA} are needed: make another with `ssh-keygen -t ed25519`"
    )]
    ShortRsa { bits: usize },
    #[error(
        "an RSA key of {bits} bits is too long, {LONGEST_RSA} are the most: make another with `ssh-keygen -t ed25519`"
    )]
    LongRsa { bits: usize },
    #[error("the public key is damaged: copy the whole line of the file that ends in `.pub`")]
    MalformedPublic(#[source] ssh_key::Error),
}

/// Makes a new private key.
pub fn generate_ed25519() -> PrivateKey {
    let seed = Zeroizing::new(crate::crypto::random());
    PrivateKey::from(Ed25519Keypair::from_seed(&seed))
}

/// Reads a private key in OpenSSH's format that can sign without asking anybody.
pub fn parse_private(pem: &str) -> Result<PrivateKey, SshKeyError> {
    if !pem.trim_start().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
        return Err(SshKeyError::NotPrivate);
    }
    let key = PrivateKey::from_openssh(pem).map_err(SshKeyError::MalformedPrivate)?;
    if key.is_encrypted() {
        return Err(SshKeyError::Encrypted);
    }
    if matches!(key.key_data(), KeypairData::SkEd25519(_) | KeypairData::SkEcdsaSha2NistP256(_)) {
        return Err(SshKeyError::SecurityKey);
    }
    check_key(key.public_key().key_data())?;
    Ok(key)
}

/// A private key in OpenSSH's format.
pub fn to_pem(key: &PrivateKey) -> Result<Zeroizing<String>, SshKeyError> {
    key.to_openssh(LineEnding::LF).map_err(SshKeyError::Encode)
}

/// Reads a line as in `authorized_keys` or a `.pub` file, without options: type, key, comment.
pub fn parse_public(line: &str) -> Result<PublicKey, SshKeyError> {
    if line.len() > LONGEST_LINE {
        return Err(SshKeyError::TooLong);
    }
    let line = line.trim();
    if line.starts_with("-----BEGIN") || line.starts_with("PuTTY-User-Key-File-") {
        return Err(SshKeyError::NotPublic);
    }
    if line.contains(['\n', '\r']) {
        return Err(SshKeyError::NotOneLine);
    }
    let (kind, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if kind == "ssh-dss" {
        return Err(SshKeyError::Dsa);
    }
    if kind.ends_with(CERTIFICATE_SUFFIX) {
        return Err(SshKeyError::Certificate);
    }
    if !TYPES.contains(&kind) {
        return Err(SshKeyError::UnknownType);
    }
    let (body, comment) = rest.trim_start().split_once([' ', '\t']).unwrap_or((rest.trim_start(), ""));
    let key = PublicKey::from_openssh(&format!("{kind} {body} {}", comment.trim_start()));
    let key = key.map_err(SshKeyError::MalformedPublic)?;
    check_key(key.key_data())?;
    Ok(key)
}

/// The line for `authorized_keys` or `known_hosts`, without a line end.
///
/// # Panics
/// Never: a key that could be read or made can be written.
#[expect(clippy::expect_used, reason = "a key that could be read or made can be written")]
pub fn public_line(key: &PublicKey, comment: &str) -> String {
    // Whatever ends a line would begin another key's.
    let comment: String = comment.chars().filter(|symbol| !symbol.is_control()).collect();
    let key = PublicKey::new(key.key_data().clone(), comment.trim().to_owned());
    key.to_openssh().expect("a key's parts fit the format")
}

/// `SHA256:…`, as OpenSSH prints it.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Whether it is a plain key that is strong enough.
fn check_key(key: &KeyData) -> Result<(), SshKeyError> {
    match key {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {
            Ok(())
        }
        KeyData::Rsa(rsa) => match rsa_bits(rsa) {
            bits if bits < SHORTEST_RSA => Err(SshKeyError::ShortRsa { bits }),
            bits if bits > LONGEST_RSA => Err(SshKeyError::LongRsa { bits }),
            _ => Ok(()),
        },
        KeyData::Dsa(_) => Err(SshKeyError::Dsa),
        KeyData::Certificate(_) => Err(SshKeyError::Certificate),
        _ => Err(SshKeyError::UnknownType),
    }
}

/// The exact length of the modulus; `RsaPublicKey::key_size` rounds up to whole bytes.
fn rsa_bits(key: &RsaPublicKey) -> usize {
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
    (modulus.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or_default())
}

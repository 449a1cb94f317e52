//! What is read from an X.509 certificate that TLS has checked already, or that is our own:
//!
//! - `tls-server-end-point` channel binding (RFC 5929 section 4.1): a certificate's hash, by the
//!   hash function of the certificate's own signature;
//! - whom a client's certificate is for.

use aws_lc_rs::digest::{self, Algorithm};

/// Why a certificate gives no channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndPointError {
    #[error("the certificate is not well-formed DER")]
    Malformed,
    #[error("the certificate's signature names no hash function, so channel binding is not defined for it")]
    NoHash,
}

/// What both ends of a TLS connection must agree on about the server's certificate.
pub fn server_end_point(certificate: &[u8]) -> Result<Vec<u8>, EndPointError> {
    let algorithm = signature_hash(certificate)?;
    Ok(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// Why a certificate does not say whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("the certificate is not well-formed DER")]
    Malformed,
    #[error("the certificate's subject has no common name")]
    NoCommonName,
    #[error("the certificate's subject has several common names")]
    SeveralCommonNames,
    #[error("the certificate's common name is not plain text")]
    NotText,
}

impl From<EndPointError> for SubjectError {
    fn from(_: EndPointError) -> Self {
        Self::Malformed
    }
}

/// The one common name of the certificate's subject (RFC 5280 section 4.1.2.6).
pub fn common_name(certificate: &[u8]) -> Result<&str, SubjectError> {
    let mut fields = Der(certificate).element(SEQUENCE)?.element(SEQUENCE)?;
    // The version may be left out; serial number, signature, issuer and validity come before the subject.
    if fields.tag() == Some(CONTEXT_0) {
        fields.element(CONTEXT_0)?;
    }
    fields.element(INTEGER)?;
    for _signature_issuer_validity in 0..3 {
        fields.element(SEQUENCE)?;
    }
    let mut subject = fields.element(SEQUENCE)?;
    let mut found = None;
    while subject.tag().is_some() {
        let mut set = subject.element(SET)?;
        while set.tag().is_some() {
            let mut attribute = set.element(SEQUENCE)?;
            if attribute.element(OBJECT_IDENTIFIER)?.0 != COMMON_NAME {
                continue;
            }
            let tag = attribute.tag().filter(|tag| TEXTS.contains(tag)).ok_or(SubjectError::NotText)?;
            let text = attribute.element(tag)?.0;
            let text = std::str::from_utf8(text).map_err(|_| SubjectError::NotText)?;
            if found.replace(text).is_some() {
                return Err(SubjectError::SeveralCommonNames);
            }
        }
    }
    found.ok_or(SubjectError::NoCommonName)
}

/// SHA-256 of the certificate in hexadecimal, as `openssl x509 -fingerprint -sha256` counts it.
pub fn fingerprint(certificate: &[u8]) -> String {
    super::hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01]; // 1.2.840.113549.1.1
const RSA_PSS: u8 = 10;
const ECDSA_SHA1: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]; // 1.2.840.10045.4.1
const ECDSA: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03]; // 1.2.840.10045.4.3
const SHA1: [u8; 5] = [0x2b, 0x0e, 0x03, 0x02, 0x1a]; // 1.3.14.3.2.26
const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02]; // 2.16.840.1.101.3.4.2

fn signature_hash(certificate: &[u8]) -> Result<&'static Algorithm, EndPointError> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }
    let mut certificate = Der(certificate).element(SEQUENCE)?;
    certificate.element(SEQUENCE)?;
    let mut algorithm = certificate.element(SEQUENCE)?;
    let oid = algorithm.element(OBJECT_IDENTIFIER)?.0;
    match oid.split_last() {
        Some((&RSA_PSS, prefix)) if prefix == RSA => pss_hash(algorithm),
        // RFC 5929: MD5 and SHA-1 are replaced by SHA-256.
        Some((4 | 5 | 11, prefix)) if prefix == RSA => Ok(&digest::SHA256),
        Some((12, prefix)) if prefix == RSA => Ok(&digest::SHA384),
        Some((13, prefix)) if prefix == RSA => Ok(&digest::SHA512),
        Some((14, prefix)) if prefix == RSA => Ok(&digest::SHA224),
        _ if oid == ECDSA_SHA1 => Ok(&digest::SHA256),
        Some((1, prefix)) if prefix == ECDSA => Ok(&digest::SHA224),
        Some((2, prefix)) if prefix == ECDSA => Ok(&digest::SHA256),
        Some((3, prefix)) if prefix == ECDSA => Ok(&digest::SHA384),
        Some((4, prefix)) if prefix == ECDSA => Ok(&digest::SHA512),
        _ => Err(EndPointError::NoHash),
    }
}

/// RFC 4055 section 3.1: the hash is named in the parameters, SHA-1 when it is not.
fn pss_hash(mut algorithm: Der<'_>) -> Result<&'static Algorithm, EndPointError> {
    let mut parameters = algorithm.element(SEQUENCE)?;
    let Ok(mut explicit) = parameters.element(CONTEXT_0) else { return Ok(&digest::SHA256) };
    let oid = explicit.element(SEQUENCE)?.element(OBJECT_IDENTIFIER)?.0;
    match oid.split_last() {
        _ if oid == SHA1 => Ok(&digest::SHA256),
        Some((1, prefix)) if prefix == SHA2 => Ok(&digest::SHA256),
        Some((2, prefix)) if prefix == SHA2 => Ok(&digest::SHA384),
        Some((3, prefix)) if prefix == SHA2 => Ok(&digest::SHA512),
        Some((4, prefix)) if prefix == SHA2 => Ok(&digest::SHA224),
        _ => Err(EndPointError::NoHash),
    }
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const SET: u8 = 0x31;
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03]; // 2.5.4.3
/// `UTF8String`, `PrintableString`, `IA5String`: those whose bytes are UTF-8.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// The elements of a DER value, one after the other.
struct Der<'a>(&'a [u8]);

impl Der<'_> {
    /// The next element's; `None` at the end.
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which must have this tag.
    fn element(&mut self, tag: u8) -> Result<Self, EndPointError> {
        let (first, rest) = self.0.split_first().ok_or(EndPointError::Malformed)?;
        let (length, rest) = Self::length(rest)?;
        if *first != tag || length > rest.len() {
            return Err(EndPointError::Malformed);
        }
        let (content, rest) = rest.split_at(length);
        self.0 = rest;
        Ok(Self(content))
    }

    /// X.690 section 8.1.3, definite forms of up to four bytes.
    fn length(bytes: &[u8]) -> Result<(usize, &[u8]), EndPointError> {
        let (first, rest) = bytes.split_first().ok_or(EndPointError::Malformed)?;
        let count = usize::from(first & 0x7f);
        if first & 0x80 == 0 {
            return Ok((count, rest));
        }
        if count == 0 || count > 4 || count > rest.len() {
            return Err(EndPointError::Malformed);
        }
        let (digits, rest) = rest.split_at(count);
        Ok((digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn self_signed(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["bastion.example".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_certificates_signature() {
        for (signature, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384),
        ] {
            let certificate = self_signed(signature);
            let expected = digest::digest(hash, &certificate);
            assert_eq!(server_end_point(&certificate).unwrap(), expected.as_ref());
        }
    }

    #[test]
    fn a_signature_without_a_hash_gives_no_binding() {
        assert_eq!(server_end_point(&self_signed(&rcgen::PKCS_ED25519)), Err(EndPointError::NoHash));
    }

    /// A certificate's outline with this algorithm identifier in it.
    fn outline(algorithm: &[u8]) -> Vec<u8> {
        let mut content = vec![SEQUENCE, 0, SEQUENCE, u8::try_from(algorithm.len()).unwrap()];
        content.extend(algorithm);
        let mut bytes = vec![SEQUENCE, 0x81, u8::try_from(content.len()).unwrap()];
        bytes.extend(content);
        bytes
    }

    fn rsa(last: u8) -> Vec<u8> {
        [&[OBJECT_IDENTIFIER, 9][..], &RSA, &[last]].concat()
    }

    #[test]
    fn weak_hashes_are_replaced_and_pss_names_its_own() {
        for (last, hash) in
            [(4, &digest::SHA256), (5, &digest::SHA256), (12, &digest::SHA384), (13, &digest::SHA512)]
        {
            assert_eq!(signature_hash(&outline(&rsa(last))).unwrap(), hash);
        }
        let named =
            [&rsa(RSA_PSS)[..], &[SEQUENCE, 15, CONTEXT_0, 13, SEQUENCE, 11, OBJECT_IDENTIFIER, 9]].concat();
        let pss = [&named[..], &SHA2, &[3]].concat();
        assert_eq!(signature_hash(&outline(&pss)).unwrap(), &digest::SHA512);
        let default = [&rsa(RSA_PSS)[..], &[SEQUENCE, 0]].concat();
        assert_eq!(signature_hash(&outline(&default)).unwrap(), &digest::SHA256);
    }

    fn named(names: &[(rcgen::DnType, &str)]) -> Vec<u8> {
        let mut subject = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            subject.push(kind.clone(), *name);
        }
        let mut parameters = rcgen::CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
        parameters.distinguished_name = subject;
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_for_its_one_common_name() {
        use rcgen::DnType::{CommonName, CustomDnType, OrganizationName};
        let alice = named(&[(OrganizationName, "bank"), (CommonName, "alice")]);
        assert_eq!(common_name(&alice), Ok("alice"));
        assert_eq!(common_name(&named(&[(CommonName, "zoë\0")])), Ok("zoë\0"), "as it is");
        assert_eq!(common_name(&named(&[(OrganizationName, "alice")])), Err(SubjectError::NoCommonName));
        let twice = named(&[(CommonName, "alice"), (CustomDnType(vec![2, 5, 4, 3]), "bob")]);
        assert_eq!(common_name(&twice), Err(SubjectError::SeveralCommonNames));
        for end in 0..alice.len() {
            assert_eq!(common_name(&alice[..end]), Err(SubjectError::Malformed), "{end}");
        }
        assert_eq!(fingerprint(b"").get(..8), Some("e3b0c442"));
    }

    #[test]
    fn every_cut_of_a_certificate_is_refused() {
        let certificate = self_signed(&rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..certificate.len() {
            assert_eq!(server_end_point(&certificate[..end]), Err(EndPointError::Malformed), "{end}");
        }
        assert!(server_end_point(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}

//! Keys and signatures of ECDSA on P-256 as others write them, for SSH (RFC 5656).

use super::{Algorithm, EcdsaCurve, EcdsaPublicKey, KeyData, PublicKey, Signature};

/// What comes before the point in a `SubjectPublicKeyInfo` of P-256 (RFC 5480, section 2).
const INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// The key in a `SubjectPublicKeyInfo`.
pub fn public_key(info: &[u8]) -> Option<PublicKey> {
    let point = info.strip_prefix(&INFO)?;
    let key = EcdsaPublicKey::from_sec1_bytes(point).ok()?;
    (key.curve() == EcdsaCurve::NistP256).then(|| PublicKey::from(KeyData::Ecdsa(key)))
}

/// The signature that is an `ECDSA-Sig-Value` in DER (RFC 3279, section 2.2.3). DER writes a number as SSH does
/// (RFC 4251, section 5, `mpint`), but for its length.
pub fn signature(der: &[u8]) -> Option<Signature> {
    let (numbers, []) = value(SEQUENCE, der)? else { return None };
    let (r, rest) = value(INTEGER, numbers)?;
    let (s, []) = value(INTEGER, rest)? else { return None };
    let mut data = Vec::new();
    for number in [r, s] {
        data.extend(u32::try_from(number.len()).ok()?.to_be_bytes());
        data.extend(number);
    }
    Signature::new(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, data).ok()
}

/// The value that `der` begins with, and what comes after it. None here is so long that its length takes more bytes.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = der else { return None };
    if *found != tag || *length > 0x7f {
        return None;
    }
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    use futures_util::FutureExt as _;

    use super::super::authority::{Authority, NotSigned};
    use super::super::certificate::{CertificateOrder, SignError, check_user_certificate, sign_user};
    use super::super::{fingerprint, generate_ed25519};
    use super::*;

    /// A key that is asked for signatures in DER, as that in a KMS.
    #[derive(Debug)]
    struct Elsewhere {
        signs: EcdsaKeyPair,
        public: PublicKey,
    }

    #[async_trait::async_trait]
    impl Authority for Elsewhere {
        fn public_key(&self) -> &PublicKey {
            &self.public
        }

        async fn sign(&self, text: &[u8]) -> Result<Signature, NotSigned> {
            let der = self.signs.sign(&SystemRandom::new(), text).unwrap();
            Ok(signature(der.as_ref()).unwrap())
        }
    }

    fn elsewhere() -> Elsewhere {
        let signs = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let info = [&INFO, signs.public_key().as_ref()].concat();
        Elsewhere { signs, public: public_key(&info).unwrap() }
    }

    fn order(key: &PublicKey) -> CertificateOrder<'_> {
        CertificateOrder {
            key,
            key_id: "k",
            principals: &["deploy"],
            valid_after: 10,
            valid_before: 20,
            serial: 1,
            source_address: None,
            extensions: &[],
        }
    }

    #[test]
    fn certificates_of_a_key_elsewhere_hold() {
        let (authority, user) = (elsewhere(), generate_ed25519());
        for _ in 0..20 {
            let made = sign_user(&authority, &order(user.public_key())).now_or_never().unwrap().unwrap();
            let trusted = [authority.public.clone()];
            let client = "192.0.2.7".parse().unwrap();
            let checked = check_user_certificate(&made, &trusted, "deploy", client, 15).unwrap();
            assert_eq!(checked.fingerprint_of_ca, fingerprint(&authority.public));
        }
    }

    #[test]
    fn what_another_key_signs_never_becomes_a_certificate() {
        let user = generate_ed25519();
        let mut authority = elsewhere();
        authority.public = elsewhere().public;
        let made = sign_user(&authority, &order(user.public_key())).now_or_never().unwrap();
        assert_eq!(made, Err(SignError::OtherKey));
    }

    #[test]
    fn numbers_are_as_long_as_they_are() {
        let made = signature(b"\x30\x07\x02\x02\x00\x81\x02\x01\x05").unwrap();
        assert_eq!(made.as_bytes(), b"\x00\x00\x00\x02\x00\x81\x00\x00\x00\x01\x05");
    }

    #[test]
    fn what_is_no_signature_or_key_is_neither() {
        let good = elsewhere().signs.sign(&SystemRandom::new(), b"text").unwrap();
        let good = good.as_ref();
        assert!(signature(good).is_some());
        for length in 0..good.len() {
            assert!(signature(&good[..length]).is_none(), "{length}");
        }
        let long: Vec<u8> = [&[SEQUENCE, 0x81, 0x46][..], &good[2..]].concat();
        for bad in
            [&[good, &[0]].concat()[..], &long, b"\x30\x06\x02\x01\x81\x02\x01\x01", b"\x30\x03\x02\x01\x01"]
        {
            assert!(signature(bad).is_none(), "{bad:02x?}");
        }
        let info = [&INFO[..], &[4; 65]].concat();
        assert!(public_key(&info[1..]).is_none());
        assert!(public_key(&info[..90]).is_none());
        assert!(public_key(&[]).is_none());
    }
}

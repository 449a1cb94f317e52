//! The first certificate authority and the server's certificates: ECDSA on P-256, which every client
//! in use understands.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls_pki_types::ServerName;

use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

/// How long the authority is valid, in days: ten years.
pub const AUTHORITY_DAYS: u64 = 3650;
/// How long a server's certificate is valid, in days.
pub const SERVER_DAYS: u64 = 397;
/// What every server's certificate names beside the names given.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[derive(Debug, thiserror::Error)]
pub enum MakeCertificate {
    #[error("the certificate cannot be signed")]
    Sign(#[from] rcgen::Error),
    #[error("the present time, {0}, is not one that a certificate can name")]
    Time(Timestamp),
}

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    pub certificate: String,
    pub key: Secret,
}

/// Signs servers' certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certified: Certified,
}

impl Authority {
    pub fn make(now: Timestamp) -> Result<Self, MakeCertificate> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        valid(&mut params, now, AUTHORITY_DAYS)?;
        params.distinguished_name.push(DnType::CommonName, format!("Sallyport CA {}", date(now)?.0));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let certified = Certified { certificate, key: Secret::new(key.serialize_pem()) };
        Ok(Self { issuer: Issuer::new(params, key), certified })
    }

    pub fn certified(&self) -> &Certified {
        &self.certified
    }

    /// A server's certificate for `names` and for this machine itself.
    pub fn server(
        &self,
        common_name: &str,
        names: &[String],
        now: Timestamp,
    ) -> Result<Certified, MakeCertificate> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut all: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
        all.extend(names.iter().filter(|name| !LOCAL_NAMES.contains(&name.as_str())).cloned());
        let mut params = CertificateParams::new(all)?;
        valid(&mut params, now, SERVER_DAYS)?;
        params.distinguished_name.push(DnType::CommonName, format!("Sallyport {common_name}"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certified { certificate, key: Secret::new(key.serialize_pem()) })
    }
}

/// The first name that no certificate can carry.
pub(super) fn check_names(names: &[String]) -> Result<(), String> {
    match names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        Some(malformed) => Err(malformed.clone()),
        None => Ok(()),
    }
}

/// From the day before, so that a client whose clock is behind accepts it.
fn valid(params: &mut CertificateParams, now: Timestamp, days: u64) -> Result<(), MakeCertificate> {
    let day = Duration::from_hours(24);
    let yesterday = i64::try_from(day.as_micros())
        .ok()
        .and_then(|day| now.as_micros().checked_sub(day))
        .map(Timestamp::from_micros)
        .ok_or(MakeCertificate::Time(now))?;
    let end = now.plus(day.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX)));
    let (year, month, of_month) = date(yesterday)?;
    params.not_before = date_time_ymd(year, month, of_month);
    let (year, month, of_month) = date(end)?;
    params.not_after = date_time_ymd(year, month, of_month);
    Ok(())
}

fn date(at: Timestamp) -> Result<(i32, u8, u8), MakeCertificate> {
    let unnamable = |_| MakeCertificate::Time(at);
    let instant = jiff::Timestamp::from_microsecond(at.as_micros()).map_err(|_| MakeCertificate::Time(at))?;
    let date = jiff::tz::Offset::UTC.to_datetime(instant).date();
    let month = u8::try_from(date.month()).map_err(unnamable)?;
    let day = u8::try_from(date.day()).map_err(unnamable)?;
    // Certificates name years from 1950 on in one form and others in another; a clock that is
    // before 1970 is wrong.
    if date.year() < 1970 {
        return Err(MakeCertificate::Time(at));
    }
    Ok((i32::from(date.year()), month, day))
}

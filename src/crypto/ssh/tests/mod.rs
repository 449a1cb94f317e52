//! Keys and certificates against each other, against hand-made bytes, and against OpenSSH's `ssh-keygen`.

mod certificates;
mod keys;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use futures_util::FutureExt as _;

use super::certificate::{
    CertificateOrder, CertificateRefused, SignError, check_host_certificate, check_user_certificate,
};
use super::*;

const NOW: u64 = 1_800_000_000;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));

fn order<'a>(key: &'a PublicKey, principals: &'a [&'a str]) -> CertificateOrder<'a> {
    CertificateOrder {
        key,
        key_id: "alice",
        principals,
        valid_after: NOW - 60,
        valid_before: NOW + 60,
        serial: 7,
        source_address: None,
        extensions: &["permit-pty"],
    }
}

/// A key that is here has its answer at once.
fn sign_user(ca: &PrivateKey, order: &CertificateOrder<'_>) -> Result<Certificate, SignError> {
    certificate::sign_user(ca, order).now_or_never().unwrap()
}

fn sign_host(ca: &PrivateKey, order: &CertificateOrder<'_>) -> Result<Certificate, SignError> {
    certificate::sign_host(ca, order).now_or_never().unwrap()
}

fn check(certificate: &Certificate, ca: &PrivateKey) -> Result<(), CertificateRefused> {
    check_user_certificate(certificate, &[ca.public_key().clone()], "alice", CLIENT, NOW).map(|_| ())
}

/// A certificate whose contents no function of ours would make.
fn made(ca: &PrivateKey, change: impl FnOnce(&mut Builder)) -> Certificate {
    let key = generate_ed25519();
    let key = key.public_key().key_data().clone();
    let mut builder = Builder::new([1; 16], key, NOW - 60, NOW + 60).unwrap();
    builder.cert_type(CertType::User).unwrap();
    change(&mut builder);
    builder.sign(ca).unwrap()
}

/// Runs `ssh-keygen` in `dir` and gives what it prints.
fn keygen(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("ssh-keygen").current_dir(dir).args(arguments).output();
    let output = output.expect("ssh-keygen, of Debian's openssh-client");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

fn write_private(dir: &Path, name: &str, key: &PrivateKey) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(dir.join(name), to_pem(key).unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Has `ssh-keygen` certify a new key and reads the certificate.
fn keygen_signs(dir: &Path, arguments: &[&str]) -> Certificate {
    for name in ["subject", "subject.pub", "subject-cert.pub"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    keygen(dir, &["-q", "-t", "ed25519", "-N", "", "-f", "subject"]);
    keygen(dir, &[&["-q", "-s", "ca", "-I", "alice"], arguments, &["subject.pub"]].concat());
    Certificate::from_openssh(&read(dir, "subject-cert.pub")).unwrap()
}

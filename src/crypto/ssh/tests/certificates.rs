//! Certificates are made, accepted and refused.

use super::*;

#[test]
fn a_users_certificate_is_accepted_with_what_it_says() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let certificate = sign_user(&ca, &order(user.public_key(), &["bob", "alice"])).unwrap();
    let trusted = [generate_ed25519().public_key().clone(), ca.public_key().clone()];
    let checked = check_user_certificate(&certificate, &trusted, "alice", CLIENT, NOW).unwrap();
    assert_eq!(checked.key.key_data(), user.public_key().key_data());
    assert_eq!((checked.key_id.as_str(), checked.serial), ("alice", 7));
    assert_eq!(checked.valid_before, NOW + 60);
    assert_eq!(checked.fingerprint_of_ca, fingerprint(ca.public_key()));
}

#[test]
fn an_authority_that_is_not_trusted_is_refused_though_it_has_the_same_name() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let certificate = sign_user(&ca, &order(user.public_key(), &["alice"])).unwrap();
    let unknown = Err(CertificateRefused::UnknownAuthority { fingerprint: fingerprint(ca.public_key()) });
    assert_eq!(check(&certificate, &generate_ed25519()), unknown);
    assert!(check_user_certificate(&certificate, &[], "alice", CLIENT, NOW).is_err());
    // A comment is no part of a key.
    let commented = PublicKey::new(ca.public_key().key_data().clone(), "user CA");
    assert!(check_user_certificate(&certificate, &[commented], "alice", CLIENT, NOW).is_ok());
}

#[test]
fn every_changed_byte_of_a_certificate_is_found() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let certificate = sign_user(&ca, &order(user.public_key(), &["alice"])).unwrap();
    let bytes = certificate.to_bytes().unwrap();
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        if let Ok(changed) = Certificate::from_bytes(&changed) {
            assert!(check(&changed, &ca).is_err(), "byte {index}");
        }
    }
    for length in 0..bytes.len() {
        assert!(Certificate::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_certificate_counts_from_its_first_second_to_the_one_before_its_end() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let certificate = sign_user(&ca, &order(user.public_key(), &["alice"])).unwrap();
    let trusted = [ca.public_key().clone()];
    let at = |now| check_user_certificate(&certificate, &trusted, "alice", CLIENT, now).map(|_| ());
    assert_eq!(at(NOW - 61), Err(CertificateRefused::NotYetValid { from: NOW - 60 }));
    assert_eq!(at(NOW - 60), Ok(()));
    assert_eq!(at(NOW + 59), Ok(()));
    assert_eq!(at(NOW + 60), Err(CertificateRefused::Expired { at: NOW + 60 }));
    assert_eq!(at(u64::MAX), Err(CertificateRefused::Expired { at: NOW + 60 }));
}

#[test]
fn a_certificate_for_nobody_in_particular_is_for_nobody() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let everybody = made(&ca, |builder| {
        builder.all_principals_valid().unwrap();
    });
    assert_eq!(check(&everybody, &ca), Err(CertificateRefused::NoPrincipal));
    assert_eq!(sign_user(&ca, &order(user.public_key(), &[])), Err(SignError::NoPrincipal));
    assert_eq!(sign_user(&ca, &order(user.public_key(), &["a", ""])), Err(SignError::NoPrincipal));
    for other in ["Alice", "alice2", "*", "ali", "bob,alice"] {
        let certificate = sign_user(&ca, &order(user.public_key(), &[other])).unwrap();
        let refused = Err(CertificateRefused::OtherPrincipal { principal: "alice".to_owned() });
        assert_eq!(check(&certificate, &ca), refused, "{other}");
    }
}

#[test]
fn a_certificate_is_for_users_or_for_hosts() {
    let (ca, key) = (generate_ed25519(), generate_ed25519());
    let trusted = [ca.public_key().clone()];
    let user = sign_user(&ca, &order(key.public_key(), &["alice"])).unwrap();
    let host_order = CertificateOrder { extensions: &[], ..order(key.public_key(), &["alice"]) };
    let host = sign_host(&ca, &host_order).unwrap();
    assert_eq!(check(&host, &ca), Err(CertificateRefused::NotForUsers));
    assert_eq!(check_host_certificate(&user, &trusted, "alice", NOW), Err(CertificateRefused::NotForHosts));
    assert_eq!(check_host_certificate(&host, &trusted, "ALICE", NOW), Ok(&trusted[0]));
    assert!(check_host_certificate(&host, &trusted, "bob", NOW).is_err());
    assert!(check_host_certificate(&host, &trusted, "alice", NOW + 60).is_err());
    let with_options = order(key.public_key(), &["alice"]);
    assert_eq!(sign_host(&ca, &with_options), Err(SignError::HostOptions));
}

#[test]
fn a_source_address_is_obeyed_and_every_other_option_refused() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let from = |source| {
        let order = CertificateOrder { source_address: Some(source), ..order(user.public_key(), &["alice"]) };
        sign_user(&ca, &order)
    };
    assert_eq!(check(&from("10.0.0.0/24,192.0.2.1").unwrap(), &ca), Ok(()));
    let elsewhere = Err(CertificateRefused::OtherSource { client: CLIENT });
    assert_eq!(check(&from("10.0.0.4").unwrap(), &ca), elsewhere);
    assert!(matches!(from("10.0.0.1/24"), Err(SignError::Source(_))));

    let with = |name: &str, value: &str| {
        made(&ca, |builder| {
            builder.valid_principal("alice").unwrap().critical_option(name, value).unwrap();
        })
    };
    for malformed in ["", "*", "10.0.0.5,", "10.0.0.0/99"] {
        let refused = check(&with("source-address", malformed), &ca);
        assert!(matches!(refused, Err(CertificateRefused::MalformedSource(_))), "{malformed}");
    }
    for name in ["force-command", "verify-required", "Source-Address", "x@bank.example", ""] {
        let refused = Err(CertificateRefused::UnknownOption { name: name.to_owned() });
        assert_eq!(check(&with(name, "true"), &ca), refused);
    }
    let extended = made(&ca, |builder| {
        builder.valid_principal("alice").unwrap().extension("x@bank.example", "1").unwrap();
    });
    assert_eq!(check(&extended, &ca), Ok(()));
}

#[test]
fn a_certificate_must_end_after_it_begins() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    for end in [NOW - 61, NOW - 60] {
        let order = CertificateOrder { valid_before: end, ..order(user.public_key(), &["alice"]) };
        assert_eq!(sign_user(&ca, &order), Err(SignError::Dates));
    }
}

/// A certificate's bytes with any authority and signature, as a hostile peer may send them.
mod by_hand {
    use super::*;

    pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    /// `PROTOCOL.certkeys`: an Ed25519 user certificate for `alice`, up to the signature.
    pub(super) fn unsigned(key: &[u8], authority: &[u8], before: u64) -> Vec<u8> {
        [
            string(b"ssh-ed25519-cert-v01@openssh.com"),
            string(&[9; 32]),
            string(key),
            1_u64.to_be_bytes().to_vec(),
            1_u32.to_be_bytes().to_vec(),
            string(b"alice"),
            string(&string(b"alice")),
            (NOW - 60).to_be_bytes().to_vec(),
            before.to_be_bytes().to_vec(),
            string(b""),
            string(b""),
            string(b""),
            string(authority),
        ]
        .concat()
    }

    pub(super) fn signed(key: &[u8], authority: &[u8], before: u64, ca: &PrivateKey) -> Vec<u8> {
        let unsigned = unsigned(key, authority, before);
        let signature = ca.try_sign(&unsigned).unwrap();
        let signature = [string(signature.algorithm().as_str().as_bytes()), string(signature.as_bytes())];
        [unsigned, string(&signature.concat())].concat()
    }
}

#[test]
fn an_authority_that_is_a_certificate_vouches_for_nobody() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let key = user.public_key().key_data().ed25519().unwrap().as_ref().to_vec();
    let plain = ca.public_key().to_bytes().unwrap();
    // The same bytes with a plain authority are good, so that it is the nesting which is refused.
    let good = Certificate::from_bytes(&by_hand::signed(&key, &plain, NOW + 60, &ca)).unwrap();
    assert_eq!(check(&good, &ca), Ok(()));

    let nested = sign_user(&ca, &order(ca.public_key(), &["alice"])).unwrap().to_bytes().unwrap();
    let certificate = Certificate::from_bytes(&by_hand::signed(&key, &nested, NOW + 60, &ca)).unwrap();
    assert_eq!(check(&certificate, &ca), Err(CertificateRefused::NestedAuthority));
}

#[test]
fn dates_that_leave_no_moment_are_refused_before_anything_is_made_of_them() {
    let (ca, user) = (generate_ed25519(), generate_ed25519());
    let key = user.public_key().key_data().ed25519().unwrap().as_ref().to_vec();
    let authority = ca.public_key().to_bytes().unwrap();
    for end in [0, NOW - 60] {
        let bytes = by_hand::signed(&key, &authority, end, &ca);
        let certificate = Certificate::from_bytes(&bytes).unwrap();
        assert_eq!(check(&certificate, &ca), Err(CertificateRefused::NeverValid));
    }
}

#[test]
fn ssh_keygen_reads_the_certificates_that_we_sign() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, key) = (generate_ed25519(), generate_ed25519());
    let order = CertificateOrder {
        source_address: Some("10.0.0.5/32"),
        extensions: &["permit-pty", "permit-port-forwarding"],
        key_id: "ses-1/con-2",
        ..order(key.public_key(), &["deploy"])
    };
    let certificate = sign_user(&ca, &order).unwrap();
    std::fs::write(dir.path().join("key-cert.pub"), certificate.to_openssh().unwrap()).unwrap();
    let printed = keygen(dir.path(), &["-L", "-f", "key-cert.pub"]);
    for part in [
        "ssh-ed25519-cert-v01@openssh.com user certificate",
        &format!("Public key: ED25519-CERT {}", fingerprint(key.public_key())),
        &format!("Signing CA: ED25519 {} (using ssh-ed25519)", fingerprint(ca.public_key())),
        "Key ID: \"ses-1/con-2\"",
        "Serial: 7",
        "source-address 10.0.0.5/32",
        "permit-pty",
        "permit-port-forwarding",
        "deploy",
    ] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    let host_order = CertificateOrder { source_address: None, extensions: &[], ..order };
    let host = sign_host(&ca, &host_order).unwrap();
    std::fs::write(dir.path().join("host-cert.pub"), host.to_openssh().unwrap()).unwrap();
    assert!(keygen(dir.path(), &["-L", "-f", "host-cert.pub"]).contains("host certificate"));
}

#[test]
fn certificates_that_ssh_keygen_signs_are_taken_or_refused_by_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let dates = format!("{:#x}:{:#x}", NOW - 60, NOW + 60);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        for name in ["ca", "ca.pub"] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        keygen(dir, &["-q", "-t", kind, "-N", "", "-f", "ca"]);
        let ca = parse_private(&read(dir, "ca")).unwrap();
        let sign = |arguments: &[&str]| keygen_signs(dir, &[&["-V", &dates], arguments].concat());
        assert_eq!(check(&sign(&["-n", "bob,alice"]), &ca), Ok(()), "{kind}");
        let from_here = sign(&["-n", "alice", "-O", "source-address=10.0.0.0/24"]);
        assert_eq!(check(&from_here, &ca), Ok(()));
        let from_elsewhere = sign(&["-n", "alice", "-O", "source-address=192.0.2.0/24"]);
        assert_eq!(check(&from_elsewhere, &ca), Err(CertificateRefused::OtherSource { client: CLIENT }));
        let forced = sign(&["-n", "alice", "-O", "force-command=true"]);
        let name = "force-command".to_owned();
        assert_eq!(check(&forced, &ca), Err(CertificateRefused::UnknownOption { name }));
        assert_eq!(check(&sign(&[]), &ca), Err(CertificateRefused::NoPrincipal));
        assert_eq!(check(&sign(&["-h", "-n", "alice"]), &ca), Err(CertificateRefused::NotForUsers));
        let host = sign(&["-h", "-n", "web-1.bank.example"]);
        let trusted = [ca.public_key().clone()];
        assert!(check_host_certificate(&host, &trusted, "web-1.bank.example", NOW).is_ok());
        let forever = keygen_signs(dir, &["-V", "always:forever", "-n", "alice"]);
        assert_eq!(check(&forever, &ca), Ok(()));
    }
}

#[test]
fn sha1_signatures_and_short_keys_are_refused_though_a_trusted_authority_gave_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let dates = format!("{:#x}:{:#x}", NOW - 60, NOW + 60);
    keygen(dir, &["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", "ca"]);
    keygen(dir, &["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "short"]);
    let ca = parse_private(&read(dir, "ca")).unwrap();
    let sha1 = keygen_signs(dir, &["-t", "ssh-rsa", "-V", &dates, "-n", "alice"]);
    let refused = Err(CertificateRefused::WeakSignature { algorithm: "ssh-rsa".to_owned() });
    assert_eq!(check(&sha1, &ca), refused);
    keygen(dir, &["-q", "-s", "ca", "-I", "alice", "-V", &dates, "-n", "alice", "short.pub"]);
    let short = Certificate::from_openssh(&read(dir, "short-cert.pub")).unwrap();
    assert_eq!(check(&short, &ca), Err(CertificateRefused::Key(SshKeyError::ShortRsa { bits: 2048 })));
}

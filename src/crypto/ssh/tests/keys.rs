//! Keys are read, written and refused.

use super::*;

#[test]
fn a_private_key_is_written_and_read_and_two_are_never_the_same() {
    let key = generate_ed25519();
    let read = parse_private(&to_pem(&key).unwrap()).unwrap();
    assert_eq!(read.public_key().key_data(), key.public_key().key_data());
    assert_ne!(generate_ed25519().public_key().key_data(), key.public_key().key_data());
}

#[test]
fn keys_that_ssh_keygen_makes_are_read_with_the_fingerprint_that_it_prints() {
    let dir = tempfile::tempdir().unwrap();
    for (index, kind) in [
        &["ed25519"][..],
        &["ecdsa", "-b", "256"],
        &["ecdsa", "-b", "384"],
        &["ecdsa", "-b", "521"],
        &["rsa"],
    ]
    .iter()
    .enumerate()
    {
        let file = format!("key-{index}");
        keygen(
            dir.path(),
            &[&["-q", "-t"], *kind, &["-N", "", "-C", "of a person", "-f", file.as_str()]].concat(),
        );
        let private = parse_private(&read(dir.path(), &file)).unwrap();
        let public = parse_public(&read(dir.path(), &format!("{file}.pub"))).unwrap();
        assert_eq!(private.public_key(), &public);
        assert_eq!(public.comment().as_str_lossy(), "of a person");
        let printed = keygen(dir.path(), &["-l", "-f", &file]);
        assert_eq!(printed.split(' ').nth(1), Some(fingerprint(&public).as_str()), "{printed}");
        assert_eq!(public_line(&public, "of a person"), read(dir.path(), &format!("{file}.pub")).trim_end());
    }
}

#[test]
fn ssh_keygen_reads_the_private_keys_that_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let key = generate_ed25519();
    write_private(dir.path(), "key", &key);
    assert_eq!(keygen(dir.path(), &["-y", "-f", "key"]).trim_end(), public_line(key.public_key(), ""));
}

#[test]
fn private_keys_that_cannot_be_used_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    keygen(dir.path(), &["-q", "-t", "ed25519", "-N", "secret", "-f", "locked"]);
    keygen(dir.path(), &["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "short"]);
    keygen(dir.path(), &["-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", "old"]);
    let refused = |name: &str| parse_private(&read(dir.path(), name)).unwrap_err();
    assert_eq!(refused("locked"), SshKeyError::Encrypted);
    assert_eq!(refused("short"), SshKeyError::ShortRsa { bits: 2048 });
    assert_eq!(refused("old"), SshKeyError::NotPrivate);
    assert_eq!(refused("short.pub"), SshKeyError::NotPrivate);
    let whole = to_pem(&generate_ed25519()).unwrap();
    for length in 0..whole.len() - 2 {
        assert!(parse_private(&whole[..length]).is_err(), "{length} bytes of a key");
    }
}

#[test]
fn keys_of_security_keys_are_read_as_public_keys() {
    // From OpenSSH's own tests: regress/unittests/sshkey/testdata.
    for line in [
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIFUiVCqb6Q8TcKRjaI2pVl6RGFYcvaNxCLSN1DzJxI0MAAAABHNzaDo= ED25519-SK test key",
        "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBIELQJ2DgvaX1yQlKFokfWM2suuaCFI2qp0eJodHyg6O4ifxc3XpRKd1OS8dNYQtE/YjdXSrA+AOnMF5ns2Nkx4AAAAEc3NoOg== ECDSA-SK test key",
    ] {
        let key = parse_public(line).unwrap();
        assert_eq!(public_line(&key, key.comment().as_str_lossy()), line);
    }
}

#[test]
fn a_line_that_is_no_plain_strong_public_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    keygen(dir.path(), &["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "short"]);
    let key = generate_ed25519();
    let line = public_line(key.public_key(), "");
    let certificate = sign_user(&key, &order(key.public_key(), &["alice"])).unwrap();
    let body = line.split(' ').nth(1).unwrap();
    let refused = |line: &str| parse_public(line).unwrap_err();

    assert_eq!(refused(&read(dir.path(), "short.pub")), SshKeyError::ShortRsa { bits: 2048 });
    assert_eq!(refused(&to_pem(&key).unwrap()), SshKeyError::NotPublic);
    assert_eq!(refused(&certificate.to_openssh().unwrap()), SshKeyError::Certificate);
    // What is inside decides, whatever stands before it.
    let disguised =
        certificate.to_openssh().unwrap().replacen("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519", 1);
    assert_eq!(refused(&disguised), SshKeyError::Certificate);
    assert_eq!(refused(&format!("ssh-dss {body}")), SshKeyError::Dsa);
    assert_eq!(refused(&format!("command=\"true\" {line}")), SshKeyError::UnknownType);
    assert_eq!(refused(""), SshKeyError::UnknownType);
    assert_eq!(refused(&format!("{line}\n{line}\n")), SshKeyError::NotOneLine);
    assert_eq!(refused(&format!("{line} {}", "x".repeat(LONGEST_LINE))), SshKeyError::TooLong);
    for damaged in [
        "ssh-ed25519".to_owned(),
        "ssh-ed25519 AAAA".to_owned(),
        format!("ssh-rsa {body}"),
        format!("ssh-ed25519 {}", &body[..body.len() - 4]),
        format!("ssh-ed25519 {body}AAAA"),
        format!("ssh-ed25519 {body}!"),
    ] {
        assert!(matches!(refused(&damaged), SshKeyError::MalformedPublic(_)), "{damaged}");
    }
}

#[test]
fn white_space_and_comments_do_not_make_another_key() {
    let key = generate_ed25519();
    let line = public_line(key.public_key(), "");
    let (kind, body) = line.split_once(' ').unwrap();
    for spaced in [format!("  {line}\r\n"), format!("{kind}\t{body}\ta b"), format!("{kind}   {body}   ü")] {
        assert_eq!(parse_public(&spaced).unwrap().key_data(), key.public_key().key_data(), "{spaced:?}");
    }
}

#[test]
fn a_comment_cannot_begin_another_line() {
    let key = generate_ed25519();
    let line = public_line(key.public_key(), "a\nssh-ed25519 AAAA\r\u{85}b");
    assert_eq!(line.lines().count(), 1);
    assert!(line.ends_with(" assh-ed25519 AAAAb"));
}

#[test]
fn an_rsa_keys_length_is_counted_in_bits() {
    use crate::crypto::ssh::ssh_key::Mpint;
    let key = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        let exponent = Mpint::from_positive_bytes(&[1, 0, 1]);
        KeyData::Rsa(RsaPublicKey::new(exponent, Mpint::from_positive_bytes(&modulus)).unwrap())
    };
    assert_eq!(check_key(&key(3071)), Err(SshKeyError::ShortRsa { bits: 3071 }));
    assert_eq!(check_key(&key(3072)), Ok(()));
    assert_eq!(check_key(&key(8192)), Ok(()));
    assert_eq!(check_key(&key(8193)), Err(SshKeyError::LongRsa { bits: 8193 }));
}

//! What `sallyport init` makes, and that it works.

use super::*;

#[test]
fn what_init_makes_loads_as_it_is_and_with_its_example_target() {
    let home = Home::new();
    let text = fs::read_to_string(home.path("sallyport.toml")).unwrap();
    let config = home.load(&text).unwrap();
    assert_eq!(config.server.name, "bastion.bank.example");
    assert_eq!(config.api.public_url, "https://bastion.bank.example:8443");
    assert!(config.summary().contains("no target yet"));
    let at = text.find("# [[target]]").unwrap();
    let uncommented = text[at..].replace("\n# ", "\n").replacen("# [[", "[[", 1).replace("\n#\n", "\n\n");
    let key = public_line(&home.public("host_ed25519"), "");
    let uncommented = uncommented.replace("ssh-ed25519 AAAA…", &key);
    let config = home.load(&format!("{}{uncommented}", &text[..at])).unwrap();
    assert_eq!(config.reloadable.targets.len(), 2);
    assert!(config.ssh.is_some());
}

#[test]
fn init_makes_nothing_where_something_is() {
    let home = Home::new();
    let before = fs::read_to_string(home.path("tls/api.key")).unwrap();
    let error = home.init(&[]).unwrap_err().to_string();
    for name in ["`sallyport.toml`", "`tls`", "`ca`", "`node-id`", "choose another directory"] {
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(fs::read_to_string(home.path("tls/api.key")).unwrap(), before);
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes.txt"), "mine").unwrap();
    let audit_key = |_: &Path| Ok(());
    let init = Init { dir: other.path(), names: &[], now: NOW, audit_key: &audit_key };
    assert!(init::init(&init).unwrap_err().to_string().contains("`notes.txt`"));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn init_refuses_names_that_no_certificate_can_carry() {
    let home = Home { dir: tempfile::tempdir().unwrap() };
    for name in ["", "a b", "https://x", "bastion:8443"] {
        let error = home.init(&[name.to_owned()]).unwrap_err();
        assert!(matches!(error, InitError::MalformedName(_)), "{name}");
        assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn an_audit_key_that_cannot_be_made_fails_init() {
    let dir = tempfile::tempdir().unwrap();
    let audit_key = |_: &Path| Err("no entropy".into());
    let init = Init { dir: &dir.path().join("new"), names: &[], now: NOW, audit_key: &audit_key };
    assert!(matches!(init::init(&init), Err(InitError::AuditKey(_))));
}

#[test]
fn what_init_makes_is_the_owners_alone() {
    let home = Home::new();
    let mode = |name: &str| fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
    for dir in ["", "tls", "ca", "ssh", "secrets", "audit"] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    for file in ["ca/ca.key", "tls/api.key", "tls/postgres.key", "node-id", "server-secret", "sallyport.toml"]
    {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    for name in ["host_ed25519", "host_ca", "user_ca", "login_ca"] {
        assert_eq!(mode(&format!("ssh/{name}")), 0o600, "{name}");
        assert_eq!(mode(&format!("ssh/{name}.pub")), 0o644, "{name}");
        let private = parse_private(&fs::read_to_string(home.path(&format!("ssh/{name}"))).unwrap()).unwrap();
        assert_eq!(private.public_key().key_data(), home.public(name).key_data());
    }
    assert!(home.path("audit/signing.key").exists());
    assert!(!home.path("tls/ca.key").exists(), "the authority's key is apart from what the server reads");
}

#[test]
fn what_makes_a_node_itself_is_read_back_and_differs_between_nodes() {
    let (a, b) = (Home::new(), Home::new());
    let ids = [&a, &b].map(|home| init::read_node_id(home.dir.path()).unwrap());
    assert_ne!(ids[0], ids[1]);
    let secrets = [&a, &b].map(|home| init::read_server_secret(home.dir.path()).unwrap());
    assert_eq!(secrets[0].expose().len(), 32);
    assert_ne!(secrets[0].expose(), secrets[1].expose());
    fs::write(a.path("node-id"), "ses-0000000000000000").unwrap();
    fs::write(a.path("server-secret"), "00").unwrap();
    assert!(init::read_node_id(a.dir.path()).is_err());
    assert!(init::read_server_secret(a.dir.path()).is_err());
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn verifier(home: &Home) -> Arc<WebPkiServerVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&home.path("tls/ca.crt"))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
}

fn at(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(now.since(Timestamp::from_micros(0)))
}

#[test]
fn the_certificates_verify_against_the_authority_for_the_names_given() {
    let home = Home::new();
    let verifier = verifier(&home);
    for file in ["tls/api.crt", "tls/postgres.crt"] {
        let leaf = certificate(&home.path(file));
        let verify = |name: &'static str, when| {
            verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name).unwrap(), &[], at(when))
        };
        for name in ["localhost", "127.0.0.1", "::1", "bastion.bank.example"] {
            verify(name, NOW).unwrap_or_else(|error| panic!("{file} {name}: {error}"));
        }
        assert!(verify("other.bank.example", NOW).is_err());
        let days = |days: u64| NOW.plus(Duration::from_hours(24 * days));
        assert!(verify("localhost", days(init::certificates::SERVER_DAYS - 1)).is_ok());
        assert!(verify("localhost", days(init::certificates::SERVER_DAYS + 1)).is_err());
    }
    let other = Home::new();
    let foreign = certificate(&other.path("tls/api.crt"));
    let localhost = ServerName::try_from("localhost").unwrap();
    assert!(verifier.verify_server_cert(&foreign, &[], &localhost, &[], at(NOW)).is_err());
}

#[test]
fn the_keys_are_p_256_and_belong_to_their_certificates() {
    let home = Home::new();
    // The object identifier of prime256v1 (RFC 5480, section 2.1.1.1), in DER.
    let prime256v1 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    for stem in ["ca/ca", "tls/api", "tls/postgres"] {
        let key = rcgen::KeyPair::from_pem(&fs::read_to_string(home.path(&format!("{stem}.key"))).unwrap())
            .unwrap();
        assert!(key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256), "{stem}");
        let certificate = certificate(&home.path(&format!("{stem}.crt")));
        let contains = |part: &[u8]| certificate.windows(part.len()).any(|window| window == part);
        assert!(contains(&prime256v1), "{stem}");
        assert!(contains(key.public_key_raw()), "{stem}");
    }
}

//! Who logs in by a certificate instead of a token.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use tempfile::TempDir;

use crate::support::bastion::{ADMIN_DIR, target};
use crate::support::{Bastion, Finished, Options, Postgres};

/// Signs certificates of clients.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "the clients' authority");
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.crt"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(parameters, key), dir }
    }

    /// A certificate for `name`, and its key: libpq's settings.
    fn certify(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> [(&'static str, String); 2] {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let next = fs::read_dir(self.dir.path()).unwrap().count();
        let file = |ending: &str, text: String| {
            let path = self.dir.path().join(format!("{next}.{ending}"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        [("PGSSLCERT", file("crt", certificate.pem())), ("PGSSLKEY", file("key", key.serialize_pem()))]
    }

    fn bastion(&self, postgres: &Postgres) -> Bastion {
        let ca = format!("client_ca_file = \"{}\"", self.dir.path().join("ca.crt").display());
        let options = Options { settings: vec![("postgres", ca)], ..Options::default() };
        let bastion = Bastion::start_for(postgres, options, &["alice"]);
        bastion.ask("alice", "ledger-dev", "dba", 3600);
        bastion
    }
}

/// Without a token.
fn psql(bastion: &Bastion, user: &str, certificate: &[(&str, String)]) -> Finished {
    let mut psql = bastion.client("psql", "alice", "ledger-dev");
    psql.env_remove("PGPASSWORD").env("PGUSER", format!("{user}+ledger-dev"));
    psql.args(["-XAtqw", "-c", "SELECT session_user LIKE 'sp\\_%'"]);
    psql.envs(certificate.iter().map(|(name, value)| (name, value)));
    psql.output().unwrap().into()
}

fn opened(bastion: &Bastion) -> Vec<serde_json::Value> {
    bastion.records().into_iter().filter(|record| record["kind"] == "opened").collect()
}

#[test]
fn a_certificate_for_ones_name_logs_in_without_a_token() {
    let (postgres, authority) = (Postgres::start(), Authority::new());
    let bastion = authority.bastion(&postgres);
    let own = authority.certify("alice", |_| {});
    assert_eq!(psql(&bastion, "alice", &own).success().stdout, "t\n");
    let old = [("PGSSLMAXPROTOCOLVERSION", "TLSv1.2".to_owned())];
    assert_eq!(psql(&bastion, "alice", &[&own[..], &old].concat()).success().stdout, "t\n");
    let unlimited = authority.certify("alice", |parameters| parameters.extended_key_usages = Vec::new());
    psql(&bastion, "alice", &unlimited).success();
    // Who has none proves a token, as ever.
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 'in'").success().stdout, "in\n");
    psql(&bastion, "alice", &[]).failure().says("no password supplied");

    let fingerprint = |file: &str| {
        let shown = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", file])
            .output()
            .unwrap();
        let text = Finished::from(shown).success().stdout;
        text.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase()
    };
    let opened = opened(&bastion);
    assert_eq!(opened.len(), 4);
    for (record, own) in opened.iter().zip([&own, &own, &unlimited]) {
        assert_eq!(record["client_tls"]["certificate"], fingerprint(&own[0].1), "{record}");
        assert_eq!(record["principal"]["name"], "alice");
    }
    assert!(opened[3]["client_tls"].get("certificate").is_none(), "{}", opened[3]);
    bastion.verify().success();
}

#[test]
fn a_certificate_opens_nothing_but_its_own_users_sessions() {
    let (postgres, authority) = (Postgres::start(), Authority::new());
    let bastion = authority.bastion(&postgres);
    let (alice, bob) = (authority.certify("alice", |_| {}), authority.certify("bob", |_| {}));
    // Another's, also beside a token that would do.
    let token = ("PGPASSWORD", bastion.token("alice"));
    for settings in [bob.to_vec(), [&bob[..], &[token]].concat()] {
        let refused = psql(&bastion, "alice", &settings).failure();
        let text = "certificate authentication failed for user \"alice\"";
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
        assert!(refused.stderr.contains("is for `bob`, not for `alice`"), "{}", refused.stderr);
    }
    // A certificate says who one is, and not what one may.
    psql(&bastion, "bob", &bob).failure().says("you have no active session");
    // Nobody's, and from now on alice's: the answer is the same.
    let nobody = authority.certify("mallory", |_| {});
    psql(&bastion, "mallory", &nobody).failure().says("certificate authentication failed");
    let nameless =
        authority.certify("x", |parameters| parameters.distinguished_name = DistinguishedName::new());
    psql(&bastion, "alice", &nameless).failure().says("no common name");
    let config = bastion.config_file();
    bastion.operator(&["user", "disable", "alice", "--config", config.to_str().unwrap()]).success();
    psql(&bastion, "alice", &alice).failure().says("certificate authentication failed");

    assert!(opened(&bastion).is_empty());
    let refused = bastion.events("connection_refused");
    let codes: Vec<_> = refused.iter().map(|event| event["detail"]["code"].as_str().unwrap()).collect();
    let wrong = "wrong_certificate";
    assert_eq!(codes, [wrong, wrong, "no_session", wrong, wrong, wrong]);
}

#[test]
fn a_certificate_that_is_not_valid_is_refused_even_beside_a_token() {
    let (postgres, authority) = (Postgres::start(), Authority::new());
    let bastion = authority.bastion(&postgres);
    let stranger = Authority::new();
    let invalid = [
        authority.certify("alice", |parameters| parameters.not_after = rcgen::date_time_ymd(2020, 1, 1)),
        authority.certify("alice", |parameters| parameters.not_before = rcgen::date_time_ymd(4000, 1, 1)),
        authority.certify("alice", |parameters| {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        stranger.certify("alice", |_| {}),
    ];
    for certificate in &invalid {
        let token = ("PGPASSWORD", bastion.token("alice"));
        psql(&bastion, "alice", &[&certificate[..], &[token]].concat()).failure();
    }
    assert!(opened(&bastion).is_empty());
    // Their clients may leave it at home.
    psql(&bastion, "alice", &[("PGPASSWORD", bastion.token("alice"))]).success();
}

/// What OpenSSL says of six connections, each of which offers to resume the session before.
fn reconnects(bastion: &Bastion, certificate: &[(&str, String)]) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["s_client", "-starttls", "postgres", "-tls1_2", "-reconnect", "-connect"]);
    openssl.arg(format!("127.0.0.1:{}", bastion.postgres_port)).stdin(std::process::Stdio::null());
    for ((_, file), option) in certificate.iter().zip(["-cert", "-key"]) {
        openssl.args([option, file]);
    }
    Finished::from(openssl.output().unwrap()).stdout
}

#[test]
fn a_certificate_is_shown_anew_at_each_connection() {
    let (postgres, authority) = (Postgres::start(), Authority::new());
    let usual = Bastion::start_for(&postgres, Options::default(), &[]);
    let said = reconnects(&usual, &[]);
    assert!(said.contains("Reused, TLSv1.2"), "without certificates sessions are resumed: {said}");
    let bastion = authority.bastion(&postgres);
    let said = reconnects(&bastion, &authority.certify("alice", |_| {}));
    assert!(said.matches("New, TLSv1.2").count() > 1, "{said}");
    assert!(!said.contains("Reused"), "{said}");
}

/// Beside the password's proof, and where the server asks for nothing else.
#[test]
fn a_target_that_asks_the_gateway_for_a_certificate_is_shown_it() {
    let (postgres, authority) = (Postgres::start(), Authority::new());
    fs::copy(authority.dir.path().join("ca.crt"), postgres.data().join("clients.crt")).unwrap();
    fs::set_permissions(postgres.data().join("clients.crt"), fs::Permissions::from_mode(0o644)).unwrap();
    postgres.query("postgres", "ALTER SYSTEM SET ssl_ca_file = 'clients.crt'").success();
    fs::write(postgres.data().join("pg_ident.conf"), "gateway sallyport-gateway /^sp_\n").unwrap();
    postgres.admit(
        "hostssl all sallyport_admin 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
         hostssl ledger all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
         hostssl archive all 127.0.0.1/32 cert map=gateway",
    );
    let own = authority.certify("sallyport-gateway", |_| {});
    let shown = format!("client_cert_file = \"{}\"\nclient_key_file = \"{}\"\nkind =", own[0].1, own[1].1);
    let asked = target("ledger-asked", "dev", "bank-core", &postgres, Path::new(ADMIN_DIR));
    let options = Options { targets: asked.replacen("kind =", &shown, 1), ..Options::default() };
    let bastion = Bastion::start_for(&postgres, options, &["alice"]);
    bastion.ask("alice", "ledger-asked", "dba", 3600);
    assert_eq!(bastion.psql("alice", "ledger-asked", "SELECT 'in'").success().stdout, "in\n");
    let mut other = bastion.client("psql", "alice", "ledger-asked");
    other.env("PGDATABASE", "archive").args(["-XAtqc", "SELECT current_database()"]);
    let by_certificate = Finished::from(other.output().unwrap());
    if postgres.value("postgres", "SELECT current_setting('server_version_num')::int >= 160000") == "t" {
        assert_eq!(by_certificate.success().stdout, "archive\n");
    } else {
        // Such a map is an error to it, and the certificate is another's than the role's.
        by_certificate.failure().says("certificate authentication failed");
    }
    // Who has none to show gets nowhere.
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    bastion.psql("alice", "ledger-dev", "SELECT 1").failure().says("certificate");
}

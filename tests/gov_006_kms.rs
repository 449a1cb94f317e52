//! GOV-006: checkpoints signed by a key that does not leave Amazon KMS. While KMS is away the log goes on, unsigned, and
//! says so.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;

use serde_json::Value;
use support::amazon::{Emulator, FaultProxy, Faults, REGION};
use support::{Bastion, Options, Postgres, wait_until};

/// Makes a key of kind `spec`; gives its ARN.
fn create_key(amazon: &Emulator, spec: &str) -> String {
    let made =
        format!("k = c.create_key(KeySpec='{spec}', KeyUsage='SIGN_VERIFY')['KeyMetadata']\nprint(k['Arn'])");
    amazon.python("kms", &made).trim().to_owned()
}

fn name_it(amazon: &Emulator, alias: &str, arn: &str) {
    amazon.python("kms", &format!("c.create_alias(AliasName='{alias}', TargetKeyId='{arn}'.split('/')[-1])"));
}

/// Settings for a key in the KMS behind `url`.
fn signed_by(key: &str, url: &str) -> Options {
    let lines = [
        format!("signing_key = \"{key}\""),
        format!("signing_region = \"{REGION}\""),
        format!("signing_endpoint = \"{url}\""),
    ];
    Options { settings: lines.map(|line| ("audit", line)).into(), ..Options::default() }
}

/// As an operator does before the first start with a key in KMS.
fn forget_key_files(bastion: &Bastion) {
    fs::remove_file(bastion.verify_key()).unwrap();
    fs::remove_file(bastion.data().join("audit-signing.key")).unwrap();
}

/// What the verification says, which must hold.
fn verified(bastion: &Bastion) -> Value {
    let (dir, key) = (bastion.audit_dir(), bastion.verify_key());
    let arguments = ["audit", "verify", "--json", dir.to_str().unwrap(), "--key", key.to_str().unwrap()];
    bastion.operator(&arguments).success().json()
}

#[test]
fn a_log_that_kms_signs_is_proved_with_the_public_key_alone() {
    let postgres = Postgres::start();
    let amazon = Emulator::ministack();
    let key = create_key(&amazon, "ECC_NIST_EDWARDS25519");
    let mut bastion = Bastion::prepare(&postgres, signed_by(&key, &amazon.url()));
    bastion.refuses_to_start().says("holds the public half of another key");
    assert!(!bastion.audit_dir().join("checkpoint").exists());
    forget_key_files(&bastion);
    bastion.boot();
    bastion.log_in("alice").success();
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 'signed elsewhere'").success();
    let notes = || {
        fs::read_to_string(bastion.audit_dir().join("checkpoints.log")).unwrap().matches('\u{2014}').count()
    };
    let before = notes();
    bastion.advance(10);
    wait_until("a checkpoint is signed while the log grows", || notes() > before);
    bastion.stop();
    let report = verified(&bastion);
    assert_eq!(report["covered"], report["records"], "{report}");
    assert!(!bastion.data().join("audit-signing.key").exists());
    // Started again, the key must be the same.
    bastion.boot();
    bastion.stop();
    let other = create_key(&amazon, "ECC_NIST_EDWARDS25519");
    let config = fs::read_to_string(bastion.config_file()).unwrap();
    fs::write(bastion.config_file(), config.replace(&key, &other)).unwrap();
    bastion.refuses_to_start().says("holds the public half of another key");
    verified(&bastion);
}

#[test]
fn a_key_of_another_kind_or_none_is_refused_with_a_clear_word() {
    let postgres = Postgres::start();
    let amazon = Emulator::ministack();
    name_it(&amazon, "alias/other", &create_key(&amazon, "ECC_NIST_P256"));
    for (key, said) in [
        (
            "alias/other",
            "the key is of kind ECC_NIST_P256 for SIGN_VERIFY: make one of kind ECC_NIST_EDWARDS25519",
        ),
        ("alias/none", "KMS refuses"),
    ] {
        let mut bastion = Bastion::prepare(&postgres, signed_by(key, &amazon.url()));
        forget_key_files(&bastion);
        bastion.refuses_to_start().says(said).says(&format!("`{key}` (audit.signing_key)"));
        assert!(!bastion.verify_key().exists());
    }
}

#[test]
fn while_kms_is_away_the_log_goes_on_and_an_alarm_stands() {
    let postgres = Postgres::start();
    let amazon = Emulator::ministack();
    name_it(&amazon, "alias/audit", &create_key(&amazon, "ECC_NIST_EDWARDS25519"));
    let proxy = FaultProxy::before(&amazon, 0x5a11_7004);
    let options = signed_by("alias/audit", &proxy.url());
    let mut bastion = Bastion::prepare(&postgres, options);
    forget_key_files(&bastion);
    bastion.boot();
    for who in ["alice", "erin"] {
        bastion.log_in(who).success();
    }
    bastion.grant("alice", "ledger-dev", "readonly", 7200, &[]);

    let away = Faults { down: true, ..Faults::default() };
    proxy.set(away);
    bastion.advance(10);
    wait_until("the alarm is raised", || !bastion.events("checkpoint_unsigned").is_empty());
    let alarm = bastion.events("checkpoint_unsigned").remove(0);
    assert_eq!((&alarm["outcome"], &alarm["detail"]["key"]), (&"failed".into(), &"alias/audit".into()));
    assert!(alarm["detail"]["why"].as_str().unwrap().contains("does not sign"), "{alarm}");
    bastion.psql("alice", "ledger-dev", "SELECT 'while nobody signs'").success();
    bastion.advance(100);
    wait_until("its age is measured", || bastion.metric("sallyport_checkpoint_age_seconds") >= 100.0);
    assert_eq!(bastion.events("checkpoint_unsigned").len(), 1, "once is enough");
    let before = verified(&bastion);
    assert!(before["covered"].as_u64() < before["records"].as_u64(), "{before}");

    // A crash meanwhile: what there is was signed before, and is gone on from.
    bastion.kill();
    bastion.boot();
    bastion.psql("alice", "ledger-dev", "SELECT 'started without KMS'").success();
    bastion.advance(10);
    wait_until("it is raised again", || bastion.events("checkpoint_unsigned").len() == 2);
    assert_eq!(bastion.events("checkpoint_signed").len(), 0);
    proxy.set(Faults::default());
    bastion.advance(10);
    wait_until("it is said to be over", || !bastion.events("checkpoint_signed").is_empty());
    bastion.stop();
    let report = verified(&bastion);
    assert_eq!(report["covered"], report["records"], "{report}");
    assert!(!bastion.log().contains("panicked"), "{}", bastion.log());
}

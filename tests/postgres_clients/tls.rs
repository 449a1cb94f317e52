//! How a connection gets encrypted and a client proves who it is.

use std::io::{Read as _, Write as _};

use crate::support::wire::{self, GSSENC_REQUEST, SSL_REQUEST, Wire};
use crate::support::{Bastion, Finished};

fn psql(bastion: &Bastion, settings: &[(&str, &str)]) -> Finished {
    let mut psql = bastion.client("psql", "alice", "ledger-dev");
    psql.args(["-XAtq", "-c", "SELECT 'in'"]);
    psql.envs(settings.iter().copied());
    psql.output().unwrap().into()
}

fn opened(bastion: &Bastion) -> Vec<serde_json::Value> {
    bastion.records().into_iter().filter(|record| record["kind"] == "opened").collect()
}

#[test]
fn libpq_connects_with_each_of_its_settings_for_tls_and_scram() {
    let (_postgres, bastion) = crate::dba();
    let accepted: [(&[(&str, &str)], &str); 9] = [
        (&[("PGCHANNELBINDING", "require")], ""),
        (&[("PGCHANNELBINDING", "disable")], ""),
        (&[("PGCHANNELBINDING", "prefer")], ""),
        (&[("PGSSLMINPROTOCOLVERSION", "TLSv1.2"), ("PGSSLMAXPROTOCOLVERSION", "TLSv1.2")], "TLSv1.2"),
        (&[("PGSSLMINPROTOCOLVERSION", "TLSv1.3"), ("PGSSLMAXPROTOCOLVERSION", "TLSv1.3")], "TLSv1.3"),
        (&[("PGGSSENCMODE", "prefer")], ""),
        (&[("PGGSSENCMODE", "disable")], ""),
        (&[("PGSSLMODE", "require")], ""),
        (&[("PGSSLMODE", "verify-ca"), ("PGSSLSNI", "0")], ""),
    ];
    for (settings, version) in accepted {
        let done = psql(&bastion, settings).success();
        assert_eq!(done.stdout, "in\n", "{settings:?}");
        let last = opened(&bastion).pop().unwrap();
        let recorded = last["client_tls"]["version"].as_str().unwrap();
        assert!(recorded.contains(version), "{settings:?}: {last}");
        assert!(last["target"].is_string(), "{last}");
    }
    let before = opened(&bastion).len();
    // Without TLS it is told what to do; an old TLS is not spoken; GSSAPI alone is not offered.
    let plain = psql(&bastion, &[("PGSSLMODE", "disable")]).failure();
    assert!(plain.stderr.contains("accepts encrypted connections only"), "{}", plain.stderr);
    assert!(plain.stderr.contains("sslmode=verify-full"), "{}", plain.stderr);
    psql(&bastion, &[("PGSSLMINPROTOCOLVERSION", "TLSv1"), ("PGSSLMAXPROTOCOLVERSION", "TLSv1.1")]).failure();
    psql(&bastion, &[("PGGSSENCMODE", "require")]).failure();
    // Another host's name, and an authority that did not sign.
    psql(&bastion, &[("PGHOST", "elsewhere.example")]).failure().says("does not match host name");
    let strange = bastion.scratch().join("strange.crt");
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&strange, params.self_signed(&key).unwrap().pem()).unwrap();
    psql(&bastion, &[("PGSSLROOTCERT", strange.to_str().unwrap())]).failure();
    assert_eq!(opened(&bastion).len(), before, "none of these got in");
}

#[test]
fn tls_may_begin_at_once_with_the_protocols_name_and_not_without() {
    let (_postgres, bastion) = crate::dba();
    let mut wire = Wire::direct(&bastion, &["postgresql"]).unwrap();
    let pairs = [("user", "alice+ledger-dev"), ("database", "ledger")];
    wire.log_in(&pairs, &bastion.token("alice")).unwrap();
    wire.until(b'Z');
    wire.send(&wire::query("SELECT 'direct'"));
    assert!(wire.until(b'D').ends_with(b"direct"));

    if let Ok(mut wire) = Wire::direct(&bastion, &[]) {
        // The handshake itself may succeed; nothing is read from such a client.
        let _gone = wire.try_send(&wire::startup(wire::VERSION_3_0, &pairs));
        wire.is_closed();
    }
    Wire::direct(&bastion, &["h2", "http/1.1"]).unwrap_err();
    // Beside other names it is found.
    let mut wire = Wire::direct(&bastion, &["h2", "postgresql"]).unwrap();
    wire.log_in(&pairs, &bastion.token("alice")).unwrap();
}

#[test]
fn a_request_for_gssapi_encryption_is_declined_once() {
    let (_postgres, bastion) = crate::dba();
    let mut stream = wire::tcp(&bastion);
    let mut answer = [0];
    stream.write_all(&GSSENC_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    stream.write_all(&SSL_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
    let mut wire = Wire::handshake(stream, wire::tls(&bastion, &[])).unwrap();
    wire.log_in(&[("user", "alice+ledger-dev")], &bastion.token("alice")).unwrap();

    let mut stream = wire::tcp(&bastion);
    stream.write_all(&GSSENC_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    stream.write_all(&GSSENC_REQUEST).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.first(), Some(&b'E'), "no second N");
}

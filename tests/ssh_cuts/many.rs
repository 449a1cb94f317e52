//! One revocation, many clients.

use serde_json::json;

use crate::support::ssh_peers::Peers;
use crate::support::{Hosts, Options};

const SHELLS: usize = 200;

#[test]
fn two_hundred_shells_half_of_them_stalled_are_all_cut_by_one_revocation() {
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let session = hosts.grant().session;
    let peers = Peers::start(&hosts, SHELLS);
    assert_eq!(crate::live(&hosts.bastion).len(), SHELLS);
    let (answer, closed) = peers.closed_by(|| crate::revoke(&hosts, &session));
    assert_eq!(closed.len(), SHELLS);
    let cuts = answer["cuts"].as_array().unwrap();
    assert_eq!(cuts.len(), SHELLS);
    assert!(cuts.iter().all(|cut| cut["ended"] == true), "{answer}");
    assert_eq!(crate::sockets(&hosts.bastion), 0);
    let reason = json!({ "end": "revoked", "by": "erin", "why": "incident 42" });
    let ended = hosts.records("ended");
    assert_eq!(ended.len(), SHELLS);
    assert!(ended.iter().all(|record| record["reason"] == reason));
    crate::credentials_are_destroyed(&hosts.bastion);
    crate::all_is_well(&hosts.bastion);
}

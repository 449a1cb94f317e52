//! Who may revoke.

use serde_json::json;

use crate::support::wire::Wire;

#[test]
fn the_holder_the_targets_approvers_and_security_may_revoke_and_nobody_else() {
    let (postgres, bastion) = crate::start(&["alice", "bob", "erin", "frank", "kim", "olga"]);
    for who in ["alice", "bob", "erin"] {
        let session = crate::dev_session(&bastion, "alice", "readonly");
        let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
        let answer = crate::revoke(&bastion, who, &session, "enough");
        assert_eq!(crate::cut(&answer).len(), 1);
        assert_eq!(wire.last_words().1, format!("your session was revoked by {who}: enough"));
    }

    let session = crate::dev_session(&bastion, "alice", "readonly");
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    for who in ["frank", "kim", "olga"] {
        let (status, body) = crate::try_revoke(&bastion, who, &session, "mischief");
        assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{who}: {body}");
        let refused = bastion.run_as(who, &["revoke", &session, "--why", "mischief"]).failure();
        assert_ne!(refused.code(), 0);
    }
    let refused: Vec<_> =
        bastion.events("session_revoked").into_iter().filter(|event| event["outcome"] == "refused").collect();
    assert!(refused.len() >= 3, "refusals are recorded: {refused:?}");
    assert_eq!(refused[0]["principal"]["name"], "frank");

    // Barring takes the right to do so; without it nothing is done by half.
    let body = json!({ "session": session, "why": "mischief", "block": {} });
    for who in ["alice", "bob"] {
        let (status, answer) = bastion.post(who, "/pam/revoke", body.clone());
        assert_eq!(status, 403, "{who}: {answer}");
    }
    let (status, body) = crate::try_revoke(&bastion, "erin", &session, "  ");
    assert_eq!((status, &body["code"]), (400, &json!("malformed")), "{body}");
    let (status, body) = crate::try_revoke(&bastion, "erin", "ses-0000000000000000", "why not");
    assert_eq!(status, 404, "{body}");
    crate::is_served(&mut wire);
    assert_eq!(bastion.session("alice", &session)["status"], "active");
    assert_eq!(postgres.session_roles().len(), 1);
}

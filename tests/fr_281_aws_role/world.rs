//! Two roles of an account at an emulator, and the gateway before them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::amazon::{Emulator, REGION};
use crate::support::bastion::Granted;
use crate::support::calls::text;
use crate::support::tap::Tap;
use crate::support::{Bastion, Options};

/// How long a deny stays after all has expired, and a little more, in seconds.
pub(super) const LIFTED: u64 = 301;

pub(super) struct World {
    pub(super) amazon: Emulator,
    pub(super) tap: Tap,
    pub(super) bastion: Bastion,
}

impl World {
    pub(super) fn start() -> Self {
        Self::with("", |_| None)
    }

    pub(super) fn with(
        lines: &str,
        answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let amazon = Emulator::moto();
        let trust = "json.dumps({'Version': '2012-10-17', 'Statement': []})";
        let make = format!("c.create_role(RoleName=n, AssumeRolePolicyDocument={trust})");
        amazon.python("iam", &format!("for n in ['ReadOnly', 'Admin']:\n    {make}"));
        let tap = Tap::before(&amazon, answer);
        let targets = [("logs-prod", "prod"), ("logs-dev", "dev")]
            .map(|(name, environment)| target(name, environment, &tap.url(), lines));
        // All that the server can say: no secret may be in it.
        let environment = vec![("SALLYPORT_LOG", "trace".to_owned())];
        let options = Options { targets: targets.concat(), environment, ..Options::default() };
        let mut bastion = Bastion::prepare_hosts(None, options);
        bastion.boot();
        for name in ["alice", "bob", "carol", "erin"] {
            bastion.log_in(name).success();
        }
        Self { amazon, tap, bastion }
    }

    /// A session of alice's where nobody is asked.
    pub(super) fn grant_dev(&self, seconds: u64) -> Granted {
        self.bastion.grant("alice", "logs-dev", "readonly", seconds, &[])
    }

    /// What `credential_process` would be given.
    pub(super) fn credential(&self) -> Value {
        self.bastion.run_as("alice", &["aws", "logs-dev"]).success().json()
    }

    /// Who STS says that a credential is.
    pub(super) fn who(&self, credential: &Value) -> String {
        let lines = format!(
            "c = boto3.client('sts', endpoint_url='{}', region_name='{REGION}', aws_access_key_id={}, \
             aws_secret_access_key={}, aws_session_token={})\nprint(c.get_caller_identity()['Arn'])",
            self.amazon.url(),
            credential["AccessKeyId"],
            credential["SecretAccessKey"],
            credential["SessionToken"],
        );
        self.amazon.python("sts", &lines).trim().to_owned()
    }

    /// The inline policies of a role, by name.
    pub(super) fn policies(&self, role: &str) -> BTreeMap<String, Value> {
        let lines = format!(
            "r = '{role}'\nprint(json.dumps({{n: c.get_role_policy(RoleName=r, PolicyName=n)['PolicyDocument'] \
             for n in c.list_role_policies(RoleName=r)['PolicyNames']}}))"
        );
        serde_json::from_str(&self.amazon.python("iam", &lines)).unwrap()
    }

    /// Puts a policy on the role past the gateway.
    pub(super) fn put_deny(&self, name: &str) {
        let statement = json!({ "Effect": "Deny", "Action": "*", "Resource": "*" });
        let document = json!({ "Version": "2012-10-17", "Statement": [statement] });
        let put = format!(
            "c.put_role_policy(RoleName='ReadOnly', PolicyName='{name}', PolicyDocument='{document}')"
        );
        self.amazon.python("iam", &put);
    }

    /// That what was handed out in the session, and nothing else, is denied.
    #[track_caller]
    pub(super) fn assert_denied(&self, session: &str) {
        let policies = self.policies("ReadOnly");
        let (name, policy) = policies.iter().next().unwrap();
        assert!(name.starts_with("sallyport-") && name.ends_with(session), "{name}");
        let condition = json!({ "StringEquals": { "aws:SourceIdentity": format!("alice@{session}") } });
        let statement = json!({ "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition });
        assert_eq!(policy["Statement"], json!([statement]));
        assert_eq!(policies.len(), 1, "{policies:?}");
    }

    /// What was recorded of the session's credentials: action and outcome, in order.
    pub(super) fn life(&self, session: &str) -> Vec<String> {
        let records = self.bastion.records();
        let of = |record: &&Value| {
            record["session"] == session && text(&record["action"]).starts_with("credential_")
        };
        let tell = |record: &Value| match text(&record["outcome"]).as_str() {
            "done" => text(&record["action"]),
            other => format!("{} {other}", text(&record["action"])),
        };
        records.iter().filter(of).map(tell).collect()
    }

    pub(super) fn revoke(&self, session: &str) -> (u16, Value) {
        self.bastion.post("bob", "/pam/revoke", json!({ "session": session, "why": "over" }))
    }
}

pub(super) fn target(name: &str, environment: &str, endpoint: &str, lines: &str) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nkind = \"aws\"\nregion = \"{REGION}\"\nendpoint = \"{endpoint}\"\n\
         iam_endpoint = \"{endpoint}\"\nenvironment = \"{environment}\"\ndomain = \"bank-core\"\n\
         accesses = {{ readonly = \"{READ_ONLY}\", admin = \"arn:aws:iam::123456789012:role/ops/Admin\" }}\n{lines}\n"
    )
}

pub(super) const READ_ONLY: &str = "arn:aws:iam::123456789012:role/ReadOnly";

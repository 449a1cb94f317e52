//! What a connection is used for: each thing that a client wants to do over a connection that is up
//! is put to the policy, by itself, at the moment it is wanted.
//!
//! The permit says who is where and until when; the rules and the target's labels are those in force
//! now. Nothing is awaited: an edge may ask in the middle of its protocol.

use std::borrow::Cow;

use crate::domain::decision::Decision;
use crate::domain::deny::Deny;
use crate::domain::session::Permit;
use crate::domain::target::Target;
use crate::policy::{Action, Detail, Facts, Policy, Query};

use super::Access;

/// The policy sees so much of a command.
const COMMAND_BYTES: usize = 4_096;

/// The subsystem that is an action of its own.
const SFTP: &str = "sftp";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use<'a> {
    Shell,
    Exec {
        command: &'a [u8],
    },
    Sftp,
    Subsystem {
        name: &'a str,
    },
    /// A connection through the target (`direct-tcpip`).
    Forward {
        host: &'a str,
        port: u32,
    },
    ForwardStreamlocal {
        path: &'a str,
    },
    /// A listener on the target (`tcpip-forward`).
    Listen {
        host: &'a str,
        port: u32,
    },
    ListenStreamlocal {
        path: &'a str,
    },
    Agent,
}

impl<'a> Use<'a> {
    /// What the policy calls it. sftp is what is asked for as that: a command that starts an sftp server by its
    /// path, or scp of the old kind, is a command.
    pub fn action(&self) -> Action {
        match *self {
            Self::Shell => Action::Shell,
            Self::Exec { .. } => Action::Exec,
            Self::Sftp | Self::Subsystem { name: SFTP } => Action::Sftp,
            Self::Subsystem { .. } => Action::Subsystem,
            Self::Forward { .. } | Self::ForwardStreamlocal { .. } => Action::Forward,
            Self::Listen { .. } | Self::ListenStreamlocal { .. } => Action::Listen,
            Self::Agent => Action::Agent,
        }
    }

    /// The command as the policy sees it.
    fn command(&self) -> Cow<'a, str> {
        match *self {
            Self::Exec { command } => {
                String::from_utf8_lossy(command.get(..COMMAND_BYTES).unwrap_or(command))
            }
            _ => Cow::Borrowed(""),
        }
    }
}

impl Access {
    /// Whether the connection of `permit` may be used for this.
    pub fn may_use(&self, permit: &Permit, usage: &Use<'_>) -> Result<(), Deny> {
        let rules = self.rules();
        let target = &rules.targets.find(&permit.target().name)?.target;
        match decide(&*rules.policy, permit, target, usage) {
            Decision::Allow { .. } => Ok(()),
            Decision::Refuse { rules } => Err(Deny::PolicyRefused { rules }),
        }
    }
}

fn decide(policy: &dyn Policy, permit: &Permit, target: &Target, usage: &Use<'_>) -> Decision {
    let facts = Facts { own: true, break_glass: permit.session().break_glass, ..Facts::default() };
    let command = usage.command();
    let detail = match *usage {
        Use::Exec { .. } => Detail::Command(&command),
        Use::Subsystem { name } => Detail::Subsystem(name),
        Use::Forward { host, port } | Use::Listen { host, port } => Detail::Destination { host, port },
        Use::ForwardStreamlocal { path } | Use::ListenStreamlocal { path } => {
            Detail::Destination { host: path, port: 0 }
        }
        Use::Shell | Use::Sftp | Use::Agent => Detail::None,
    };
    let query = Query::new(usage.action(), permit.principal())
        .on(target)
        .access(permit.access())
        .facts(facts)
        .detail(detail);
    policy.decide(&query)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::target::{Environment, TargetKind};
    use crate::policy::CedarPolicy;
    use crate::store::contract::fixtures::{START, activate, person, request};

    fn permit(labels: &[(&str, &str)]) -> Permit {
        let mut alice = person("alice");
        alice.groups = ["requesters".parse().unwrap()].into();
        let (_, session) = activate(&request(&alice, START), START);
        let target = Target {
            name: session.target.clone(),
            kind: TargetKind::Postgres,
            environment: Environment::Prod,
            domain: "bank-core".parse().unwrap(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            accesses: [session.access.clone()].into(),
            requesters: ["requesters".parse().unwrap()].into(),
            approvers: [].into(),
        };
        let allow = Decision::Allow { policies: Vec::new() };
        session.permit(&alice, &target, &allow, &[], START).unwrap()
    }

    /// Everything that SSH offers, closed and open ones.
    const ALL: [Use<'static>; 9] = [
        Use::Shell,
        Use::Exec { command: b"id" },
        Use::Sftp,
        Use::Subsystem { name: "netconf" },
        Use::Forward { host: "10.0.0.7", port: 80 },
        Use::ForwardStreamlocal { path: "/run/docker.sock" },
        Use::Listen { host: "", port: 0 },
        Use::ListenStreamlocal { path: "/tmp/s" },
        Use::Agent,
    ];

    #[test]
    fn labels_open_what_is_closed_by_default() {
        let policy = CedarPolicy::builtin().unwrap();
        let allowed =
            |permit: &Permit| ALL.map(|usage| decide(&policy, permit, permit.target(), &usage).is_allow());
        assert_eq!(allowed(&permit(&[])), [true, true, true, false, false, false, false, false, false]);
        let open = permit(&[
            ("forward", "any"),
            ("listen", "allowed"),
            ("agent-forwarding", "allowed"),
            ("subsystems", "any"),
        ]);
        assert_eq!(allowed(&open), [true; 9]);
    }

    #[test]
    fn a_refusal_names_the_rule_and_the_label() {
        let policy = CedarPolicy::builtin().unwrap();
        let permit = permit(&[]);
        let Decision::Refuse { rules } = decide(&policy, &permit, permit.target(), &Use::Agent) else {
            panic!("allowed")
        };
        let text = Deny::PolicyRefused { rules }.to_string();
        assert!(text.contains("AGENT-FORWARDING: the label `agent-forwarding"), "{text}");
    }

    #[test]
    fn sftp_is_one_action_by_whichever_name() {
        assert_eq!(Use::Subsystem { name: "sftp" }.action(), Action::Sftp);
        assert_eq!(Use::Subsystem { name: "sftp2" }.action(), Action::Subsystem);
    }

    /// Keeps what it was asked.
    #[derive(Debug, Default)]
    struct Asked(Mutex<Vec<String>>);

    impl Policy for Asked {
        fn decide(&self, query: &Query<'_>) -> Decision {
            let text = format!("{} {:?} {:?}", query.action, query.access.unwrap().as_str(), query.detail);
            self.0.lock().unwrap().push(text);
            Decision::Allow { policies: Vec::new() }
        }

        fn governs_statements(&self, _: &Query<'_>) -> bool {
            true
        }

        fn hash(&self) -> &'static str {
            ""
        }
    }

    #[test]
    fn the_policy_is_told_what_exactly_is_wanted() {
        let (policy, permit) = (Asked::default(), permit(&[]));
        for usage in ALL {
            decide(&policy, &permit, permit.target(), &usage);
        }
        assert_eq!(
            *policy.0.lock().unwrap(),
            [
                "shell \"readonly\" None",
                "exec \"readonly\" Command(\"id\")",
                "sftp \"readonly\" None",
                "subsystem \"readonly\" Subsystem(\"netconf\")",
                "forward \"readonly\" Destination { host: \"10.0.0.7\", port: 80 }",
                "forward \"readonly\" Destination { host: \"/run/docker.sock\", port: 0 }",
                "listen \"readonly\" Destination { host: \"\", port: 0 }",
                "listen \"readonly\" Destination { host: \"/tmp/s\", port: 0 }",
                "agent \"readonly\" None",
            ]
        );
    }

    #[test]
    fn a_command_is_seen_as_text_of_bounded_length() {
        let long = vec![b'x'; 1_000_000];
        assert_eq!(Use::Exec { command: &long }.command().len(), COMMAND_BYTES);
        assert_eq!(Use::Exec { command: b"echo \xff" }.command(), "echo \u{fffd}");
        assert_eq!(Use::Exec { command: b"" }.command(), "");
    }
}

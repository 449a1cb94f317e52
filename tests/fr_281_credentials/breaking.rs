//! A line to the target that breaks at any moment, also while the server answers: what was asked is done or not, and nobody
//! can tell.

use std::path::Path;

use crate::support::bastion::{ADMIN_DIR, target};
use crate::support::breaking_line::BreakingLine;
use crate::support::{Bastion, Options, Postgres};
use crate::{catalogue, handle, janitor, lives};

/// The target behind the line.
const TARGET: &str = "ledger-far";

/// So many of a hundred connections break.
const PERCENT: u64 = 40;

/// `SALLYPORT_TEST_ROUNDS` says how many sessions.
#[test]
fn on_a_line_that_breaks_every_session_ends_and_no_role_is_left() {
    let rounds = std::env::var("SALLYPORT_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = rounds.unwrap_or(12);
    let postgres = Postgres::start();
    let before = catalogue(&postgres);
    let line = BreakingLine::before(postgres.port, 281);
    let (direct, through) = (format!("localhost:{}", postgres.port), format!("localhost:{}", line.port));
    let targets = target(TARGET, "dev", "bank-core", &postgres, Path::new(ADMIN_DIR));
    let options = Options { targets: targets.replace(&direct, &through), ..Default::default() };
    let bastion = Bastion::start_for(&postgres, options, &["alice", "bob"]);
    let (mut served, mut sessions) = (0, Vec::new());
    for round in 0..rounds {
        // As the clock goes on, what they logged in with ends.
        if round % 50 == 49 {
            for user in ["alice", "bob"] {
                bastion.log_in(user).success();
            }
        }
        let session = bastion.grant("alice", TARGET, "dba", 3600, &[]).session;
        let at_work = bastion.psql_sleeping(&postgres, "alice", TARGET);
        line.set(PERCENT);
        for _ in 0..3 {
            let sql = "CREATE TEMP TABLE made (id int); SELECT 'served'";
            served += usize::from(bastion.psql("alice", TARGET, sql).stdout.contains("served"));
        }
        // What cannot be destroyed yet is told as such, and tried again.
        let revoked = bastion.run_as("bob", &["revoke", &session, "--why", "the round is over"]);
        assert!(revoked.stdout.contains(&handle(&session)), "{revoked:?}");
        at_work.finish().failure();
        bastion.psql("alice", TARGET, "SELECT 1").failure().says("revoked by bob");
        line.set(0);
        bastion.advance(janitor::EVERY);
        assert_eq!(postgres.session_roles(), Vec::<String>::new());
        sessions.push(session);
    }
    assert!(served > 0 && line.broken() > 0, "{served} served, {} broken", line.broken());
    assert_eq!(catalogue(&postgres), before);
    let lives = lives(&bastion);
    assert_eq!(lives.len(), sessions.len(), "{lives:?}");
    for session in sessions {
        let steps = &lives[&handle(&session)];
        let count = |action| steps.iter().filter(|one| *one == action).count();
        assert_eq!(
            (steps[0].as_str(), count("credential_destroyed")),
            ("credential_intended", 1),
            "{steps:?}"
        );
        assert_eq!(
            (steps.last().unwrap().as_str(), count("credential_orphaned")),
            ("credential_destroyed", 0),
            "{steps:?}"
        );
    }
    bastion.verify().success();
}

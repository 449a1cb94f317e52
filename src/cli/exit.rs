//! How a command ends: an exit code that scripts can tell apart, and for people what went wrong,
//! why, and what to do next.

use std::process::ExitCode;

use crate::http::error::Problem;

/// What the exit codes mean. Documented in `--help` and `docs/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    Failed,
    Usage,
    /// Refused by policy, denied by an approver, blocked, or not decided in time.
    Refused,
    NotFound,
    Unauthenticated,
    Unreachable,
    /// Waited as long as asked, and the request is still pending.
    Pending,
    /// A log or recording is not what was written.
    Unverified,
}

pub(super) const HELP: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 refused or denied, 4 not found, \
    5 not logged in, 6 server unreachable, 7 still pending, 10 verification failed";

impl Exit {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
            Self::Unauthenticated => 5,
            Self::Unreachable => 6,
            Self::Pending => 7,
            Self::Unverified => 10,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What a command returns.
pub(super) type Outcome = Result<Exit, Failure>;

/// Why a command did not do what it was to do.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    /// What went wrong; empty when there is nobody left to tell (a closed pipe).
    pub what: String,
    /// The server's word for it.
    pub code: Option<String>,
    /// Details, one a line.
    pub why: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), code: None, why: Vec::new(), hint: None }
    }

    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure of something local, with its causes.
    pub(super) fn of(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::failed(what).why(crate::access::credential::error_chain(error))
    }

    /// The lines for standard error.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("sallyport: {}", self.what)];
        lines.extend(self.why.iter().map(|why| format!("  {why}")));
        lines.extend(self.hint.iter().map(|hint| format!("  → {hint}")));
        lines
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let mut chain = error.chain().map(ToString::to_string);
        let mut failure = Self::failed(chain.next().unwrap_or_default());
        failure.why = chain.collect();
        failure
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut failure = Self::new(exit_of(&problem), problem.detail);
        failure.code = Some(problem.code);
        if problem.rules.len() > 1 {
            failure.why = problem.rules.iter().map(|rule| format!("{}: {}", rule.id, rule.needs)).collect();
        }
        if problem.status >= 500 && !problem.request_id.is_empty() {
            failure.why.push(format!("the server's log says more under {}", problem.request_id));
        }
        failure.hint = match (problem.hint, problem.retry_after) {
            (Some(hint), _) => Some(hint),
            (None, Some(seconds)) => Some(format!("try again in {seconds} s")),
            (None, None) => None,
        };
        failure
    }
}

fn exit_of(problem: &Problem) -> Exit {
    match problem.status {
        400 => Exit::Usage,
        401 => Exit::Unauthenticated,
        // Nobody could approve it: as good as refused. A malformed ask is a mistake in usage.
        422 if problem.code == "malformed" => Exit::Usage,
        403 | 422 => Exit::Refused,
        404 => Exit::NotFound,
        503 => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Refused,
            Exit::NotFound,
            Exit::Unauthenticated,
            Exit::Unreachable,
            Exit::Pending,
            Exit::Unverified,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6, 7, 10]);
        for exit in all {
            assert!(HELP.contains(&format!("{} ", exit.code())), "{exit:?}");
        }
    }

    #[test]
    fn statuses_of_the_api_become_exit_codes() {
        for (status, code, exit) in [
            (400, "malformed", Exit::Usage),
            (401, "unauthenticated", Exit::Unauthenticated),
            (403, "policy_refused", Exit::Refused),
            (404, "not_found", Exit::NotFound),
            (409, "already_decided", Exit::Failed),
            (422, "malformed", Exit::Usage),
            (422, "nobody_can_approve", Exit::Refused),
            (429, "too_many_attempts", Exit::Failed),
            (503, "store_unavailable", Exit::Unreachable),
        ] {
            let problem = Problem::new(StatusCode::from_u16(status).unwrap(), code, "x");
            assert_eq!(Failure::from(problem).exit, exit, "{status} {code}");
        }
    }

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::failed("it broke").why("the disk is full").hint("make room");
        assert_eq!(failure.lines(), ["sallyport: it broke", "  the disk is full", "  → make room"]);
    }
}

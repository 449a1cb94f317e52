//! Guard rails: whether the rules let a statement go to the target.
//!
//! What a refused statement's place takes, at the target, is a text that no server can parse: so the server itself does
//! all that a failed statement means to the connection (it skips to `Sync`, the transaction fails, `ReadyForQuery` says so),
//! and its error is replaced by ours on the way to the client. Its log shows that text.

use std::collections::HashMap;

use bytes::Bytes;

use crate::access::Access;
use crate::access::statement::StatementRules;
use crate::domain::deny::Deny;
use crate::domain::session::Permit;
use crate::policy::StatementFacts;

use super::classify::classify;
use super::codec::encode::{self, ErrorReport, Severity};
use super::codec::frame::Frame;
use super::lexer::Strings;
use super::observe::{Observer, Refusal, ToRun};

/// Verdicts that are kept; what is run again and again is looked at once.
const MOST_KEPT: usize = 256;
/// No longer text is kept with its verdict, in bytes.
const LONGEST_KEPT: usize = 4_096;
/// Insufficient privilege, as the server says it of what a role may not.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// `RAW` is a word that begins no command, so that this is a syntax error in every version.
const UNPARSABLE: &str = "refused by Sallyport and not run:";
/// The statement that the unparsable text would be, if it could.
const NO_NAME: &[u8] = b"refused by Sallyport";

#[derive(Debug)]
pub(super) struct Guard<'a> {
    access: &'a Access,
    permit: &'a Permit,
    rules: Option<StatementRules>,
    verdicts: HashMap<(Bytes, Reading, Transaction), Result<Transaction, Deny>>,
    /// What will be when all that was let through has been run.
    transaction: Transaction,
    /// The batch of messages that this is known in.
    batch: u64,
}

/// Whether a statement becomes part of an open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Transaction {
    Open,
    None,
    /// It depends on what an earlier batch comes to: the statement may be refused in neither case.
    Unsure,
}

/// How the server reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reading {
    Standard,
    Escaped,
    /// It cannot be told: neither way may be refused.
    Either,
}

impl<'a> Guard<'a> {
    pub(super) fn new(access: &'a Access, permit: &'a Permit) -> Self {
        Self {
            access,
            permit,
            rules: None,
            verdicts: HashMap::new(),
            transaction: Transaction::None,
            batch: 0,
        }
    }

    /// Why this message must not go to the target. Called before it is observed; may be called again for the same
    /// message, after answers have come.
    pub(super) fn refusal(
        &mut self,
        frame: &Frame,
        observer: &Observer,
        strings: Strings,
    ) -> Option<Refusal> {
        if !matches!(frame.tag, b'Q' | b'E' | b'F') {
            return None;
        }
        if let Some(rules) = self.access.statement_rules(self.permit, self.rules.as_ref()) {
            self.rules = Some(rules);
            self.verdicts.clear();
        }
        if !self.rules.as_ref().is_some_and(StatementRules::govern) {
            return None;
        }
        match observer.in_transaction() {
            Some(open) => self.transaction = if open { Transaction::Open } else { Transaction::None },
            // Within a batch, what follows a failure is not run. In the next one it is.
            None if observer.batch() != self.batch => self.transaction = Transaction::Unsure,
            None => {}
        }
        self.batch = observer.batch();
        let run = observer.to_run(frame)?;
        match self.verdict(&run, observer.is_answered(), strings) {
            Ok(transaction) => {
                self.transaction = transaction;
                None
            }
            Err(deny) => {
                metrics::counter!("sallyport_statements_refused_total").increment(1);
                Some(refusal(&deny))
            }
        }
    }

    /// Whether a transaction is open after it, if it may be run.
    fn verdict(&mut self, run: &ToRun, is_answered: bool, strings: Strings) -> Result<Transaction, Deny> {
        let ToRun::Sql { sql, is_parsed_now } = run else {
            return self.judge(StatementFacts::default()).map(|()| self.transaction);
        };
        let reading = match strings {
            // A setting that is on its way may change how the text is read, or was another when it was; and in some
            // encodings a byte that looks like a backslash is none.
            _ if sql.contains(&b'\\') && !(is_answered && *is_parsed_now && sql.is_ascii()) => {
                Reading::Either
            }
            Strings::Standard => Reading::Standard,
            Strings::Escaped => Reading::Escaped,
        };
        let key = (sql.clone(), reading, self.transaction);
        if let Some(verdict) = self.verdicts.get(&key) {
            return verdict.clone();
        }
        let verdict = match reading {
            Reading::Standard => self.judge_text(sql, Strings::Standard),
            Reading::Escaped => self.judge_text(sql, Strings::Escaped),
            Reading::Either => {
                self.judge_text(sql, Strings::Standard).and_then(|_| self.judge_text(sql, Strings::Escaped))
            }
        };
        if sql.len() <= LONGEST_KEPT {
            if self.verdicts.len() >= MOST_KEPT {
                self.verdicts.clear();
            }
            let key = (Bytes::copy_from_slice(sql), reading, self.transaction);
            self.verdicts.insert(key, verdict.clone());
        }
        verdict
    }

    fn judge_text(&self, sql: &[u8], strings: Strings) -> Result<Transaction, Deny> {
        let mut transaction = self.transaction;
        for facts in classify(sql, strings) {
            let after = transaction.after(&facts);
            let cases = match transaction {
                Transaction::Open => [true].as_slice(),
                Transaction::None => &[false],
                Transaction::Unsure => &[true, false],
            };
            for in_transaction in cases {
                self.judge(StatementFacts { in_transaction: *in_transaction, ..facts.clone() })?;
            }
            transaction = after;
        }
        Ok(transaction)
    }

    fn judge(&self, facts: StatementFacts) -> Result<(), Deny> {
        self.rules.as_ref().map_or(Err(Deny::ShuttingDown), |rules| rules.allow(self.permit, &facts))
    }
}

impl Transaction {
    /// After a statement that succeeds.
    fn after(self, facts: &StatementFacts) -> Self {
        let is = |kind: &str| facts.kinds.contains(kind);
        if is("begin") {
            Self::Open
        } else if is("commit") || is("rollback") || is("prepare_transaction") {
            Self::None
        } else {
            self
        }
    }
}

fn refusal(deny: &Deny) -> Refusal {
    let message = format!("refused by Sallyport: {deny}");
    let report = ErrorReport {
        severity: Severity::Error,
        sqlstate: INSUFFICIENT_PRIVILEGE,
        message: &message,
        detail: "",
        hint: "The statement was not run.",
    };
    Refusal {
        report: report.encode(),
        sqlstate: Bytes::from_static(INSUFFICIENT_PRIVILEGE.as_bytes()),
        message: message.into(),
    }
}

/// What goes to the target in place of a refused message.
pub(super) fn stand_in(frame: &Frame, refusal: &Refusal) -> Bytes {
    let why = String::from_utf8_lossy(&refusal.message);
    // Without what could end it, or make something of it.
    let why: String =
        why.chars().filter(|char| char.is_ascii_alphanumeric() || " -:.".contains(*char)).collect();
    let text = format!("{UNPARSABLE} {why}");
    match frame.tag {
        b'E' => encode::parse(NO_NAME, text.as_bytes()),
        _ => encode::query(text.as_bytes()),
    }
}

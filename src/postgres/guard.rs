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
use super::record;

/// Verdicts that are kept; what is run again and again is looked at once.
const MOST_KEPT: usize = 256;
/// No longer text is kept with its verdict, in bytes.
const LONGEST_KEPT: usize = 4_096;
/// Insufficient privilege, as the server says it of what a role may not.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Its first word begins no command, so that this is a syntax error in every version.
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
    /// Something was let through that may change the client's encoding.
    encoding_may_change: bool,
    /// What will be known when the message that was asked about last goes on.
    next: Option<(Transaction, bool)>,
}

/// Of the connection, as the target last told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub strings: Strings,
    /// No character of the client's encoding has a byte of ASCII in it, but those of ASCII.
    pub encoding_is_plain: bool,
}

impl Settings {
    /// What the target told at the start. What it does not tell of an encoding is not plain.
    pub(super) fn told(settings: &[(Bytes, Bytes)]) -> Self {
        let told = || settings.iter().rev();
        Self {
            strings: told().find_map(|(name, value)| Strings::reported(name, value)).unwrap_or_default(),
            encoding_is_plain: told()
                .find_map(|(name, value)| record::plain_encoding(name, value))
                .unwrap_or(false),
        }
    }
}

/// What has these in it, in whatever way, may change the encoding.
const ENCODING_WORDS: [&[u8]; 7] =
    [b"encoding", b"names", b"config", b"setting", b"reset", b"discard", b"load"];

fn may_change_the_encoding(sql: &[u8]) -> bool {
    ENCODING_WORDS.iter().any(|word| sql.windows(word.len()).any(|found| found.eq_ignore_ascii_case(word)))
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
            encoding_may_change: false,
            next: None,
        }
    }

    /// Why this message must not go to the target. Called before it is observed; may be called again for the same
    /// message, after answers have come. Nothing is known of a statement that goes on before [`Self::passed`] is called.
    pub(super) fn refusal(
        &mut self,
        frame: &Frame,
        observer: &Observer,
        settings: Settings,
    ) -> Option<Refusal> {
        self.next = None;
        if !matches!(frame.tag, b'Q' | b'P' | b'E' | b'F') {
            return None;
        }
        if let Some(rules) = self.access.statement_rules(self.permit, self.rules.as_ref()) {
            self.rules = Some(rules);
            self.verdicts.clear();
        }
        if !self.rules.as_ref().is_some_and(StatementRules::govern) {
            // What is let through unseen may change what was told, and begin or end a transaction.
            self.encoding_may_change = true;
            self.transaction = Transaction::Unsure;
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
        let is_settled = observer.is_settled();
        let verdict = if frame.tag == b'P' {
            // It is run later, in whichever transaction: what is refused in all of them need not even be planned.
            let open = self.verdict(&run, Transaction::Open, is_settled, settings);
            open.or_else(|_| self.verdict(&run, Transaction::None, is_settled, settings))
                .map(|_| self.transaction)
        } else {
            self.verdict(&run, self.transaction, is_settled, settings)
        };
        match verdict {
            Ok(transaction) => {
                let changes = matches!(&run, ToRun::Sql { sql, .. } if may_change_the_encoding(sql));
                self.next = Some((transaction, changes));
                None
            }
            Err(deny) => {
                metrics::counter!("sallyport_statements_refused_total").increment(1);
                Some(refusal(&deny))
            }
        }
    }

    /// The message that was asked about last goes on.
    pub(super) fn passed(&mut self) {
        if let Some((transaction, changes)) = self.next.take() {
            self.transaction = transaction;
            self.encoding_may_change |= changes;
        }
    }

    /// Whether a transaction is open after it, if it may be run in this one.
    fn verdict(
        &mut self,
        run: &ToRun,
        transaction: Transaction,
        is_settled: bool,
        settings: Settings,
    ) -> Result<Transaction, Deny> {
        let ToRun::Sql { sql, is_parsed_now } = run else {
            return self.judge(&StatementFacts::default()).map(|()| transaction);
        };
        let is_told = is_settled && *is_parsed_now;
        if !sql.is_ascii() && !(settings.encoding_is_plain && (is_told || !self.encoding_may_change)) {
            // In some encodings a character's second byte looks like one of ASCII.
            return self.judge(&StatementFacts::default()).map(|()| transaction);
        }
        let reading = match settings.strings {
            // A setting that is on its way may change how the text is read, or was another when it was.
            _ if sql.contains(&b'\\') && !is_told => Reading::Either,
            Strings::Standard => Reading::Standard,
            Strings::Escaped => Reading::Escaped,
        };
        let key = (sql.clone(), reading, transaction);
        if let Some(verdict) = self.verdicts.get(&key) {
            return verdict.clone();
        }
        let read = |strings| self.judge_text(sql, transaction, strings);
        let verdict = match reading {
            Reading::Standard => read(Strings::Standard),
            Reading::Escaped => read(Strings::Escaped),
            Reading::Either => read(Strings::Standard).and_then(|_| read(Strings::Escaped)),
        };
        if sql.len() <= LONGEST_KEPT {
            if self.verdicts.len() >= MOST_KEPT {
                self.verdicts.clear();
            }
            let key = (Bytes::copy_from_slice(sql), reading, transaction);
            self.verdicts.insert(key, verdict.clone());
        }
        verdict
    }

    fn judge_text(
        &self,
        sql: &[u8],
        mut transaction: Transaction,
        strings: Strings,
    ) -> Result<Transaction, Deny> {
        for facts in classify(sql, strings) {
            let after = transaction.after(&facts);
            let cases = match transaction {
                Transaction::Open => [true].as_slice(),
                Transaction::None => &[false],
                Transaction::Unsure => &[true, false],
            };
            for in_transaction in cases {
                self.judge(&StatementFacts { in_transaction: *in_transaction, ..facts.clone() })?;
            }
            transaction = after;
        }
        Ok(transaction)
    }

    fn judge(&self, facts: &StatementFacts) -> Result<(), Deny> {
        self.rules.as_ref().map_or(Err(Deny::ShuttingDown), |rules| rules.allow(self.permit, facts))
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
        // Under its own name: what a failed `Parse` does to that happens as well.
        b'P' => {
            let body = frame.body();
            let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
            encode::parse(name, text.as_bytes())
        }
        b'E' => encode::parse(NO_NAME, text.as_bytes()),
        _ => encode::query(text.as_bytes()),
    }
}

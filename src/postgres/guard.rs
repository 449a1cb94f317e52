//! Guard rails: whether the rules let a statement go to the target.
//!
//! What a refused statement's place takes, at the target, is a text that no server can parse: so the server itself does
//! all that a failed statement means to the connection (it skips to `Sync`, the transaction fails, `ReadyForQuery` says so),
//! and its error is replaced by ours on the way to the client. Its log shows that text.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::access::Access;
use crate::access::hub::CurrentPermit;
use crate::access::statement::StatementRules;
use crate::domain::deny::Deny;
use crate::domain::session::Permit;
use crate::policy::StatementFacts;

use super::classify::{Classified, Prepared, classify};
use super::codec::encode::{self, ErrorReport, Severity};
use super::codec::frame::Frame;
use super::codec::frontend::LONGEST_NAME;
use super::lexer::{Kind, Lexer, Strings, Token};
use super::observe::{Observer, Refusal, ToRun};
use super::prepared::{self, PreparedNames};
use super::record;

/// Verdicts that are kept; what is run again and again is looked at once.
const MOST_KEPT: usize = 256;
/// No longer text is kept with its verdict, in bytes.
const LONGEST_KEPT: usize = 4_096;
/// So many `EXECUTE` of one text are looked at: each may stand for several statements.
const MOST_RUNS: usize = 32;
/// Insufficient privilege, as the server says it of what a role may not.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Its first word begins no command, so that this is a syntax error in every version.
const UNPARSABLE: &str = "refused by Sallyport and not run:";
/// The statement that the unparsable text would be, if it could.
const NO_NAME: &[u8] = b"refused by Sallyport";

#[derive(Debug)]
pub(super) struct Guard<'a> {
    access: &'a Access,
    current: &'a CurrentPermit,
    permit: Arc<Permit>,
    rules: Option<StatementRules>,
    verdicts: HashMap<(Bytes, Reading, Transaction), Result<Transaction, Deny>>,
    /// What will be when all that was let through has been run.
    transaction: Transaction,
    /// The batch of messages that this is known in.
    batch: u64,
    /// Something was let through that may change the client's encoding.
    encoding_may_change: bool,
    /// What an `EXECUTE` may run.
    prepared: PreparedNames,
    /// Something was let through while no rule governed.
    went_unseen: bool,
    /// What will be known when the message that was asked about last goes on.
    next: Option<Next>,
}

#[derive(Debug)]
struct Next {
    transaction: Transaction,
    encoding_may_change: bool,
    prepared: PreparedNames,
}

/// Of the connection, as the target last told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub strings: Strings,
    /// No character of the client's encoding has a byte of ASCII in it, but those of ASCII.
    pub encoding_is_plain: bool,
    pub encoding_is_utf8: bool,
}

impl Settings {
    /// What the target told at the start. What it does not tell of an encoding is not plain.
    pub(super) fn told(settings: &[(Bytes, Bytes)]) -> Self {
        let told = || settings.iter().rev();
        let encoding = || told().find(|(name, _)| name == "client_encoding");
        Self {
            encoding_is_utf8: encoding().is_some_and(|(_, value)| record::is_utf8(value)),
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

/// Whether there are names beyond ASCII, however strings are read.
fn names_beyond_ascii(sql: &[u8]) -> bool {
    let is_name = |token: &Token| matches!(token.kind, Kind::Word | Kind::QuotedName);
    [Strings::Standard, Strings::Escaped]
        .into_iter()
        .any(|strings| Lexer::new(sql, strings).any(|token| is_name(&token) && !token.text(sql).is_ascii()))
}

/// Whether FETCH or MOVE is among the statements, however strings are read.
fn may_fetch(sql: &[u8]) -> bool {
    let is_named = |word: &[u8]| sql.windows(word.len()).any(|found| found.eq_ignore_ascii_case(word));
    let fetches = |strings| {
        let mut statements = classify(sql, strings).into_iter();
        statements.any(|statement| ["fetch", "move"].iter().any(|kind| statement.facts.kinds.contains(*kind)))
    };
    (is_named(b"fetch") || is_named(b"move")) && (fetches(Strings::Standard) || fetches(Strings::Escaped))
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
    pub(super) fn new(access: &'a Access, current: &'a CurrentPermit) -> Self {
        Self {
            access,
            current,
            permit: current.get(),
            rules: None,
            verdicts: HashMap::new(),
            transaction: Transaction::None,
            batch: 0,
            encoding_may_change: false,
            prepared: PreparedNames::default(),
            went_unseen: false,
            next: None,
        }
    }

    /// Why this message must not go to the target. Called before it is observed; may be called again for the same
    /// message, after answers have come. Nothing is known of a statement that goes on before [`Self::passed`] is called.
    pub(super) fn refusal(
        &mut self,
        frame: &Frame,
        observer: &mut Observer,
        settings: Settings,
    ) -> Option<Refusal> {
        self.next = None;
        if !matches!(frame.tag, b'Q' | b'P' | b'E' | b'F') {
            return None;
        }
        self.renew();
        if !self.rules.as_ref().is_some_and(StatementRules::govern) {
            // What is let through unseen may change what was told, begin or end a transaction, and prepare something.
            self.encoding_may_change = true;
            self.transaction = Transaction::Unsure;
            self.prepared.lose();
            self.went_unseen = true;
            return None;
        }
        if std::mem::take(&mut self.went_unseen) {
            observer.distrust_names();
        }
        match observer.in_transaction() {
            Some(open) => self.transaction = if open { Transaction::Open } else { Transaction::None },
            // Within a batch, what follows a failure is not run. In the next one it is.
            None if observer.batch() != self.batch => self.transaction = Transaction::Unsure,
            None => {}
        }
        self.batch = observer.batch();
        let mut run = observer.to_run(frame)?;
        if observer.has_named_portals() && matches!(&run, ToRun::Sql { sql, .. } if may_fetch(sql)) {
            // A portal was judged, if at all, in the transaction of its own statement.
            run = ToRun::Unknown;
        }
        let is_settled = observer.is_settled();
        let mut prepared = PreparedNames::default();
        let verdict = if frame.tag == b'P' {
            // It is run later, in whichever transaction: what is refused in all of them need not even be planned.
            let open = self.verdict(&run, Transaction::Open, is_settled, settings, &mut prepared);
            open.or_else(|_| self.verdict(&run, Transaction::None, is_settled, settings, &mut prepared))
                .map(|_| self.transaction)
        } else {
            self.verdict(&run, self.transaction, is_settled, settings, &mut prepared)
        };
        match verdict {
            Ok(transaction) => {
                if let (b'P', ToRun::Sql { sql, .. }) = (frame.tag, &run) {
                    learn_parsed(&mut prepared, &parsed_name(frame), sql);
                }
                let encoding_may_change =
                    matches!(&run, ToRun::Sql { sql, .. } if may_change_the_encoding(sql));
                self.next = Some(Next { transaction, encoding_may_change, prepared });
                None
            }
            Err(deny) => {
                metrics::counter!("sallyport_statements_refused_total").increment(1);
                Some(refusal(&deny))
            }
        }
    }

    /// Takes up the rules, and who it is about, as they are now.
    fn renew(&mut self) {
        let permit = self.current.get();
        if !Arc::ptr_eq(&permit, &self.permit) {
            if *permit != *self.permit {
                self.rules = None;
            }
            self.permit = permit;
        }
        if let Some(rules) = self.access.statement_rules(&self.permit, self.rules.as_ref()) {
            self.rules = Some(rules);
            self.verdicts.clear();
        }
    }

    /// The message that was asked about last goes on.
    pub(super) fn passed(&mut self) {
        if let Some(Next { transaction, encoding_may_change, prepared }) = self.next.take() {
            self.transaction = transaction;
            self.encoding_may_change |= encoding_may_change;
            self.prepared.absorb(prepared);
        }
    }

    /// Whether a transaction is open after it, if it may be run in this one; and what it prepares.
    fn verdict(
        &mut self,
        run: &ToRun,
        transaction: Transaction,
        is_settled: bool,
        settings: Settings,
        prepared: &mut PreparedNames,
    ) -> Result<Transaction, Deny> {
        let ToRun::Sql { sql, is_parsed_now } = run else {
            prepared.lose();
            return self.judge(&StatementFacts::default()).map(|()| transaction);
        };
        let is_told = is_settled && *is_parsed_now;
        let is_known = settings.encoding_is_plain && (is_told || !self.encoding_may_change);
        let is_readable = || is_known && (settings.encoding_is_utf8 || !names_beyond_ascii(sql));
        if !sql.is_ascii() && !is_readable() {
            // In some encodings a character's second byte looks like one of ASCII; in others the same bytes are another name.
            prepared.lose();
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
        let mut runs_prepared = false;
        let mut read = |strings| self.judge_text(sql, transaction, strings, (prepared, &mut runs_prepared));
        let verdict = match reading {
            Reading::Standard => read(Strings::Standard),
            Reading::Escaped => read(Strings::Escaped),
            Reading::Either => read(Strings::Standard).and_then(|_| read(Strings::Escaped)),
        };
        if sql.len() <= LONGEST_KEPT && prepared.is_empty() && !runs_prepared {
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
        (prepared, runs_prepared): (&mut PreparedNames, &mut bool),
    ) -> Result<Transaction, Deny> {
        let mut runs = 0;
        for mut statement in classify(sql, strings) {
            if matches!(statement.prepared, Prepared::Run(_)) {
                *runs_prepared = true;
                runs += 1;
            }
            if runs > MOST_RUNS {
                statement.prepared = Prepared::No;
            }
            let after = transaction.after(&statement.facts);
            let cases = match transaction {
                Transaction::Open => [true].as_slice(),
                Transaction::None => &[false],
                Transaction::Unsure => &[true, false],
            };
            for facts in self.may_do(&statement, prepared) {
                for in_transaction in cases {
                    self.judge(&StatementFacts { in_transaction: *in_transaction, ..facts.clone() })?;
                }
            }
            match &statement.prepared {
                Prepared::Made(name) => prepared.learn(name.as_deref(), &statement.facts),
                Prepared::No if !statement.facts.known => prepared.lose(),
                Prepared::No | Prepared::Run(_) => {}
            }
            transaction = after;
        }
        Ok(transaction)
    }

    /// What a statement does; of an `EXECUTE`, everything that it may.
    fn may_do(&self, statement: &Classified, news: &PreparedNames) -> Vec<StatementFacts> {
        let runs = match &statement.prepared {
            Prepared::Run(name) => self.prepared.of(news, name),
            Prepared::No | Prepared::Made(_) => Vec::new(),
        };
        if runs.is_empty() {
            return vec![statement.facts.clone()];
        }
        runs.into_iter().map(|run| prepared::run(&statement.facts, run)).collect()
    }

    fn judge(&self, facts: &StatementFacts) -> Result<(), Deny> {
        self.rules.as_ref().map_or(Err(Deny::ShuttingDown), |rules| rules.allow(&self.permit, facts))
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

/// The name that a `Parse` gives.
fn parsed_name(frame: &Frame) -> Bytes {
    let mut body = frame.body();
    let length = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    body.truncate(length.min(LONGEST_NAME));
    body
}

/// What the protocol prepared under a name, SQL can run by it. It may be read with escapes in its strings, or without.
fn learn_parsed(prepared: &mut PreparedNames, name: &[u8], sql: &[u8]) {
    if name.is_empty() {
        return;
    }
    let readings =
        if sql.contains(&b'\\') { &[Strings::Standard, Strings::Escaped][..] } else { &[Strings::Standard] };
    for strings in readings {
        for Classified { facts, .. } in classify(sql, *strings) {
            prepared.learn(std::str::from_utf8(name).ok(), &facts);
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
        b'P' => encode::parse(&parsed_name(frame), text.as_bytes()),
        b'E' => encode::parse(NO_NAME, text.as_bytes()),
        _ => encode::query(text.as_bytes()),
    }
}

//! One statement, token by token.

use crate::policy::StatementFacts;

use super::relations::{Expected, Relations};
use super::{Classified, Prepared};

/// Parentheses deeper than this are not followed: the statement is not known then.
const DEEPEST: usize = 500;
/// No keyword is longer.
const LONGEST_WORD: usize = 63;

/// Commands by their first word, and what they are called.
const COMMANDS: [(&str, &str); 53] = [
    ("abort", "rollback"),
    ("alter", "alter"),
    ("analyse", "analyze"),
    ("analyze", "analyze"),
    ("begin", "begin"),
    ("call", "call"),
    ("checkpoint", "checkpoint"),
    ("close", "close"),
    ("cluster", "cluster"),
    ("comment", "comment"),
    ("commit", "commit"),
    ("copy", "copy"),
    ("create", "create"),
    ("deallocate", "deallocate"),
    ("declare", "declare"),
    ("delete", "delete"),
    ("discard", "discard"),
    ("do", "do"),
    ("drop", "drop"),
    ("end", "commit"),
    ("execute", "execute"),
    ("explain", "explain"),
    ("fetch", "fetch"),
    ("grant", "grant"),
    ("import", "import"),
    ("insert", "insert"),
    ("listen", "listen"),
    ("load", "load"),
    ("lock", "lock"),
    ("merge", "merge"),
    ("move", "move"),
    ("notify", "notify"),
    ("prepare", "prepare"),
    ("reassign", "reassign"),
    ("refresh", "refresh"),
    ("reindex", "reindex"),
    ("release", "release"),
    ("reset", "reset"),
    ("revoke", "revoke"),
    ("rollback", "rollback"),
    ("savepoint", "savepoint"),
    ("security", "security"),
    ("select", "select"),
    ("set", "set"),
    ("show", "show"),
    ("start", "begin"),
    ("table", "table"),
    ("truncate", "truncate"),
    ("unlisten", "unlisten"),
    ("update", "update"),
    ("vacuum", "vacuum"),
    ("values", "values"),
    ("with", "with"),
];

/// Options of EXPLAIN and their values: what is none of them begins the statement that is explained.
const EXPLAIN_WORDS: [&str; 23] = [
    "analyze",
    "analyse",
    "verbose",
    "costs",
    "settings",
    "buffers",
    "wal",
    "timing",
    "summary",
    "format",
    "generic_plan",
    "memory",
    "serialize",
    "true",
    "false",
    "on",
    "off",
    "text",
    "xml",
    "json",
    "yaml",
    "none",
    "binary",
];

/// What ends a list of relations: reserved words, which cannot be a relation's other name without `AS`.
const LIST_ENDS: [&str; 14] = [
    "where",
    "group",
    "order",
    "having",
    "limit",
    "offset",
    "fetch",
    "for",
    "window",
    "union",
    "intersect",
    "except",
    "returning",
    "select",
];

/// A token, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A keyword, or a name without quotes.
    Word(&'a [u8]),
    /// What stands between a name's quotes.
    Name(&'a [u8]),
    /// A string of any kind.
    String,
    /// One byte of anything that is no operator.
    Mark(u8),
    Other,
    /// It cannot be told what it is.
    Unclear,
}

/// Where the statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Its first word comes, or that of the statement that it is about.
    #[default]
    Start,
    /// Between EXPLAIN and the statement that is explained.
    Explain,
    /// Up to the `AS` of PREPARE.
    Prepare,
    /// Up to the `FOR` of DECLARE.
    Declare,
    Body,
    /// Between EXECUTE and the name of what it runs.
    Execute,
    /// Behind that name: arguments in parentheses, or nothing.
    Executed,
    /// In those arguments, or behind them, where nothing stands.
    Arguments,
    /// After FROM or TO of a COPY: where the data comes from or goes to.
    CopyEnd,
}

/// What is open within one pair of parentheses.
#[derive(Debug, Default)]
struct Level {
    /// An UPDATE or DELETE whose WHERE has not come.
    needs_where: bool,
    /// After a comma comes the next relation.
    lists: bool,
    /// RETURNING has come: there is no WHERE behind it.
    returns: bool,
    /// So many JOINs may have a list of columns after USING yet.
    joins: u32,
}

#[derive(Debug)]
pub(super) struct Scan {
    facts: StatementFacts,
    phase: Phase,
    /// The command that the body belongs to.
    command: &'static str,
    levels: Vec<Level>,
    relations: Relations,
    /// The last words, if nothing stood since; the last one first.
    before: [String; 2],
    /// After a dot comes a name, whatever it is.
    dotted: bool,
    missing_where: bool,
    /// TABLE has come, which is short for SELECT * FROM.
    reads_table: bool,
    /// What PREPARE or EXECUTE names: none where it cannot be told.
    named: Option<String>,
    /// How many tokens there were.
    parts: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            facts: StatementFacts { known: true, ..StatementFacts::default() },
            phase: Phase::Start,
            command: "",
            levels: vec![Level::default()],
            relations: Relations::default(),
            before: [String::new(), String::new()],
            dotted: false,
            missing_where: false,
            reads_table: false,
            named: None,
            parts: 0,
        }
    }
}

impl Scan {
    pub(super) fn is_outermost(&self) -> bool {
        self.levels.len() == 1
    }

    /// `None` where there is no statement.
    pub(super) fn finish(mut self) -> Option<Classified> {
        if self.parts == 0 {
            return None;
        }
        while !self.levels.is_empty() {
            self.leave();
        }
        let Self { mut facts, relations, missing_where, phase, named, .. } = self;
        let is_execute = matches!(phase, Phase::Executed | Phase::Arguments);
        let is_whole = is_execute || phase == Phase::Body;
        facts.known &= !facts.kinds.is_empty() && !relations.too_many && is_whole;
        facts.tables = relations.into_names();
        facts.has_where = !missing_where;
        let prepared = match named {
            Some(name) if is_execute && facts.known => Prepared::Run(name),
            _ if is_execute => Prepared::No,
            named if facts.kinds.contains("prepare") || facts.kinds.contains("prepare_transaction") => {
                Prepared::Made(named.filter(|_| facts.known))
            }
            _ => Prepared::No,
        };
        // What EXECUTE runs is not in its text.
        facts.known &= !is_execute;
        Some(Classified { facts, prepared })
    }

    fn unknown(&mut self) {
        self.facts.known = false;
    }

    fn kind(&mut self, kind: &str) {
        if !self.facts.kinds.contains(kind) {
            self.facts.kinds.insert(kind.to_owned());
        }
    }

    fn level(&mut self) -> Option<&mut Level> {
        self.levels.last_mut()
    }

    pub(super) fn part(&mut self, part: Part<'_>) {
        self.parts = self.parts.saturating_add(1);
        if self.is_outermost() && !self.may_follow_execute(part) {
            self.unknown();
        }
        match part {
            Part::Word(text) => self.word(text),
            Part::Name(text) => {
                let name = String::from_utf8_lossy(text).replace("\"\"", "\"");
                self.name(&name);
            }
            Part::Unclear => self.unknown(),
            Part::Mark(mark) => self.mark(mark),
            Part::String if self.phase == Phase::CopyEnd => self.copy_end("copy_file"),
            Part::String | Part::Other => self.other(),
        }
    }

    /// EXECUTE is followed by a name, and that by its arguments.
    fn may_follow_execute(&mut self, part: Part<'_>) -> bool {
        match self.phase {
            Phase::Execute => matches!(part, Part::Word(_) | Part::Name(_)),
            Phase::Executed if part == Part::Mark(b'(') => {
                self.phase = Phase::Arguments;
                true
            }
            Phase::Executed | Phase::Arguments => false,
            _ => true,
        }
    }

    /// What is neither word nor name.
    fn other(&mut self) {
        self.relations.expect(None);
        self.forget_words();
    }

    fn forget_words(&mut self) {
        self.before = Default::default();
        self.dotted = false;
    }

    fn is_after(&self, word: &str) -> bool {
        self.before[0] == word
    }

    fn mark(&mut self, mark: u8) {
        let is_dot = mark == b'.';
        match mark {
            b'(' => self.enter(),
            b')' => {
                self.leave();
                if self.levels.is_empty() {
                    self.levels.push(Level::default());
                    self.unknown();
                }
            }
            b'.' => self.relations.dot(),
            b',' => {
                let lists = self.level().is_some_and(|level| level.lists);
                self.relations.expect(lists.then_some(Expected::OrFunction));
            }
            b';' => self.end_of_inner(),
            _ => self.relations.end_name(false),
        }
        self.forget_words();
        self.dotted = is_dot;
    }

    fn enter(&mut self) {
        let expected = self.relations.is_expected();
        self.relations.end_name(true);
        if self.levels.len() >= DEEPEST {
            return self.unknown();
        }
        self.levels.push(Level { lists: expected, ..Level::default() });
        self.relations.expect(expected.then_some(Expected::OrFunction));
    }

    fn leave(&mut self) {
        self.end_of_inner();
        self.levels.pop();
    }

    /// A statement ends, the whole or one in parentheses.
    fn end_of_inner(&mut self) {
        self.relations.expect(None);
        let needed = self.level().is_some_and(|level| std::mem::take(&mut level.needs_where));
        self.missing_where |= needed;
    }

    /// A name in quotes: never a keyword.
    fn name(&mut self, name: &str) {
        match self.phase {
            Phase::CopyEnd => self.unknown(),
            Phase::Execute => {
                self.named = exact(name);
                self.phase = Phase::Executed;
            }
            Phase::Prepare if self.is_after("prepare") && self.named.is_none() => self.named = exact(name),
            _ => {}
        }
        self.mention(name);
        self.forget_words();
    }

    fn mention(&mut self, folded: &str) {
        if names_anywhere(self.command) {
            self.relations.mention(folded);
        } else {
            self.relations.part(folded);
        }
    }

    fn word(&mut self, text: &[u8]) {
        let folded = String::from_utf8_lossy(text).to_ascii_lowercase();
        if self.dotted {
            self.mention(&folded);
            self.forget_words();
            return;
        }
        let word = if folded.len() > LONGEST_WORD { "" } else { folded.as_str() };
        if self.phase == Phase::Prepare && self.is_after("prepare") && self.named.is_none() {
            self.named = exact(&folded);
        }
        match self.phase {
            Phase::Explain if EXPLAIN_WORDS.contains(&word) => {}
            Phase::Start | Phase::Explain => self.command(word),
            Phase::Prepare if word == "transaction" && self.is_after("prepare") => {
                self.facts.kinds.clear();
                self.kind("prepare_transaction");
                self.phase = Phase::Body;
            }
            Phase::Prepare if word == "as" => self.phase = Phase::Start,
            Phase::Declare if word == "for" => self.phase = Phase::Start,
            Phase::Prepare | Phase::Declare => {}
            Phase::Execute => {
                self.named = exact(&folded);
                self.phase = Phase::Executed;
            }
            Phase::CopyEnd => match word {
                "stdin" | "stdout" => self.phase = Phase::Body,
                _ => self.copy_end(if word == "program" { "copy_program" } else { "copy_file" }),
            },
            Phase::Body | Phase::Executed | Phase::Arguments => self.body(word, &folded),
        }
        self.before.swap(0, 1);
        self.before[0] = folded;
    }

    fn copy_end(&mut self, kind: &str) {
        self.kind(kind);
        self.phase = Phase::Body;
    }

    /// The first word of a command.
    fn command(&mut self, word: &str) {
        let is_first = self.phase == Phase::Start && self.command.is_empty() && self.is_outermost();
        self.phase = Phase::Body;
        let Some((_, command)) = COMMANDS.into_iter().find(|(first, _)| *first == word) else {
            return self.unknown();
        };
        self.command = command;
        if command != "with" {
            self.kind(command);
        }
        match command {
            "explain" => self.phase = Phase::Explain,
            "prepare" => self.phase = Phase::Prepare,
            "declare" => self.phase = Phase::Declare,
            "execute" if is_first => self.phase = Phase::Execute,
            // What they run is not in the text, or is a program in itself.
            "call" | "do" | "execute" => self.unknown(),
            "delete" | "update" => self.changes_rows(),
            "truncate" | "lock" => {
                if let Some(level) = self.level() {
                    level.lists = true;
                }
                self.relations.expect(Some(Expected::Surely));
            }
            "copy" => {
                self.facts.kinds.remove("copy");
                self.relations.expect(Some(Expected::Surely));
            }
            "table" => self.relations.expect(Some(Expected::Surely)),
            _ => {}
        }
    }

    /// Whether USING tells columns, as it does after JOIN; after DELETE and MERGE it tells relations.
    fn ends_a_join(&mut self) -> bool {
        let Some(level) = self.level().filter(|level| level.joins > 0) else { return false };
        level.joins -= 1;
        true
    }

    /// A command begins whose USING comes before any JOIN of its own.
    fn forget_joins(&mut self) {
        if let Some(level) = self.level() {
            level.joins = 0;
        }
    }

    fn changes_rows(&mut self) {
        self.forget_joins();
        // One that has none yet is another statement's.
        self.missing_where |=
            self.level().is_some_and(|level| std::mem::replace(&mut level.needs_where, true));
        self.relations.expect(Some(Expected::Surely));
    }

    /// A word of a command after its first.
    fn body(&mut self, word: &str, folded: &str) {
        if self.command == "copy" && self.is_outermost() && matches!(word, "from" | "to") {
            self.relations.expect(None);
            self.kind(if word == "from" { "copy_from" } else { "copy_to" });
            self.phase = Phase::CopyEnd;
            return;
        }
        if self.command == "lock" && word == "share" && self.is_after("access") {
            self.facts.kinds = ["lock_share".to_owned()].into();
        }
        let is_modifier = matches!(word, "only" | "lateral" | "table" | "from")
            || (self.command == "copy" && word == "binary");
        if self.relations.is_expected() && is_modifier {
            return;
        }
        // `WITHIN GROUP` is part of an expression.
        let is_label = self.is_after("as") || (word == "group" && self.is_after("within"));
        if LIST_ENDS.contains(&word) && !is_label {
            self.relations.expect(None);
            if let Some(level) = self.level() {
                level.lists = false;
                level.returns |= word == "returning";
                level.needs_where &= word != "where" || level.returns;
            }
        }
        if !holds_commands(self.command) || !self.inner_command(word) {
            self.mention(folded);
        }
    }

    /// A word that may begin a command within the command, or say where relations are. False for any other word.
    fn inner_command(&mut self, word: &str) -> bool {
        let [before, before_that] = self.before.clone();
        match word {
            // ROLLBACK TO SAVEPOINT ends no transaction; … AND CHAIN begins the next.
            // What another transaction, perhaps another session's, has prepared.
            "prepared" if self.is_after(self.command) && matches!(self.command, "commit" | "rollback") => {
                self.facts.kinds = [format!("{}_prepared", self.command)].into();
            }
            "to" if self.command == "rollback" => self.facts.kinds = ["rollback_to".to_owned()].into(),
            "chain" if matches!(self.command, "commit" | "rollback") && before != "no" => self.kind("begin"),
            "select" => self.kind("select"),
            "insert" => self.kind("insert"),
            "merge" => {
                self.kind("merge");
                self.forget_joins();
            }
            // One of CREATE SCHEMA's elements.
            "grant" if self.command == "create" => self.kind("grant"),
            // FOR UPDATE and FOR NO KEY UPDATE lock; ON UPDATE and ON DELETE are about keys.
            "update"
                if matches!(before.as_str(), "for" | "on") || (before == "key" && before_that == "no") => {}
            "delete" if before == "on" => {}
            // ON CONFLICT DO UPDATE changes the row that could not be inserted.
            "update" if before == "do" && self.command != "create" => {
                self.kind("update");
                // Of all that a query gave, unless a WHERE of its own follows; else of the rows that stand there.
                let is_of_a_query = self.facts.kinds.contains("select") || self.reads_table;
                if let Some(level) = self.level() {
                    level.needs_where |= is_of_a_query;
                }
            }
            // WHEN MATCHED THEN UPDATE SET …: of rows that are merged, and no relation is named.
            "update" | "delete" if before == "then" => {
                self.kind(word);
                self.missing_where = true;
            }
            "update" | "delete" => {
                self.kind(word);
                self.changes_rows();
                self.missing_where |= self.facts.kinds.contains("merge");
            }
            "into" => {
                // SELECT … INTO makes a table.
                if !matches!(before.as_str(), "insert" | "merge") {
                    self.kind("create");
                }
                self.relations.expect(Some(Expected::Surely));
            }
            "execute" if before == "as" => self.unknown(),
            "atomic" if before == "begin" => self.unknown(),
            "using" if self.ends_a_join() => self.relations.expect(None),
            "from" | "join" | "using" => {
                if word == "join"
                    && let Some(level) = self.level()
                {
                    level.joins = level.joins.saturating_add(1);
                }
                if let Some(level) = self.level() {
                    level.lists = true;
                }
                self.relations.expect(Some(Expected::OrFunction));
            }
            "table" => {
                self.reads_table = true;
                self.relations.expect(Some(Expected::Surely));
            }
            _ => return LIST_ENDS.contains(&word),
        }
        true
    }
}

/// A name by which the server finds the same and nothing else: one that is longer it cuts, and others it may fold.
fn exact(name: &str) -> Option<String> {
    (name.is_ascii() && name.len() <= LONGEST_WORD).then(|| name.to_owned())
}

/// Whether commands may stand within this one. Where not, the words for them are privileges or events.
fn holds_commands(command: &str) -> bool {
    !matches!(
        command,
        "grant" | "revoke" | "comment" | "security" | "set" | "reset" | "show" | "alter" | "drop"
    )
}

/// Whether any name in this command may be a relation's.
fn names_anywhere(command: &str) -> bool {
    matches!(
        command,
        "alter"
            | "analyze"
            | "cluster"
            | "comment"
            | "create"
            | "drop"
            | "grant"
            | "import"
            | "reassign"
            | "refresh"
            | "reindex"
            | "revoke"
            | "security"
            | "vacuum"
    )
}
